//! The results of a run: one value for the table, the JSON and the page.

use serde::Serialize;

use super::process_usage::CpuUsage;
use super::run_totals::{LatencyHistogram, RunTotals};

/// The results of a run, for the table, the JSON and the HTML page.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) scenario: &'static str,
    pub(crate) url: String,
    pub(crate) codec: super::plan::CodecName,
    pub(crate) channels: u32,
    pub(crate) connections: u32,
    /// Bytes of a payload.
    pub(crate) sizes: Vec<u32>,
    pub(crate) seconds: f64,
    pub(crate) is_complete: bool,
    /// What broke, one line each.
    pub(crate) failures: Vec<String>,
    /// What makes the numbers doubtful.
    pub(crate) warnings: Vec<String>,
    pub(crate) published: u64,
    pub(crate) deliveries: u64,
    pub(crate) deliveries_per_second: f64,
    pub(crate) bytes_per_delivery: f64,
    pub(crate) faults: super::run_totals::Faults,
    pub(crate) latency: Quantiles,
    pub(crate) last_receiver: Quantiles,
    pub(crate) late: Quantiles,
    pub(crate) joining: Quantiles,
    /// Clients that came, or came back, while it ran.
    pub(crate) joins: u64,
    /// Of them those answered with `recovered: false`.
    pub(crate) joins_refused: u64,
    pub(crate) joins_per_second: f64,
    pub(crate) generator: Generator,
    pub(crate) server: Option<ServerUsage>,
    pub(crate) samples: Vec<Sample>,
    /// Upper bound in microseconds, and deliveries.
    pub(crate) latency_classes: Vec<(f64, u64)>,
}

/// Times in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Quantiles {
    pub(crate) count: u64,
    pub(crate) p50_us: f64,
    pub(crate) p90_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
}

/// What the generator itself used.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Generator {
    pub(crate) processes: usize,
    /// Part of a core that its busiest process used or waited for.
    pub(crate) busiest: f64,
    pub(crate) ns_per_delivery: f64,
}

/// What the server used; with `raw`, the process that sends.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct ServerUsage {
    pub(crate) process: u32,
    /// Part of a core.
    pub(crate) busy: f64,
    pub(crate) ns_per_delivery: f64,
    pub(crate) user_ns_per_delivery: f64,
    pub(crate) system_ns_per_delivery: f64,
    pub(crate) us_per_connection_and_second: f64,
    pub(crate) memory_before: u64,
    pub(crate) memory_after: u64,
    /// Where so many stay connected that a server's own buffers are lost in the sum.
    pub(crate) memory_per_connection: Option<f64>,
}

/// A moment of the run.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Sample {
    pub(crate) at_seconds: f64,
    pub(crate) deliveries_per_second: f64,
    /// Part of a core that the server used, where that is measured.
    pub(crate) server_busy: Option<f64>,
}

impl Quantiles {
    pub(crate) fn of(times: &LatencyHistogram) -> Quantiles {
        let [p50_us, p90_us, p99_us, p999_us, max_us] =
            [0.5, 0.9, 0.99, 0.999, 1.0].map(|part| times.quantile_us(part));
        Quantiles { count: times.count(), p50_us, p90_us, p99_us, p999_us, max_us }
    }
}

/// What was measured of the server during a run.
pub(crate) struct MeasuredUsage {
    pub(crate) spent: CpuUsage,
    /// Seconds in which the time was spent.
    pub(crate) seconds: f64,
    pub(crate) memory: Memory,
}

/// Memory of the server around the connecting.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) before: u64,
    pub(crate) after: u64,
    /// Connections that were there at the second reading.
    pub(crate) held: u32,
}

/// Connections from which on their memory is more than the noise of a process.
const CONNECTIONS_FOR_MEMORY: u32 = 1_000;

impl ServerUsage {
    pub(crate) fn of(
        process: u32,
        measured: &MeasuredUsage,
        connections: u32,
        totals: &RunTotals,
    ) -> ServerUsage {
        let MeasuredUsage { spent, seconds, memory } = measured;
        let deliveries = totals.deliveries.max(1) as f64;
        let (grown, held) = (memory.after.saturating_sub(memory.before) as f64, memory.held);
        ServerUsage {
            process,
            busy: spent.total_ns / 1e9 / seconds,
            ns_per_delivery: spent.total_ns / deliveries,
            user_ns_per_delivery: spent.user_ns / deliveries,
            system_ns_per_delivery: spent.system_ns / deliveries,
            us_per_connection_and_second: spent.total_ns / 1e3 / f64::from(connections) / seconds,
            memory_before: memory.before,
            memory_after: memory.after,
            memory_per_connection: (held >= CONNECTIONS_FOR_MEMORY)
                .then(|| grown / f64::from(held)),
        }
    }
}

impl Report {
    /// Whether there are results: a server that was not reached has none.
    pub(crate) fn has_numbers(&self) -> bool {
        self.is_complete || self.deliveries > 0 || self.joins > 0
    }

    /// Whether everything was as it must be.
    pub(crate) fn is_good(&self) -> bool {
        self.is_complete && self.faults.sum() == 0
    }

    /// What standard error says of the run.
    pub(crate) fn messages(&self) -> impl Iterator<Item = String> {
        let warnings = self.warnings.iter().map(|warning| format!("warning: {warning}"));
        let faults = (self.faults.sum() > 0)
            .then(|| format!("{} deliveries are not as they must be", self.faults.sum()));
        warnings.chain(self.failures.iter().cloned()).chain(faults)
    }

    /// The table.
    pub(crate) fn table(&self) -> String {
        let mut rows: Vec<(&str, String)> = vec![
            ("scenario", format!("{} at {} ({})", self.scenario, self.url, self.codec.label())),
            (
                "connections",
                format!("{} in {}", self.connections, counted(u64::from(self.channels), "channel")),
            ),
        ];
        if self.joining.count > 0 {
            rows.push(("joined in", self.joining.line()));
        }
        if self.joins > 0 {
            let Report { joins, joins_refused, joins_per_second, .. } = self;
            let reported = match joins_refused {
                0 => String::new(),
                count => format!("; {count} were notified of a gap"),
            };
            rows.push(("came", format!("{joins}: {joins_per_second:.0} / s{reported}")));
        }
        if self.deliveries > 0 {
            let rate = self.deliveries_per_second;
            let sizes: Vec<String> = self.sizes.iter().map(u32::to_string).collect();
            let sizes = sizes.join(" or ");
            rows.push(("published", format!("{} of {sizes} bytes", self.published)));
            rows.push((
                "deliveries",
                format!("{} in {:.2} s: {rate:.0} / s", self.deliveries, self.seconds),
            ));
            rows.push(("on the wire", format!("{:.1} bytes a delivery", self.bytes_per_delivery)));
            if self.latency.count > 0 {
                rows.push(("latency", self.latency.line()));
                rows.push(("last receiver", self.last_receiver.line()));
            }
            if self.late.count > 0 {
                rows.push(("sent late by", self.late.line()));
            }
        }
        let super::run_totals::Faults { lost, duplicate, out_of_order, misrouted } = self.faults;
        rows.push((
            "faults",
            format!("{lost} lost, {duplicate} duplicate, {out_of_order} out of order, {misrouted} misrouted"),
        ));
        if let Some(server) = &self.server {
            rows.push(("server", server.line(self.deliveries)));
            rows.push(("memory", server.memory_line()));
        }
        let Generator { processes, busiest, ns_per_delivery } = self.generator;
        let per_delivery = match self.deliveries {
            0 => String::new(),
            _ => format!(", {ns_per_delivery:.0} ns a delivery"),
        };
        let busiest = busiest * 100.0;
        rows.push((
            "generator",
            format!(
                "{}, {busiest:.0} % of a core{per_delivery}",
                counted(processes as u64, "process")
            ),
        ));
        rows.iter().map(|(name, value)| format!("{name:<14} {value}\n")).collect()
    }
}

impl Quantiles {
    fn line(&self) -> String {
        let [p50, p90, p99, p999, max] =
            [self.p50_us, self.p90_us, self.p99_us, self.p999_us, self.max_us].map(time);
        format!("p50 {p50}, p90 {p90}, p99 {p99}, p99.9 {p999}, most {max}")
    }
}

impl ServerUsage {
    fn memory_line(&self) -> String {
        let [before, after] =
            [self.memory_before, self.memory_after].map(|bytes| bytes as f64 / 1e6);
        let each = self.memory_per_connection;
        let each = each.map_or(String::new(), |bytes| format!(": {bytes:.0} bytes a connection"));
        format!("{before:.1} MB before, {after:.1} MB after{each}")
    }

    fn line(&self, deliveries: u64) -> String {
        let busy = self.busy * 100.0;
        match deliveries > 0 {
            true => format!(
                "{busy:.0} % of a core; {:.0} ns a delivery, {:.0} user and {:.0} system",
                self.ns_per_delivery, self.user_ns_per_delivery, self.system_ns_per_delivery
            ),
            false => format!(
                "{busy:.1} % of a core; {:.2} µs a connection and second",
                self.us_per_connection_and_second
            ),
        }
    }
}

/// A number of things.
fn counted(count: u64, noun: &str) -> String {
    let ending = match (count, noun.ends_with('s')) {
        (1, _) => "",
        (_, true) => "es",
        (_, false) => "s",
    };
    format!("{count} {noun}{ending}")
}

/// A time in the unit that is read best.
pub(crate) fn time(microseconds: f64) -> String {
    match microseconds {
        value if value < 1_000.0 => format!("{value:.0} µs"),
        value if value < 1_000_000.0 => format!("{:.2} ms", value / 1e3),
        value => format!("{:.2} s", value / 1e6),
    }
}
