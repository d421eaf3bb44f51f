//! What the kernel says of a process: processor time and memory.
//!
//! Invariant: the sum of processor time is exact (that of the scheduler); only its division into
//! user and system is the kernel's estimate.

use anyhow::{Context as _, bail};

/// Processor time of a process so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CpuTime {
    pub(crate) total_ns: u64,
    /// Time for which it could have run, but others did.
    waited_ns: u64,
    user_ticks: u64,
    system_ticks: u64,
}

/// Processor time between two readings.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct CpuUsage {
    pub(crate) total_ns: f64,
    pub(crate) waited_ns: f64,
    pub(crate) user_ns: f64,
    pub(crate) system_ns: f64,
}

impl CpuTime {
    /// Reads it; `self` and a number are processes.
    pub(crate) fn of(process: &str) -> anyhow::Result<CpuTime> {
        let folder = format!("/proc/{process}");
        let gone = || format!("there is no process {process}");
        let stat = std::fs::read_to_string(format!("{folder}/stat")).with_context(gone)?;
        // User and system time are the fields 14 and 15; the second may contain spaces.
        let mut fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11);
        let mut ticks = || fields.next().and_then(|field| field.parse().ok()).with_context(gone);
        let (user_ticks, system_ticks) = (ticks()?, ticks()?);
        let (mut total_ns, mut waited_ns) = (0, 0);
        for task in std::fs::read_dir(format!("{folder}/task")).with_context(gone)? {
            // A thread may end meanwhile.
            let Ok(text) = std::fs::read_to_string(task?.path().join("schedstat")) else {
                continue;
            };
            let mut fields = text.split_whitespace().map(|field| field.parse().unwrap_or(0_u64));
            total_ns += fields.next().unwrap_or(0);
            waited_ns += fields.next().unwrap_or(0);
        }
        if total_ns == 0 {
            bail!("the kernel says nothing of the processor time of process {process}");
        }
        Ok(CpuTime { total_ns, waited_ns, user_ticks, system_ticks })
    }

    pub(crate) fn since(self, before: CpuTime) -> CpuUsage {
        let total_ns = self.total_ns.saturating_sub(before.total_ns) as f64;
        let user = self.user_ticks.saturating_sub(before.user_ticks) as f64;
        let system = self.system_ticks.saturating_sub(before.system_ticks) as f64;
        let user_part = if user + system > 0.0 { user / (user + system) } else { 0.0 };
        let user_ns = total_ns * user_part;
        let waited_ns = self.waited_ns.saturating_sub(before.waited_ns) as f64;
        CpuUsage { total_ns, waited_ns, user_ns, system_ns: total_ns - user_ns }
    }
}

/// Memory of a process that is in use, in bytes.
pub(crate) fn memory(process: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))
        .with_context(|| format!("there is no process {process}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kilobytes.with_context(|| format!("process {process} has no memory"))? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_what_it_costs() {
        let before = CpuTime::of("self").unwrap();
        let spent = loop {
            let spent = CpuTime::of("self").unwrap().since(before);
            if spent.total_ns > 30_000_000.0 {
                break spent;
            }
        };
        assert!((spent.user_ns + spent.system_ns - spent.total_ns).abs() < 1.0);
        assert!(memory("self").unwrap() > 1 << 20);
        assert!(CpuTime::of("0").is_err());
    }
}
