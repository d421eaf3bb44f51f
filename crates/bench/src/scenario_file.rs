//! A scenario file: several scenarios at the same time, each with the arguments that it has on the
//! command line.
//!
//! Invariant: a file says nothing that the command line could not say; its mistakes name the run
//! and the argument.

use anyhow::{Context as _, bail};
use clap::Parser;

use crate::usage::UsageError;

use super::DurationParser;
use super::arguments::{Scenario, ScenarioFile};
use super::report::Report;
use super::run;
use super::scenario_options;

/// One run, as if it stood on a command line.
#[derive(Debug, Parser)]
#[command(no_binary_name = true, disable_help_flag = true)]
struct Line {
    #[command(subcommand)]
    scenario: Scenario,
}

/// Runs everything in the file at the same time.
pub(crate) fn run_all(
    mix: &ScenarioFile,
    parse_duration: DurationParser,
) -> anyhow::Result<Vec<Report>> {
    let file = &mix.file;
    let unread = |error| UsageError(format!("{} cannot be read: {error}", file.display()));
    let text = std::fs::read_to_string(file).map_err(unread)?;
    let wrong = |error: anyhow::Error| UsageError(format!("{}: {error:#}", file.display()));
    let scenarios = parse(&text, mix.url.as_deref()).map_err(wrong)?;
    std::thread::scope(|scope| {
        let runs: Vec<_> = scenarios
            .iter()
            .map(|scenario| scope.spawn(|| run::run(scenario, parse_duration)))
            .collect();
        let reports = runs.into_iter().zip(1..).map(|(run, number)| {
            let report = run.join().expect("a run does not panic");
            report.with_context(|| format!("run {number}"))
        });
        reports.collect()
    })
}

/// The runs of a file; a URL stands for that of each run that has a server.
fn parse(text: &str, url: Option<&str>) -> anyhow::Result<Vec<Scenario>> {
    // Its text shows the line.
    let mut common: toml::Table = text.parse()?;
    let runs = match common.remove("run") {
        Some(toml::Value::Array(runs)) if !runs.is_empty() => runs,
        _ => bail!("expected at least one [[run]]"),
    };
    let run = |(run, number): (toml::Value, usize)| {
        let toml::Value::Table(mut own) = run else { bail!("run {number} is not a table") };
        let scenario = match own.remove("scenario") {
            Some(toml::Value::String(name)) => name,
            _ => bail!("run {number} has no scenario = \"…\""),
        };
        let mut line = vec![scenario.clone()];
        // What all runs have in common, some may have no use for.
        let is_used = |name: &str| {
            !scenario_options::is_known(name) || scenario_options::applies(&scenario, name)
        };
        let given_url = url.map(|url| ("url".to_owned(), toml::Value::String(url.to_owned())));
        if let Some((name, value)) =
            given_url.filter(|(name, _)| scenario_options::applies(&scenario, name))
        {
            own.insert(name, value);
        }
        let shared = common.iter().filter(|(name, _)| !own.contains_key(*name) && is_used(name));
        for (name, value) in shared.chain(&own) {
            let name = name.replace('-', "_");
            if ["json", "html"].contains(&name.as_str()) {
                bail!("run {number} ({scenario}): {name} belongs on the command line");
            }
            if scenario_options::is_known(&name) && !scenario_options::applies(&scenario, &name) {
                bail!("run {number} ({scenario}): it has no use for {name}");
            }
            line.push(format!("--{}={}", name.replace('_', "-"), plain(value)));
        }
        let parsed = Line::try_parse_from(&line).map_err(|error| {
            let text = error.to_string();
            let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
            anyhow::anyhow!("run {number} ({scenario}): {first}")
        })?;
        Ok(parsed.scenario)
    };
    runs.into_iter().zip(1..).map(run).collect()
}

/// A value as it stands on a command line.
fn plain(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(","),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_as_good_as_command_lines() {
        let text = "rate = 5\n[[run]]\nscenario = \"rooms\"\nsize = [64, 128]\n[[run]]\nscenario = \"fanout\"\nrate = 7.5";
        let scenarios = parse(text, None).unwrap();
        let given: Vec<_> = scenarios.iter().map(|one| (one.name(), one.arguments())).collect();
        assert_eq!(
            (given[0].0, given[0].1.rate, &given[0].1.size[..]),
            ("rooms", 5.0, &[64, 128][..])
        );
        assert_eq!((given[1].0, given[1].1.rate), ("fanout", 7.5));
    }

    #[test]
    fn what_is_common_is_for_those_who_have_a_use_for_it_and_a_url_for_all() {
        let text = "rate = 5\npublish-by = \"client\"\nurl = \"ws://a\"\n[[run]]\nscenario = \"idle\"\n\
                    [[run]]\nscenario = \"fanout\"\nurl = \"ws://b\"";
        let urls = |url| {
            let scenarios = parse(text, url).unwrap();
            scenarios.iter().map(|one| one.arguments().url.clone()).collect::<Vec<_>>()
        };
        assert_eq!(urls(None), ["ws://a", "ws://b"]);
        assert_eq!(urls(Some("ws://c")), ["ws://c", "ws://c"]);
    }

    #[test]
    fn mistakes_name_the_run_and_the_argument() {
        for (text, wanted) in [
            ("rate = 1", "at least one [[run]]"),
            ("[[run]]\nrate = 1", "run 1 has no scenario"),
            (
                "[[run]]\nscenario = \"fanout\"\nrat = 1",
                "run 1 (fanout): unexpected argument '--rat'",
            ),
            ("[[run]]\nscenario = \"fanout\"\nrate = \"x\"", "invalid value 'x' for '--rate"),
            ("[[run]]\nscenario = \"idle\"\nrate = 1", "run 1 (idle): it has no use for rate"),
            ("[[run]]\nscenario = \"idle\"\nhtml = \"x\"", "run 1 (idle): html belongs"),
            ("[[run]]\nscenario = \"rain\"", "run 1 (rain): unrecognized subcommand 'rain'"),
            ("[[run\n", "line 1"),
        ] {
            let error = format!("{:#}", parse(text, None).unwrap_err());
            assert!(error.contains(wanted), "{error}");
        }
    }
}
