//! A process whose clients come as fast as the server takes them: each dials, connects, subscribes,
//! recovers what was published before it came, checks it, and leaves; then the next one comes.
//!
//! Invariant: so many are on their way at once and no more, and a client counts only when it has
//! everything it missed.

use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use anyhow::Context as _;
use fastrand::Rng;
use mio::{Events, Poll, Token, Waker};
use slab::Slab;
use wire::protocol::{Command, ReplyBody, Request, SubscribeRequest, SubscribeResult};

use super::TokenSigner;
use super::api_connection::ApiConnection;
use super::client_connection::{ClientConnection, ClientConnectionEvent, ReadBuffers};
use super::clock;
use super::plan::{GeneratorCommand, ProcessEvent, PublisherPlan, StormPlan};
use super::process_pipe;
use super::process_usage::CpuTime;
use super::publication_tag::{PublicationTag, TagReader};
use super::received_streams::ReceivedStreams;
use super::run_totals::{Faults, RunTotals};
use super::worker::{connect, source};

const WAKE: Token = Token(usize::MAX);
const API: Token = Token(usize::MAX - 1);
/// Tokens that are signed beforehand; clients use them in turn.
const CONNECT_COMMANDS: u32 = 500;
/// Clients from one source address before it is the next one's turn: each leaves by a reset, so its
/// port is free again.
const CLIENTS_PER_ADDRESS: u64 = 1_000;
/// How long the last clients may take once no more come.
const PATIENCE_NS: u64 = 10_000_000_000;

/// Runs such a process.
pub(crate) fn run(sign: TokenSigner) -> anyhow::Result<()> {
    let plan: StormPlan = process_pipe::receive()?.context("there is no plan")?;
    rlimit::increase_nofile_limit(u64::MAX)?;
    let mut storm = Storm::new(plan, sign)?;
    if let Err(failure) = storm.run() {
        process_pipe::send(&ProcessEvent::Failed(failure));
    }
    storm.report();
    Ok(())
}

struct Storm {
    plan: StormPlan,
    poll: Poll,
    commands: Receiver<GeneratorCommand>,
    buffers: ReadBuffers,
    reader: TagReader,
    connect_commands: Vec<Command>,
    /// From where clients recover, by channel of this process; empty until the first client has
    /// learned it.
    positions: Vec<Option<(String, u64)>>,
    clients: Slab<StormClient>,
    /// Clients dialled so far.
    dialled: u64,
    totals: RunTotals,
    run: Option<Run>,
    next_sample: u64,
}

struct StormClient {
    connection: ClientConnection,
    /// Channel of this process.
    channel: u32,
}

struct Run {
    begin: u64,
    end: u64,
    cpu_time: CpuTime,
}

impl Storm {
    fn new(plan: StormPlan, sign: TokenSigner) -> anyhow::Result<Storm> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKE)?;
        let commands = process_pipe::commands(waker);
        let connect_commands = (0..CONNECT_COMMANDS)
            .map(|number| connect(&plan.target, plan.first_channel + number, sign))
            .collect::<Result<_, _>>()
            .map_err(anyhow::Error::msg)?;
        Ok(Storm {
            poll,
            commands,
            buffers: ReadBuffers::new(),
            reader: TagReader::new(),
            connect_commands,
            positions: vec![None; plan.channels as usize],
            clients: Slab::new(),
            dialled: 0,
            totals: RunTotals::default(),
            run: None,
            next_sample: 0,
            plan,
        })
    }

    fn run(&mut self) -> Result<(), String> {
        self.publish_past()?;
        for channel in 0..self.plan.channels {
            self.dial(channel)?;
        }
        let mut events = Events::with_capacity(1024);
        let sample = Duration::from_millis(self.plan.sample_ms.max(1));
        let mut is_reported = false;
        loop {
            match self.poll.poll(&mut events, Some(sample)) {
                Err(error) if error.kind() != std::io::ErrorKind::Interrupted => {
                    return Err(format!("the poller fails: {error}"));
                }
                _ => {}
            }
            for event in events.iter().filter(|event| event.token().0 < API.0) {
                self.handle(event.token().0)?;
            }
            if !is_reported && self.clients.is_empty() {
                is_reported = true;
                process_pipe::send(&ProcessEvent::Ready);
            }
            if self.is_over()? {
                return Ok(());
            }
        }
    }

    /// Publishes what clients will have missed.
    fn publish_past(&mut self) -> Result<(), String> {
        let PublisherPlan::Api { api: target, .. } = &self.plan.publisher else { return Ok(()) };
        let mut random = Rng::with_seed(u64::from(self.plan.first_channel));
        let registry = self.poll.registry();
        let mut api = ApiConnection::dial(target, 1, registry, API)?;
        for channel in 0..self.plan.channels {
            let name = self.plan.target.channel_name(self.plan.first_channel + channel);
            for number in 0..u64::from(self.plan.recover) {
                let mut data = Vec::new();
                let tag = PublicationTag { stream: channel, number, planned: 0 };
                self.plan.payload.write(tag, &mut random, &mut data);
                api.publish(&name, &data)?;
            }
        }
        let missing = u64::from(self.plan.channels) * u64::from(self.plan.recover);
        let (mut answered, mut buffer) = (0, [0; 4096]);
        let mut events = Events::with_capacity(16);
        while answered < missing {
            self.poll.poll(&mut events, None).map_err(|error| error.to_string())?;
            answered += api.handle(&mut buffer)?;
        }
        Ok(())
    }

    /// One more client. The first one of a channel learns its position.
    fn dial(&mut self, channel: u32) -> Result<(), String> {
        let number = self.dialled;
        self.dialled += 1;
        let target = &self.plan.target;
        let name = target.channel_name(self.plan.first_channel + channel);
        let mut request =
            SubscribeRequest { channel: name, recoverable: true, ..SubscribeRequest::default() };
        if let Some((epoch, offset)) = &self.positions[channel as usize] {
            (request.recover, request.epoch, request.offset) = (true, epoch.clone(), *offset);
        }
        let first_commands =
            self.connect_commands[(number % u64::from(CONNECT_COMMANDS)) as usize].clone();
        let request = Request::Subscribe(Box::new(request));
        let first_commands = [first_commands, Command { id: 2, request }];
        let entry = self.clients.vacant_entry();
        let from = source(target, number / CLIENTS_PER_ADDRESS);
        let connection = ClientConnection::dial(
            target,
            from,
            &first_commands,
            self.poll.registry(),
            Token(entry.key()),
        )?;
        entry.insert(StormClient { connection, channel });
        Ok(())
    }

    fn handle(&mut self, slot: usize) -> Result<(), String> {
        let Self { clients, buffers, .. } = self;
        let Some(client) = clients.get_mut(slot) else { return Ok(()) };
        let mut joined: Option<Box<SubscribeResult>> = None;
        client.connection.handle(buffers, |event| {
            if let ClientConnectionEvent::Reply(reply) = event
                && let ReplyBody::Subscribe(result) = reply.body
            {
                joined = Some(result);
            }
        })?;
        let Some(joined) = joined else { return Ok(()) };
        let client = self.clients.remove(slot);
        let took = clock::now().saturating_sub(client.connection.dialled);
        let position = &mut self.positions[client.channel as usize];
        if position.is_none() {
            if !joined.recoverable || joined.offset < u64::from(self.plan.recover) {
                return Err("the channels keep no history to recover from".to_owned());
            }
            *position = Some((joined.epoch, joined.offset - u64::from(self.plan.recover)));
        } else {
            self.check(client.channel, &joined);
            self.totals.joining.record(took);
            self.totals.joins += 1;
        }
        client.connection.reset();
        if let Some(run) = &self.run
            && clock::now() < run.end
        {
            let channel = (self.dialled % u64::from(self.plan.channels)) as u32;
            self.dial(channel)?;
        }
        Ok(())
    }

    /// Whether what came is what was missed.
    fn check(&mut self, channel: u32, joined: &SubscribeResult) {
        let mut received = ReceivedStreams::new(channel, 1);
        if joined.recovered {
            for publication in &joined.publications {
                match self.reader.find(&publication.data) {
                    Some(tag) if received.take(tag, &mut self.totals.faults) => {
                        self.totals.deliveries += 1;
                    }
                    Some(_) => {}
                    None => self.totals.faults.misrouted += 1,
                }
            }
        }
        let lost = received.lost(|_| u64::from(self.plan.recover));
        self.totals.faults.add(Faults { lost, ..Faults::default() });
    }

    /// Commands, samples, and whether the last client has left.
    fn is_over(&mut self) -> Result<bool, String> {
        loop {
            match self.commands.try_recv() {
                Ok(GeneratorCommand::Go(at)) => self.begin(at)?,
                Ok(GeneratorCommand::Expect(_)) => {}
                Ok(GeneratorCommand::Stop) | Err(TryRecvError::Disconnected) => return Ok(true),
                Err(TryRecvError::Empty) => break,
            }
        }
        let now = clock::now();
        let Some(run) = &self.run else { return Ok(false) };
        if now >= self.next_sample {
            let RunTotals { deliveries, joins, .. } = self.totals;
            process_pipe::send(&ProcessEvent::Sample { deliveries, published: joins });
            self.next_sample = now + self.plan.sample_ms * 1_000_000;
        }
        if now > run.end + PATIENCE_NS {
            return Err(format!("{} clients got no answer", self.clients.len()));
        }
        Ok(now >= run.end && self.clients.is_empty())
    }

    fn begin(&mut self, begin: u64) -> Result<(), String> {
        self.buffers.bytes = 0;
        self.totals = RunTotals::default();
        let cpu_time = CpuTime::of("self").unwrap_or_default();
        self.run = Some(Run { begin, end: begin + self.plan.duration_ms * 1_000_000, cpu_time });
        for number in 0..self.plan.window {
            self.dial(number % self.plan.channels)?;
        }
        Ok(())
    }

    fn report(&mut self) {
        self.totals.bytes = self.buffers.bytes;
        if let Some(run) = &self.run {
            let spent = CpuTime::of("self").unwrap_or_default().since(run.cpu_time);
            self.totals.processor_ns = spent.total_ns as u64;
            self.totals.pressed_most_ns = (spent.total_ns + spent.waited_ns) as u64;
            self.totals.took_ns = clock::now().saturating_sub(run.begin);
        }
        process_pipe::send(&ProcessEvent::Result(Box::new(std::mem::take(&mut self.totals))));
    }
}
