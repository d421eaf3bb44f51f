//! Checks of the kernel: descriptors, queues, memory of sockets, tracked connections, and the
//! clock.
//!
//! Invariant: a value that cannot be read is not a finding, because containers often hide values.

use std::path::{Path, PathBuf};

use super::Finding;
use crate::config::Config;
use crate::limits::{HTTP_CONNECTIONS_MAX, LISTEN_BACKLOG};

/// Number of connections that is assumed without `client.connection_limit`.
const CONNECTIONS_EXPECTED: u64 = 10_000;

/// Descriptors for other purposes than connections: listeners, logs, brokers, pollers.
const DESCRIPTORS_BESIDE: u64 = 256;

/// Pages of 4 KiB in `tcp_mem` that a connection with a slow reader uses.
const PAGES_PER_CONNECTION: u64 = 2;

/// 1 January 2026 in Unix milliseconds. An earlier clock is wrong.
const CLOCK_MIN_MS: i64 = 1_767_225_600_000;

/// Parameters of the kernel, read from `/proc` below a root folder.
pub struct System {
    root: PathBuf,
}

impl System {
    /// The machine whose `/proc` is below this folder.
    #[must_use]
    pub fn new(root: &Path) -> System {
        System { root: root.to_path_buf() }
    }

    /// Compares parameters of the kernel with the needs of the configuration.
    #[must_use]
    pub fn examine(&self, config: &Config, unix_ms: i64) -> Vec<Finding> {
        let connections = match config.admission.connection_limit {
            0 => CONNECTIONS_EXPECTED,
            limit => limit as u64,
        };
        let found = [
            self.descriptors(connections),
            self.at_least("net.core.somaxconn", u64::from(LISTEN_BACKLOG), BACKLOG),
            self.at_least("net.ipv4.tcp_max_syn_backlog", 1_024, BACKLOG),
            self.socket_memory(connections),
            self.tracked_connections(connections),
            Some(clock(unix_ms)),
        ];
        found.into_iter().flatten().collect()
    }

    /// Each connection uses one descriptor.
    fn descriptors(&self, connections: u64) -> Option<Finding> {
        const SUBJECT: &str = "descriptors (ulimit -n)";
        let limits = self.read("proc/self/limits")?;
        let line = limits.lines().find(|line| line.starts_with("Max open files"))?;
        let hard = line.split_whitespace().nth(4)?;
        let wanted = connections + HTTP_CONNECTIONS_MAX as u64 + DESCRIPTORS_BESIDE;
        let Ok(limit) = hard.parse::<u64>() else {
            return Some(Finding::fine(SUBJECT, "unlimited"));
        };
        if limit >= wanted {
            return Some(Finding::fine(SUBJECT, format!("{limit}; {wanted} are needed")));
        }
        let found = format!("{limit}; {wanted} are needed for {connections} connections");
        let advice = "raise LimitNOFILE= in the unit, --ulimit nofile= of the container, or nofile in \
                      /etc/security/limits.conf; or lower client.connection_limit";
        Some(Finding::warning(SUBJECT, found, advice))
    }

    fn at_least(&self, parameter: &str, wanted: u64, why: &str) -> Option<Finding> {
        let value: u64 = self.parameter(parameter)?.trim().parse().ok()?;
        Some(match value >= wanted {
            true => Finding::fine(parameter, value.to_string()),
            false => Finding::warning(
                parameter,
                format!("{value}, less than {wanted}: {why}"),
                format!("sysctl -w {parameter}={wanted}"),
            ),
        })
    }

    /// Memory of all sockets in pages. Above the maximum, the kernel drops incoming data.
    fn socket_memory(&self, connections: u64) -> Option<Finding> {
        const SUBJECT: &str = "net.ipv4.tcp_mem";
        let value = self.parameter(SUBJECT)?;
        let pages: Vec<u64> = value.split_whitespace().flat_map(str::parse).collect();
        let [low, pressure, max] = pages[..] else { return None };
        let wanted = connections * PAGES_PER_CONNECTION;
        if max >= wanted {
            return Some(Finding::fine(SUBJECT, format!("{max} pages at most")));
        }
        let found = format!(
            "{max} pages at most; {wanted} are needed if all {connections} clients read slowly"
        );
        let advice = format!("sysctl -w {SUBJECT}='{low} {} {wanted}'", pressure.max(wanted / 2));
        Some(Finding::warning(SUBJECT, found, advice))
    }

    /// If a firewall tracks connections and its table is full, the kernel silently drops new ones.
    fn tracked_connections(&self, connections: u64) -> Option<Finding> {
        const SUBJECT: &str = "net.netfilter.nf_conntrack_max";
        let max: u64 = self.parameter(SUBJECT)?.trim().parse().ok()?;
        let count = self.parameter("net.netfilter.nf_conntrack_count");
        let count: u64 = count.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        if max >= count + connections {
            return Some(Finding::fine(SUBJECT, format!("{max}, {count} in use")));
        }
        let found = format!("{max}, {count} in use: not enough for {connections} more connections");
        let wanted = 2 * (count + connections);
        Some(Finding::warning(SUBJECT, found, format!("sysctl -w {SUBJECT}={wanted}")))
    }

    fn parameter(&self, name: &str) -> Option<String> {
        self.read(&format!("proc/sys/{}", name.replace('.', "/")))
    }

    fn read(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.root.join(path)).ok()
    }
}

const BACKLOG: &str =
    "if many clients connect at once, the kernel drops some of them, which retry after a second";

/// Checks that the clock is set, because tokens expire by it. The broker detects differences
/// between nodes.
fn clock(unix_ms: i64) -> Finding {
    let seconds = unix_ms / 1000;
    if unix_ms >= CLOCK_MIN_MS {
        return Finding::fine("clock", format!("{seconds} s since 1970"));
    }
    let found = format!("{seconds} s since 1970 is before 2026: tokens are not valid yet");
    Finding::problem("clock", found, "set the clock and enable NTP (timedatectl set-ntp true)")
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::*;
    use crate::config::{Source, load};

    fn config(connection_limit: u64) -> Config {
        let limit = connection_limit.to_string();
        let flags = [
            ("client.connection_limit", &*limit),
            ("http_api.key", "0123456789abcdef0123456789abcdef"),
        ];
        let flags = flags.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
        load(&Source { flags, ..Source::default() }).unwrap().0
    }

    /// A root folder with these files.
    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    const NOW_MS: i64 = 1_800_000_000_000;
    const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units\n\
                          Max open files            1024                 20000                files\n";

    fn findings(files: &[(&str, &str)], connections: u64) -> Vec<(String, Severity, String)> {
        let root = machine(files);
        let findings = System::new(root.path()).examine(&config(connections), NOW_MS);
        findings.into_iter().map(|one| (one.subject, one.severity, one.advice)).collect()
    }

    #[test]
    fn parameters_of_the_kernel_are_compared_with_the_configuration() {
        let files = [
            ("proc/self/limits", LIMITS),
            ("proc/sys/net/core/somaxconn", "128\n"),
            ("proc/sys/net/ipv4/tcp_max_syn_backlog", "2048\n"),
            ("proc/sys/net/ipv4/tcp_mem", "100\t200\t1000\n"),
            ("proc/sys/net/netfilter/nf_conntrack_max", "65536\n"),
            ("proc/sys/net/netfilter/nf_conntrack_count", "60000\n"),
        ];
        let severities = |connections| {
            let found = findings(&files, connections);
            found.into_iter().map(|(subject, severity, _)| (subject, severity)).collect::<Vec<_>>()
        };
        let expected = |descriptors, memory, tracked| {
            [
                ("descriptors (ulimit -n)", descriptors),
                ("net.core.somaxconn", Severity::Warning),
                ("net.ipv4.tcp_max_syn_backlog", Severity::Fine),
                ("net.ipv4.tcp_mem", memory),
                ("net.netfilter.nf_conntrack_max", tracked),
                ("clock", Severity::Fine),
            ]
            .map(|(subject, severity)| (subject.to_owned(), severity))
        };
        use Severity::{Fine, Warning};
        assert_eq!(severities(500), expected(Fine, Fine, Fine));
        assert_eq!(severities(15_000), expected(Warning, Warning, Warning));
        for (subject, severity, advice) in findings(&files, 15_000) {
            assert_eq!(severity == Fine, advice.is_empty(), "{subject}: {advice}");
        }
    }

    #[test]
    fn a_value_that_cannot_be_read_is_not_a_finding() {
        let found = findings(&[("proc/sys/net/ipv4/tcp_mem", "many\n")], 100);
        assert_eq!(found, [("clock".to_owned(), Severity::Fine, String::new())]);
    }

    #[test]
    fn a_clock_that_was_never_set_is_a_problem() {
        assert_eq!(clock(86_400_000).severity, Severity::Problem);
    }
}
