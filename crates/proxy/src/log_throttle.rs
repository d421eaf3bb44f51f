//! At most one log line a second about one cause.
//!
//! Invariant: what is not logged is counted, and the next line says how many.

use crate::failure::{FAILURE_KINDS, FailureKind};
use crate::limits::LOG_INTERVAL;

/// When each cause was logged last.
#[derive(Debug, Default)]
pub(crate) struct LogThrottle {
    causes: [LoggedCause; FAILURE_KINDS],
}

#[derive(Clone, Copy, Debug, Default)]
struct LoggedCause {
    next_ms: u64,
    suppressed: u64,
}

impl LogThrottle {
    /// Whether to log now; if so, the number of times that were not logged since the last line.
    pub(crate) fn admit(&mut self, now_ms: u64, kind: FailureKind) -> Option<u64> {
        let cause = &mut self.causes[kind as usize];
        if now_ms < cause.next_ms {
            cause.suppressed += 1;
            return None;
        }
        let interval_ms = u64::try_from(LOG_INTERVAL.as_millis()).unwrap_or(u64::MAX);
        cause.next_ms = now_ms.saturating_add(interval_ms);
        Some(std::mem::take(&mut cause.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_logged_once_a_second() {
        let mut throttle = LogThrottle::default();
        let reset = FailureKind::Reset;
        assert_eq!(throttle.admit(0, reset), Some(0));
        assert_eq!(throttle.admit(999, reset), None);
        assert_eq!(throttle.admit(999, FailureKind::Timeout), Some(0));
        assert_eq!(throttle.admit(1_000, reset), Some(1));
        assert_eq!(throttle.admit(2_000, reset), Some(0));
    }
}
