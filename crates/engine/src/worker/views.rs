//! What a driver can read of a session: who its client is, and its channels.

use wire::protocol::ClientInfo;

use crate::session::Session;

/// The client of a session, for logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity<'w> {
    /// User id; empty for anonymous and before the session is admitted.
    pub user: &'w str,
    /// Client id; empty before the session is admitted.
    pub client: &'w str,
}

/// An admitted client.
#[derive(Debug)]
pub struct ClientView<'w> {
    /// The client as others see it.
    pub info: &'w ClientInfo,
    /// Unix time in milliseconds of the admission.
    pub admitted_at_ms: i64,
    pub(super) session: &'w Session,
}

impl<'w> ClientView<'w> {
    /// The channels of its subscriptions.
    pub fn channels(&self) -> impl Iterator<Item = &'w str> {
        self.session.subscriptions.iter().map(|subscription| &*subscription.channel)
    }
}
