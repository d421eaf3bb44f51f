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
use super::api_connection::ApiConnection;
use super::client_connection::{ClientConnection, ClientConnectionEvent, ReadBuffers};
use super::clock::{self, Alarm};
use super::in_flight::InFlight;
use super::plan::{
    ClientLogin, GeneratorCommand, Load, Plan, ProcessEvent, PublisherPlan, ServerTarget,
};
use super::process_pipe;
use super::process_usage::CpuTime;
use super::publication_tag::{PublicationTag, TagReader};
use super::publish_schedule::PublishSchedule;
use super::received_streams::ReceivedStreams;
use super::run_totals::{LatencyHistogram, RunTotals};

const WAKE: Token = Token(usize::MAX);
const ALARM: Token = Token(usize::MAX - 1);
const PUBLISHER: Token = Token(usize::MAX - 2);
/// Connections to the server API count from here.
const API_CONNECTIONS: usize = usize::MAX / 2;

/// Clients that are on their way to the server at once.
const DIALLING_MAX: u32 = 256;
/// Clients from one loopback address, well below the ports that there are.
const CLIENTS_PER_ADDRESS: u32 = 5_000;
/// Events between two looks at what is due.
const EVENTS_PER_LOOK: usize = 64;
/// Without a delivery for so long, what is missing is lost.
const PATIENCE_NS: u64 = 3_000_000_000;

/// Runs such a process.
pub(crate) fn run(sign: TokenSigner) -> anyhow::Result<()> {
    let plan: Plan = process_pipe::receive()?.context("there is no plan")?;
    rlimit::increase_nofile_limit(u64::MAX)?;
    let mut worker = Worker::new(plan, sign)?;
    if let Err(failure) = worker.run() {
        process_pipe::send(&ProcessEvent::Failed(failure));
    }
    worker.report();
    Ok(())
}

struct Worker {
    plan: Plan,
    sign: TokenSigner,
    poll: Poll,
    alarm: Alarm,
    commands: Receiver<GeneratorCommand>,
    buffers: ReadBuffers,
    clients: Vec<Client>,
    api_connections: Vec<ApiConnection>,
    publisher: Option<(ClientConnection, bool)>,
    gathering: Gathering,
    schedule: Option<PublishSchedule>,
    in_flight: Vec<InFlight>,
    /// Publications made, by stream of this process.
    numbers: Vec<u64>,
    answered: u64,
    expected: Option<Vec<u64>>,
    totals: RunTotals,
    run: Option<Run>,
    next_sample: u64,
    /// Connections cut so far.
    deaths: u64,
    random: Rng,
}

struct Client {
    connection: ClientConnection,
    received: ReceivedStreams,
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
    cpu_time: CpuTime,
    last_delivery: u64,
    is_published: bool,
}

impl Worker {
    fn new(plan: Plan, sign: TokenSigner) -> anyhow::Result<Worker> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKE)?;
        let alarm = Alarm::new(poll.registry(), ALARM)?;
        let commands = process_pipe::commands(waker);
        // Publications are tracked for all streams that its clients may receive.
        let channels = match plan.clients {
            0 => 0,
            clients => plan.channel_of_client(plan.first_client + clients - 1) + 1,
        };
        let in_flight =
            (0..channels * plan.streams_per_channel).map(|_| InFlight::default()).collect();
        Ok(Worker {
            poll,
            alarm,
            commands,
            buffers: ReadBuffers::new(),
            clients: Vec::with_capacity(plan.clients as usize),
            api_connections: Vec::new(),
            publisher: None,
            gathering: Gathering::default(),
            schedule: None,
            in_flight,
            numbers: vec![0; plan.streams as usize],
            answered: 0,
            expected: None,
            totals: RunTotals::default(),
            run: None,
            next_sample: 0,
            deaths: 0,
            random: Rng::with_seed(u64::from(plan.first_client)),
            plan,
            sign,
        })
    }

    fn run(&mut self) -> Result<(), String> {
        self.dial_publisher()?;
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

    /// Commands, samples and what follows from the time; whether nothing more is to come.
    fn is_over(&mut self) -> bool {
        loop {
            match self.commands.try_recv() {
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
            let (deliveries, published) = (self.totals.deliveries, self.totals.published);
            process_pipe::send(&ProcessEvent::Sample { deliveries, published });
            self.next_sample = now + self.plan.sample_ms * 1_000_000;
        }
        let is_answered = self.answered >= self.totals.published;
        if now >= run.end && !run.is_published && is_answered {
            run.is_published = true;
            let numbers = (self.plan.first_stream..).zip(self.numbers.iter().copied());
            process_pipe::send(&ProcessEvent::Published(numbers.collect()));
        }
        let Some(expected) = &self.expected else { return false };
        let published = |stream: u32| expected.get(stream as usize).copied().unwrap_or(0);
        let is_patient = now < run.last_delivery.max(run.end) + PATIENCE_NS;
        let is_done = |client: &Client| client.is_live && client.received.is_complete(published);
        !is_patient || self.clients.iter().all(is_done)
    }

    fn begin(&mut self, at: u64) {
        let end = at + self.plan.duration_ms * 1_000_000;
        self.schedule = match self.plan.load {
            Load::Hold => None,
            Load::Rate(rate) => Some(PublishSchedule::open(at, end, rate)),
            Load::Window(window) => Some(PublishSchedule::closed(at, end, window)),
        };
        self.buffers.bytes = 0;
        if self.plan.deaths > 0.0 {
            self.totals.joining = LatencyHistogram::default();
        }
        let cpu_time = CpuTime::of("self").unwrap_or_default();
        self.run = Some(Run { begin: at, end, cpu_time, last_delivery: 0, is_published: false });
        let first = if self.schedule.is_some() && self.plan.streams > 0 { at } else { end };
        // A poller that cannot be woken still wakes for each sample.
        let _late = self.alarm.set(first);
    }

    /// Sends the result.
    fn report(&mut self) {
        let expected = self.expected.take().unwrap_or_default();
        let published = |stream: u32| expected.get(stream as usize).copied().unwrap_or(0);
        for client in &self.clients {
            self.totals.faults.lost += client.received.lost(published);
        }
        self.totals.bytes = self.buffers.bytes;
        if let Some(run) = &self.run {
            let cpu_time = CpuTime::of("self").unwrap_or_default();
            let spent = cpu_time.since(run.cpu_time);
            self.totals.processor_ns = spent.total_ns as u64;
            self.totals.pressed_most_ns = (spent.total_ns + spent.waited_ns) as u64;
            self.totals.took_ns = run.last_delivery.saturating_sub(run.begin);
        }
        process_pipe::send(&ProcessEvent::Result(Box::new(std::mem::take(&mut self.totals))));
        self.clients.drain(..).for_each(|client| client.connection.reset());
    }

    fn dial_publisher(&mut self) -> Result<(), String> {
        if self.plan.streams == 0 {
            return Ok(());
        }
        match &self.plan.publisher {
            PublisherPlan::Api { api, connections, batch } => {
                for index in 0..*connections as usize {
                    let token = Token(API_CONNECTIONS + index);
                    let registry = self.poll.registry();
                    let connection = ApiConnection::dial(api, *batch, registry, token)?;
                    self.api_connections.push(connection);
                }
            }
            PublisherPlan::Client(target) => {
                let first_commands = [connect(target, u32::MAX, self.sign)?];
                let registry = self.poll.registry();
                let connection =
                    ClientConnection::dial(target, None, &first_commands, registry, PUBLISHER)?;
                self.publisher = Some((connection, false));
            }
            PublisherPlan::Subscribers | PublisherPlan::Nobody => {}
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
        let is_publisher_ready = self.api_connections.iter().all(ApiConnection::is_connected)
            && self.publisher.as_ref().is_none_or(|(_, is_live)| *is_live);
        if !self.gathering.is_reported
            && self.gathering.live == self.plan.clients
            && is_publisher_ready
        {
            self.gathering.is_reported = true;
            process_pipe::send(&ProcessEvent::Ready);
        }
        Ok(())
    }

    fn dial(&mut self, index: u32) -> Result<(), String> {
        let channel = self.plan.channel_of_client(self.plan.first_client + index);
        let connection = self.connection(index, None)?;
        let streams = self.plan.streams_per_channel;
        let received = ReceivedStreams::new(channel * streams, streams);
        self.clients.push(Client { connection, received, is_live: false, position: None });
        Ok(())
    }

    /// Dials for a client, which recovers where it has a position.
    fn connection(
        &self,
        index: u32,
        since: Option<(String, u64)>,
    ) -> Result<ClientConnection, String> {
        let number = self.plan.first_client + index;
        let target = &self.plan.target;
        let mut first_commands = Vec::new();
        if !target.is_bare {
            let channel = target.channel_name(self.plan.channel_of_client(number));
            let mut request = SubscribeRequest { channel, ..Default::default() };
            request.recoverable = self.plan.deaths > 0.0;
            if let Some((epoch, offset)) = since {
                (request.recover, request.epoch, request.offset) = (true, epoch, offset);
            }
            first_commands.push(connect(target, number, self.sign)?);
            first_commands.push(Command { id: 2, request: Request::Subscribe(Box::new(request)) });
        }
        let from = source(target, u64::from(number / CLIENTS_PER_ADDRESS));
        ClientConnection::dial(
            target,
            from,
            &first_commands,
            self.poll.registry(),
            Token(index as usize),
        )
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
            let connection =
                self.connection(index, Some((epoch, base + client.received.next())))?;
            let client = &mut self.clients[index as usize];
            client.is_live = false;
            std::mem::replace(&mut client.connection, connection).reset();
        }
        Ok(())
    }

    fn handle(&mut self, token: Token) -> Result<(), String> {
        if token.0 >= API_CONNECTIONS {
            return self.handle_publisher(token);
        }
        let Self {
            clients, buffers, totals, in_flight, plan, schedule, gathering, answered, ..
        } = self;
        let Some(client) = clients.get_mut(token.0) else { return Ok(()) };
        let now = clock::now();
        let mut is_received = false;
        let Client { connection, received, is_live, position } = client;
        let dialled = connection.dialled;
        connection.handle(buffers, |event| match event {
            ClientConnectionEvent::Delivery(tag) => {
                is_received = true;
                if !received.take(tag, &mut totals.faults) {
                    return;
                }
                totals.deliveries += 1;
                let latency = now.saturating_sub(tag.planned);
                totals.latency.record(latency);
                let listeners = plan.listeners(plan.channel_of_stream(tag.stream));
                if in_flight[tag.stream as usize].handle(tag, listeners) {
                    totals.last.record(latency);
                    if let Some(schedule) = schedule {
                        schedule.handle_completion();
                    }
                }
            }
            ClientConnectionEvent::Reply(reply) if reply.body == ReplyBody::Publish => {
                *answered += 1;
            }
            ClientConnectionEvent::Open if !plan.target.is_bare => {}
            ClientConnectionEvent::Reply(reply)
                if !matches!(reply.body, ReplyBody::Subscribe(_)) => {}
            ClientConnectionEvent::Reply(Reply { body: ReplyBody::Subscribe(joined), .. })
                if position.is_some() =>
            {
                *is_live = true;
                totals.joining.record(now.saturating_sub(dialled));
                let base = position.as_ref().map_or(0, |(_, base)| *base);
                is_received |= recover(received, base, &joined, totals);
            }
            ClientConnectionEvent::Open | ClientConnectionEvent::Reply(_) => {
                if let ClientConnectionEvent::Reply(Reply {
                    body: ReplyBody::Subscribe(joined),
                    ..
                }) = event
                    && plan.deaths > 0.0
                {
                    *position = Some((joined.epoch, joined.offset));
                }
                if !std::mem::replace(is_live, true) {
                    gathering.live += 1;
                    totals.joining.record(now.saturating_sub(dialled));
                    if gathering.live % 1000 == 0 {
                        process_pipe::send(&ProcessEvent::Connected(gathering.live));
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
    fn handle_publisher(&mut self, token: Token) -> Result<(), String> {
        match token {
            WAKE | ALARM => Ok(()),
            PUBLISHER => {
                let Some((connection, is_live)) = &mut self.publisher else { return Ok(()) };
                connection.handle(&mut self.buffers, |event| match event {
                    ClientConnectionEvent::Reply(reply) if reply.body == ReplyBody::Publish => {
                        self.answered += 1;
                    }
                    ClientConnectionEvent::Reply(reply) => {
                        *is_live |= matches!(reply.body, ReplyBody::Connect(_));
                    }
                    ClientConnectionEvent::Open | ClientConnectionEvent::Delivery(_) => {}
                })
            }
            Token(index) => {
                let mut buffer = [0; 4096];
                self.answered +=
                    self.api_connections[index - API_CONNECTIONS].handle(&mut buffer)?;
                Ok(())
            }
        }
    }

    /// Publishes everything whose time has come, and sets the alarm for the next.
    fn publish_due(&mut self) -> Result<(), String> {
        if self.plan.streams == 0 {
            return Ok(());
        }
        let was_pending = self.schedule.as_ref().is_some_and(PublishSchedule::is_pending);
        while let Some(planned) =
            self.schedule.as_mut().and_then(|schedule| schedule.next_due(clock::now()))
        {
            let index = (self.totals.published % u64::from(self.plan.streams)) as usize;
            self.publish(index, planned)?;
            self.totals.published += 1;
            self.totals.late.record(clock::now().saturating_sub(planned));
        }
        if was_pending && let Some(schedule) = &self.schedule {
            let at = schedule.next().or(self.run.as_ref().map(|run| run.end));
            if let Some(at) = at {
                let _late = self.alarm.set(at);
            }
        }
        Ok(())
    }

    fn publish(&mut self, index: usize, planned: u64) -> Result<(), String> {
        let stream = self.plan.first_stream + u32::try_from(index).expect("a plan counts in u32");
        let tag = PublicationTag { stream, number: self.numbers[index], planned };
        self.numbers[index] += 1;
        let mut data = Vec::new();
        self.plan.payload.write(tag, &mut self.random, &mut data);
        let channel = self.plan.target.channel_name(self.plan.channel_of_stream(stream));
        if !self.api_connections.is_empty() {
            let api = index % self.api_connections.len();
            return self.api_connections[api].publish(&channel, &data);
        }
        let connection = match &mut self.publisher {
            Some((connection, _)) => connection,
            None => &mut self.clients[(stream - self.plan.first_client) as usize].connection,
        };
        let request =
            Request::Publish(PublishRequest { channel, data: data.into(), ..Default::default() });
        connection.send(Command { id: 3, request })
    }
}

/// A client is back: takes what it missed, or that it was notified of a gap. Whether there was
/// anything.
fn recover(
    received: &mut ReceivedStreams,
    base: u64,
    joined: &SubscribeResult,
    totals: &mut RunTotals,
) -> bool {
    totals.joins += 1;
    if !joined.recovered {
        totals.refused += 1;
        received.skip(joined.offset.saturating_sub(base));
    }
    let (reader, before) = (TagReader::new(), totals.deliveries);
    for publication in &joined.publications {
        if let Some(tag) = reader.find(&publication.data) {
            totals.deliveries += u64::from(received.take(tag, &mut totals.faults));
        }
    }
    totals.deliveries > before
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
