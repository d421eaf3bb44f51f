//! Leave messages that are published after a grace period, so that a client that reconnects within
//! it never appears to have left.
//!
//! Invariant: the messages of each subscription are published once, in the order of the
//! disconnects. Those of at most [`DELAYED_LEAVES_MAX`] subscriptions are pending.

use std::collections::VecDeque;

use crate::limits::DELAYED_LEAVES_MAX;
use crate::session::join::LeaveMessages;
use crate::turn::Outputs;

/// Leave messages that wait for the end of `client.leave_grace`.
#[derive(Debug, Default)]
pub(crate) struct DelayedLeaves {
    /// Messages with the monotonic time at which each is published.
    waiting: VecDeque<(u64, LeaveMessages)>,
}

impl DelayedLeaves {
    /// Delays messages until `due_ms`. If too many are pending, the oldest is published at once.
    pub(crate) fn keep(&mut self, due_ms: u64, leave: LeaveMessages, out: &mut Outputs) {
        if leave.matters() {
            self.waiting.push_back((due_ms, leave));
        }
        if self.waiting.len() > DELAYED_LEAVES_MAX {
            self.publish_next(out);
        }
    }

    /// Publishes the messages that are due.
    pub(crate) fn publish_due(&mut self, now_ms: u64, out: &mut Outputs) {
        while self.next_at_ms().is_some_and(|due_ms| due_ms <= now_ms) {
            self.publish_next(out);
        }
    }

    /// Publishes all pending messages.
    pub(crate) fn publish_all(&mut self, out: &mut Outputs) {
        self.publish_due(u64::MAX, out);
    }

    /// Returns when the next messages are due.
    pub(crate) fn next_at_ms(&self) -> Option<u64> {
        self.waiting.front().map(|(due_ms, _)| *due_ms)
    }

    fn publish_next(&mut self, out: &mut Outputs) {
        if let Some((_, leave)) = self.waiting.pop_front() {
            leave.publish(out);
        }
    }
}
