//! Delays before another attempt: exponential, with full jitter, so that clients of a server that
//! restarts do not return at the same moment.
//!
//! Invariant: a delay lies between the least and the most, whatever the number of attempts.

use std::time::{Duration, Instant};

use crate::limits::STABLE_TIME;

/// How long to wait before another attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Least delay, and the range of the first one's jitter.
    pub min: Duration,
    /// Most delay, jitter included.
    pub max: Duration,
}

impl Default for Backoff {
    /// 500 ms to 20 s, as the official JavaScript SDK does.
    fn default() -> Backoff {
        Backoff { min: Duration::from_millis(500), max: Duration::from_secs(20) }
    }
}

impl Backoff {
    /// The delay after so many failed attempts: `min + random(0 .. min · 2^attempts)`, at most
    /// `max`. Any `random` value is valid.
    #[must_use]
    pub fn delay(&self, attempts: u32, random: u64) -> Duration {
        let range = self.min.saturating_mul(1 << attempts.min(EXPONENT_MAX)).min(self.max);
        let delay = self.min.saturating_add(scaled(range, random));
        delay.min(self.max)
    }
}

/// A part of `range`, from none to all of it.
pub(super) fn scaled(range: Duration, random: u64) -> Duration {
    range.mul_f64((random >> 11) as f64 / (1u64 << 53) as f64)
}

/// Whether what began then has lived for [`STABLE_TIME`].
pub(super) fn has_lived(since: Option<Instant>, now: Instant) -> bool {
    since.is_some_and(|since| now.saturating_duration_since(since) >= STABLE_TIME)
}

/// With the smallest useful delay of 1 ms, 2^20 is beyond a quarter of an hour.
const EXPONENT_MAX: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_doubles_up_to_the_most() {
        let backoff = Backoff { min: Duration::from_secs(1), max: Duration::from_secs(20) };
        for (attempts, most) in [(0, 2), (1, 3), (2, 5), (3, 9), (4, 17), (5, 20), (u32::MAX, 20)] {
            assert_eq!(backoff.delay(attempts, 0), Duration::from_secs(1));
            let delay = backoff.delay(attempts, u64::MAX);
            let most = Duration::from_secs(most);
            assert!(delay <= most && delay > most - Duration::from_millis(1), "{delay:?}");
        }
    }
}
