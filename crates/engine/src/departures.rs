//! Departures that are published after a grace period, so that a client that reconnects within it
//! never appears to have left.
//!
//! Invariant: each departure is published once, in the order of the disconnects. At most
//! [`DEPARTURES_MAX`] are pending.

use std::collections::VecDeque;

use crate::limits::DEPARTURES_MAX;
use crate::session::join::Departure;
use crate::turn::Outputs;

/// Pending departures; see the module.
#[derive(Debug, Default)]
pub(crate) struct Departures {
    /// Departures with the monotonic time at which each is published.
    waiting: VecDeque<(u64, Departure)>,
}

impl Departures {
    /// Delays a departure until `due_ms`. If too many are pending, the oldest is published at once.
    pub(crate) fn keep(&mut self, due_ms: u64, departure: Departure, out: &mut Outputs) {
        if departure.matters() {
            self.waiting.push_back((due_ms, departure));
        }
        if self.waiting.len() > DEPARTURES_MAX {
            self.publish_next(out);
        }
    }

    /// Publishes the departures that are due.
    pub(crate) fn publish_due(&mut self, now_ms: u64, out: &mut Outputs) {
        while self.next_at_ms().is_some_and(|due_ms| due_ms <= now_ms) {
            self.publish_next(out);
        }
    }

    /// Publishes all pending departures.
    pub(crate) fn publish_all(&mut self, out: &mut Outputs) {
        self.publish_due(u64::MAX, out);
    }

    /// Returns when the next departure is due.
    pub(crate) fn next_at_ms(&self) -> Option<u64> {
        self.waiting.front().map(|(due_ms, _)| *due_ms)
    }

    fn publish_next(&mut self, out: &mut Outputs) {
        if let Some((_, departure)) = self.waiting.pop_front() {
            departure.publish(out);
        }
    }
}
