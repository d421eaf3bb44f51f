//! `tidings doctor`: checks a configuration, the machine, and the services that the configuration
//! uses.
//!
//! Invariant: a running server is not affected. Ports are bound and released. The node that joins
//! the cluster has its own name and leaves again.

mod reachability;
mod system;

use std::fmt;
use std::path::Path;

use crate::clock::ServerClock;
use crate::config::{Config, Warning};

pub use system::System;

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Key of the configuration, name of a kernel parameter, or another search term.
    pub subject: String,
    /// Effect on the server.
    pub severity: Severity,
    /// The result, with the value that was checked.
    pub found: String,
    /// What to do; empty if nothing.
    pub advice: String,
}

/// Effect of a finding on the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// No effect.
    Fine,
    /// The server works, but may fail under load or later.
    Warning,
    /// The server does not start, or does not work as configured.
    Problem,
}

impl Finding {
    pub(crate) fn fine(subject: impl Into<String>, found: impl Into<String>) -> Finding {
        let (subject, found) = (subject.into(), found.into());
        Finding { subject, severity: Severity::Fine, found, advice: String::new() }
    }

    pub(crate) fn warning(
        subject: impl Into<String>,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Finding {
        let severity = Severity::Warning;
        Finding { severity, advice: advice.into(), ..Finding::fine(subject, found) }
    }

    pub(crate) fn problem(
        subject: impl Into<String>,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Finding {
        let severity = Severity::Problem;
        Finding { severity, advice: advice.into(), ..Finding::fine(subject, found) }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Severity::Fine => "ok",
            Severity::Warning => "warning",
            Severity::Problem => "problem",
        })
    }
}

/// Checks the configuration with its warnings, the machine, and the services that the configuration
/// uses. Takes at most some seconds.
pub async fn examine(config: &Config, warnings: &[Warning]) -> Vec<Finding> {
    let clock = ServerClock::start();
    let of_configuration = |one: &Warning| Finding::warning(&*one.key, &*one.text, "");
    let mut findings: Vec<Finding> = warnings.iter().map(of_configuration).collect();
    let system = System::new(Path::new("/"));
    findings.extend(system.examine(config, clock.unix_ms()));
    findings.push(reachability::ports(config).await);
    findings.extend(reachability::certificate(config));
    findings.extend(reachability::key_sets(config).await);
    findings.extend(reachability::broker(config, clock).await);
    findings
}
