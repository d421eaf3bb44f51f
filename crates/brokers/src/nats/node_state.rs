//! What the cores of a node share, and what they know of the node at the time of an input.
//!
//! Invariant: pure. The tasks read clocks and connection, and pass both on as a [`NodeView`].

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use engine::broker::BrokerError;
use wire::protocol::StreamPosition;

use super::generation::StoreGenerations;
use super::record::StreamTop;

/// State that all cores of a node share.
#[derive(Debug)]
pub(super) struct NodeState {
    /// Identifier of this node, as a token.
    node: String,
    /// Number of epochs that this node has named.
    epochs: u64,
    pub(super) generations: StoreGenerations,
}

/// The connection to NATS at the time of an input.
#[derive(Clone, Copy, Debug)]
pub(super) struct LinkState {
    /// Number of the current connection, counted from one.
    pub(super) connection: u64,
    pub(super) is_connected: bool,
    /// Too many bytes await the server: publications are refused.
    pub(super) is_congested: bool,
    pub(super) has_jetstream: bool,
}

/// The node as a core sees it while it handles one input.
#[derive(Debug)]
pub(super) struct NodeView<'a> {
    pub(super) now: Instant,
    /// Unix milliseconds by the clock of NATS, which all nodes share.
    pub(super) now_ms: u64,
    pub(super) link: LinkState,
    pub(super) state: &'a mut NodeState,
}

impl NodeState {
    pub(super) fn new(node: String) -> NodeState {
        NodeState { node, epochs: 0, generations: StoreGenerations::default() }
    }

    /// A name that no other epoch has.
    pub(super) fn new_epoch(&mut self) -> Arc<str> {
        self.epochs += 1;
        format!("{}{:x}", self.node, self.epochs).into()
    }
}

impl NodeView<'_> {
    pub(super) fn check_connected(&self) -> Result<(), BrokerError> {
        if self.link.is_connected { Ok(()) } else { Err(BrokerError::Unavailable) }
    }

    /// The position of a stream as clients see it.
    pub(super) fn position(&self, top: &StreamTop) -> StreamPosition {
        StreamPosition {
            offset: top.offset,
            epoch: self.state.generations.client_epoch(&top.epoch).to_string(),
        }
    }

    /// Records a message of the history stream: see [`StoreGenerations::record`].
    pub(super) fn record(&mut self, above: u64, sequence: u64, payload: &Bytes) {
        self.state.generations.record(self.link.connection, above, sequence, payload);
    }
}
