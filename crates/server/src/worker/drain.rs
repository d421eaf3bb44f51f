//! Closing all connections at a steady rate over a time window.
//!
//! Invariant: each connection is returned once by [`Drain::due`], the last of them when the window
//! ends.

use engine::SessionKey;

/// Connections that are still to be closed, and the schedule.
pub(super) struct Drain {
    keys: Vec<SessionKey>,
    started_at_ms: u64,
    window_ms: u64,
    total: usize,
}

impl Drain {
    pub(super) fn new(now_ms: u64, keys: Vec<SessionKey>, window_ms: u64) -> Drain {
        let total = keys.len();
        Drain { keys, started_at_ms: now_ms, window_ms, total }
    }

    /// Whether connections are still to be closed.
    pub(super) fn is_under_way(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Connections to close now, in proportion to the time that has passed.
    pub(super) fn due(&mut self, now_ms: u64) -> Vec<SessionKey> {
        let passed_ms = now_ms - self.started_at_ms;
        let due = if passed_ms >= self.window_ms {
            self.total
        } else {
            self.total * usize::try_from(passed_ms).unwrap_or(0) / self.window_ms as usize
        };
        let left = self.total - due;
        self.keys.split_off(left.min(self.keys.len()))
    }
}
