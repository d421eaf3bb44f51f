//! This node among the nodes: its lease, its clients, and the node that it clears away.
//!
//! Invariant: a lease that may not hold is renewed before anything else is told.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use super::core::Cleanup;
use super::unavailable::UnavailableReason;
use crate::lifecycle::LifecycleQueue;

/// See the module.
pub(super) struct Registry {
    /// Of this node's clients.
    pub(super) lifecycle: LifecycleQueue,
    lease: Duration,
    next_renewal: Instant,
    /// Whether Redis has said that the lease holds.
    pub(super) is_member: bool,
    /// What could not be told is not told again before.
    quiet_until: Instant,
    /// When everybody is said to be present once more.
    pub(super) enters_again_at: Option<Instant>,
    /// Another node of this node's name, and since when it is there.
    twin: Option<(String, Instant)>,
    pub(super) cleanup: Option<Cleanup>,
    /// Why Redis does not take the lease.
    pub(super) reason: Option<UnavailableReason>,
    /// Other nodes that live.
    others: HashSet<String>,
    /// Whether other nodes can know this node's channel options.
    pub(super) has_sent_options: bool,
}

/// How often a lease is renewed within its time.
const RENEWALS_PER_LEASE: u32 = 4;

/// Time after which a renewal that failed is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(250);

impl Registry {
    pub(super) fn new(now: Instant, lease: Duration) -> Registry {
        let lifecycle = LifecycleQueue::default();
        Registry {
            lifecycle,
            lease,
            next_renewal: now,
            is_member: false,
            quiet_until: now,
            enters_again_at: None,
            twin: None,
            cleanup: None,
            reason: None,
            others: HashSet::new(),
            has_sent_options: false,
        }
    }

    /// Redis has said which other nodes live.
    pub(super) fn set_others(&mut self, others: HashSet<String>) {
        for node in others.difference(&self.others) {
            tracing::info!(%node, "Redis: another node lives");
        }
        for node in self.others.difference(&others) {
            tracing::info!(%node, "Redis: another node has gone");
        }
        self.others = others;
    }

    /// Other nodes that were alive when this node renewed its lease.
    pub(super) fn others(&self) -> impl Iterator<Item = &String> {
        self.others.iter()
    }

    /// Whether other nodes use the same Redis.
    pub(super) fn has_company(&self) -> bool {
        !self.others.is_empty()
    }

    /// Whether news may be told.
    pub(super) fn may_send(&self, now: Instant) -> bool {
        self.is_member && self.quiet_until <= now
    }

    /// Redis does not take what it is told.
    pub(super) fn keep_quiet(&mut self, now: Instant) {
        self.quiet_until = now + RETRY_AFTER;
    }

    /// Whether a node of the same name lives for longer than one that was killed would seem to.
    pub(super) fn has_twin(&mut self, now: Instant, twin: &str) -> bool {
        if twin.is_empty() {
            self.twin = None;
            return false;
        }
        match &self.twin {
            Some((known, since)) if known == twin => now.duration_since(*since) > self.lease,
            _ => {
                self.twin = Some((twin.to_owned(), now));
                false
            }
        }
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
