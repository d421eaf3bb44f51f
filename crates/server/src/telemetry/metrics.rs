//! Metrics in the Prometheus text format, gathered at each scrape. Counting costs the data path one
//! addition, and no registry is shared between threads.

use std::collections::HashSet;
use std::fmt::{Display, Write as _};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use brokers::memory::Usage;
use brokers::{BrokerParts, Health};
use consumers::ConsumerSnapshot;
use engine::counters::{CommandKind, Counters};
use engine::rates::Bucket;
use events::{LossReason, SinkStats};
use proxy::stats::DURATION_BUCKETS;
use proxy::{BackendStats, BreakerState, FailureKind};

use super::process::Process;
use super::{CloseCounts, HttpCounts};
use crate::worker::{Traffic, WorkerReport};

/// A metric of the table [`METRICS`].
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Name in the Prometheus format.
    pub name: &'static str,
    /// Type of the metric.
    pub kind: MetricKind,
    /// Names of the labels, in the order of their values.
    pub labels: &'static [&'static str],
    /// Help text.
    pub help: &'static str,
}

/// Type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// A value that only increases.
    Counter,
    /// A value that increases and decreases.
    Gauge,
    /// Counts of values by size, and their sum.
    Histogram,
}

use MetricKind::{Counter, Gauge, Histogram};

const fn metric(
    name: &'static str,
    kind: MetricKind,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind, labels, help }
}

/// Every metric, in the order of the output.
#[rustfmt::skip]
pub const METRICS: &[Metric] = &[
    metric("tidings_build_info", Gauge, &["version"], "Always 1; says which version runs."),
    metric("tidings_uptime_seconds", Gauge, &[], "Time since the server started."),
    metric("tidings_broker_ready", Gauge, &[], "1 while the broker works, 0 while it does not."),
    metric("tidings_broker_lag_seconds", Gauge, &[], "Time that a publication of this node took last through the broker and back; 0 in memory."),
    metric("tidings_workers", Gauge, &[], "Worker threads."),
    metric("tidings_connections", Gauge, &[], "WebSocket connections now."),
    metric("tidings_users", Gauge, &[], "Different users with a connection now; all anonymous ones are one."),
    metric("tidings_subscriptions", Gauge, &[], "Subscriptions now."),
    metric("tidings_channels", Gauge, &[], "Channels with a subscriber now."),
    metric("tidings_handshakes_refused_total", Counter, &["status"], "WebSocket handshakes refused, by HTTP status."),
    metric("tidings_refusals_total", Counter, &["subject", "reason"], "What was refused: token, api_key, origin, subscribe, publish, presence or history; and why."),
    metric("tidings_connections_opened_total", Counter, &[], "WebSocket handshakes completed."),
    metric("tidings_connections_admitted_total", Counter, &[], "Connect commands accepted."),
    metric("tidings_connections_closed_total", Counter, &["code"], "Connections ended, by disconnect code; 3000 when the peer went first."),
    metric("tidings_commands_total", Counter, &["command"], "Commands of clients."),
    metric("tidings_command_errors_total", Counter, &[], "Error replies to commands of clients."),
    metric("tidings_subscriptions_joined_total", Counter, &[], "Subscriptions that became live."),
    metric("tidings_publications_total", Counter, &[], "Publications that workers received from the broker; each worker with a subscriber counts."),
    metric("tidings_deliveries_total", Counter, &[], "Publications, joins and leaves queued towards clients."),
    metric("tidings_recoveries_total", Counter, &["recovered"], "Attempts to recover, by outcome."),
    metric("tidings_recovered_publications_total", Counter, &[], "Publications delivered by recovery."),
    metric("tidings_gaps_total", Counter, &[], "Gaps detected in active subscriptions, of which the clients were notified."),
    metric("tidings_received_bytes_total", Counter, &[], "Bytes read from WebSocket connections."),
    metric("tidings_sent_bytes_total", Counter, &[], "Bytes written to WebSocket connections."),
    metric("tidings_socket_writes_total", Counter, &[], "Write system calls on WebSocket connections."),
    metric("tidings_limited_total", Counter, &["bucket"], "Refusals by rates (`limits.*`), by bucket; of connection.refusals, connections closed for a flood (3013)."),
    metric("tidings_memory_engine_bytes", Gauge, &[], "Bytes that the memory engine keeps, as counted against engine.memory.bytes_max; 0 with another engine."),
    metric("tidings_memory_engine_bytes_max", Gauge, &[], "Bytes that it may keep."),
    metric("tidings_memory_engine_channels", Gauge, &[], "Channels that it keeps."),
    metric("tidings_memory_engine_refused_total", Counter, &[], "Publications and subscriptions that it refused (error 111) because it keeps as much as it may."),
    metric("tidings_api_calls_total", Counter, &["method", "code"], "Calls of the server API, by error code; 0 is success."),
    metric("tidings_api_key_calls_total", Counter, &["key", "method"], "Calls of the server API, by the name of the caller's key."),
    metric("tidings_consumer_up", Gauge, &["consumer"], "1 while the consumer is connected to its source."),
    metric("tidings_consumer_processed_total", Counter, &["consumer"], "Messages of the consumer that took effect."),
    metric("tidings_consumer_retries_total", Counter, &["consumer"], "Attempts to handle a message that had to be repeated, since the broker was away or overloaded."),
    metric("tidings_consumer_rejected_total", Counter, &["consumer"], "Messages that can never be handled."),
    metric("tidings_consumer_dead_letters_total", Counter, &["consumer"], "Rejected messages that were stored as dead letters."),
    metric("tidings_consumer_failures_total", Counter, &["consumer"], "Times that the consumer lost its source, or could not start."),
    metric("tidings_consumer_lag", Gauge, &["consumer"], "Messages in the source that this node has to handle and has not handled; for postgresql_cdc bytes of the log of the database."),
    metric("tidings_events_delivered_total", Counter, &["sink"], "Events that the receiver has acknowledged."),
    metric("tidings_events_lost_total", Counter, &["sink", "reason"], "Events that were not delivered: full, because the queue was; rejected, because the receiver answered 400, 413 or 422 and accepted others."),
    metric("tidings_events_failures_total", Counter, &["sink"], "Attempts to deliver events that failed."),
    metric("tidings_events_queued", Gauge, &["sink"], "Events that wait for the receiver."),
    metric("tidings_events_queued_bytes", Gauge, &["sink"], "Bytes of these events, as counted against queue_max_size."),
    metric("tidings_events_delay_seconds", Gauge, &["sink"], "Time for which the oldest of these events has waited."),
    metric("tidings_proxy_calls_total", Counter, &["proxy", "outcome"], "Calls to backends: result, refusal (error or disconnect), or what failed: connect, tls, reset, timeout, status, throttled, content_type, malformed, too_large, breaker_open, overloaded, not_json."),
    metric("tidings_proxy_shared_answers_total", Counter, &["proxy", "source"], "Questions answered without a call: joined to the same question under way, by a cached answer, or by a stale one while the breaker was open."),
    metric("tidings_proxy_duration_seconds", Histogram, &["proxy"], "Durations of attempts to call a backend."),
    metric("tidings_proxy_retries_total", Counter, &["proxy"], "Second and third attempts."),
    metric("tidings_proxy_in_flight", Gauge, &["proxy"], "Calls to a backend now."),
    metric("tidings_proxy_waiting", Gauge, &["proxy"], "Calls that wait for a place among max_concurrency."),
    metric("tidings_proxy_breaker_state", Gauge, &["proxy", "state"], "1 for the state of the circuit breaker: closed, open or half_open."),
    metric("tidings_proxy_breaker_opened_total", Counter, &["proxy"], "Times that the circuit breaker has opened."),
    metric("process_cpu_seconds_total", Counter, &[], "Processor time of the process, user and system."),
    metric("process_open_fds", Gauge, &[], "Open file descriptors."),
    metric("process_max_fds", Gauge, &[], "File descriptors that may be open."),
    metric("process_virtual_memory_bytes", Gauge, &[], "Address space of the process."),
    metric("process_resident_memory_bytes", Gauge, &[], "Physical memory that the process holds."),
    metric("process_threads", Gauge, &[], "Threads of the process."),
    metric("process_start_time_seconds", Gauge, &[], "Unix time at which the process started."),
];

/// Totals of all workers of a node.
#[derive(Debug, Default)]
pub struct Totals {
    /// Sums of the workers' counters.
    pub counters: Counters,
    /// Bytes and writes of all workers.
    pub traffic: Traffic,
    closes: CloseCounts,
    /// Current number of connections.
    pub connections: usize,
    /// Current number of subscriptions.
    pub subscriptions: usize,
    users: HashSet<u64>,
    channels: HashSet<u64>,
    workers: usize,
}

impl Totals {
    /// Adds the report of one worker.
    pub fn add(&mut self, report: WorkerReport) {
        self.counters.add(&report.counters);
        self.traffic.received += report.bytes.received;
        self.traffic.sent += report.bytes.sent;
        self.traffic.writes += report.bytes.writes;
        self.closes.add(&report.closes);
        self.connections += report.sessions;
        self.subscriptions += report.subscriptions;
        self.users.extend(report.users);
        self.channels.extend(report.channels);
        self.workers += 1;
    }

    /// Number of distinct users.
    #[must_use]
    pub fn users(&self) -> usize {
        self.users.len()
    }

    /// Number of distinct channels.
    #[must_use]
    pub fn channels(&self) -> usize {
        self.channels.len()
    }
}

/// What a node reports besides the totals of its workers.
#[derive(Debug, Default)]
pub struct NodeReport {
    /// Time since the server started.
    pub uptime_seconds: u64,
    /// Consumers by name.
    pub consumers: Vec<(Arc<str>, ConsumerSnapshot)>,
    /// Sinks of events.
    pub sinks: Vec<SinkStats>,
    /// Backends by name.
    pub backends: Vec<BackendStats>,
}

/// Renders all metrics in the Prometheus text format.
#[must_use]
pub fn render(
    totals: &Totals,
    http: &HttpCounts,
    broker: &BrokerParts,
    usage: &Usage,
    node: &NodeReport,
) -> String {
    let uptime_seconds = node.uptime_seconds;
    let mut page = Page::default();
    page.labelled("tidings_build_info", &[env!("CARGO_PKG_VERSION")], 1);
    page.plain("tidings_uptime_seconds", uptime_seconds);
    page.plain("tidings_broker_ready", u64::from(broker.health() == Health::Ready));
    page.plain("tidings_broker_lag_seconds", broker.lag().as_secs_f64());
    page.plain("tidings_workers", totals.workers as u64);
    page.plain("tidings_connections", totals.connections as u64);
    page.plain("tidings_users", totals.users() as u64);
    page.plain("tidings_subscriptions", totals.subscriptions as u64);
    page.plain("tidings_channels", totals.channels() as u64);
    for (status, count) in http.refused.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        page.labelled("tidings_handshakes_refused_total", &[&status.to_string()], *count);
    }
    for (subject, reason, count) in http.refusals.counts() {
        page.labelled("tidings_refusals_total", &[subject.name(), reason], count);
    }
    page.clients(totals);
    for (index, bucket) in Bucket::ALL.iter().enumerate() {
        let count = totals.counters.limited[index] + http.limited[index].load(Ordering::Relaxed);
        page.labelled("tidings_limited_total", &[bucket.name()], count);
    }
    page.plain("tidings_memory_engine_bytes", usage.bytes() as u64);
    page.plain("tidings_memory_engine_bytes_max", usage.ceilings().bytes as u64);
    page.plain("tidings_memory_engine_channels", usage.channels() as u64);
    page.plain("tidings_memory_engine_refused_total", usage.refused());
    for ((method, code), count) in http.calls_by_code() {
        page.labelled("tidings_api_calls_total", &[method, &code.to_string()], count);
    }
    for (key, method, count) in http.calls_by_key() {
        page.labelled("tidings_api_key_calls_total", &[&key, method], count);
    }
    page.consumers(&node.consumers);
    page.sinks(&node.sinks);
    page.backends(&node.backends);
    page.process(&Process::read());
    page.text
}

/// The page of the documentation.
#[must_use]
pub fn reference() -> String {
    let mut text = "# Metrics\n\n\
        Served in the text format of Prometheus at `/metrics` (`prometheus.handler_prefix`). Values\n\
        count from the start of the process, and every node reports only itself. Counts of the workers \
        are\ncached for twenty times as long as it took to collect them, at most 5 s.\n\n\
        This page is generated from the table in `crates/server/src/telemetry/metrics.rs`. A test \
        compares\nthe table, the output and this page.\n\n\
        | Metric | Kind | Labels | Meaning |\n|---|---|---|---|\n"
        .to_owned();
    for metric in METRICS {
        let kind = metric.kind.name();
        let labels = metric.labels.join(", ");
        // Writing to a String cannot fail.
        let _ = writeln!(text, "| `{}` | {kind} | {labels} | {} |", metric.name, metric.help);
    }
    text
}

impl MetricKind {
    fn name(self) -> &'static str {
        match self {
            Counter => "counter",
            Gauge => "gauge",
            Histogram => "histogram",
        }
    }
}

#[derive(Default)]
struct Page {
    text: String,
    last: &'static str,
}

impl Page {
    /// What clients did.
    fn clients(&mut self, totals: &Totals) {
        let counters = &totals.counters;
        self.plain("tidings_connections_opened_total", counters.sessions_opened);
        self.plain("tidings_connections_admitted_total", counters.sessions_connected);
        for (code, count) in &totals.closes.0 {
            self.labelled("tidings_connections_closed_total", &[&code.to_string()], *count);
        }
        for (kind, count) in CommandKind::ALL.iter().zip(counters.commands) {
            self.labelled("tidings_commands_total", &[kind.name()], count);
        }
        self.plain("tidings_command_errors_total", counters.error_replies);
        self.plain("tidings_subscriptions_joined_total", counters.subscriptions_joined);
        self.plain("tidings_publications_total", counters.publications);
        self.plain("tidings_deliveries_total", counters.deliveries);
        self.labelled("tidings_recoveries_total", &["true"], counters.recoveries_whole);
        self.labelled("tidings_recoveries_total", &["false"], counters.recoveries_refused);
        self.plain("tidings_recovered_publications_total", counters.recovered_publications);
        self.plain("tidings_gaps_total", counters.gaps_reported);
        self.plain("tidings_received_bytes_total", totals.traffic.received);
        self.plain("tidings_sent_bytes_total", totals.traffic.sent);
        self.plain("tidings_socket_writes_total", totals.traffic.writes);
    }

    /// Writes the metrics of the consumers, metric by metric.
    fn consumers(&mut self, consumers: &[(Arc<str>, ConsumerSnapshot)]) {
        type Value = fn(&ConsumerSnapshot) -> u64;
        let values: [(&str, Value); 7] = [
            ("tidings_consumer_up", |consumer| u64::from(consumer.is_connected)),
            ("tidings_consumer_processed_total", |consumer| consumer.processed),
            ("tidings_consumer_retries_total", |consumer| consumer.retries),
            ("tidings_consumer_rejected_total", |consumer| consumer.rejected),
            ("tidings_consumer_dead_letters_total", |consumer| consumer.dead_letters),
            ("tidings_consumer_failures_total", |consumer| consumer.failures),
            ("tidings_consumer_lag", |consumer| consumer.lag),
        ];
        for (metric, value) in values {
            for (name, consumer) in consumers {
                self.labelled(metric, &[name], value(consumer));
            }
        }
    }

    /// Writes the metrics of the sinks of events.
    fn sinks(&mut self, sinks: &[SinkStats]) {
        for sink in sinks {
            self.labelled("tidings_events_delivered_total", &[&sink.name], sink.delivered);
        }
        for sink in sinks {
            // Those of a process that has stopped cannot be read. They are logged.
            let reasons = LossReason::ALL.iter().zip(sink.lost);
            for (reason, count) in reasons.filter(|(reason, _)| **reason != LossReason::Stopped) {
                let labels = [&*sink.name, reason.name()];
                self.labelled("tidings_events_lost_total", &labels, count);
            }
        }
        for sink in sinks {
            self.labelled("tidings_events_failures_total", &[&sink.name], sink.failures);
        }
        for sink in sinks {
            self.labelled("tidings_events_queued", &[&sink.name], sink.queued);
        }
        for sink in sinks {
            self.labelled("tidings_events_queued_bytes", &[&sink.name], sink.queued_bytes);
        }
        for sink in sinks {
            let delay = sink.delay.as_secs_f64();
            self.labelled("tidings_events_delay_seconds", &[&sink.name], delay);
        }
    }

    /// Calls to backends.
    fn backends(&mut self, all: &[BackendStats]) {
        for backend in all {
            let calls = &backend.calls;
            self.labelled("tidings_proxy_calls_total", &[&backend.name, "result"], calls.results);
            self.labelled("tidings_proxy_calls_total", &[&backend.name, "refusal"], calls.refusals);
            for kind in FailureKind::ALL {
                let count = calls.failures_of(kind);
                self.labelled("tidings_proxy_calls_total", &[&backend.name, kind.name()], count);
            }
        }
        for backend in all {
            let calls = &backend.calls;
            for (source, count) in
                [("joined", calls.joined), ("cached", calls.cached), ("stale", calls.stale)]
            {
                let labels = [&*backend.name, source];
                self.labelled("tidings_proxy_shared_answers_total", &labels, count);
            }
        }
        self.histograms(all);
        for backend in all {
            let retries = backend.calls.retries;
            self.labelled("tidings_proxy_retries_total", &[&backend.name], retries);
        }
        for backend in all {
            self.labelled("tidings_proxy_in_flight", &[&backend.name], backend.in_flight);
        }
        for backend in all {
            self.labelled("tidings_proxy_waiting", &[&backend.name], backend.waiting);
        }
        for backend in all {
            let states = [BreakerState::Closed, BreakerState::Open, BreakerState::HalfOpen];
            for state in states {
                let is_state = u64::from(backend.breaker == state);
                let labels = [&*backend.name, state.name()];
                self.labelled("tidings_proxy_breaker_state", &labels, is_state);
            }
        }
        for backend in all {
            self.labelled("tidings_proxy_breaker_opened_total", &[&backend.name], backend.opened);
        }
    }

    /// Durations of calls to backends.
    fn histograms(&mut self, all: &[BackendStats]) {
        const NAME: &str = "tidings_proxy_duration_seconds";
        for backend in all {
            self.header(NAME);
            let (name, mut count) = (&backend.name, 0);
            let bounds = DURATION_BUCKETS.iter().map(ToString::to_string);
            for (bound, calls) in bounds.chain(["+Inf".to_owned()]).zip(backend.calls.durations) {
                count += calls;
                let _ =
                    writeln!(self.text, "{NAME}_bucket{{proxy=\"{name}\",le=\"{bound}\"}} {count}");
            }
            let seconds = backend.calls.seconds;
            let _ = writeln!(self.text, "{NAME}_sum{{proxy=\"{name}\"}} {seconds}");
            let _ = writeln!(self.text, "{NAME}_count{{proxy=\"{name}\"}} {count}");
        }
    }

    /// Writes the metrics of the process.
    fn process(&mut self, process: &Process) {
        self.known("process_cpu_seconds_total", process.cpu_seconds);
        self.known("process_open_fds", process.open_files);
        self.known("process_max_fds", process.open_files_max);
        self.known("process_virtual_memory_bytes", process.virtual_bytes);
        self.known("process_resident_memory_bytes", process.resident_bytes);
        self.known("process_threads", process.threads);
        self.known("process_start_time_seconds", process.started_at);
    }

    fn known(&mut self, name: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.plain(name, value);
        }
    }

    fn plain(&mut self, name: &str, value: impl Display) {
        self.labelled(name, &[], value);
    }

    /// Writes help and type of a metric before its first value.
    fn header(&mut self, name: &str) -> &'static Metric {
        let metric = METRICS
            .iter()
            .find(|metric| metric.name == name)
            .expect("every metric stands in METRICS");
        if self.last != metric.name {
            self.last = metric.name;
            let kind = metric.kind.name();
            let _ = writeln!(self.text, "# HELP {name} {}\n# TYPE {name} {kind}", metric.help);
        }
        metric
    }

    fn labelled(&mut self, name: &str, values: &[&str], value: impl Display) {
        let metric = self.header(name);
        assert_eq!(metric.labels.len(), values.len(), "{name} has other labels");
        let labels: Vec<String> = metric
            .labels
            .iter()
            .zip(values)
            .map(|(label, value)| format!("{label}=\"{value}\""))
            .collect();
        let labels = match labels.len() {
            0 => String::new(),
            _ => format!("{{{}}}", labels.join(",")),
        };
        let _ = writeln!(self.text, "{name}{labels} {value}");
    }
}

#[cfg(test)]
mod tests {
    use brokers::memory::Ceilings;

    use super::*;

    #[test]
    fn every_metric_of_the_table_is_in_the_output_and_in_the_documentation() {
        let http = HttpCounts::default();
        http.refused(403);
        http.called("default", "publish", 0);
        http.refusals.count(super::super::RefusalSubject::Token, "signature");
        let mut totals = Totals::default();
        let mut closes = CloseCounts::default();
        closes.count(3001);
        totals.add(WorkerReport { closes, ..WorkerReport::default() });
        let clock = std::sync::Arc::new(crate::clock::ServerClock::start());
        let broker = brokers::MemoryBroker::new(clock, "e".to_owned());
        let backend = BackendStats {
            name: "rpc.proxy".to_owned(),
            breaker: BreakerState::Open,
            opened: 1,
            in_flight: 0,
            waiting: 0,
            calls: proxy::stats::CallCounts::default(),
        };
        let page = render(
            &totals,
            &http,
            &BrokerParts::of(std::sync::Arc::new(broker)),
            &Usage::new(Ceilings::default()),
            &NodeReport {
                uptime_seconds: 1,
                consumers: vec![("orders".into(), ConsumerSnapshot::default())],
                sinks: vec![SinkStats { name: "backend".into(), ..SinkStats::default() }],
                backends: vec![backend],
            },
        );
        let seen: Vec<&str> = page
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .filter_map(|line| line.split(' ').next())
            .collect();
        let documented: Vec<&str> = METRICS.iter().map(|metric| metric.name).collect();
        assert_eq!(seen, documented);
        assert!(page.contains("tidings_connections_closed_total{code=\"3001\"} 1\n"));
        assert!(page.contains("tidings_api_calls_total{method=\"publish\",code=\"0\"} 1\n"));
        // UPDATE_EXPECT=1 rewrites the page.
        expect_test::expect_file!["../../../../docs/metrics.md"].assert_eq(&reference());
    }
}
