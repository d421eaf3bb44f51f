//! What the state machine hands to its driver: events of endpoints, warnings, and its own state.
//!
//! Invariant: outputs are carried out in the order in which they were added.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use engine::broker::{BrokerError, BrokerEvent, BrokerReply, ReplyValue};
use wire::protocol::ClientInfo;

use super::open_request::Asker;
use super::published_leaves::PublishedLeaves;
use super::unavailable::UnavailableReason;
use crate::Endpoint;

/// One output.
#[derive(Debug)]
pub(super) enum CoreOutput {
    /// An event for one endpoint.
    Deliver(Endpoint, BrokerEvent),
    /// An event for all endpoints.
    Notify(BrokerEvent),
    /// A client whose leave another broker must publish: its channel, and the client.
    Leave(Arc<str>, Arc<ClientInfo>),
    /// Ask the other broker whether these leaves have reached it; the answer is a job.
    ConfirmLeaves(PublishedLeaves),
    /// A warning for the operator.
    Warn(String),
    /// Another node has this node's name.
    WarnOfSameName,
    /// The other nodes with a valid lease.
    Nodes(Vec<NodeRecord>),
    /// Why the broker is unavailable; `None` when it is ready.
    Health(Option<UnavailableReason>),
    /// The round-trip time of the last probe.
    Lag(Duration),
}

/// Another node: its id, its name, and its channel options as text.
#[derive(Debug)]
pub(super) struct NodeRecord {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) text: String,
}

/// What the state machine asks about endpoints.
pub(super) trait EndpointStates {
    fn is_attached(&self, endpoint: Endpoint) -> bool;
    /// Whether the endpoint is so far behind that publishers are refused.
    fn is_full(&self, endpoint: Endpoint) -> bool;
}

/// Outputs that the driver has not taken yet.
#[derive(Debug, Default)]
pub(super) struct CoreOutputs {
    waiting: VecDeque<CoreOutput>,
}

impl CoreOutputs {
    pub(super) fn reply(&mut self, endpoint: Endpoint, reply: BrokerReply) {
        self.deliver(endpoint, BrokerEvent::Reply(reply));
    }

    pub(super) fn answer<T: ReplyValue>(
        &mut self,
        asker: &Asker<T>,
        result: Result<T, BrokerError>,
    ) {
        self.reply(asker.endpoint, asker.id.answer(result));
    }

    pub(super) fn deliver(&mut self, endpoint: Endpoint, event: BrokerEvent) {
        self.waiting.push_back(CoreOutput::Deliver(endpoint, event));
    }

    pub(super) fn notify(&mut self, event: BrokerEvent) {
        self.waiting.push_back(CoreOutput::Notify(event));
    }

    pub(super) fn warn(&mut self, text: String) {
        self.waiting.push_back(CoreOutput::Warn(text));
    }

    pub(super) fn add(&mut self, output: CoreOutput) {
        self.waiting.push_back(output);
    }

    /// Takes the next output.
    pub(super) fn poll(&mut self) -> Option<CoreOutput> {
        self.waiting.pop_front()
    }
}
