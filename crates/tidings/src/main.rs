//! The `tidings` command: reads arguments and hands over; everything it does is done by a module or
//! by the server crate.
//!
//! Exit status: 0 when done, 1 when something could not be done, 2 when the configuration or the
//! arguments are wrong.

mod arguments;
mod doctor;
mod load_tool;
mod misuse;
mod output;
mod publish;
mod sample;
mod serve;
mod subscribe;
mod token;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::FromArgMatches as _;
use server::config::Mistakes;

use arguments::{CliAction, Configured, Tidings};
use misuse::Misuse;
use output::{BrokenPipe, print_error, print_line};

/// jemalloc returns fragmented memory to the system, and is faster where one thread frees memory
/// that another one allocated.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let given = arguments::given(std::env::args_os());
    let (given, absent) = arguments::without_absent(arguments::with_values(given));
    let matches = arguments::matches(given);
    let mut flags = matches.subcommand().map_or_else(Vec::new, |(_, of)| arguments::settings(of));
    flags.extend(absent);
    warn_unused(&matches);
    let result = Tidings::from_arg_matches(&matches)
        .map_err(anyhow::Error::from)
        .and_then(|tidings| run(tidings.action, flags));
    match result {
        Ok(code) => code,
        Err(error) if error.is::<BrokenPipe>() => ExitCode::SUCCESS,
        Err(error) => {
            let is_wrong =
                error.is::<Mistakes>() || error.is::<Misuse>() || error.is::<bench::UsageError>();
            print_error(&format!("{error:#}"));
            if is_wrong { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

fn run(action: CliAction, flags: Vec<(String, String)>) -> anyhow::Result<ExitCode> {
    match action {
        CliAction::Serve(configured) => serve::serve(configured, flags),
        CliAction::Check(configured) => check(configured, flags),
        CliAction::Doctor(configured) => match serve::load(configured, flags, String::new()) {
            Ok((config, warnings)) => doctor::doctor(&config, &warnings),
            Err(code) => Ok(code),
        },
        CliAction::SampleConfig(wanted) => sample::sample(&wanted),
        CliAction::Token(wanted) => token::token(wanted),
        CliAction::Publish(wanted) => publish::publish(&wanted),
        CliAction::Subscribe(wanted) => subscribe::subscribe(&wanted),
        CliAction::Bench { options } => load_tool::run(&options),
        CliAction::BenchProcess { kind } => load_tool::run_process(kind),
        CliAction::Version => {
            print_line(concat!("tidings ", env!("CARGO_PKG_VERSION")))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Options of the load tool that change nothing.
fn warn_unused(matches: &clap::ArgMatches) {
    let bench = matches.subcommand().filter(|(name, _)| *name == "bench");
    if let Some((scenario, option)) = bench.and_then(|(_, matches)| bench::stray(matches)) {
        print_error(&format!("bench {scenario} has no use for --{option}, which changes nothing"));
    }
}

fn check(configured: Configured, flags: Vec<(String, String)>) -> anyhow::Result<ExitCode> {
    let place = configured.place();
    let (config, warnings) = match serve::load(configured, flags, String::new()) {
        Ok(loaded) => loaded,
        Err(code) => return Ok(code),
    };
    serve::print_warnings(&warnings);
    if let Err(error) = server::check_certificates(&config) {
        print_error(&error.to_string());
        return Ok(ExitCode::from(2));
    }
    let mode = if config.is_development { " (development mode)" } else { "" };
    print_line(&format!("{place}: no mistakes{mode}"))?;
    Ok(ExitCode::SUCCESS)
}

/// Bytes from the operating system's random generator.
fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).ok().context("the system gives no random bytes")?;
    Ok(bytes)
}
