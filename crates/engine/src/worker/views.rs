//! What a driver can read of a session: who its client is, and its channels.

use std::collections::BinaryHeap;

use wire::protocol::ClientInfo;

use super::Worker;
use crate::session::{Phase, Session};

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

impl Worker {
    /// The clients subscribed to a channel whose ids come after `after`: the first `limit` of them,
    /// in the order of their ids.
    #[must_use]
    pub fn subscribers<'w>(
        &'w self,
        channel: &str,
        after: &str,
        limit: usize,
    ) -> Vec<&'w ClientInfo> {
        let mut first: BinaryHeap<(&str, u32)> = BinaryHeap::new();
        for slot in self.hub.sessions_of(channel) {
            if let Some(info) = self.live_client(slot)
                && *info.client > *after
            {
                first.push((&info.client, slot));
                if first.len() > limit {
                    first.pop();
                }
            }
        }
        let sorted = first.into_sorted_vec().into_iter();
        sorted.filter_map(|(_, slot)| self.live_client(slot)).collect()
    }

    fn live_client(&self, slot: u32) -> Option<&ClientInfo> {
        let session = self.sessions.get(slot as usize)?;
        if session.phase == Phase::Live { session.info.as_deref() } else { None }
    }
}
