//! What a process has counted, and the sum of several.
//!
//! Invariant: adding loses nothing; histograms are merged value by value.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Counts and histograms of one process, or the sum of several.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct RunTotals {
    pub(crate) deliveries: u64,
    /// Bytes received while it ran.
    pub(crate) bytes: u64,
    pub(crate) published: u64,
    pub(crate) faults: Faults,
    /// From the planned time of sending to each delivery.
    pub(crate) latency: LatencyHistogram,
    /// From the planned time of sending to the last delivery.
    pub(crate) last: LatencyHistogram,
    /// From the planned time of sending to the sending.
    pub(crate) late: LatencyHistogram,
    /// From dialling to the live subscription.
    pub(crate) joining: LatencyHistogram,
    /// Joins after the start.
    pub(crate) joins: u64,
    /// Joins that were answered with `recovered: false`.
    pub(crate) refused: u64,
    /// Processor time of the process while it ran.
    pub(crate) processor_ns: u64,
    /// Processor time that the busiest process used or waited for.
    pub(crate) pressed_most_ns: u64,
    /// From the start to the last delivery.
    pub(crate) took_ns: u64,
}

/// What must not happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Faults {
    pub(crate) lost: u64,
    pub(crate) duplicate: u64,
    pub(crate) out_of_order: u64,
    /// For another subscriber.
    pub(crate) misrouted: u64,
}

/// A histogram of nanoseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "Vec<(u64, u64)>", into = "Vec<(u64, u64)>")]
pub(crate) struct LatencyHistogram(Histogram<u64>);

/// Longest time that is recorded exactly: a quarter of an hour.
const TIME_MAX_NS: u64 = 900_000_000_000;
/// Decimal digits that hold.
const PRECISION: u8 = 3;

impl RunTotals {
    pub(crate) fn add(&mut self, other: &RunTotals) {
        self.deliveries += other.deliveries;
        self.bytes += other.bytes;
        self.published += other.published;
        self.faults.add(other.faults);
        self.latency.add(&other.latency);
        self.last.add(&other.last);
        self.late.add(&other.late);
        self.joining.add(&other.joining);
        self.joins += other.joins;
        self.refused += other.refused;
        self.processor_ns += other.processor_ns;
        self.pressed_most_ns = self.pressed_most_ns.max(other.pressed_most_ns);
        self.took_ns = self.took_ns.max(other.took_ns);
    }
}

impl Faults {
    pub(crate) fn add(&mut self, other: Faults) {
        self.lost += other.lost;
        self.duplicate += other.duplicate;
        self.out_of_order += other.out_of_order;
        self.misrouted += other.misrouted;
    }

    pub(crate) fn sum(self) -> u64 {
        self.lost + self.duplicate + self.out_of_order + self.misrouted
    }
}

impl LatencyHistogram {
    pub(crate) fn record(&mut self, nanoseconds: u64) {
        self.record_many(nanoseconds, 1);
    }

    pub(crate) fn record_many(&mut self, nanoseconds: u64, count: u64) {
        self.0.saturating_record_n(nanoseconds.max(1), count);
    }

    fn add(&mut self, other: &LatencyHistogram) {
        self.0.add(&other.0).expect("the bounds are the same");
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// The time, in microseconds, that this part of all stays within.
    pub(crate) fn quantile_us(&self, part: f64) -> f64 {
        self.0.value_at_quantile(part) as f64 / 1000.0
    }

    /// Times in microseconds and how many there were, in classes that each are so much wider than
    /// the one before.
    pub(crate) fn classes(&self, factor: f64) -> Vec<(f64, u64)> {
        let classes = self.0.iter_log(1000, factor);
        classes
            .map(|class| {
                (class.value_iterated_to() as f64 / 1000.0, class.count_since_last_iteration())
            })
            .collect()
    }
}

impl Default for LatencyHistogram {
    fn default() -> LatencyHistogram {
        LatencyHistogram(
            Histogram::new_with_bounds(1, TIME_MAX_NS, PRECISION).expect("the bounds are valid"),
        )
    }
}

impl From<Vec<(u64, u64)>> for LatencyHistogram {
    fn from(counts: Vec<(u64, u64)>) -> LatencyHistogram {
        let mut times = LatencyHistogram::default();
        for (value, count) in counts {
            times.record_many(value, count);
        }
        times
    }
}

impl From<LatencyHistogram> for Vec<(u64, u64)> {
    fn from(times: LatencyHistogram) -> Vec<(u64, u64)> {
        let values = times.0.iter_recorded();
        values.map(|value| (value.value_iterated_to(), value.count_at_value())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_survives_its_way_and_adds_up() {
        let mut totals = RunTotals { deliveries: 3, ..RunTotals::default() };
        for time in [1_000, 2_000_000, 2 * TIME_MAX_NS] {
            totals.latency.record(time);
        }
        let text = serde_json::to_string(&totals).unwrap();
        let mut sum: RunTotals = serde_json::from_str(&text).unwrap();
        sum.add(&totals);
        assert_eq!((sum.deliveries, sum.latency.count()), (6, 6));
        let median = sum.latency.quantile_us(0.5);
        assert!((1_990.0..2_010.0).contains(&median), "{median}");
        let classes: u64 = sum.latency.classes(2.0).iter().map(|(_, count)| count).sum();
        assert_eq!(classes, 6);
    }
}
