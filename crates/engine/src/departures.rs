//! Clients that are gone and of which others are not told yet, so that whoever reconnects is back
//! before it has left.
//!
//! Invariant: each is told once, in the order in which they went, and at most [`DEPARTURES_MAX`]
//! wait.

use std::collections::VecDeque;

use crate::limits::DEPARTURES_MAX;
use crate::session::join::Departure;
use crate::turn::Outputs;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Departures {
    /// When each is told, on the monotonic clock.
    waiting: VecDeque<(u64, Departure)>,
}

impl Departures {
    /// Keeps one back until then; of too many, the oldest is told before its time.
    pub(crate) fn keep(&mut self, due_ms: u64, departure: Departure, out: &mut Outputs) {
        if departure.matters() {
            self.waiting.push_back((due_ms, departure));
        }
        if self.waiting.len() > DEPARTURES_MAX {
            self.publish_next(out);
        }
    }

    /// Tells those whose time has come.
    pub(crate) fn publish_due(&mut self, now_ms: u64, out: &mut Outputs) {
        while self.next_at_ms().is_some_and(|due_ms| due_ms <= now_ms) {
            self.publish_next(out);
        }
    }

    /// Tells all.
    pub(crate) fn publish_all(&mut self, out: &mut Outputs) {
        self.publish_due(u64::MAX, out);
    }

    /// When the next one is told.
    pub(crate) fn next_at_ms(&self) -> Option<u64> {
        self.waiting.front().map(|(due_ms, _)| *due_ms)
    }

    fn publish_next(&mut self, out: &mut Outputs) {
        if let Some((_, departure)) = self.waiting.pop_front() {
            departure.publish(out);
        }
    }
}
