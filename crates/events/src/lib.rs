//! Events of clients, channels and nodes, delivered to systems outside of the cluster.
//!
//! An [`EventBus`] takes what happened, selects what each sink wants, and keeps it in a queue for
//! each sink. [`delivery::run`] sends a queue in batches, in order, until each batch is
//! acknowledged.
//!
//! Not here: sessions, brokers, configuration files. The crate uses neither `engine` nor `server`.
//!
//! Invariant: an event that a sink wants is delivered at least once, or it is counted as lost with
//! its reason, and logged.

mod batch;
pub mod bus;
pub mod delivery;
mod encoding;
pub mod failure;
pub mod limits;
mod occupancy;
pub mod occurrence;
pub mod secret;
mod sink_queue;
pub mod stats;
pub mod webhook;

pub use bus::{EventBus, SinkSettings, SinkTarget};
pub use occurrence::{EventClient, EventKind, NodeLoad, Occurrence};
pub use secret::{WebhookSecret, WebhookSecretFault};
pub use stats::{LossReason, SinkStats};
pub use webhook::WebhookSettings;
