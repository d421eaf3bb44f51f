//! Resource usage of this process from `/proc`, for the metrics that Prometheus' client libraries
//! define.
//!
//! Invariant: values that the kernel does not report are left out.

use std::fs;

/// Resource usage; `None` for values that `/proc` does not contain.
#[derive(Debug, Default)]
pub(super) struct Process {
    /// Seconds of processor time, user and system.
    pub(super) cpu_seconds: Option<f64>,
    pub(super) open_files: Option<u64>,
    pub(super) open_files_max: Option<u64>,
    pub(super) virtual_bytes: Option<u64>,
    pub(super) resident_bytes: Option<u64>,
    pub(super) threads: Option<u64>,
    /// Unix time in seconds.
    pub(super) started_at: Option<f64>,
}

/// Clock ticks per second (`USER_HZ`), which are 100 on every architecture of Linux.
const TICKS_PER_SECOND: f64 = 100.0;

impl Process {
    pub(super) fn read() -> Process {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // The name in parentheses may contain anything; the third field follows it.
        let fields: Vec<&str> = match stat.rsplit_once(')') {
            Some((_, rest)) => rest.split_whitespace().collect(),
            None => Vec::new(),
        };
        // Numbered from 1 as in proc(5).
        let field = |number: usize| -> Option<u64> { fields.get(number - 3)?.parse().ok() };
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kilobytes = |name: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            let number: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
            Some(number * 1024)
        };
        let ticks = |number: usize| field(number).map(|ticks| ticks as f64 / TICKS_PER_SECOND);
        Process {
            cpu_seconds: ticks(14).zip(ticks(15)).map(|(user, system)| user + system),
            open_files: fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as u64),
            open_files_max: open_files_max(),
            virtual_bytes: field(23),
            resident_bytes: kilobytes("VmRSS:"),
            threads: field(20),
            started_at: boot_time().zip(ticks(22)).map(|(boot, since)| boot + since),
        }
    }
}

fn open_files_max() -> Option<u64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Unix seconds at which the kernel started.
fn boot_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_plausible() {
        let process = Process::read();
        assert!(process.cpu_seconds.is_some_and(|seconds| seconds >= 0.0));
        assert!(process.open_files.is_some_and(|files| files > 2));
        assert!(process.open_files_max >= process.open_files);
        assert!(process.resident_bytes.is_some_and(|bytes| bytes > 1 << 20));
        assert!(process.virtual_bytes >= process.resident_bytes);
        assert!(process.threads.is_some_and(|threads| threads >= 1));
        assert!(process.started_at.is_some_and(|at| at > 1.7e9));
    }
}
