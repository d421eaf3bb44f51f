//! Time of the state machine: an argument, read by the driver.
//!
//! Invariant: monotonic time never goes back; the Unix time beside it may jump.

use std::ops::Add;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A point in time, as the time since the broker's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct MonotonicTime(Duration);

/// The current time on two clocks, read together.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClockReading {
    pub(super) time: MonotonicTime,
    pub(super) unix_ms: i64,
}

/// Reads both clocks; for drivers only.
#[derive(Clone, Copy, Debug)]
pub(super) struct RedisClock(Instant);

impl MonotonicTime {
    /// The time this long after the start, on a simulated clock.
    #[cfg(test)]
    pub(super) const fn after_start(time: Duration) -> MonotonicTime {
        MonotonicTime(time)
    }

    pub(super) fn duration_since(self, earlier: MonotonicTime) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for MonotonicTime {
    type Output = MonotonicTime;

    fn add(self, time: Duration) -> MonotonicTime {
        MonotonicTime(self.0 + time)
    }
}

impl RedisClock {
    /// A clock that begins now.
    pub(super) fn start() -> RedisClock {
        RedisClock(Instant::now())
    }

    pub(super) fn time(self) -> MonotonicTime {
        MonotonicTime(self.0.elapsed())
    }

    pub(super) fn now(self) -> ClockReading {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix_ms = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        ClockReading { time: self.time(), unix_ms }
    }

    /// The instant of a monotonic time.
    pub(super) fn instant(self, time: MonotonicTime) -> Instant {
        self.0 + time.0
    }
}
