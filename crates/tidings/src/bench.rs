//! `tidings bench`: load for any server that speaks the client protocol, and what came of it.
//!
//! The files follow the way of a run: `arguments` say what is wanted, `shape` makes plans of it,
//! the `crew` carries them out in processes of its own (`worker`, `storm`, `raw`, `relay`), the
//! `run` collects, the `report` prints.
//!
//! Invariant: every delivery is checked; a run with a fault never exits with 0.

mod arguments;
mod caller;
mod clock;
mod crew;
mod gauge;
mod http;
mod ledger;
mod line;
mod mix;
mod options;
mod pace;
mod page;
mod payload;
mod pipe;
mod plan;
mod raw;
mod relay;
mod report;
mod rounds;
mod run;
mod shape;
mod stamp;
mod storm;
mod tally;
mod transport;
mod worker;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;

use crate::misuse::misuse;
use crate::output::{self, print, print_line};

pub(crate) use arguments::Wanted;
pub(crate) use options::{hide_others, stray};
pub(crate) use raw::raw;
pub(crate) use relay::relay;
use report::Report;
pub(crate) use storm::storm;
pub(crate) use worker::worker;

/// Runs a scenario, or a file of them.
pub(crate) fn bench(wanted: &Wanted) -> anyhow::Result<ExitCode> {
    match wanted {
        Wanted::One(scenario) => {
            let given = scenario.arguments();
            check_files(&[&given.html, &given.json])?;
            let report = run::run(scenario)?;
            if let Some(path) = given.html.as_deref().filter(|_| report.has_numbers()) {
                write(path, &page::page(std::slice::from_ref(&report)))?;
            }
            let json = || serde_json::to_string_pretty(&report).expect("a report is JSON");
            print_results(given.json.as_deref(), json, std::slice::from_ref(&report))
        }
        Wanted::File(mix) => {
            check_files(&[&mix.html, &mix.json])?;
            let reports = mix::run_all(mix)?;
            if let Some(path) = &mix.html {
                write(path, &page::page(&reports))?;
            }
            let json = || serde_json::to_string_pretty(&reports).expect("reports are JSON");
            print_results(mix.json.as_deref(), json, &reports)
        }
    }
}

fn print_results(
    path: Option<&Path>,
    json: impl FnOnce() -> String,
    reports: &[Report],
) -> anyhow::Result<ExitCode> {
    let reported = reports.iter().filter(|report| report.has_numbers());
    let tables = reported.map(Report::table).collect::<Vec<_>>().join("\n");
    match path {
        Some(path) if path == Path::new("-") => print_line(&json())?,
        Some(path) => {
            write(path, &(json() + "\n"))?;
            print(&tables)?;
        }
        None => print(&tables)?,
    }
    reports.iter().for_each(print_error);
    let is_good = reports.iter().all(Report::is_good);
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print_error(report: &Report) {
    for warning in &report.warnings {
        output::print_error(&format!("warning: {warning}"));
    }
    for failure in &report.failures {
        output::print_error(failure);
    }
    if report.faults.sum() > 0 {
        output::print_error(&format!("{} deliveries are not as they must be", report.faults.sum()));
    }
}

/// Whether what comes of a run can be written, before the run.
fn check_files(paths: &[&Option<PathBuf>]) -> anyhow::Result<()> {
    for path in paths.iter().filter_map(|path| path.as_deref()) {
        if path.is_dir() {
            misuse!("{} cannot be written: it is a folder; name a file in it", path.display());
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if folder.is_some_and(|folder| !folder.is_dir()) {
            misuse!("{} cannot be written: there is no such folder", path.display());
        }
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))
}
