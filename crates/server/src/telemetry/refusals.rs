//! Refusals by subject and reason: always counted, and logged at a limited rate.
//!
//! Invariant: subjects and reasons are closed sets, so that peers cannot create new series. At most
//! [`REFUSAL_LINES_MAX`] lines of a subject are logged at once and [`REFUSAL_LINES_PER_SECOND`] in
//! the long run, and the next line contains the number of lines left out.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::limits::{REFUSAL_LINES_MAX, REFUSAL_LINES_PER_SECOND};

/// Counters and log limits of refusals.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<BTreeMap<RefusalSubject, Record>>);

/// What was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RefusalSubject {
    Token,
    ApiKey,
    Origin,
    Subscribe,
    Publish,
    Presence,
    History,
}

impl RefusalSubject {
    /// The name used in metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            RefusalSubject::Token => "token",
            RefusalSubject::ApiKey => "api_key",
            RefusalSubject::Origin => "origin",
            RefusalSubject::Subscribe => "subscribe",
            RefusalSubject::Publish => "publish",
            RefusalSubject::Presence => "presence",
            RefusalSubject::History => "history",
        }
    }
}

#[derive(Debug, Default)]
struct Record {
    counts: BTreeMap<&'static str, u64>,
    lines: Lines,
}

impl Refusals {
    /// Counts a refusal that is not logged at this level.
    pub(crate) fn count(&self, subject: RefusalSubject, reason: &'static str) {
        let mut records = self.lock();
        *records.entry(subject).or_default().counts.entry(reason).or_default() += 1;
    }

    /// Counts a refusal. If a line may be logged, returns the number of lines that were left out
    /// before it.
    pub(crate) fn note(&self, subject: RefusalSubject, reason: &'static str) -> Option<u64> {
        let mut records = self.lock();
        let record = records.entry(subject).or_default();
        *record.counts.entry(reason).or_default() += 1;
        record.lines.take(Instant::now())
    }

    /// Counts by subject and reason.
    pub(super) fn counts(&self) -> Vec<(RefusalSubject, &'static str, u64)> {
        let records = self.lock();
        let of_subject = |(subject, record): (&RefusalSubject, &Record)| {
            let counts = record.counts.iter().map(|(reason, count)| (*subject, *reason, *count));
            counts.collect::<Vec<_>>()
        };
        records.iter().flat_map(of_subject).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<RefusalSubject, Record>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Token bucket of log lines.
#[derive(Debug, Default)]
struct Lines {
    /// Time of the last line, and the tokens left after it.
    last: Option<(Instant, f64)>,
    left_out: u64,
}

impl Lines {
    fn take(&mut self, now: Instant) -> Option<u64> {
        let room = match self.last {
            None => REFUSAL_LINES_MAX,
            Some((at, room)) => {
                let passed = now.saturating_duration_since(at).as_secs_f64();
                (room + passed * REFUSAL_LINES_PER_SECOND).min(REFUSAL_LINES_MAX)
            }
        };
        if room < 1.0 {
            self.left_out += 1;
            return None;
        }
        self.last = Some((now, room - 1.0));
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_flood_is_counted_and_not_logged() {
        let refusals = Refusals::default();
        let lines =
            (0..10_000).filter_map(|_| refusals.note(RefusalSubject::Token, "signature")).count();
        assert!(lines < 2 * REFUSAL_LINES_MAX as usize, "{lines}");
        assert!(
            refusals.note(RefusalSubject::Origin, "not_allowed").is_some(),
            "other subjects are still logged"
        );
        assert_eq!(
            refusals.counts(),
            [
                (RefusalSubject::Token, "signature", 10_000),
                (RefusalSubject::Origin, "not_allowed", 1)
            ]
        );
    }

    #[test]
    fn the_next_line_counts_the_lines_left_out() {
        let (mut lines, begin) = (Lines::default(), Instant::now());
        let told = (0..100).filter_map(|_| lines.take(begin)).count();
        assert_eq!(told, REFUSAL_LINES_MAX as usize);
        let later = begin + Duration::from_secs(1);
        assert_eq!(lines.take(later), Some(100 - told as u64));
        assert_eq!(lines.take(later + Duration::from_secs(60)), Some(0));
    }
}
