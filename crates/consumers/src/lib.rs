//! Consumers: they read messages from a queue or a database and hand each to a [`Handler`].
//!
//! A message is acknowledged to its source only after the handler has finished with it, so that
//! each is handled at least once. Messages of one order (a partition, a key) are handled one after
//! the other. A message that can never be handled goes to the dead letters of its source and does
//! not stop the messages behind it.
//!
//! Invariant: a consumer keeps a bounded number of bytes, whatever the source sends.

pub mod message;

pub mod channel_template;
pub mod debezium;
pub mod decode;
pub mod row_event;

pub mod handler;

pub mod backoff;
pub mod counters;
pub mod delivery;
pub mod restart;
pub mod stop;

pub mod kafka;
pub mod nats_jetstream;
pub mod postgresql;

pub mod error;
pub mod limits;
mod log_rate;

pub use counters::{ConsumerCounters, ConsumerSnapshot};
pub use error::ConsumerError;
pub use handler::{Handled, Handler};
pub use message::{Body, ConsumedMessage, ConsumedPublication, MessageOrigin, RecordOffset};
pub use restart::ConsumerTask;
pub use stop::{StopSignal, StopTrigger};
