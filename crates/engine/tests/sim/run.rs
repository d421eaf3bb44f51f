//! Runs a list of steps, and finds the shortest list that fails in the same way.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::oracle::{Oracle, Violation};
use super::plan::Step;
use super::world::World;

/// Counts of a run.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) seeds: u64,
    pub(crate) steps: u64,
    pub(crate) faults: u64,
    deliveries: u64,
    recoveries: u64,
    refusals: u64,
    gaps: u64,
    /// Refusals by rate limits.
    pub(crate) limited: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { seeds, steps, faults, deliveries, recoveries, refusals, gaps, limited } = self;
        write!(
            out,
            "{seeds} seeds, {steps} steps, {faults} faults, {deliveries} deliveries, \
             {recoveries} recoveries whole and {refusals} refused, {gaps} gaps told, {limited} refused by rates"
        )
    }
}

/// Runs the steps in a new simulation, and then until every client has everything and has left.
pub(crate) fn play(seed: u64, steps: &[Step], report: &mut Report) -> Result<(), Violation> {
    let mut world = World::new(seed);
    let played = catch_unwind(AssertUnwindSafe(|| {
        for step in steps {
            world.step(*step)?;
        }
        world.finish()
    }));
    report.seeds += 1;
    report.steps += steps.len() as u64;
    report.faults += world.faults;
    let counters = world.counters();
    report.deliveries += counters.deliveries;
    report.recoveries += counters.recoveries_whole;
    report.refusals += counters.recoveries_refused;
    report.gaps += counters.gaps_reported;
    report.limited += counters.limited.iter().sum::<u64>();
    match played {
        Ok(result) => result,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Oracle::Panic.broken(text.unwrap_or_default())
        }
    }
}

/// Removes steps that are not needed for the same violation: first long ranges, then single steps.
pub(crate) fn shorten(seed: u64, mut steps: Vec<Step>, oracle: Oracle) -> Vec<Step> {
    let fails = |steps: &[Step]| {
        play(seed, steps, &mut Report::default()).is_err_and(|violation| violation.oracle == oracle)
    };
    let mut stretch = steps.len().div_ceil(2);
    while stretch > 0 {
        let mut start = 0;
        while start < steps.len() {
            let end = (start + stretch).min(steps.len());
            let shorter = [&steps[..start], &steps[end..]].concat();
            if fails(&shorter) {
                steps = shorter;
            } else {
                start = end;
            }
        }
        stretch /= 2;
    }
    steps
}
