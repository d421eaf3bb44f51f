//! A node and a server without a network between them.
//!
//! Invariant: every turn is answered at once, unless the test loses the answers.

use std::rc::Rc;
use std::time::Duration;

use engine::broker::{BrokerEvent, BrokerRequest};

use super::server::SimServer;
use crate::Endpoint;
use crate::redis::clock::{ClockReading, MonotonicTime};
use crate::redis::core::RedisCore;
use crate::redis::driver_messages::{ConnectionId, DriverEvent, Job, LinkCommand, LinkEvent};
use crate::redis::outputs::{CoreOutput, EndpointStates};
use crate::redis::resp::{Frame, RespDecoder};
use crate::redis::settings::{Deployment, Login, RedisParts, RedisSettings, ServerLocation};
use crate::redis::tests::model::scripts::Interpreter;
use crate::redis::unavailable::UnavailableReason;

/// A node that is connected to a server.
pub(super) struct Pair {
    pub(super) core: RedisCore,
    pub(super) server: SimServer,
    parts: RedisParts,
    connection_id: ConnectionId,
    time_ms: u64,
    next_client: u64,
}

/// All endpoints are attached and none is behind.
struct Attached;

impl EndpointStates for Attached {
    fn is_attached(&self, _: Endpoint) -> bool {
        true
    }

    fn is_full(&self, _: Endpoint) -> bool {
        false
    }
}

impl Pair {
    pub(super) fn new(parts: RedisParts) -> Pair {
        let server = SimServer::new(0, &Rc::new(Interpreter::new()), 64);
        Pair::start(server, parts, "n1", 1_000)
    }

    /// The node fails, and another one takes its place.
    pub(super) fn become_another_node(self, node: &str) -> Pair {
        let Pair { mut server, parts, next_client, time_ms, .. } = self;
        server.model.disconnect(next_client);
        Pair::start(server, parts, node, time_ms)
    }

    fn start(server: SimServer, parts: RedisParts, node: &str, time_ms: u64) -> Pair {
        let settings = RedisSettings {
            deployment: Deployment::Servers(vec![ServerLocation::At(server.address.clone())]),
            login: Login::default(),
            database: 0,
            tls: None,
            prefix: "sim".to_owned(),
            node: node.to_owned(),
            name: node.to_owned(),
            lease: Duration::from_secs(4),
            events_max: 100,
            seed: 1,
            connect_timeout: Duration::from_secs(1),
            io_timeout: Duration::from_secs(1),
            presence_ttl: Duration::from_secs(60),
            parts,
        };
        let start = MonotonicTime::after_start(Duration::from_millis(time_ms));
        let connection_id = ConnectionId { link: 0, attempt: 0 };
        let core = RedisCore::new(start, &settings);
        let mut pair = Pair { core, server, parts, connection_id, time_ms, next_client: 0 };
        pair.connect();
        pair.turn();
        pair
    }

    pub(super) fn now(&self) -> ClockReading {
        let time = MonotonicTime::after_start(Duration::from_millis(self.time_ms));
        let unix_ms = 1_700_000_000_000 + i64::try_from(self.time_ms).expect("a short test");
        ClockReading { time, unix_ms }
    }

    fn connect(&mut self) {
        self.connection_id = loop {
            match self.core.poll_command() {
                Some(LinkCommand::Connect { connection_id, .. }) => break connection_id,
                Some(_) => {}
                None => panic!("the node does not connect"),
            }
        };
        self.next_client += 1;
        let up = LinkEvent::Up(Box::new(self.server.open(self.next_client)));
        let event = DriverEvent::Link(self.connection_id, up);
        self.core.handle_event(self.now(), event);
    }

    /// The connection is lost.
    pub(super) fn lose(&mut self) {
        self.server.model.disconnect(self.next_client);
        let reason = UnavailableReason::Lost(self.server.address.clone(), "cut".to_owned());
        let event = DriverEvent::Link(self.connection_id, LinkEvent::Down(reason));
        self.core.handle_event(self.now(), event);
    }

    /// Lets time pass.
    pub(super) fn pass(&mut self, ms: u64) {
        self.time_ms += ms;
        self.core.handle_timeout(self.now());
    }

    pub(super) fn submit(&mut self, request: impl Into<BrokerRequest>) {
        let job = Job::Request { endpoint: Endpoint(0), request: request.into() };
        self.handle_job(job);
    }

    pub(super) fn handle_job(&mut self, job: Job) {
        self.core.handle_job(self.now(), job, &Attached);
    }

    /// Ends the turn: sends what was submitted, and handles what the server answers. Returns the
    /// names of the commands.
    pub(super) fn turn(&mut self) -> Vec<String> {
        self.turn_with(|_| true)
    }

    /// Like [`Pair::turn`], with the frames that arrive at the node.
    pub(super) fn turn_with(&mut self, arrives: impl Fn(&Frame) -> bool) -> Vec<String> {
        let (now, mut sent) = (self.now(), Vec::new());
        self.core.flush(now.time, |_, bytes| sent.append(bytes));
        let mut decoder = RespDecoder::default();
        decoder.buffer().extend_from_slice(&sent);
        let mut commands = Vec::new();
        while let Some(Frame::List(words)) = decoder.next().expect("the node speaks RESP") {
            commands.push(words[0].str().expect("a name").to_owned());
        }
        self.answer_with(&sent, arrives);
        commands
    }

    /// Sends what was submitted, and handles an error as the answer to it, which is one command.
    pub(super) fn refuse(&mut self, error: &'static str) {
        self.core.flush(self.now().time, |_, bytes| bytes.clear());
        let frames = vec![Frame::Error(error.into())];
        let event = DriverEvent::Link(self.connection_id, LinkEvent::Frames(frames));
        self.core.handle_event(self.now(), event);
    }

    /// The server answers what was sent.
    pub(super) fn answer(&mut self, sent: &[u8]) {
        self.answer_with(sent, |_| true);
    }

    fn answer_with(&mut self, sent: &[u8], arrives: impl Fn(&Frame) -> bool) {
        let now = self.now();
        self.server.model.receive(self.next_client, sent, now.unix_ms * 1000);
        let mut decoder = RespDecoder::default();
        decoder.buffer().extend_from_slice(&self.server.model.take_output(self.next_client));
        let frames: Vec<_> =
            std::iter::from_fn(|| decoder.next().expect("the model speaks RESP")).collect();
        let frames = frames.into_iter().filter(arrives).collect();
        let event = DriverEvent::Link(self.connection_id, LinkEvent::Frames(frames));
        self.core.handle_event(now, event);
    }

    pub(super) fn outputs(&mut self) -> Vec<CoreOutput> {
        std::iter::from_fn(|| self.core.poll_output()).collect()
    }

    /// Events for endpoints.
    pub(super) fn events(&mut self) -> Vec<BrokerEvent> {
        let event = |output| match output {
            CoreOutput::Deliver(_, event) | CoreOutput::Notify(event) => Some(event),
            _ => None,
        };
        self.outputs().into_iter().filter_map(event).collect()
    }
}
