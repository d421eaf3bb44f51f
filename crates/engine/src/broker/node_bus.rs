//! Requests between the nodes: control messages, lifecycle events, surveys.
//!
//! Invariant: a control message reaches every node that is connected to the broker.

use std::sync::Arc;

use bytes::Bytes;
use wire::protocol::{Disconnect, StreamPosition};

use super::reply::{BrokerReply, RequestId};
use super::{BrokerError, BrokerRequest};
use crate::claims::SubscriptionGrant;
use crate::lifecycle::Lifecycle;

/// A request that concerns other nodes.
#[derive(Clone, Debug)]
pub enum NodeBusRequest {
    /// Sends an order of the server API to all workers of all nodes. Has no reply.
    Control(Arc<Control>),
    /// Publishes that a client connected or disconnected, in the channel
    /// [`crate::channel::LIFECYCLE`]. Events of one client are delivered in order and at least
    /// once. When a node fails, another node publishes the disconnects of its clients. Has no
    /// reply.
    Lifecycle(Lifecycle),
    /// Sends a question to every other node and collects the answers.
    Survey {
        /// Repeated in the reply.
        id: RequestId<Survey>,
        /// Encoded question. Brokers do not read it.
        question: Bytes,
    },
    /// Answers a [`super::BrokerEvent::Question`] of another node. Has no reply.
    Answer {
        /// Ticket of the question.
        ticket: Ticket,
        /// Encoded answer. Brokers do not read it.
        answer: Bytes,
    },
}

impl NodeBusRequest {
    pub(super) fn refuse(&self, error: BrokerError) -> Option<BrokerReply> {
        match self {
            NodeBusRequest::Survey { id, .. } => Some(id.answer(Err(error))),
            NodeBusRequest::Control(_)
            | NodeBusRequest::Lifecycle(_)
            | NodeBusRequest::Answer { .. } => None,
        }
    }
}

impl From<NodeBusRequest> for BrokerRequest {
    fn from(request: NodeBusRequest) -> BrokerRequest {
        BrokerRequest::NodeBus(request)
    }
}

/// Identifies a question of another node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// Name of the node that asked, in the form that the broker uses.
    pub node: String,
    /// Number of the question, unique within that node.
    pub number: u64,
}

/// The answers of all other nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// One encoded answer for each node that answered.
    pub answers: Vec<Bytes>,
    /// Number of nodes with a valid lease that did not answer in time.
    pub missing: usize,
}

/// An order of the server API for a set of sessions.
#[derive(Clone, Debug, PartialEq)]
pub struct Control {
    /// Sessions that the order applies to.
    pub target: Target,
    /// What to do with the sessions.
    pub order: Order,
}

/// Selects sessions by user, and optionally by client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// User id. Empty selects the anonymous users, which count as one user.
    pub user: String,
    /// Client id; empty selects all clients of the user.
    pub client: String,
    /// Client ids that are not selected.
    pub except: Vec<String>,
    /// Selects only sessions admitted before this time (Unix milliseconds) and client id.
    pub admitted_before: Option<(i64, String)>,
}

/// What the server API does with sessions.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// Starts a server-side subscription.
    Subscribe {
        /// Channel to subscribe to.
        channel: String,
        /// Expiry, and differences from the namespace's options.
        grant: SubscriptionGrant,
        /// Position from which to recover; `None` starts at the top.
        recover_since: Option<StreamPosition>,
    },
    /// Ends a subscription, or all subscriptions if the channel is empty.
    Unsubscribe {
        /// Channel to unsubscribe from; empty for all.
        channel: String,
    },
    /// Closes the connection with this code and reason.
    Disconnect(Disconnect),
    /// Changes the connection's expiry or information.
    Refresh {
        /// New `conn_info` that other clients see; empty leaves it unchanged.
        info: Bytes,
        /// New expiry as Unix time in seconds; `None` never expires.
        expire_at: Option<i64>,
        /// Closes the connection as expired (3005) now.
        expired: bool,
    },
}
