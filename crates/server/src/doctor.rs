//! `tidings doctor`: looks at what surprises operators before it does.
//!
//! Invariant: it changes nothing that a running server needs. Ports are bound and released, and the
//! node that it joins a cluster with has a name of its own and leaves again.

mod reachability;
mod system;

use std::fmt;
use std::path::Path;

use crate::clock::ServerClock;
use crate::config::{Config, Warning};

pub use system::System;

/// What was looked at, and what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Key of the configuration, name of a kernel parameter, or another term to search for.
    pub subject: String,
    /// How bad it is.
    pub severity: Severity,
    /// What was found, with its value.
    pub found: String,
    /// What to do; empty when there is nothing to do.
    pub advice: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As it should be.
    Fine,
    /// The server works, but not under every load or not for ever.
    Warning,
    /// The server will not start, or not do what it is configured for.
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

/// Looks at the configuration with its warnings, at the machine, and at everything that the
/// configuration names; takes some seconds at most.
pub async fn examine(config: &Config, warnings: &[Warning]) -> Vec<Finding> {
    let clock = ServerClock::start();
    let of_configuration = |one: &Warning| Finding::warning(&*one.key, &*one.text, "");
    let mut findings: Vec<Finding> = warnings.iter().map(of_configuration).collect();
    let system = System::new(Path::new("/"));
    findings.extend(system.examine(config, clock.now().unix_ms));
    findings.push(reachability::ports(config).await);
    findings.extend(reachability::certificate(config));
    findings.extend(reachability::key_sets(config).await);
    findings.extend(reachability::broker(config, clock).await);
    findings
}
