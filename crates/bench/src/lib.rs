//! The load tool: clients of any server that speaks the client protocol, publications at planned
//! times, and a check of every delivery. `tidings bench` is this crate.
//!
//! The files follow the way of a run: `arguments` say what is wanted, `workload` makes plans of it,
//! the `processes` carry them out (`worker`, `storm`, `send_baseline`, `redis_baseline`), `run`
//! collects what they report, `report` prints it.
//!
//! Invariant: every delivery is checked; a run with a fault is never
//! [good](BenchOutcome::is_good). The crate contains no server code: it measures other servers in
//! the same way.

mod api_connection;
mod arguments;
mod client_connection;
mod clock;
mod grpc_exchange;
mod html_report;
mod http_response;
mod in_flight;
mod payload;
mod plan;
mod process_pipe;
mod process_usage;
mod processes;
mod publication_tag;
mod publish_schedule;
mod received_streams;
mod redis_baseline;
mod report;
mod run;
mod run_totals;
mod scenario_file;
mod scenario_options;
mod send_baseline;
mod storm;
mod transport;
mod usage;
mod worker;
mod workload;

use std::path::{Path, PathBuf};

use anyhow::Context as _;

pub use arguments::{Arguments, Options, Scenario, ScenarioFile};
pub use processes::{PROCESS_COMMAND, ProcessKind};
use report::Report;
pub use scenario_options::{hide_others, stray};
pub use usage::UsageError;
use usage::usage_error;

/// Reads a duration such as `10s`, in milliseconds.
pub type DurationParser = fn(text: &str) -> anyhow::Result<u64>;

/// Signs a connection token with a secret, for a user.
pub type TokenSigner = fn(secret: &str, user: &str) -> Result<String, String>;

/// What came of a run.
#[derive(Debug)]
pub struct BenchOutcome {
    /// For standard output: tables, or JSON.
    pub text: String,
    /// Warnings and failures, for standard error.
    pub messages: Vec<String>,
    /// Whether every delivery was as it must be.
    pub is_good: bool,
}

/// Runs a scenario, or a file of them.
///
/// # Errors
/// [`UsageError`] for arguments with which no run is possible; or that nothing could be run or
/// written. What fails during a run is a part of the outcome.
pub fn run(options: &Options, parse_duration: DurationParser) -> anyhow::Result<BenchOutcome> {
    match options {
        Options::One(scenario) => {
            let given = scenario.arguments();
            check_files(&[&given.html, &given.json])?;
            let report = run::run(scenario, parse_duration)?;
            if let Some(path) = given.html.as_deref().filter(|_| report.has_numbers()) {
                write(path, &html_report::render(std::slice::from_ref(&report)))?;
            }
            let json = || serde_json::to_string_pretty(&report).expect("a report is JSON");
            outcome(given.json.as_deref(), json, std::slice::from_ref(&report))
        }
        Options::File(mix) => {
            check_files(&[&mix.html, &mix.json])?;
            let reports = scenario_file::run_all(mix, parse_duration)?;
            if let Some(path) = &mix.html {
                write(path, &html_report::render(&reports))?;
            }
            let json = || serde_json::to_string_pretty(&reports).expect("reports are JSON");
            outcome(mix.json.as_deref(), json, &reports)
        }
    }
}

/// Does the work of a process that [`run`] has started with [`PROCESS_COMMAND`].
///
/// # Errors
/// That there is no plan on standard input, or that the process cannot begin with it.
pub fn run_process(kind: ProcessKind, sign: TokenSigner) -> anyhow::Result<()> {
    match kind {
        ProcessKind::Worker => worker::run(sign),
        ProcessKind::Raw => send_baseline::run(),
        ProcessKind::Relay => redis_baseline::run(),
        ProcessKind::Storm => storm::run(sign),
    }
}

/// Writes the JSON where a file is named for it.
fn outcome(
    path: Option<&Path>,
    json: impl FnOnce() -> String,
    reports: &[Report],
) -> anyhow::Result<BenchOutcome> {
    let reported = reports.iter().filter(|report| report.has_numbers());
    let tables = || reported.map(Report::table).collect::<Vec<_>>().join("\n");
    let text = match path {
        Some(path) if path == Path::new("-") => json() + "\n",
        Some(path) => {
            write(path, &(json() + "\n"))?;
            tables()
        }
        None => tables(),
    };
    let messages = reports.iter().flat_map(Report::messages).collect();
    Ok(BenchOutcome { text, messages, is_good: reports.iter().all(Report::is_good) })
}

/// Whether what comes of a run can be written, before the run.
fn check_files(paths: &[&Option<PathBuf>]) -> anyhow::Result<()> {
    for path in paths.iter().filter_map(|path| path.as_deref()) {
        if path.is_dir() {
            usage_error!("{} cannot be written: it is a folder; name a file in it", path.display());
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if folder.is_some_and(|folder| !folder.is_dir()) {
            usage_error!("{} cannot be written: there is no such folder", path.display());
        }
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))
}
