//! This node among the nodes: its lease, its clients, and the node that it clears away.
//!
//! Invariant: a lease that may not hold is renewed before anything else is told.

use std::time::{Duration, Instant};

use crate::lifecycle::News;

/// See the module.
pub(super) struct Registry {
    /// Of this node's clients.
    pub(super) news: News,
    lease: Duration,
    next_renewal: Instant,
    /// Whether Redis has said that the lease holds.
    pub(super) is_member: bool,
    pub(super) burial: Option<Burial>,
}

/// A node whose lease has ended, while this one clears away what it left.
pub(super) struct Burial {
    pub(super) node: String,
    /// The partition whose channels its clients leave now.
    pub(super) partition: usize,
    /// Channels of that partition that are not done.
    pub(super) channels: usize,
}

/// How often a lease is renewed within its time.
const RENEWALS_PER_LEASE: u32 = 4;

/// Time after which a renewal that failed is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(250);

impl Registry {
    pub(super) fn new(now: Instant, lease: Duration) -> Registry {
        let news = News::default();
        Registry { news, lease, next_renewal: now, is_member: false, burial: None }
    }

    /// Whether it is time to renew the lease; the caller does.
    pub(super) fn begins_renewal(&mut self, now: Instant) -> bool {
        let begins = self.next_renewal <= now;
        if begins {
            self.next_renewal = now + self.lease / RENEWALS_PER_LEASE;
        }
        begins
    }

    /// The lease must be renewed at once.
    pub(super) fn want_renewal(&mut self, now: Instant) {
        self.next_renewal = now;
    }

    /// The renewal did not work.
    pub(super) fn handle_renewal_failed(&mut self, now: Instant) {
        self.next_renewal = now + RETRY_AFTER.min(self.lease / RENEWALS_PER_LEASE);
    }
}
