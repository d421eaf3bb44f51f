//! A step of removing a failed node's clients from a channel, with the clients that it removes
//! because their leaves are published.
//!
//! Invariant: a client whose leave another broker publishes is removed after its leave.

use std::sync::Arc;

use bytes::Bytes;

/// See the module.
#[derive(Debug)]
pub(super) struct PublishedLeaves {
    /// Number of the cleanup.
    pub(super) number: u64,
    pub(super) channel: Arc<str>,
    pub(super) cursor: Bytes,
    pub(super) clients: Vec<String>,
}
