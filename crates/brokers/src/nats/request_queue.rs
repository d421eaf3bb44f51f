//! The queue into the thread of the broker, shared by all endpoints.
//!
//! Invariant: what waits in it and behind it is bounded by [`RequestLoad`], and beyond that by what
//! the endpoints have begun: see [`RequestAdmission`].

use std::sync::Arc;
use std::time::Instant;

use engine::broker::{BrokerReply, BrokerRequest};
use tokio::sync::mpsc::UnboundedSender;

use super::Shared;
use super::inputs::NodeInput;
use super::request::{QueuedRequest, RequestLoad};
use crate::Endpoint;
use crate::admission::{RequestAdmission, RequestQueue};
use crate::limits::ANSWER_TIMEOUT;

/// See the module.
pub(super) struct NodeQueue {
    inputs: UnboundedSender<NodeInput>,
    shared: Arc<Shared>,
    load: Arc<RequestLoad>,
    admission: RequestAdmission,
}

impl NodeQueue {
    pub(super) fn new(inputs: UnboundedSender<NodeInput>, shared: Arc<Shared>) -> NodeQueue {
        NodeQueue { inputs, shared, load: Arc::default(), admission: RequestAdmission::default() }
    }

    /// Queues a request; returns the reply to one that is refused.
    pub(super) fn submit(&self, endpoint: Endpoint, request: BrokerRequest) -> Option<BrokerReply> {
        self.admission.submit(self, endpoint, request)
    }

    /// Queues what was postponed, if there is room.
    pub(super) fn resume(&self) {
        self.admission.resume(self);
    }

    pub(super) fn detach(&self, endpoint: Endpoint) {
        self.admission.detach(endpoint);
        self.send(NodeInput::Detach(endpoint));
    }

    pub(super) fn send(&self, input: NodeInput) {
        // A broker that has ended drops the input; a dropped request replies that it is
        // unavailable.
        let _ended = self.inputs.send(input);
    }

    /// Number of requests that wait.
    pub(super) fn length(&self) -> usize {
        self.load.length()
    }
}

impl RequestQueue for NodeQueue {
    fn is_full(&self) -> bool {
        self.load.is_exceeded()
    }

    fn push(&self, endpoint: Endpoint, request: BrokerRequest) {
        let Some(inbox) = self.shared.endpoints.inbox(endpoint) else { return };
        let due = Instant::now() + ANSWER_TIMEOUT;
        let request = QueuedRequest::new(&self.load, due, (endpoint, inbox), request);
        self.send(NodeInput::Request(request));
    }
}
