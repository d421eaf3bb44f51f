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
use super::crew::{Crew, ProcessKind};
use super::gauge::{self, Processor};
use super::plan::{GeneratorCommand, Note, Voice};
use super::report::{Generator, Memory, Quantiles, Report, Sample, ServerUsage};
use super::shape::{self, Shape};
use super::tally::Tally;

/// Time for the signal to reach all processes.
const HEAD_START_NS: u64 = 50_000_000;
/// Nothing is heard for so long: something hangs.
const SILENCE: Duration = Duration::from_secs(60);
/// Lateness of the generator that puts its numbers in doubt.
const LATE_MAX_US: f64 = 5_000.0;
/// Part of a core from which on the generator is the bottleneck.
const BUSY_MAX: f64 = 0.95;

struct Run {
    crew: Crew,
    process: Option<u32>,
    begin: u64,
    /// Deliveries and publications so far, by process.
    counts: Vec<(u64, u64)>,
    last: (u64, u64, Option<Processor>),
    samples: Vec<Sample>,
    /// Bytes of the server while its clients were there, as read last.
    memory: Option<u64>,
    published: Vec<(u32, u64)>,
    publishers: usize,
    tally: Tally,
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
    let shape = Shape::of(scenario)?;
    let Mustered { crew, process, before, url, is_silent } = muster(scenario, &shape, duration_ms)?;
    let mut run = Run::new(crew, process);
    run.gather(shape.clients());
    let spent = run.measure(shape::sample_ms(duration_ms), duration_ms);
    let held = if let Scenario::Storm(_) = scenario { 0 } else { shape.clients() };
    let memory = before.map(|before| Memory { before, after: run.memory.unwrap_or(before), held });
    let seconds = match is_silent {
        true => duration_ms as f64 / 1e3,
        false => run.seconds(),
    };
    let server = match (process, spent, memory) {
        (Some(process), Some((spent, wall)), Some(memory)) => {
            Some(ServerUsage::of(process, spent, memory, (shape.clients(), wall), &run.tally))
        }
        _ => None,
    };
    Ok(run.report(scenario, shape, (url, seconds), server))
}

/// The processes of a run, before the signal.
struct Mustered {
    crew: Crew,
    /// The server's.
    process: Option<u32>,
    /// Bytes of the server before anybody came.
    before: Option<u64>,
    url: String,
    /// Whether nothing will be published.
    is_silent: bool,
}

fn muster(scenario: &Scenario, shape: &Shape, duration_ms: u64) -> anyhow::Result<Mustered> {
    let given = scenario.arguments();
    let mut crew = Crew::new();
    let mut process = given.server_pid;
    let memory =
        |process: Option<u32>| process.map(|id| gauge::memory(&id.to_string())).transpose();
    if let Scenario::Relay(_) = scenario {
        let before = memory(process)?;
        crew.start(ProcessKind::Relay, &shape::relay_plan(given, duration_ms)?)?;
        return Ok(Mustered { crew, process, before, url: given.url.clone(), is_silent: false });
    }
    let mut target = shape::target(given)?;
    let mut url = given.url.clone();
    if let Scenario::Raw(_) = scenario {
        process = Some(crew.start(ProcessKind::Raw, &shape::raw_plan(given, duration_ms))?);
        target.address = listening(&crew)?;
        target.is_bare = true;
        url = target.address.to_string();
    }
    let voice = shape::voice(scenario, &target)?;
    let before = memory(process)?;
    if let Scenario::Storm(_) = scenario {
        for plan in shape::storm_plans(given, &target, &voice, duration_ms)? {
            crew.start(ProcessKind::Storm, &plan)?;
        }
    } else {
        for plan in shape.plans(scenario, &target, &voice, duration_ms)? {
            crew.start(ProcessKind::Worker, &plan)?;
        }
    }
    let is_silent = matches!(voice, Voice::Nobody) && !target.is_bare;
    Ok(Mustered { crew, process, before, url, is_silent })
}

/// Where the sending process of `raw` takes connections.
fn listening(crew: &Crew) -> anyhow::Result<std::net::SocketAddr> {
    match crew.receive(SILENCE) {
        Some((_, Note::Listening(address))) => Ok(address),
        Some((_, Note::Failed(failure))) => bail!(failure),
        _ => bail!("the sending process says nothing"),
    }
}

impl Run {
    fn new(crew: Crew, process: Option<u32>) -> Run {
        let counts = vec![(0, 0); crew.count()];
        Run {
            crew,
            process,
            begin: 0,
            counts,
            last: (0, 0, None),
            samples: Vec::new(),
            memory: None,
            published: Vec::new(),
            publishers: 0,
            tally: Tally::default(),
            results: 0,
            failures: Vec::new(),
        }
    }

    /// Waits until all clients are live.
    fn gather(&mut self, clients: u32) {
        let mut live = vec![0; self.crew.count()];
        let mut ready = 0;
        while ready < self.crew.count() && self.failures.is_empty() {
            match self.crew.receive(SILENCE) {
                Some((_, Note::Ready)) => ready += 1,
                Some((index, Note::Gathered(count))) => {
                    live[index] = count;
                    progress(&format!("{} of {clients} connected", live.iter().sum::<u32>()));
                }
                Some((index, note)) => self.handle(index, note),
                None => self.handle_failure("the server does not answer".to_owned()),
            }
        }
    }

    /// From the signal to the last result; what the server used meanwhile, and the seconds it took.
    fn measure(&mut self, sample_ms: u64, duration_ms: u64) -> Option<(gauge::Spent, f64)> {
        let processor = |process: Option<u32>| Processor::of(&process?.to_string()).ok();
        self.begin = clock::now() + HEAD_START_NS;
        if self.failures.is_empty() {
            self.crew.send_all(&GeneratorCommand::Go(self.begin));
        }
        let before = processor(self.process);
        let (began, mut after, mut ended) = (clock::now(), before, clock::now());
        self.memory = self.process.and_then(|id| gauge::memory(&id.to_string()).ok());
        self.last = (began, 0, before);
        let silence_ns = SILENCE.as_nanos() as u64 + duration_ms * 1_000_000;
        while self.results < self.crew.count() {
            if let Some((index, note)) = self.crew.receive(Duration::from_millis(sample_ms)) {
                self.handle(index, note);
            }
            let now = clock::now();
            if now - self.last.0 >= sample_ms * 1_000_000 || self.results == self.crew.count() {
                let current = processor(self.process);
                self.sample(now, current);
                if current.is_some() {
                    (after, ended) = (current, now);
                }
                if self.results == 0 {
                    self.memory = self.process.and_then(|id| gauge::memory(&id.to_string()).ok());
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

    fn handle(&mut self, index: usize, note: Note) {
        match note {
            Note::Sample { deliveries, published } => self.counts[index] = (deliveries, published),
            Note::Published(streams) => {
                self.published.extend(streams);
                self.publishers += 1;
                if self.publishers == self.crew.count() {
                    self.crew
                        .send_all(&GeneratorCommand::Expect(std::mem::take(&mut self.published)));
                }
            }
            Note::Failed(failure) => self.handle_failure(failure),
            Note::Result(tally) => {
                self.counts[index] = (tally.deliveries, tally.published);
                self.tally.add(&tally);
                self.results += 1;
            }
            Note::Listening(_) | Note::Gathered(_) | Note::Ready => {}
        }
    }

    /// The first failure ends the run; what follows from it is not reported.
    fn handle_failure(&mut self, failure: String) {
        if self.failures.is_empty() {
            self.failures.push(failure);
            self.crew.send_all(&GeneratorCommand::Stop);
        }
    }

    fn sample(&mut self, now: u64, current: Option<Processor>) {
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
        (self.tally.took_ns as f64 / 1e9).max(0.001)
    }

    fn report(
        self,
        scenario: &Scenario,
        shape: Shape,
        (url, seconds): (String, f64),
        server: Option<ServerUsage>,
    ) -> Report {
        let Run { crew, samples, tally, failures, .. } = self;
        let given = scenario.arguments();
        let deliveries = tally.deliveries.max(1) as f64;
        let raws = usize::from(matches!(scenario, Scenario::Raw(_)));
        let generator = Generator {
            processes: crew.count() - raws,
            busiest: tally.pressed_most_ns as f64 / 1e9 / seconds,
            ns_per_delivery: tally.processor_ns as f64 / deliveries,
        };
        let late = Quantiles::of(&tally.late);
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
            channels: shape.channels,
            connections: shape.clients(),
            sizes: given.size.clone(),
            seconds,
            is_complete: failures.is_empty(),
            failures,
            warnings,
            published: tally.published,
            deliveries: tally.deliveries,
            deliveries_per_second: tally.deliveries as f64 / seconds,
            bytes_per_delivery: tally.bytes as f64 / deliveries,
            faults: tally.faults,
            latency: Quantiles::of(&tally.latency),
            last_receiver: Quantiles::of(&tally.last),
            late,
            joining: Quantiles::of(&tally.joining),
            joins: tally.joins,
            joins_refused: tally.refused,
            joins_per_second: tally.joins as f64 / seconds,
            generator,
            server,
            samples,
            latency_classes: tally.latency.classes(1.3),
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
