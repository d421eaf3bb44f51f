//! Limits log lines: one line per interval, which says how many were left out.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::limits::LOG_INTERVAL;

/// Limits the lines of one kind.
#[derive(Debug, Default)]
pub(crate) struct LogRate {
    state: Mutex<LogState>,
}

#[derive(Debug, Default)]
struct LogState {
    last: Option<Instant>,
    left_out: u64,
}

impl LogRate {
    /// Number of lines left out since the last one, if a line may be written now.
    pub(crate) fn admit(&self) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if state.last.is_some_and(|last| now.duration_since(last) < LOG_INTERVAL) {
            state.left_out += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.left_out))
    }
}
