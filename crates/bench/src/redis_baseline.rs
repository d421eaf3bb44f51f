//! The limit that a cluster is compared with: no server of ours, but PUBLISH on one connection to
//! Redis and what comes of it on another, both in one process that waits and measures as those full
//! of clients do.
//!
//! Invariant: one message is one write and one command; nothing else is asked of Redis while it
//! runs.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};

use super::clock::{self, Alarm};
use super::plan::{GeneratorCommand, ProcessEvent, RedisBaselinePlan};
use super::process_pipe;
use super::process_usage::CpuTime;
use super::publication_tag::{PublicationTag, TagReader};
use super::publish_schedule::PublishSchedule;
use super::received_streams::ReceivedStreams;
use super::run_totals::RunTotals;

const WAKE: Token = Token(0);
const ALARM: Token = Token(1);
const PUBLISHER: Token = Token(2);
const SUBSCRIBER: Token = Token(3);

/// Without a delivery for so long, what is missing is lost.
const PATIENCE_NS: u64 = 3_000_000_000;

/// Runs such a process.
pub(crate) fn run() -> anyhow::Result<()> {
    let plan: RedisBaselinePlan = process_pipe::receive()?.context("there is no plan")?;
    let mut relay = match RedisBaseline::new(plan) {
        Ok(relay) => relay,
        Err(error) => {
            process_pipe::send(&ProcessEvent::Failed(format!("{error:#}")));
            process_pipe::send(&ProcessEvent::Result(Box::default()));
            return Ok(());
        }
    };
    process_pipe::send(&ProcessEvent::Ready);
    if let Err(error) = relay.run() {
        process_pipe::send(&ProcessEvent::Failed(format!("{error:#}")));
    }
    relay.report();
    Ok(())
}

struct RedisBaseline {
    plan: RedisBaselinePlan,
    poll: Poll,
    alarm: Alarm,
    commands: Receiver<GeneratorCommand>,
    publisher: TcpStream,
    subscriber: TcpStream,
    /// What came and is not a whole message yet.
    pending: Vec<u8>,
    message_length: usize,
    reader: TagReader,
    received: ReceivedStreams,
    totals: RunTotals,
    run: Option<Run>,
    expected: Option<u64>,
}

/// What is known since the start.
struct Run {
    schedule: PublishSchedule,
    begin: u64,
    end: u64,
    cpu_time: CpuTime,
    last_delivery: u64,
    next_sample: u64,
    is_published: bool,
}

impl RedisBaseline {
    fn new(plan: RedisBaselinePlan) -> anyhow::Result<RedisBaseline> {
        let poll = Poll::new()?;
        let commands = process_pipe::commands(Waker::new(poll.registry(), WAKE)?);
        let alarm = Alarm::new(poll.registry(), ALARM)?;
        let mut publisher = ready(connect(plan.address)?)?;
        let mut subscriber = subscribe(&plan)?;
        poll.registry().register(&mut publisher, PUBLISHER, Interest::READABLE)?;
        poll.registry().register(&mut subscriber, SUBSCRIBER, Interest::READABLE)?;
        let message =
            command(&["message", &plan.channel, &payload(&plan, PublicationTag::default())]);
        Ok(RedisBaseline {
            poll,
            alarm,
            commands,
            publisher,
            subscriber,
            pending: Vec::new(),
            message_length: message.len(),
            reader: TagReader::new(),
            received: ReceivedStreams::new(0, 1),
            totals: RunTotals::default(),
            run: None,
            expected: None,
            plan,
        })
    }

    fn run(&mut self) -> anyhow::Result<()> {
        let mut events = Events::with_capacity(8);
        let sample = Duration::from_millis(self.plan.sample_ms.max(1));
        while !self.is_over() {
            match self.poll.poll(&mut events, Some(sample)) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
                _ => {}
            }
            for event in &events {
                match event.token() {
                    SUBSCRIBER => self.receive()?,
                    PUBLISHER => self.read_answers()?,
                    _ => {}
                }
            }
            self.publish_due()?;
        }
        Ok(())
    }

    /// Commands, samples and what follows from the time; whether nothing more is to come.
    fn is_over(&mut self) -> bool {
        loop {
            match self.commands.try_recv() {
                Ok(GeneratorCommand::Go(at)) => self.begin(at),
                Ok(GeneratorCommand::Expect(streams)) => {
                    self.expected = Some(streams.iter().map(|(_, number)| number).sum());
                }
                Ok(GeneratorCommand::Stop) | Err(TryRecvError::Disconnected) => return true,
                Err(TryRecvError::Empty) => break,
            }
        }
        let now = clock::now();
        let Some(run) = &mut self.run else { return false };
        if now >= run.next_sample {
            let (deliveries, published) = (self.totals.deliveries, self.totals.published);
            process_pipe::send(&ProcessEvent::Sample { deliveries, published });
            run.next_sample = now + self.plan.sample_ms * 1_000_000;
        }
        if now >= run.end && !run.is_published {
            run.is_published = true;
            process_pipe::send(&ProcessEvent::Published(vec![(0, self.totals.published)]));
        }
        let Some(expected) = self.expected else { return false };
        let is_patient = now < run.last_delivery.max(run.end) + PATIENCE_NS;
        !is_patient || self.received.is_complete(|_| expected)
    }

    fn begin(&mut self, begin: u64) {
        let end = begin + self.plan.duration_ms * 1_000_000;
        self.run = Some(Run {
            schedule: PublishSchedule::open(begin, end, self.plan.rate),
            begin,
            end,
            cpu_time: CpuTime::of("self").unwrap_or_default(),
            last_delivery: 0,
            next_sample: 0,
            is_published: false,
        });
        // A poller that cannot be woken still wakes for each sample.
        let _late = self.alarm.set(begin);
    }

    /// Publishes everything whose time has come, and sets the alarm for the next.
    fn publish_due(&mut self) -> anyhow::Result<()> {
        let Some(run) = &mut self.run else { return Ok(()) };
        while let Some(planned) = run.schedule.next_due(clock::now()) {
            let tag = PublicationTag { stream: 0, number: self.totals.published, planned };
            let words = ["PUBLISH", &self.plan.channel, &payload(&self.plan, tag)];
            let bytes = command(&words);
            // A socket that takes only a part is far behind the planned rate.
            if self.publisher.write(&bytes).context("Redis is gone")? < bytes.len() {
                bail!("Redis is too slow for the planned rate");
            }
            self.totals.published += 1;
            self.totals.late.record(clock::now().saturating_sub(planned));
        }
        let _late = self.alarm.set(run.schedule.next().unwrap_or(run.end));
        Ok(())
    }

    /// Takes the messages that came.
    fn receive(&mut self) -> anyhow::Result<()> {
        let mut buffer = [0; 65_536];
        while let Some(count) = read(&mut self.subscriber, &mut buffer)? {
            let now = clock::now();
            self.pending.extend_from_slice(&buffer[..count]);
            self.totals.bytes += count as u64;
            let whole = self.pending.len() / self.message_length * self.message_length;
            for message in self.pending[..whole].chunks_exact(self.message_length) {
                let tag = self.reader.find(message).context("a message without a stamp")?;
                if !self.received.take(tag, &mut self.totals.faults) {
                    continue;
                }
                self.totals.deliveries += 1;
                let latency = now.saturating_sub(tag.planned);
                self.totals.latency.record(latency);
                self.totals.last.record(latency);
            }
            self.pending.drain(..whole);
            if let Some(run) = &mut self.run {
                run.last_delivery = now;
            }
        }
        Ok(())
    }

    /// Answers to PUBLISH are counts of receivers.
    fn read_answers(&mut self) -> anyhow::Result<()> {
        let mut buffer = [0; 4096];
        while let Some(count) = read(&mut self.publisher, &mut buffer)? {
            if buffer[..count].contains(&b'-') {
                bail!("Redis refuses: {}", String::from_utf8_lossy(&buffer[..count]).trim());
            }
        }
        Ok(())
    }

    /// Sends the result.
    fn report(&mut self) {
        let expected = self.expected.unwrap_or_default();
        self.totals.faults.lost += self.received.lost(|_| expected);
        if let Some(run) = &self.run {
            let spent = CpuTime::of("self").unwrap_or_default().since(run.cpu_time);
            self.totals.processor_ns = spent.total_ns as u64;
            self.totals.pressed_most_ns = (spent.total_ns + spent.waited_ns) as u64;
            self.totals.took_ns = run.last_delivery.saturating_sub(run.begin);
        }
        process_pipe::send(&ProcessEvent::Result(Box::new(std::mem::take(&mut self.totals))));
    }
}

fn connect(address: SocketAddr) -> anyhow::Result<std::net::TcpStream> {
    let cannot = || format!("cannot connect to Redis on {address}");
    let stream = std::net::TcpStream::connect(address).with_context(cannot)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Without waiting from here on.
fn ready(stream: std::net::TcpStream) -> anyhow::Result<TcpStream> {
    stream.set_nonblocking(true)?;
    Ok(TcpStream::from_std(stream))
}

/// A connection that is subscribed.
fn subscribe(plan: &RedisBaselinePlan) -> anyhow::Result<TcpStream> {
    let mut stream = connect(plan.address)?;
    stream.write_all(&command(&["SUBSCRIBE", &plan.channel]))?;
    let (channel, length) = (&plan.channel, plan.channel.len());
    let wanted = format!("*3\r\n$9\r\nsubscribe\r\n${length}\r\n{channel}\r\n:1\r\n");
    let mut answer = Vec::new();
    while answer.len() < wanted.len() && !answer.starts_with(b"-") {
        let mut part = [0; 1024];
        match stream.read(&mut part)? {
            0 => bail!("Redis closed the connection"),
            count => answer.extend_from_slice(&part[..count]),
        }
    }
    if answer != wanted.as_bytes() {
        bail!("Redis does not let it subscribe: {}", String::from_utf8_lossy(&answer).trim());
    }
    ready(stream)
}

/// What is there; `None` for nothing more.
fn read(stream: &mut TcpStream, buffer: &mut [u8]) -> anyhow::Result<Option<usize>> {
    match stream.read(buffer) {
        Ok(0) => bail!("Redis closed a connection"),
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error).context("Redis is gone"),
    }
}

/// All payloads have the same length, and so have the messages.
fn payload(plan: &RedisBaselinePlan, tag: PublicationTag) -> String {
    let mut data = Vec::new();
    tag.write(plan.size, &mut data);
    String::from_utf8(data).expect("a stamp is text")
}

/// Words as Redis takes them, and gives them.
fn command(words: &[&str]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len());
    for word in words {
        out.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    out.into_bytes()
}
