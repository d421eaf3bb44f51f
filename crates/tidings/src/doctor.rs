//! `tidings doctor`: prints what may surprise an operator, and what to do about it.
//!
//! Exit status: 0 when nothing is a problem, 1 when something is, 2 when the configuration has
//! mistakes.

use std::process::ExitCode;

use anyhow::Context as _;
use server::config::{Config, Warning};
use server::doctor::{Finding, Severity, examine};
use server::telemetry::visible;
use tokio::runtime::Builder;

use crate::output::print_line;

pub(crate) fn doctor(config: &Config, warnings: &[Warning]) -> anyhow::Result<ExitCode> {
    // The same as `serve` does at its start.
    let _as_far_as_allowed = rlimit::increase_nofile_limit(u64::MAX);
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("cannot start")?;
    let findings = runtime.block_on(examine(config, warnings));
    runtime.shutdown_background();
    // What brokers and key servers answered is strangers' text.
    for line in render(&findings).lines() {
        print_line(&visible(line))?;
    }
    let is_problem = findings.iter().any(|finding| finding.severity == Severity::Problem);
    Ok(if is_problem { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// One line for each finding, its advice below it, and a summary.
fn render(findings: &[Finding]) -> String {
    let mut text = String::new();
    let width = findings.iter().map(|finding| finding.subject.len()).max().unwrap_or(0);
    for Finding { subject, severity, found, advice } in findings {
        text.push_str(&format!("{severity:<9}{subject:<width$}  {found}\n"));
        if !advice.is_empty() {
            text.push_str(&format!("{:<9}{:<width$}  do: {advice}\n", "", ""));
        }
    }
    let count = |severity| findings.iter().filter(|one| one.severity == severity).count();
    let (problems, warnings) = (count(Severity::Problem), count(Severity::Warning));
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    text.push_str(&format!(
        "{problems} problem{}, {warnings} warning{}\n",
        plural(problems),
        plural(warnings)
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_aligned_with_their_advice_below() {
        let finding = |subject: &str, severity, found: &str, advice: &str| Finding {
            subject: subject.to_owned(),
            severity,
            found: found.to_owned(),
            advice: advice.to_owned(),
        };
        let findings = [
            finding("clock", Severity::Fine, "right", ""),
            finding("net.core.somaxconn", Severity::Warning, "128", "raise it"),
        ];
        let expected = "ok       clock               right\n\
                        warning  net.core.somaxconn  128\n                             do: raise it\n\
                        0 problems, 1 warning\n";
        assert_eq!(render(&findings), expected);
    }
}
