//! What happens to clients and subscriptions, for systems outside of the cluster.
//!
//! Events exist only where [`crate::rules::ReportedEvents`] asks for them. They leave the engine as
//! effects, so that publications and deliveries do not know of them.
//!
//! Invariant: each client has one `Online` and then one `Offline`, each active subscription one
//! `Subscribed` and then one `Unsubscribed`, in between.

use std::sync::Arc;

use wire::protocol::ClientInfo;

use crate::lifecycle::Change;

/// An event of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionEvent {
    /// The client, as other clients see it.
    pub info: Arc<ClientInfo>,
    /// What happened.
    pub what: SessionChange,
    /// Unix time in milliseconds.
    pub at_ms: i64,
}

/// What happened to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionChange {
    /// It connected or disconnected.
    Client(Change),
    /// A subscription of it became active.
    Subscribed(Arc<str>),
    /// An active subscription of it ended.
    Unsubscribed(Arc<str>),
}
