//! Counts of a backend, for metrics.
//!
//! Invariant: counters only increase.

use std::time::Duration;

use crate::breaker::BreakerState;
use crate::failure::{FAILURE_KINDS, FailureKind};

/// Upper bounds in seconds of the buckets of durations; the last bucket has none.
pub const DURATION_BUCKETS: [f64; 9] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];

/// Counts of a backend since the start, and its state now.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendStats {
    /// Name of the backend.
    pub name: String,
    /// State of its breaker.
    pub breaker: BreakerState,
    /// Times that the breaker has opened.
    pub opened: u64,
    /// Calls under way.
    pub in_flight: u64,
    /// Calls that wait for a place.
    pub waiting: u64,
    /// Counts of calls.
    pub calls: CallCounts,
}

/// Counts of calls.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CallCounts {
    /// Calls answered with a result.
    pub results: u64,
    /// Calls answered with an error or disconnect.
    pub refusals: u64,
    /// Calls without a usable answer, by the number of their [`FailureKind`].
    pub failures: [u64; FAILURE_KINDS],
    /// Second and third attempts.
    pub retries: u64,
    /// Questions that waited for the answer to the same question.
    pub joined: u64,
    /// Questions answered by a kept answer.
    pub cached: u64,
    /// Questions answered by an old answer while the breaker was open.
    pub stale: u64,
    /// Sum of the durations of attempts in seconds.
    pub seconds: f64,
    /// Attempts by duration; see [`DURATION_BUCKETS`].
    pub durations: [u64; DURATION_BUCKETS.len() + 1],
}

impl CallCounts {
    pub(crate) fn count_failure(&mut self, kind: FailureKind) {
        self.failures[kind as usize] += 1;
    }

    pub(crate) fn count_attempt(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        self.seconds += seconds;
        let bucket = DURATION_BUCKETS.iter().position(|bound| seconds <= *bound);
        self.durations[bucket.unwrap_or(DURATION_BUCKETS.len())] += 1;
    }

    /// Calls that failed in this way.
    #[must_use]
    pub fn failures_of(&self, kind: FailureKind) -> u64 {
        self.failures[kind as usize]
    }
}
