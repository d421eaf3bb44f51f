//! This node's registration: its lease, its clients' lifecycle events, the other nodes and the
//! cleanup that it performs.
//!
//! Invariant: a lease that may have expired is renewed before lifecycle events are sent.

use std::collections::HashSet;
use std::time::Duration;

use super::cleanup::Cleanup;
use super::clock::MonotonicTime;
use super::master_check::OtherNodes;
use super::unavailable::UnavailableReason;
use crate::lifecycle::LifecycleQueue;

/// State of this node in the registry.
pub(super) struct Registry {
    /// Lifecycle events of this node's clients that Redis has not acknowledged.
    pub(super) lifecycle: LifecycleQueue,
    lease: Duration,
    next_renewal: MonotonicTime,
    /// Whether Redis has confirmed the lease.
    pub(super) is_member: bool,
    /// Lifecycle events are not sent again before this time.
    paused_until: MonotonicTime,
    /// When the presence of all clients is written once more.
    pub(super) renews_presence_at: Option<MonotonicTime>,
    /// Id of another node with this node's name, and when it was first seen.
    twin: Option<(String, MonotonicTime)>,
    pub(super) cleanup: Option<Cleanup>,
    /// Why Redis refuses the lease.
    pub(super) reason: Option<UnavailableReason>,
    /// Ids of the other live nodes.
    others: HashSet<String>,
    /// Whether Redis holds this node's channel options.
    pub(super) has_sent_options: bool,
}

/// Renewals of a lease within its duration.
const RENEWALS_PER_LEASE: u32 = 4;

/// Delay before a failed renewal is retried.
const RETRY_AFTER: Duration = Duration::from_millis(250);

impl Registry {
    pub(super) fn new(now: MonotonicTime, lease: Duration) -> Registry {
        let lifecycle = LifecycleQueue::default();
        Registry {
            lifecycle,
            lease,
            next_renewal: now,
            is_member: false,
            paused_until: now,
            renews_presence_at: None,
            twin: None,
            cleanup: None,
            reason: None,
            others: HashSet::new(),
            has_sent_options: false,
        }
    }

    /// Stores the other live nodes.
    pub(super) fn set_others(&mut self, others: HashSet<String>) {
        for node in others.difference(&self.others) {
            tracing::info!(%node, "Redis: another node has joined");
        }
        for node in self.others.difference(&others) {
            tracing::info!(%node, "Redis: another node has left");
        }
        self.others = others;
    }

    /// Other nodes that were live at the last renewal.
    pub(super) fn others(&self) -> impl Iterator<Item = &String> {
        self.others.iter()
    }

    /// Whether other nodes use the same Redis.
    pub(super) fn other_nodes(&self) -> OtherNodes {
        if self.others.is_empty() { OtherNodes::Absent } else { OtherNodes::Present }
    }

    /// Whether lifecycle events may be sent.
    pub(super) fn may_send(&self, now: MonotonicTime) -> bool {
        self.is_member && self.paused_until <= now
    }

    /// Pauses lifecycle events after a failure.
    pub(super) fn pause_lifecycle(&mut self, now: MonotonicTime) {
        self.paused_until = now + RETRY_AFTER;
    }

    /// Whether another node of this name outlives the lease of a node that was killed.
    pub(super) fn has_twin(&mut self, now: MonotonicTime, twin: &str) -> bool {
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

    /// Whether a renewal is due; the caller then sends it.
    pub(super) fn begins_renewal(&mut self, now: MonotonicTime) -> bool {
        let begins = self.next_renewal <= now;
        if begins {
            self.next_renewal = now + self.lease / RENEWALS_PER_LEASE;
        }
        begins
    }

    /// Makes a renewal due at once.
    pub(super) fn request_renewal(&mut self, now: MonotonicTime) {
        self.next_renewal = now;
    }

    /// Schedules a retry of a failed renewal.
    pub(super) fn handle_renewal_failed(&mut self, now: MonotonicTime) {
        self.next_renewal = now + RETRY_AFTER.min(self.lease / RENEWALS_PER_LEASE);
    }
}
