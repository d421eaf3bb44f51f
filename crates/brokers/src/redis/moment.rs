//! Time of the state machine: an argument, read by the driver.
//!
//! Invariant: a moment never goes back; the Unix time beside it may jump.

use std::ops::Add;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A point in time, as the time since the broker's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment(Duration);

/// The current time on two clocks, read together.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClockReading {
    pub(super) moment: Moment,
    pub(super) unix_ms: i64,
}

/// Reads both clocks; for drivers only.
#[derive(Clone, Copy, Debug)]
pub(super) struct RedisClock(Instant);

impl Moment {
    /// The moment at this time after the start, on a simulated clock.
    #[cfg(test)]
    pub(super) const fn after_start(time: Duration) -> Moment {
        Moment(time)
    }

    pub(super) fn duration_since(self, earlier: Moment) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, time: Duration) -> Moment {
        Moment(self.0 + time)
    }
}

impl RedisClock {
    /// A clock that begins now.
    pub(super) fn start() -> RedisClock {
        RedisClock(Instant::now())
    }

    pub(super) fn moment(self) -> Moment {
        Moment(self.0.elapsed())
    }

    pub(super) fn now(self) -> ClockReading {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix_ms = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        ClockReading { moment: self.moment(), unix_ms }
    }

    /// The instant of a moment.
    pub(super) fn instant(self, moment: Moment) -> Instant {
        self.0 + moment.0
    }
}
