//! Clients that come and go, as backends hear of it.
//!
//! Invariant: a client comes online once and goes offline once, in this order.

use std::borrow::Cow;
use std::sync::Arc;

use wire::protocol::ClientInfo;

/// A client came or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lifecycle {
    /// Who.
    pub info: Arc<ClientInfo>,
    /// Which.
    pub change: Change,
    /// When, in Unix milliseconds.
    pub at_ms: i64,
}

/// Whether a client came or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was admitted.
    Online,
    /// Its session has ended.
    Offline {
        /// Why, for people: the reason of its disconnect code, or what happened to its connection.
        reason: Cow<'static, str>,
    },
}

impl Change {
    /// Its name, and the reason; empty for none.
    #[must_use]
    pub fn words(&self) -> (&'static str, &str) {
        match self {
            Change::Online => ("online", ""),
            Change::Offline { reason } => ("offline", reason),
        }
    }
}
