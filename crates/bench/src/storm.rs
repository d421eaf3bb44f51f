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
use super::caller::Caller;
use super::clock;
use super::gauge::Processor;
use super::ledger::Ledger;
use super::line::{Desk, Line, LineEvent};
use super::pipe;
use super::plan::{GeneratorCommand, Note, StormPlan, Voice};
use super::stamp::{Stamp, StampReader};
use super::tally::{Faults, Tally};
use super::worker::{connect, source};

const WAKE: Token = Token(usize::MAX);
const CALLER: Token = Token(usize::MAX - 1);
/// Tokens that are signed beforehand; clients use them in turn.
const GREETINGS: u32 = 500;
/// Clients from one source address before it is the next one's turn: each leaves by a reset, so its
/// port is free again.
const CLIENTS_PER_ADDRESS: u64 = 1_000;
/// How long the last clients may take once no more come.
const PATIENCE_NS: u64 = 10_000_000_000;

/// Runs such a process.
pub(crate) fn storm(sign: TokenSigner) -> anyhow::Result<()> {
    let plan: StormPlan = pipe::receive()?.context("there is no plan")?;
    rlimit::increase_nofile_limit(u64::MAX)?;
    let mut storm = Storm::new(plan, sign)?;
    if let Err(failure) = storm.run() {
        pipe::say(&Note::Failed(failure));
    }
    storm.report();
    Ok(())
}

struct Storm {
    plan: StormPlan,
    poll: Poll,
    orders: Receiver<GeneratorCommand>,
    desk: Desk,
    reader: StampReader,
    greetings: Vec<Command>,
    /// Where clients hold their channel, by channel of this process; empty until its scout has
    /// returned.
    positions: Vec<Option<(String, u64)>>,
    visitors: Slab<Visitor>,
    /// Clients dialled so far.
    dialled: u64,
    tally: Tally,
    run: Option<Run>,
    next_sample: u64,
}

struct Visitor {
    line: Line,
    /// Channel of this process.
    channel: u32,
}

struct Run {
    begin: u64,
    end: u64,
    processor: Processor,
}

impl Storm {
    fn new(plan: StormPlan, sign: TokenSigner) -> anyhow::Result<Storm> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKE)?;
        let orders = pipe::orders(waker);
        let greetings = (0..GREETINGS)
            .map(|number| connect(&plan.target, plan.first_channel + number, sign))
            .collect::<Result<_, _>>()
            .map_err(anyhow::Error::msg)?;
        Ok(Storm {
            poll,
            orders,
            desk: Desk::new(),
            reader: StampReader::new(),
            greetings,
            positions: vec![None; plan.channels as usize],
            visitors: Slab::new(),
            dialled: 0,
            tally: Tally::default(),
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
            for event in events.iter().filter(|event| event.token().0 < CALLER.0) {
                self.handle(event.token().0)?;
            }
            if !is_reported && self.visitors.is_empty() {
                is_reported = true;
                pipe::say(&Note::Ready);
            }
            if self.is_over()? {
                return Ok(());
            }
        }
    }

    /// Publishes what clients will have missed.
    fn publish_past(&mut self) -> Result<(), String> {
        let Voice::Api { address, authority, security, path, key, .. } = &self.plan.voice else {
            return Ok(());
        };
        let mut random = Rng::with_seed(u64::from(self.plan.first_channel));
        let registry = self.poll.registry();
        let server = (*address, authority.as_str(), security.as_ref());
        let mut caller = Caller::dial(server, (path, key), 1, registry, CALLER)?;
        for channel in 0..self.plan.channels {
            let name = self.plan.target.channel_name(self.plan.first_channel + channel);
            for number in 0..u64::from(self.plan.recover) {
                let mut data = Vec::new();
                let stamp = Stamp { stream: channel, number, planned: 0 };
                self.plan.payload.write(stamp, &mut random, &mut data);
                caller.publish(&name, &data)?;
            }
        }
        let missing = u64::from(self.plan.channels) * u64::from(self.plan.recover);
        let (mut answered, mut buffer) = (0, [0; 4096]);
        let mut events = Events::with_capacity(16);
        while answered < missing {
            self.poll.poll(&mut events, None).map_err(|error| error.to_string())?;
            answered += caller.handle(&mut buffer)?;
        }
        Ok(())
    }

    /// One more client. Without a position its channel's scout, which learns it.
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
        let greeting = self.greetings[(number % u64::from(GREETINGS)) as usize].clone();
        let request = Request::Subscribe(Box::new(request));
        let greeting = [greeting, Command { id: 2, request }];
        let entry = self.visitors.vacant_entry();
        let from = source(target, number / CLIENTS_PER_ADDRESS);
        let line = Line::dial(target, from, &greeting, self.poll.registry(), Token(entry.key()))?;
        entry.insert(Visitor { line, channel });
        Ok(())
    }

    fn handle(&mut self, slot: usize) -> Result<(), String> {
        let Self { visitors, desk, .. } = self;
        let Some(visitor) = visitors.get_mut(slot) else { return Ok(()) };
        let mut joined: Option<Box<SubscribeResult>> = None;
        visitor.line.handle(desk, |event| {
            if let LineEvent::Reply(reply) = event
                && let ReplyBody::Subscribe(result) = reply.body
            {
                joined = Some(result);
            }
        })?;
        let Some(joined) = joined else { return Ok(()) };
        let visitor = self.visitors.remove(slot);
        let took = clock::now().saturating_sub(visitor.line.dialled);
        let position = &mut self.positions[visitor.channel as usize];
        if position.is_none() {
            if !joined.recoverable || joined.offset < u64::from(self.plan.recover) {
                return Err("the channels keep no history to recover from".to_owned());
            }
            *position = Some((joined.epoch, joined.offset - u64::from(self.plan.recover)));
        } else {
            self.check(visitor.channel, &joined);
            self.tally.joining.record(took);
            self.tally.joins += 1;
        }
        visitor.line.reset();
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
        let mut ledger = Ledger::new(channel, 1);
        if joined.recovered {
            for publication in &joined.publications {
                match self.reader.find(&publication.data) {
                    Some(stamp) if ledger.take(stamp, &mut self.tally.faults) => {
                        self.tally.deliveries += 1;
                    }
                    Some(_) => {}
                    None => self.tally.faults.misrouted += 1,
                }
            }
        }
        let lost = ledger.lost(|_| u64::from(self.plan.recover));
        self.tally.faults.add(Faults { lost, ..Faults::default() });
    }

    /// Orders, samples, and whether the last client has left.
    fn is_over(&mut self) -> Result<bool, String> {
        loop {
            match self.orders.try_recv() {
                Ok(GeneratorCommand::Go(at)) => self.begin(at)?,
                Ok(GeneratorCommand::Expect(_)) => {}
                Ok(GeneratorCommand::Stop) | Err(TryRecvError::Disconnected) => return Ok(true),
                Err(TryRecvError::Empty) => break,
            }
        }
        let now = clock::now();
        let Some(run) = &self.run else { return Ok(false) };
        if now >= self.next_sample {
            let Tally { deliveries, joins, .. } = self.tally;
            pipe::say(&Note::Sample { deliveries, published: joins });
            self.next_sample = now + self.plan.sample_ms * 1_000_000;
        }
        if now > run.end + PATIENCE_NS {
            return Err(format!("{} clients got no answer", self.visitors.len()));
        }
        Ok(now >= run.end && self.visitors.is_empty())
    }

    fn begin(&mut self, begin: u64) -> Result<(), String> {
        self.desk.bytes = 0;
        self.tally = Tally::default();
        let processor = Processor::of("self").unwrap_or_default();
        self.run = Some(Run { begin, end: begin + self.plan.duration_ms * 1_000_000, processor });
        for number in 0..self.plan.window {
            self.dial(number % self.plan.channels)?;
        }
        Ok(())
    }

    fn report(&mut self) {
        self.tally.bytes = self.desk.bytes;
        if let Some(run) = &self.run {
            let spent = Processor::of("self").unwrap_or_default().since(run.processor);
            self.tally.processor_ns = spent.total_ns as u64;
            self.tally.pressed_most_ns = (spent.total_ns + spent.waited_ns) as u64;
            self.tally.took_ns = clock::now().saturating_sub(run.begin);
        }
        pipe::say(&Note::Result(Box::new(std::mem::take(&mut self.tally))));
    }
}
