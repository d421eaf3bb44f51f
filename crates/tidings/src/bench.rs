//! `tidings bench`: load for any server that speaks the client protocol, and what came of it.
//!
//! The files follow the way of a run: `arguments` say what is wanted, `shape` makes plans of it, the `crew` carries
//! them out in processes of its own (`worker`, `storm`, `raw`), the `run` listens, the `report` tells.
//!
//! Invariant: every delivery is checked; a run with a fault never exits with 0.

mod arguments;
mod caller;
mod clock;
mod crew;
mod gauge;
mod ledger;
mod line;
mod pace;
mod page;
mod pipe;
mod plan;
mod raw;
mod report;
mod rounds;
mod run;
mod shape;
mod stamp;
mod storm;
mod tally;
mod transport;
mod worker;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;

pub(crate) use arguments::Scenario;
pub(crate) use raw::raw;
pub(crate) use storm::storm;
pub(crate) use worker::worker;

/// Runs a scenario.
pub(crate) fn bench(scenario: &Scenario) -> anyhow::Result<ExitCode> {
    let report = run::run(scenario)?;
    let given = scenario.arguments();
    let json = || serde_json::to_string_pretty(&report).expect("a report is JSON");
    match &given.json {
        Some(path) if path == Path::new("-") => println!("{}", json()),
        Some(path) => {
            write(path, &(json() + "\n"))?;
            print!("{}", report.table());
        }
        None => print!("{}", report.table()),
    }
    if let Some(path) = &given.html {
        write(path, &page::page(&report))?;
    }
    for warning in &report.warnings {
        eprintln!("tidings: warning: {warning}");
    }
    for trouble in &report.troubles {
        eprintln!("tidings: {trouble}");
    }
    if report.faults.sum() > 0 {
        eprintln!("tidings: {} deliveries are not as they must be", report.faults.sum());
    }
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))
}
