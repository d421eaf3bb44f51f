//! What carries publications beyond a worker: the [`Broker`] trait, its implementations, and the
//! cases that all of them must pass.
//!
//! Invariant: for a caller there is one broker; which one it is shows only in what survives a
//! fault.

mod channel_options;
mod control;
mod endpoints;
mod lifecycle;
pub mod limits;
pub mod memory;
pub mod nats;
pub mod redis;
mod warnings;

use std::sync::Arc;
use std::time::Duration;

use engine::broker::{BrokerEvent, BrokerRequest};
use engine::rules::Rules;

pub use memory::MemoryBroker;
pub use nats::NatsBroker;
pub use redis::RedisBroker;

/// Carries requests of endpoints to each other. The contract is that of [`engine::broker`].
pub trait Broker: Send + Sync {
    /// A new endpoint, whose events go to `inbox`.
    fn attach(&self, inbox: Arc<dyn Inbox>) -> Endpoint;

    /// Takes a request. Never waits: what comes of it is an event.
    fn submit(&self, endpoint: Endpoint, request: BrokerRequest);

    /// These channel options hold on this node from now on. Other nodes are notified; one whose
    /// options differ is warned of, and what it retains is retained here too.
    fn set_rules(&self, rules: &Arc<Rules>);

    /// The endpoint is gone: it receives nothing any more, and its clients are not present
    /// anywhere.
    fn detach(&self, endpoint: Endpoint);

    /// Drops what has outlived its time; called about once a second.
    fn expire(&self);

    /// Does what was submitted, and notifies other nodes that this one ends; waits for both, some
    /// seconds at most. What is submitted afterwards is not done.
    fn end(&self);

    /// Whether it carries what it is given.
    fn health(&self) -> Health;

    /// How long a publication took last from here back to here; zero where there is no way to go.
    fn lag(&self) -> Duration;

    /// The next warning: a refused request, or a node with a wrong setting. Each is
    /// returned once.
    fn take_warning(&self) -> Option<String>;
}

/// Whether a broker works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Ready,
    /// It does not, now.
    Unready {
        /// Whether this ends only when somebody changes something.
        is_lasting: bool,
        /// Why, for people.
        reason: String,
    },
}

/// Names an endpoint of one broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint(pub u32);

/// Where an endpoint's events arrive. Bounded by the endpoint: it says when it is too far behind.
pub trait Inbox: Send + Sync {
    /// Takes an event; never waits and never drops.
    fn deliver(&self, event: BrokerEvent);

    /// Whether the endpoint is so far behind that publishers must wait (error 111).
    fn is_full(&self) -> bool;
}

/// The time as a broker sees it; injected so that tests can say what time it is.
pub trait Clock: Send + Sync {
    /// Milliseconds that never go back.
    fn monotonic_ms(&self) -> u64;
}
