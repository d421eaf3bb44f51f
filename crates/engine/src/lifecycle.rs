//! Lifecycle events: clients that connect and disconnect, as backends receive them.
//!
//! Invariant: each client has one online event and one offline event, in this order.

use std::borrow::Cow;
use std::sync::Arc;

use wire::protocol::ClientInfo;

/// A client connected or disconnected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lifecycle {
    /// The client, as other clients see it.
    pub info: Arc<ClientInfo>,
    /// Whether it connected or disconnected.
    pub change: Change,
    /// Unix time in milliseconds of the change.
    pub at_ms: i64,
}

/// Whether a client connected or disconnected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The client was admitted.
    Online,
    /// The client's session has ended.
    Offline {
        /// Reason in words: that of the disconnect code, or the cause found by the server.
        reason: Cow<'static, str>,
    },
}

impl Change {
    /// Returns the event's name and its reason; the reason is empty for `Online`.
    #[must_use]
    pub fn words(&self) -> (&'static str, &str) {
        match self {
            Change::Online => ("online", ""),
            Change::Offline { reason } => ("offline", reason),
        }
    }
}
