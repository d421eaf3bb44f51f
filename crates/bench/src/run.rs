//! One run: gathers, gives the signal, listens, and adds everything up.
//!
//! Invariant: each failure is reported once, and what was measured until then is kept.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::bail;

use crate::usage::usage_error;

use super::DurationParser;
use super::arguments::Scenario;
use super::clock;
use super::plan::{GeneratorCommand, ProcessEvent, PublisherPlan};
use super::process_usage::{self, CpuTime};
use super::processes::{ProcessKind, Processes};
use super::report::{Generator, MeasuredUsage, Memory, Quantiles, Report, Sample, ServerUsage};
use super::run_totals::RunTotals;
use super::workload::{self, Workload};

/// Time for the signal to reach all processes.
const HEAD_START_NS: u64 = 50_000_000;
/// No event for so long: something hangs.
const SILENCE: Duration = Duration::from_secs(60);
/// Lateness of the generator that puts its numbers in doubt.
const LATE_MAX_US: f64 = 5_000.0;
/// Part of a core from which on the generator is the bottleneck.
const BUSY_MAX: f64 = 0.95;

/// The server of a run.
struct MeasuredServer {
    /// Address that clients connected to.
    url: String,
    /// Seconds from the signal to the last delivery.
    seconds: f64,
    /// Its use of the machine, if it was measured.
    server: Option<ServerUsage>,
}

struct Run {
    processes: Processes,
    process: Option<u32>,
    begin: u64,
    /// Deliveries and publications so far, by process.
    counts: Vec<(u64, u64)>,
    last: (u64, u64, Option<CpuTime>),
    samples: Vec<Sample>,
    /// Bytes of the server while its clients were there, as read last.
    memory: Option<u64>,
    published: Vec<(u32, u64)>,
    publishers: usize,
    totals: RunTotals,
    results: usize,
    failures: Vec<String>,
}

/// Runs a scenario to its end.
pub(crate) fn run(scenario: &Scenario, parse_duration: DurationParser) -> anyhow::Result<Report> {
    let given = scenario.arguments();
    let duration_ms = parse_duration(&given.duration)?;
    if !(100..=86_400_000).contains(&duration_ms) {
        usage_error!("--duration must be from 100ms to 24h");
    }
    let workload = Workload::of(scenario)?;
    let StartedProcesses { processes, process, before, url, is_silent } =
        start(scenario, &workload, duration_ms)?;
    let mut run = Run::new(processes, process);
    run.gather(workload.clients());
    let spent = run.measure(workload::sample_ms(duration_ms), duration_ms);
    let held = if let Scenario::Storm(_) = scenario { 0 } else { workload.clients() };
    let memory = before.map(|before| Memory { before, after: run.memory.unwrap_or(before), held });
    let seconds = match is_silent {
        true => duration_ms as f64 / 1e3,
        false => run.seconds(),
    };
    let server = match (process, spent, memory) {
        (Some(process), Some((spent, seconds)), Some(memory)) => {
            let measured = MeasuredUsage { spent, seconds, memory };
            Some(ServerUsage::of(process, &measured, workload.clients(), &run.totals))
        }
        _ => None,
    };
    Ok(run.report(scenario, workload, MeasuredServer { url, seconds, server }))
}

/// The processes of a run, before the signal.
struct StartedProcesses {
    processes: Processes,
    /// The server's.
    process: Option<u32>,
    /// Bytes of the server before anybody came.
    before: Option<u64>,
    url: String,
    /// Whether nothing will be published.
    is_silent: bool,
}

fn start(
    scenario: &Scenario,
    workload: &Workload,
    duration_ms: u64,
) -> anyhow::Result<StartedProcesses> {
    let given = scenario.arguments();
    let mut processes = Processes::new();
    let mut process = given.server_pid;
    let memory =
        |process: Option<u32>| process.map(|id| process_usage::memory(&id.to_string())).transpose();
    if let Scenario::Relay(_) = scenario {
        let before = memory(process)?;
        processes.start(ProcessKind::Relay, &workload::relay_plan(given, duration_ms)?)?;
        return Ok(StartedProcesses {
            processes,
            process,
            before,
            url: given.url.clone(),
            is_silent: false,
        });
    }
    let mut target = workload::target(given)?;
    let mut url = given.url.clone();
    if let Scenario::Raw(_) = scenario {
        process = Some(processes.start(ProcessKind::Raw, &workload::raw_plan(given, duration_ms))?);
        target.address = listening(&processes)?;
        target.is_bare = true;
        url = target.address.to_string();
    }
    let publisher = workload::publisher(scenario, &target)?;
    let before = memory(process)?;
    if let Scenario::Storm(_) = scenario {
        for plan in workload::storm_plans(given, &target, &publisher, duration_ms)? {
            processes.start(ProcessKind::Storm, &plan)?;
        }
    } else {
        for plan in workload.plans(scenario, &target, &publisher, duration_ms)? {
            processes.start(ProcessKind::Worker, &plan)?;
        }
    }
    let is_silent = matches!(publisher, PublisherPlan::Nobody) && !target.is_bare;
    Ok(StartedProcesses { processes, process, before, url, is_silent })
}

/// Where the sending process of `raw` takes connections.
fn listening(processes: &Processes) -> anyhow::Result<std::net::SocketAddr> {
    match processes.receive(SILENCE) {
        Some((_, ProcessEvent::Listening(address))) => Ok(address),
        Some((_, ProcessEvent::Failed(failure))) => bail!(failure),
        _ => bail!("the sending process says nothing"),
    }
}

impl Run {
    fn new(processes: Processes, process: Option<u32>) -> Run {
        let counts = vec![(0, 0); processes.count()];
        Run {
            processes,
            process,
            begin: 0,
            counts,
            last: (0, 0, None),
            samples: Vec::new(),
            memory: None,
            published: Vec::new(),
            publishers: 0,
            totals: RunTotals::default(),
            results: 0,
            failures: Vec::new(),
        }
    }

    /// Waits until all clients are live.
    fn gather(&mut self, clients: u32) {
        let mut live = vec![0; self.processes.count()];
        let mut ready = 0;
        while ready < self.processes.count() && self.failures.is_empty() {
            match self.processes.receive(SILENCE) {
                Some((_, ProcessEvent::Ready)) => ready += 1,
                Some((index, ProcessEvent::Connected(count))) => {
                    live[index] = count;
                    progress(&format!("{} of {clients} connected", live.iter().sum::<u32>()));
                }
                Some((index, event)) => self.handle(index, event),
                None => self.handle_failure("the server does not answer".to_owned()),
            }
        }
    }

    /// From the signal to the last result; what the server used meanwhile, and the seconds it took.
    fn measure(
        &mut self,
        sample_ms: u64,
        duration_ms: u64,
    ) -> Option<(process_usage::CpuUsage, f64)> {
        let cpu_time = |process: Option<u32>| CpuTime::of(&process?.to_string()).ok();
        self.begin = clock::now() + HEAD_START_NS;
        if self.failures.is_empty() {
            self.processes.send_all(&GeneratorCommand::Go(self.begin));
        }
        let before = cpu_time(self.process);
        let (began, mut after, mut ended) = (clock::now(), before, clock::now());
        self.memory = self.process.and_then(|id| process_usage::memory(&id.to_string()).ok());
        self.last = (began, 0, before);
        let silence_ns = SILENCE.as_nanos() as u64 + duration_ms * 1_000_000;
        while self.results < self.processes.count() {
            if let Some((index, event)) = self.processes.receive(Duration::from_millis(sample_ms)) {
                self.handle(index, event);
            }
            let now = clock::now();
            if now - self.last.0 >= sample_ms * 1_000_000 || self.results == self.processes.count()
            {
                let current = cpu_time(self.process);
                self.sample(now, current);
                if current.is_some() {
                    (after, ended) = (current, now);
                }
                if self.results == 0 {
                    self.memory =
                        self.process.and_then(|id| process_usage::memory(&id.to_string()).ok());
                }
            }
            if now > began + silence_ns {
                self.handle_failure("a process of the generator does not answer".to_owned());
                break;
            }
        }
        clear_progress();
        let seconds = (ended - began) as f64 / 1e9;
        Some((after?.since(before?), seconds.max(0.001)))
    }

    fn handle(&mut self, index: usize, event: ProcessEvent) {
        match event {
            ProcessEvent::Sample { deliveries, published } => {
                self.counts[index] = (deliveries, published);
            }
            ProcessEvent::Published(streams) => {
                self.published.extend(streams);
                self.publishers += 1;
                if self.publishers == self.processes.count() {
                    self.processes
                        .send_all(&GeneratorCommand::Expect(std::mem::take(&mut self.published)));
                }
            }
            ProcessEvent::Failed(failure) => self.handle_failure(failure),
            ProcessEvent::Result(totals) => {
                self.counts[index] = (totals.deliveries, totals.published);
                self.totals.add(&totals);
                self.results += 1;
            }
            ProcessEvent::Listening(_) | ProcessEvent::Connected(_) | ProcessEvent::Ready => {}
        }
    }

    /// The first failure ends the run; what follows from it is not reported.
    fn handle_failure(&mut self, failure: String) {
        if self.failures.is_empty() {
            self.failures.push(failure);
            self.processes.send_all(&GeneratorCommand::Stop);
        }
    }

    fn sample(&mut self, now: u64, current: Option<CpuTime>) {
        let deliveries: u64 = self.counts.iter().map(|(deliveries, _)| deliveries).sum();
        let published: u64 = self.counts.iter().map(|(_, published)| published).sum();
        let (last, last_deliveries, last_processor) = self.last;
        let nanoseconds = (now - last).max(1) as f64;
        let rate = deliveries.saturating_sub(last_deliveries) as f64 * 1e9 / nanoseconds;
        let busy = current.zip(last_processor);
        let busy = busy.map(|(current, last)| current.since(last).total_ns / nanoseconds);
        self.samples.push(Sample {
            at_seconds: now.saturating_sub(self.begin) as f64 / 1e9,
            deliveries_per_second: rate,
            server_busy: busy,
        });
        self.last = (now, deliveries, current);
        let busy = busy
            .map_or_else(String::new, |busy| format!(", server {:.0} % of a core", busy * 100.0));
        progress(&format!("{published} published, {deliveries} delivered, {rate:.0} / s{busy}"));
    }

    /// Time to the last delivery.
    fn seconds(&self) -> f64 {
        (self.totals.took_ns as f64 / 1e9).max(0.001)
    }

    fn report(self, scenario: &Scenario, workload: Workload, measured: MeasuredServer) -> Report {
        let MeasuredServer { url, seconds, server } = measured;
        let Run { processes, samples, totals, failures, .. } = self;
        let given = scenario.arguments();
        let deliveries = totals.deliveries.max(1) as f64;
        let raws = usize::from(matches!(scenario, Scenario::Raw(_)));
        let generator = Generator {
            processes: processes.count() - raws,
            busiest: totals.pressed_most_ns as f64 / 1e9 / seconds,
            ns_per_delivery: totals.processor_ns as f64 / deliveries,
        };
        let late = Quantiles::of(&totals.late);
        let mut warnings = Vec::new();
        if generator.busiest > BUSY_MAX {
            warnings.push(
                "the generator used, or waited for, a whole core: the server may be faster than it can show; use --workers"
                    .to_owned(),
            );
        }
        if late.count > 0 && late.p99_us > LATE_MAX_US {
            let late = super::report::time(late.p99_us);
            warnings
                .push(format!("the generator sent late: 1 % of its messages by {late} or more"));
        }
        Report {
            scenario: scenario.name(),
            url,
            codec: given.codec,
            channels: workload.channels,
            connections: workload.clients(),
            sizes: given.size.clone(),
            seconds,
            is_complete: failures.is_empty(),
            failures,
            warnings,
            published: totals.published,
            deliveries: totals.deliveries,
            deliveries_per_second: totals.deliveries as f64 / seconds,
            bytes_per_delivery: totals.bytes as f64 / deliveries,
            faults: totals.faults,
            latency: Quantiles::of(&totals.latency),
            last_receiver: Quantiles::of(&totals.last),
            late,
            joining: Quantiles::of(&totals.joining),
            joins: totals.joins,
            joins_refused: totals.refused,
            joins_per_second: totals.joins as f64 / seconds,
            generator,
            server,
            samples,
            latency_classes: totals.latency.classes(1.3),
        }
    }
}

/// One line that the next one overwrites, on a terminal.
fn progress(text: &str) {
    let mut err = std::io::stderr();
    if err.is_terminal() {
        let _gone = write!(err, "\r\x1b[K{text}").and_then(|()| err.flush());
    }
}

fn clear_progress() {
    progress("");
}
