//! Brokers carry publications between workers and nodes: the [`Broker`] trait and its
//! implementations for memory, Redis and NATS.
//!
//! Invariant: callers use every broker alike. Which one it is shows only in what survives a fault.

mod admission;
mod broker_parts;
mod channel_options;
mod control;
mod endpoints;
mod lifecycle;
pub mod limits;
pub mod memory;
pub mod nats;
pub mod redis;
mod survey_answers;
mod warnings;

use std::sync::Arc;
use std::time::Duration;

use engine::broker::{
    BrokerError, BrokerEvent, NodeBusRequest, PresenceRequest, PublicationsRequest, RegistryRequest,
};
use engine::rules::Rules;
use wire::protocol::ClientInfo;

pub use broker_parts::{BrokerParts, PartsEndpoint};
pub use memory::MemoryBroker;
pub use nats::NatsBroker;
pub use redis::RedisBroker;

/// A server that carries requests and events between endpoints. The contract is that of
/// [`engine::broker`]; what it carries are the parts that it implements: [`PublicationBroker`],
/// [`PresenceBroker`], [`NodeBus`] and [`RegistryBroker`].
pub trait Broker: Send + Sync {
    /// Attaches a new endpoint, whose events are delivered to `inbox`.
    fn attach(&self, inbox: Arc<dyn Inbox>) -> Endpoint;

    /// Replaces the channel options of this node and notifies other nodes. If another node's
    /// options differ, a warning is raised, and this node retains what the other one retains.
    fn set_rules(&self, rules: &Arc<Rules>);

    /// Detaches an endpoint: it receives no further events, and its clients leave presence.
    fn detach(&self, endpoint: Endpoint);

    /// Deletes expired data. Called about once a second.
    fn expire(&self);

    /// Shuts down: completes submitted requests and notifies other nodes, for some seconds at most.
    /// Requests submitted later are dropped.
    fn end(&self);

    /// Returns whether the broker can carry requests.
    fn health(&self) -> Health;

    /// Returns the time that the last measured publication took to the server of the broker and
    /// back; zero for a broker without one.
    fn lag(&self) -> Duration;

    /// Returns the next warning for the operator, such as a refused request or a node with a wrong
    /// setting. Each is returned once.
    fn take_warning(&self) -> Option<String>;
}

/// A broker of publications and their history.
pub trait PublicationBroker: Broker {
    /// Submits a request of an endpoint. Never blocks; results are delivered as events.
    fn submit_publications(&self, endpoint: Endpoint, request: PublicationsRequest);
}

/// A broker of presence.
pub trait PresenceBroker: Broker {
    /// Submits a request of an endpoint. Never blocks; results are delivered as events.
    fn submit_presence(&self, endpoint: Endpoint, request: PresenceRequest);
}

/// A broker of messages between nodes.
pub trait NodeBus: Broker {
    /// Submits a request of an endpoint. Never blocks; results are delivered as events.
    fn submit_node_bus(&self, endpoint: Endpoint, request: NodeBusRequest);
}

/// A broker of revocations.
pub trait RegistryBroker: Broker {
    /// Submits a request of an endpoint. Never blocks; results are delivered as events.
    fn submit_registry(&self, endpoint: Endpoint, request: RegistryRequest);
}

/// Publishes the leave messages of clients that a broker of presence has removed by itself: those
/// of a detached endpoint and of a failed node.
pub trait LeavePublisher: Send + Sync {
    /// Publishes that a client has left a channel. Never blocks.
    fn publish_leave(&self, channel: Arc<str>, info: Arc<ClientInfo>);

    /// Asks whether the leaves that were published in a channel before have reached the broker.
    /// Never blocks.
    fn confirm(&self, channel: Arc<str>, then: OnConfirmed);
}

/// Receives whether leaves have reached the broker that publishes them. Called once, on any thread,
/// also before the call that passes it on returns.
pub type OnConfirmed = Box<dyn FnOnce(Result<(), BrokerError>) + Send>;

/// Whether a broker can carry requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It can.
    Ready,
    /// It cannot for now.
    Unready {
        /// Whether the state lasts until an operator changes something.
        is_lasting: bool,
        /// Reason in words.
        reason: String,
    },
}

/// Identifies an endpoint of one broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint(pub u32);

/// Receives the events of an endpoint. Its owner bounds it and reports when it is full.
pub trait Inbox: Send + Sync {
    /// Appends an event. Never blocks and never drops.
    fn deliver(&self, event: BrokerEvent);

    /// Returns whether the endpoint is so far behind that publishers are refused (error 111).
    fn is_full(&self) -> bool;
}

/// A clock for a broker; tests supply their own.
pub trait Clock: Send + Sync {
    /// Milliseconds on a clock that never goes back.
    fn monotonic_ms(&self) -> u64;
}
