//! A process full of clients: one thread, one poller. It gathers its clients, publishes what its
//! plan says at the times that its plan says, and checks everything that comes.
//!
//! Invariant: the planned time of a publication never depends on what happened before, except in a
//! closed loop.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use anyhow::Context as _;
use fastrand::Rng;
use mio::{Events, Poll, Token, Waker};
use wire::protocol::{
    Command, ConnectRequest, PublishRequest, Reply, ReplyBody, Request, SubscribeRequest,
    SubscribeResult,
};

use super::TokenSigner;
use super::caller::Caller;
use super::clock::{self, Alarm};
use super::gauge::Processor;
use super::ledger::Ledger;
use super::line::{Desk, Line, LineEvent};
use super::pace::Pace;
use super::pipe;
use super::plan::{ClientLogin, GeneratorCommand, Load, Note, Plan, ServerTarget, Voice};
use super::rounds::Rounds;
use super::stamp::{Stamp, StampReader};
use super::tally::{Tally, Times};

const WAKE: Token = Token(usize::MAX);
const ALARM: Token = Token(usize::MAX - 1);
const PUBLISHER: Token = Token(usize::MAX - 2);
/// Callers count from here.
const CALLERS: usize = usize::MAX / 2;

/// Clients that are on their way to the server at once.
const DIALLING_MAX: u32 = 256;
/// Clients from one loopback address, well below the ports that there are.
const CLIENTS_PER_ADDRESS: u32 = 5_000;
/// Events between two looks at what is due.
const EVENTS_PER_LOOK: usize = 64;
/// Without a delivery for so long, what is missing is lost.
const PATIENCE_NS: u64 = 3_000_000_000;

/// Runs such a process.
pub(crate) fn worker(sign: TokenSigner) -> anyhow::Result<()> {
    let plan: Plan = pipe::receive()?.context("there is no plan")?;
    rlimit::increase_nofile_limit(u64::MAX)?;
    let mut worker = Worker::new(plan, sign)?;
    if let Err(failure) = worker.run() {
        pipe::say(&Note::Failed(failure));
    }
    worker.report();
    Ok(())
}

struct Worker {
    plan: Plan,
    sign: TokenSigner,
    poll: Poll,
    alarm: Alarm,
    orders: Receiver<GeneratorCommand>,
    desk: Desk,
    clients: Vec<Client>,
    callers: Vec<Caller>,
    publisher: Option<(Line, bool)>,
    gathering: Gathering,
    pace: Option<Pace>,
    rounds: Vec<Rounds>,
    /// Publications made, by stream of this process.
    numbers: Vec<u64>,
    answered: u64,
    expected: Option<Vec<u64>>,
    tally: Tally,
    run: Option<Run>,
    next_sample: u64,
    /// Connections cut so far.
    deaths: u64,
    random: Rng,
}

struct Client {
    line: Line,
    ledger: Ledger,
    is_live: bool,
    /// Where its stream stood when it first came, where it is to recover.
    position: Option<(String, u64)>,
}

#[derive(Default)]
struct Gathering {
    live: u32,
    is_reported: bool,
}

/// What is known since the start.
struct Run {
    begin: u64,
    end: u64,
    processor: Processor,
    last_delivery: u64,
    is_published: bool,
}

impl Worker {
    fn new(plan: Plan, sign: TokenSigner) -> anyhow::Result<Worker> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKE)?;
        let alarm = Alarm::new(poll.registry(), ALARM)?;
        let orders = pipe::orders(waker);
        // Rounds are counted for all streams that its clients may hear.
        let channels = match plan.clients {
            0 => 0,
            clients => plan.channel_of_client(plan.first_client + clients - 1) + 1,
        };
        let rounds = (0..channels * plan.streams_per_channel).map(|_| Rounds::default()).collect();
        Ok(Worker {
            poll,
            alarm,
            orders,
            desk: Desk::new(),
            clients: Vec::with_capacity(plan.clients as usize),
            callers: Vec::new(),
            publisher: None,
            gathering: Gathering::default(),
            pace: None,
            rounds,
            numbers: vec![0; plan.streams as usize],
            answered: 0,
            expected: None,
            tally: Tally::default(),
            run: None,
            next_sample: 0,
            deaths: 0,
            random: Rng::with_seed(u64::from(plan.first_client)),
            plan,
            sign,
        })
    }

    fn run(&mut self) -> Result<(), String> {
        self.dial_voice()?;
        let mut events = Events::with_capacity(1024);
        let sample = Duration::from_millis(self.plan.sample_ms.max(1));
        loop {
            self.gather()?;
            match self.poll.poll(&mut events, Some(sample)) {
                Err(error) if error.kind() != std::io::ErrorKind::Interrupted => {
                    return Err(format!("the poller fails: {error}"));
                }
                _ => {}
            }
            for (index, event) in events.iter().enumerate() {
                self.handle(event.token())?;
                if index % EVENTS_PER_LOOK == EVENTS_PER_LOOK - 1 {
                    self.publish_due()?;
                }
            }
            self.publish_due()?;
            self.cut_due()?;
            if self.is_over() {
                return Ok(());
            }
        }
    }

    /// Orders, samples and what follows from the time; whether nothing more is to come.
    fn is_over(&mut self) -> bool {
        loop {
            match self.orders.try_recv() {
                Ok(GeneratorCommand::Go(at)) => self.begin(at),
                Ok(GeneratorCommand::Expect(streams)) => {
                    let count = streams.iter().map(|(stream, _)| stream + 1).max().unwrap_or(0);
                    let mut expected = vec![0; count as usize];
                    for (stream, number) in streams {
                        expected[stream as usize] = number;
                    }
                    self.expected = Some(expected);
                }
                Ok(GeneratorCommand::Stop) | Err(TryRecvError::Disconnected) => return true,
                Err(TryRecvError::Empty) => break,
            }
        }
        let now = clock::now();
        let Some(run) = &mut self.run else { return false };
        if now >= self.next_sample {
            let (deliveries, published) = (self.tally.deliveries, self.tally.published);
            pipe::say(&Note::Sample { deliveries, published });
            self.next_sample = now + self.plan.sample_ms * 1_000_000;
        }
        let is_answered = self.answered >= self.tally.published;
        if now >= run.end && !run.is_published && is_answered {
            run.is_published = true;
            let numbers = (self.plan.first_stream..).zip(self.numbers.iter().copied());
            pipe::say(&Note::Published(numbers.collect()));
        }
        let Some(expected) = &self.expected else { return false };
        let published = |stream: u32| expected.get(stream as usize).copied().unwrap_or(0);
        let is_patient = now < run.last_delivery.max(run.end) + PATIENCE_NS;
        let is_done = |client: &Client| client.is_live && client.ledger.is_complete(published);
        !is_patient || self.clients.iter().all(is_done)
    }

    fn begin(&mut self, at: u64) {
        let end = at + self.plan.duration_ms * 1_000_000;
        self.pace = match self.plan.load {
            Load::Hold => None,
            Load::Rate(rate) => Some(Pace::open(at, end, rate)),
            Load::Window(window) => Some(Pace::closed(at, end, window)),
        };
        self.desk.bytes = 0;
        if self.plan.deaths > 0.0 {
            self.tally.joining = Times::default();
        }
        let processor = Processor::of("self").unwrap_or_default();
        self.run = Some(Run { begin: at, end, processor, last_delivery: 0, is_published: false });
        let first = if self.pace.is_some() && self.plan.streams > 0 { at } else { end };
        // A poller that cannot be woken still wakes for each sample.
        let _late = self.alarm.set(first);
    }

    /// The last word.
    fn report(&mut self) {
        let expected = self.expected.take().unwrap_or_default();
        let published = |stream: u32| expected.get(stream as usize).copied().unwrap_or(0);
        for client in &self.clients {
            self.tally.faults.lost += client.ledger.lost(published);
        }
        self.tally.bytes = self.desk.bytes;
        if let Some(run) = &self.run {
            let processor = Processor::of("self").unwrap_or_default();
            let spent = processor.since(run.processor);
            self.tally.processor_ns = spent.total_ns as u64;
            self.tally.pressed_most_ns = (spent.total_ns + spent.waited_ns) as u64;
            self.tally.took_ns = run.last_delivery.saturating_sub(run.begin);
        }
        pipe::say(&Note::Result(Box::new(std::mem::take(&mut self.tally))));
        self.clients.drain(..).for_each(|client| client.line.reset());
    }

    fn dial_voice(&mut self) -> Result<(), String> {
        if self.plan.streams == 0 {
            return Ok(());
        }
        match &self.plan.voice {
            Voice::Api { address, authority, security, path, key, connections, batch } => {
                for index in 0..*connections as usize {
                    let token = Token(CALLERS + index);
                    let registry = self.poll.registry();
                    let server = (*address, authority.as_str(), security.as_ref());
                    let caller = Caller::dial(server, (path, key), *batch, registry, token)?;
                    self.callers.push(caller);
                }
            }
            Voice::Publisher(target) => {
                let greeting = [connect(target, u32::MAX, self.sign)?];
                let registry = self.poll.registry();
                let line = Line::dial(target, None, &greeting, registry, PUBLISHER)?;
                self.publisher = Some((line, false));
            }
            Voice::Members | Voice::Nobody => {}
        }
        Ok(())
    }

    /// Dials further clients, and reports when all are live.
    fn gather(&mut self) -> Result<(), String> {
        let count = |clients: &Vec<Client>| u32::try_from(clients.len()).unwrap_or(u32::MAX);
        while count(&self.clients) < self.plan.clients
            && count(&self.clients) - self.gathering.live < DIALLING_MAX
        {
            self.dial(count(&self.clients))?;
        }
        let is_voice_ready = self.callers.iter().all(Caller::is_connected)
            && self.publisher.as_ref().is_none_or(|(_, is_live)| *is_live);
        if !self.gathering.is_reported && self.gathering.live == self.plan.clients && is_voice_ready
        {
            self.gathering.is_reported = true;
            pipe::say(&Note::Ready);
        }
        Ok(())
    }

    fn dial(&mut self, index: u32) -> Result<(), String> {
        let channel = self.plan.channel_of_client(self.plan.first_client + index);
        let line = self.line(index, None)?;
        let streams = self.plan.streams_per_channel;
        let ledger = Ledger::new(channel * streams, streams);
        self.clients.push(Client { line, ledger, is_live: false, position: None });
        Ok(())
    }

    /// Dials for a client, which recovers where it has a position.
    fn line(&self, index: u32, since: Option<(String, u64)>) -> Result<Line, String> {
        let number = self.plan.first_client + index;
        let target = &self.plan.target;
        let mut greeting = Vec::new();
        if !target.is_bare {
            let channel = target.channel_name(self.plan.channel_of_client(number));
            let mut request = SubscribeRequest { channel, ..Default::default() };
            request.recoverable = self.plan.deaths > 0.0;
            if let Some((epoch, offset)) = since {
                (request.recover, request.epoch, request.offset) = (true, epoch, offset);
            }
            greeting.push(connect(target, number, self.sign)?);
            greeting.push(Command { id: 2, request: Request::Subscribe(Box::new(request)) });
        }
        let from = source(target, u64::from(number / CLIENTS_PER_ADDRESS));
        Line::dial(target, from, &greeting, self.poll.registry(), Token(index as usize))
    }

    /// Cuts those whose time has come; each comes back at once for what it misses.
    fn cut_due(&mut self) -> Result<(), String> {
        let Some(run) = &self.run else { return Ok(()) };
        let now = clock::now().min(run.end);
        let due = (now.saturating_sub(run.begin) as f64 / 1e9 * self.plan.deaths) as u64;
        while self.deaths < due {
            self.deaths += 1;
            let index = self.random.u32(..self.plan.clients);
            let client = &self.clients[index as usize];
            let Some((epoch, base)) = client.position.clone().filter(|_| client.is_live) else {
                // It is on its way back from its last death.
                continue;
            };
            let line = self.line(index, Some((epoch, base + client.ledger.next())))?;
            let client = &mut self.clients[index as usize];
            client.is_live = false;
            std::mem::replace(&mut client.line, line).reset();
        }
        Ok(())
    }

    fn handle(&mut self, token: Token) -> Result<(), String> {
        if token.0 >= CALLERS {
            return self.handle_voice(token);
        }
        let Self { clients, desk, tally, rounds, plan, pace, gathering, answered, .. } = self;
        let Some(client) = clients.get_mut(token.0) else { return Ok(()) };
        let now = clock::now();
        let mut is_received = false;
        let Client { line, ledger, is_live, position } = client;
        let dialled = line.dialled;
        line.handle(desk, |event| match event {
            LineEvent::Stamp(stamp) => {
                is_received = true;
                if !ledger.take(stamp, &mut tally.faults) {
                    return;
                }
                tally.deliveries += 1;
                let latency = now.saturating_sub(stamp.planned);
                tally.latency.record(latency);
                let listeners = plan.listeners(plan.channel_of_stream(stamp.stream));
                if rounds[stamp.stream as usize].handle(stamp, listeners) {
                    tally.last.record(latency);
                    if let Some(pace) = pace {
                        pace.handle_completion();
                    }
                }
            }
            LineEvent::Reply(reply) if reply.body == ReplyBody::Publish => *answered += 1,
            LineEvent::Open if !plan.target.is_bare => {}
            LineEvent::Reply(reply) if !matches!(reply.body, ReplyBody::Subscribe(_)) => {}
            LineEvent::Reply(Reply { body: ReplyBody::Subscribe(joined), .. })
                if position.is_some() =>
            {
                *is_live = true;
                tally.joining.record(now.saturating_sub(dialled));
                let base = position.as_ref().map_or(0, |(_, base)| *base);
                is_received |= recover(ledger, base, &joined, tally);
            }
            LineEvent::Open | LineEvent::Reply(_) => {
                if let LineEvent::Reply(Reply { body: ReplyBody::Subscribe(joined), .. }) = event
                    && plan.deaths > 0.0
                {
                    *position = Some((joined.epoch, joined.offset));
                }
                if !std::mem::replace(is_live, true) {
                    gathering.live += 1;
                    tally.joining.record(now.saturating_sub(dialled));
                    if gathering.live % 1000 == 0 {
                        pipe::say(&Note::Gathered(gathering.live));
                    }
                }
            }
        })?;
        if let Some(run) = &mut self.run
            && is_received
        {
            run.last_delivery = now;
        }
        Ok(())
    }

    /// Something is to be read or written by those who publish, or it is time for something.
    fn handle_voice(&mut self, token: Token) -> Result<(), String> {
        match token {
            WAKE | ALARM => Ok(()),
            PUBLISHER => {
                let Some((line, is_live)) = &mut self.publisher else { return Ok(()) };
                line.handle(&mut self.desk, |event| match event {
                    LineEvent::Reply(reply) if reply.body == ReplyBody::Publish => {
                        self.answered += 1;
                    }
                    LineEvent::Reply(reply) => {
                        *is_live |= matches!(reply.body, ReplyBody::Connect(_));
                    }
                    LineEvent::Open | LineEvent::Stamp(_) => {}
                })
            }
            Token(index) => {
                let mut buffer = [0; 4096];
                self.answered += self.callers[index - CALLERS].handle(&mut buffer)?;
                Ok(())
            }
        }
    }

    /// Publishes everything whose time has come, and sets the alarm for the next.
    fn publish_due(&mut self) -> Result<(), String> {
        if self.plan.streams == 0 {
            return Ok(());
        }
        let was_pending = self.pace.as_ref().is_some_and(Pace::is_pending);
        while let Some(planned) = self.pace.as_mut().and_then(|pace| pace.next_due(clock::now())) {
            let index = (self.tally.published % u64::from(self.plan.streams)) as usize;
            self.publish(index, planned)?;
            self.tally.published += 1;
            self.tally.late.record(clock::now().saturating_sub(planned));
        }
        if was_pending && let Some(pace) = &self.pace {
            let at = pace.next().or(self.run.as_ref().map(|run| run.end));
            if let Some(at) = at {
                let _late = self.alarm.set(at);
            }
        }
        Ok(())
    }

    fn publish(&mut self, index: usize, planned: u64) -> Result<(), String> {
        let stream = self.plan.first_stream + u32::try_from(index).expect("a plan counts in u32");
        let stamp = Stamp { stream, number: self.numbers[index], planned };
        self.numbers[index] += 1;
        let mut data = Vec::new();
        self.plan.payload.write(stamp, &mut self.random, &mut data);
        let channel = self.plan.target.channel_name(self.plan.channel_of_stream(stream));
        if !self.callers.is_empty() {
            let caller = index % self.callers.len();
            return self.callers[caller].publish(&channel, &data);
        }
        let line = match &mut self.publisher {
            Some((line, _)) => line,
            None => &mut self.clients[(stream - self.plan.first_client) as usize].line,
        };
        let request =
            Request::Publish(PublishRequest { channel, data: data.into(), ..Default::default() });
        line.say(Command { id: 3, request })
    }
}

/// A client is back: takes what it missed, or that it was notified of a gap. Whether there was
/// anything.
fn recover(ledger: &mut Ledger, base: u64, joined: &SubscribeResult, tally: &mut Tally) -> bool {
    tally.joins += 1;
    if !joined.recovered {
        tally.refused += 1;
        ledger.skip(joined.offset.saturating_sub(base));
    }
    let (reader, before) = (StampReader::new(), tally.deliveries);
    for publication in &joined.publications {
        if let Some(stamp) = reader.find(&publication.data) {
            tally.deliveries += u64::from(ledger.take(stamp, &mut tally.faults));
        }
    }
    tally.deliveries > before
}

/// One of the loopback's addresses, where that is where the server is.
pub(crate) fn source(target: &ServerTarget, number: u64) -> Option<IpAddr> {
    let is_near = target.address.ip().is_loopback() && target.address.is_ipv4();
    let last = u8::try_from(2 + number % 250).expect("below 252");
    is_near.then_some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)))
}

/// The command that opens a client's session.
pub(crate) fn connect(
    target: &ServerTarget,
    number: u32,
    sign: TokenSigner,
) -> Result<Command, String> {
    let token = match &target.admission {
        ClientLogin::Anonymous => String::new(),
        ClientLogin::Token(token) => token.clone(),
        ClientLogin::Secret(secret) => sign(secret, &format!("bench-{number}"))?,
    };
    let request = ConnectRequest { token, name: "tidings-bench".to_owned(), ..Default::default() };
    Ok(Command { id: 1, request: Request::Connect(Box::new(request)) })
}
