//! A simulation with the product's workers and broker and simulated clients, in one thread, with
//! simulated time and a network that fails as a seed determines. Oracles compare what each client
//! receives with what really happened.
//!
//! `SIM_SEED=n cargo test -p engine --test sim replay -- --ignored --nocapture` runs one seed and
//! prints its shortest failing history; `SIM_SECONDS=n … explore …` runs new seeds for that long.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "the driver of the simulated world"
)]

mod asked;
mod calls;
mod channels;
mod client;
mod judge;
mod link;
mod live;
mod node;
mod oracle;
mod plan;
mod publishers;
mod reported;
mod run;
mod token;
mod truth;
mod world;

use std::time::{Duration, Instant};

use run::{Report, play, shorten};

/// Number of steps of one seed.
const STEPS: usize = 400;

/// Number of seeds in `make test`.
const FIXED_SEEDS: u64 = 200;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text:?}")))
}

fn check(seed: u64, report: &mut Report) {
    let steps = plan::plan(seed, STEPS);
    let Err(violation) = play(seed, &steps, report) else { return };
    let is_quick = number("SIM_SHORTEN") == Some(0);
    let shortest = if is_quick { steps } else { shorten(seed, steps, violation.oracle) };
    let history: Vec<String> = shortest.iter().map(|step| format!("    {step:?}")).collect();
    let last = play(seed, &shortest, &mut Report::default()).expect_err("it was shortened so");
    panic!(
        "seed {seed} breaks {violation}\n  shortest history, {} steps:\n{}\n  which breaks {last}\n  \
         replay: SIM_SEED={seed} cargo test -p engine --test sim replay -- --ignored --nocapture",
        shortest.len(),
        history.join("\n"),
    );
}

#[test]
fn fixed_seeds() {
    let mut report = Report::default();
    let seeds = number("SIM_SEEDS").unwrap_or(FIXED_SEEDS);
    (1..=seeds).for_each(|seed| check(seed, &mut report));
    println!("{report}");
    assert!(report.faults > report.seeds, "a world without faults proves nothing: {report}");
    assert!(report.limited > report.seeds, "rates that refuse nothing prove nothing: {report}");
}

#[test]
fn a_seed_has_one_history() {
    let steps = plan::plan(7, STEPS);
    let reports = [(); 2].map(|()| {
        let mut report = Report::default();
        play(7, &steps, &mut report).unwrap();
        report
    });
    assert_eq!(reports[0].to_string(), reports[1].to_string());
}

#[test]
#[ignore = "plays the seed that SIM_SEED names"]
fn replay() {
    let seed = number("SIM_SEED").expect("SIM_SEED names the seed to play");
    check(seed, &mut Report::default());
    println!("seed {seed} breaks nothing");
}

#[test]
#[ignore = "runs for SIM_SECONDS"]
fn explore() {
    let begin = Instant::now();
    let patience = Duration::from_secs(number("SIM_SECONDS").unwrap_or(60));
    let first = number("SIM_FIRST").unwrap_or(1_000);
    let mut report = Report::default();
    for seed in first.. {
        if begin.elapsed() > patience {
            break;
        }
        check(seed, &mut report);
    }
    let seconds = begin.elapsed().as_secs_f64();
    println!("{report}");
    println!(
        "{seconds:.0} s: {:.0} seeds, {:.0} steps, {:.0} faults a second",
        report.seeds as f64 / seconds,
        report.steps as f64 / seconds,
        report.faults as f64 / seconds,
    );
}
