//! When to publish.
//!
//! Invariant: in an open loop the times are fixed by the rate alone; in a closed one no more than
//! the window is on its way.

/// The times at which to publish.
pub(crate) struct PublishSchedule {
    begin: u64,
    end: u64,
    kind: Kind,
}

enum Kind {
    Open { rate: f64, number: u64 },
    Closed { free: u32 },
}

impl PublishSchedule {
    /// So many a second.
    pub(crate) fn open(begin: u64, end: u64, rate: f64) -> PublishSchedule {
        PublishSchedule { begin, end, kind: Kind::Open { rate, number: 0 } }
    }

    /// So many at once.
    pub(crate) fn closed(begin: u64, end: u64, window: u32) -> PublishSchedule {
        PublishSchedule { begin, end, kind: Kind::Closed { free: window } }
    }

    /// The planned time of a publication that is due, each once.
    pub(crate) fn next_due(&mut self, now: u64) -> Option<u64> {
        let planned = self.next().filter(|at| *at <= now)?;
        match &mut self.kind {
            Kind::Open { number, .. } => *number += 1,
            Kind::Closed { free } if now < self.end => *free -= 1,
            Kind::Closed { .. } => return None,
        }
        Some(if matches!(self.kind, Kind::Closed { .. }) { now } else { planned })
    }

    /// The time of the next publication, where that is known.
    pub(crate) fn next(&self) -> Option<u64> {
        match self.kind {
            Kind::Open { rate, number } => {
                let at = self.begin + (number as f64 * 1e9 / rate) as u64;
                Some(at).filter(|at| *at < self.end)
            }
            Kind::Closed { free: 0 } => None,
            Kind::Closed { .. } => Some(self.begin),
        }
    }

    /// Whether a time is to be waited for.
    pub(crate) fn is_pending(&self) -> bool {
        matches!(self.kind, Kind::Open { .. })
    }

    /// A publication has reached everybody.
    pub(crate) fn handle_completion(&mut self) {
        if let Kind::Closed { free } = &mut self.kind {
            *free += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_loop_catches_up_with_its_plan() {
        let mut schedule = PublishSchedule::open(1_000, 1_000 + 3_500_000_000, 1.0);
        let due: Vec<u64> = std::iter::from_fn(|| schedule.next_due(u64::MAX)).collect();
        assert_eq!(due, [1_000, 1_000_001_000, 2_000_001_000, 3_000_001_000]);
        assert_eq!(PublishSchedule::open(1_000, 2_000, 1.0).next_due(999), None);
    }

    #[test]
    fn a_closed_loop_waits_for_completions() {
        let mut schedule = PublishSchedule::closed(10, 100, 2);
        assert_eq!(
            [9, 50, 60, 70].map(|now| schedule.next_due(now)),
            [None, Some(50), Some(60), None]
        );
        schedule.handle_completion();
        assert_eq!([80, 90].map(|now| schedule.next_due(now)), [Some(80), None]);
        schedule.handle_completion();
        assert_eq!(schedule.next_due(100), None);
    }
}
