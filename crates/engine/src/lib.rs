//! Sessions, hub, channel rules, history, presence and recovery as state machines.
//!
//! No sockets, clocks, randomness, locks, logs or threads: time is an argument, randomness comes
//! from a seed, and effects are returned. The server drives [`worker::Worker`] with real sockets;
//! the simulation in `tests/sim` drives the same type.
//!
//! Reading order: [`rules`] and [`channel`] (what is allowed), [`worker`] (sessions, hub and
//! timers), [`broker`] (the contract with brokers), [`history`] and [`presence`] (what brokers
//! store).

pub mod broker;
mod buckets;
mod budget;
pub mod call;
pub mod capacity;
pub mod channel;
mod check_at;
mod checks;
pub mod claims;
pub mod counters;
mod credentials;
mod delayed_leaves;
pub mod encoding;
pub mod hash_keys;
pub mod history;
pub mod hub;
pub mod lifecycle;
pub mod limits;
pub mod outbox;
mod pending;
pub mod personal;
pub mod presence;
pub mod random;
mod rate;
pub mod rates;
mod recent_channels;
mod recovery;
mod refusal;
pub mod revocation;
mod rpc_rules;
pub mod rules;
mod session;
pub mod session_event;
mod session_key;
pub mod shared_buckets;
mod subscribers;
pub mod time;
mod turn;
pub mod users;
mod wheel;
pub mod worker;

pub use call::{CallOutcome, SessionCall, SessionCallId};
pub use session::queries::code as broker_error_code;
pub use session::{Opening, PingStyle};
pub use session_event::{SessionChange, SessionEvent};
pub use session_key::SessionKey;
pub use turn::{Effect, SessionNotice, TokenClaim, TokenKind};
