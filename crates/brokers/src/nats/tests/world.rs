//! Nodes, their connections and the server of the simulated world.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use engine::broker::BrokerError;

use super::observer::{Observer, Truth};
use super::random::Random;
use super::store::ModelStore;
use crate::limits::ANSWER_TIMEOUT;
use crate::nats::channel::{ChannelAction, ChannelCore, ChannelInput};
use crate::nats::channel_call::{CallAnswer, CallResult, ChannelCall};
use crate::nats::node_state::{LinkState, NodeState, NodeView};
use crate::nats::record::Record;
use crate::nats::reordering::MessageSequence;
use crate::nats::request::RequestLoad;
use crate::nats::subject;

pub(super) const NODES: usize = 3;
pub(super) const CHANNELS: usize = 2;
pub(super) const ENDPOINTS: usize = 2;
/// Steps of the clients in one run.
const STEPS: u64 = 120;
/// Microseconds between two steps, at most.
const STEP_PAUSE: u64 = 30_000;
/// Unix milliseconds at the start.
const START_MS: u64 = 1_700_000_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Faults {
    None,
    All,
}

pub(super) struct World {
    pub(super) random: Random,
    pub(super) faults: Faults,
    start: Instant,
    /// Microseconds since the start.
    pub(super) now: u64,
    events: BTreeMap<(u64, u64), Event>,
    scheduled: u64,
    pub(super) store: ModelStore,
    /// The subscriptions that the server has, by node and channel.
    pub(super) registered: BTreeMap<(usize, usize), u64>,
    pub(super) truth: Truth,
    pub(super) nodes: Vec<Node>,
    pub(super) observers: Vec<Observer>,
    pub(super) load: Arc<RequestLoad>,
    /// Until when the server answers nothing.
    pub(super) frozen_until: u64,
    steps: u64,
    numbers: u64,
}

pub(super) struct Node {
    pub(super) state: NodeState,
    pub(super) connection: u64,
    pub(super) is_connected: bool,
    pub(super) channels: Vec<ChannelTask>,
    /// When the last message in each direction arrives: both are in order.
    pub(super) to_server: u64,
    pub(super) from_server: u64,
}

/// The task around a core, without its I/O.
pub(super) struct ChannelTask {
    pub(super) core: ChannelCore,
    /// Number of the subscription at the server; zero for none.
    pub(super) subscription: u64,
    /// Number of the call whose answer is awaited.
    pub(super) call: u64,
    pub(super) is_waiting: bool,
    /// The call waits until the store is verified.
    pub(super) awaits_store: bool,
    /// Echoes of publications that are awaited.
    pub(super) confirmations: Vec<u64>,
}

/// What happens at some time.
pub(super) enum Event {
    /// The server handles a request of a node.
    Request {
        at: Place,
        request: ServerRequest,
    },
    Answer {
        at: Place,
        call: u64,
        result: CallResult,
    },
    Confirmation {
        at: Place,
        number: u64,
        result: Result<(), BrokerError>,
    },
    Message {
        at: Place,
        subscription: u64,
        sequence: MessageSequence,
        payload: Bytes,
    },
    Trimmed {
        at: Place,
    },
    Connect {
        node: usize,
    },
    Verified {
        node: usize,
        connection: u64,
    },
    Verify {
        node: usize,
    },
    Step,
}

/// A channel of a node over one of its connections.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) node: usize,
    pub(super) channel: usize,
    pub(super) connection: u64,
}

pub(super) enum ServerRequest {
    Call { call: u64, what: ChannelCall },
    Confirm { number: u64 },
    Subscribe { subscription: u64 },
    Publish(Bytes),
    Trim { newest: u64 },
}

impl World {
    pub(super) fn new(seed: u64, faults: Faults) -> World {
        let node = |number: usize| Node {
            state: NodeState::new(format!("n{number}")),
            connection: 1,
            is_connected: true,
            channels: (0..CHANNELS).map(ChannelTask::new).collect(),
            to_server: 0,
            from_server: 0,
        };
        let name =
            |number: usize| format!("node {} endpoint {}", number / ENDPOINTS, number % ENDPOINTS);
        let is_lossless = faults == Faults::None;
        let observers = (0..NODES * ENDPOINTS).map(|one| Observer::new(name(one), is_lossless));
        let mut world = World {
            random: Random(seed),
            faults,
            start: Instant::now(),
            now: 0,
            events: BTreeMap::new(),
            scheduled: 0,
            store: ModelStore::default(),
            truth: Truth::default(),
            nodes: (0..NODES).map(node).collect(),
            observers: observers.collect(),
            registered: BTreeMap::new(),
            load: Arc::default(),
            frozen_until: 0,
            steps: STEPS,
            numbers: 0,
        };
        for node in &mut world.nodes {
            node.state.generations.set_verified(1);
        }
        world.schedule(0, Event::Step);
        world
    }

    /// Plays all steps, ends all faults, and checks that everybody has everything.
    pub(super) fn run(mut self) {
        self.play();
        self.end_faults();
        self.play();
        for node in 0..NODES {
            for channel in 0..CHANNELS {
                self.check_end(node, channel);
            }
        }
        for observer in &self.observers {
            assert!(observer.open.is_empty(), "no reply to {:?}", observer.open);
        }
    }

    fn end_faults(&mut self) {
        self.faults = Faults::None;
        self.frozen_until = 0;
        for node in 0..NODES {
            if self.nodes[node].is_connected {
                self.schedule(1_000, Event::Verify { node });
            } else {
                self.schedule(1_000, Event::Connect { node });
            }
        }
    }

    /// Every subscribed endpoint knows the newest position of a living stream.
    fn check_end(&mut self, node: usize, channel: usize) {
        let task = &self.nodes[node].channels[channel];
        assert!(!task.core.has_work(), "node {node} still works at the end");
        let record = self.store.newest(channel);
        let record = record.and_then(|one| Record::decode(&one.payload, one.sequence));
        let Some(record) = record.filter(|record| record.top.is_alive(self.now_ms())) else {
            return;
        };
        for endpoint in 0..ENDPOINTS {
            let observer = &mut self.observers[node * ENDPOINTS + endpoint];
            let name = observer.name.clone();
            let seen = observer.seen(&channel_name(channel));
            if let Some((epoch, offset)) = &seen.position
                && seen.is_subscribed
                && record.top.offset > 0
            {
                let expected = (&*record.top.epoch, record.top.offset);
                assert_eq!((&**epoch, *offset), expected, "{name} misses publications");
            }
        }
    }

    fn play(&mut self) {
        loop {
            for node in 0..NODES {
                for channel in 0..CHANNELS {
                    self.perform(node, channel);
                }
            }
            for observer in &mut self.observers {
                observer.check(&self.truth);
            }
            let timeout = self.next_timeout();
            let event = self.events.first_key_value().map(|((at, _), _)| *at);
            match (event, timeout) {
                (None, None) => return,
                (event, Some((at, node, channel))) if event.is_none_or(|event| at < event) => {
                    self.now = self.now.max(at);
                    self.with_core(node, channel, |core, view| core.handle_timeout(view));
                }
                _ => {
                    let ((at, _), event) = self.events.pop_first().unwrap();
                    self.now = self.now.max(at);
                    self.handle(event);
                }
            }
        }
    }

    fn next_timeout(&self) -> Option<(u64, usize, usize)> {
        let mut first = None;
        for (number, node) in self.nodes.iter().enumerate() {
            for (channel, task) in node.channels.iter().enumerate() {
                let Some(at) = task.core.next_timeout() else { continue };
                let micros = u64::try_from((at - self.start).as_nanos().div_ceil(1_000)).unwrap();
                let next = (micros, number, channel);
                first = Some(first.map_or(next, |known: (u64, usize, usize)| known.min(next)));
            }
        }
        first
    }

    pub(super) fn schedule(&mut self, after: u64, event: Event) {
        self.scheduled += 1;
        self.events.insert((self.now + after, self.scheduled), event);
    }

    pub(super) fn now_ms(&self) -> u64 {
        START_MS + self.now / 1_000
    }

    pub(super) fn instant(&self) -> Instant {
        self.start + Duration::from_micros(self.now)
    }

    /// A number that nothing else has.
    pub(super) fn next_number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn with_core<T>(
        &mut self,
        number: usize,
        channel: usize,
        handle: impl FnOnce(&mut ChannelCore, &mut NodeView<'_>) -> T,
    ) -> T {
        let now_ms = self.now_ms();
        let link = LinkState {
            connection: self.nodes[number].connection,
            is_connected: self.nodes[number].is_connected,
            is_congested: false,
            has_jetstream: true,
        };
        let now = self.start + Duration::from_micros(self.now);
        let node = &mut self.nodes[number];
        let mut view = NodeView { now, now_ms, link, state: &mut node.state };
        let result = handle(&mut node.channels[channel].core, &mut view);
        if node.state.generations.take_check() {
            let (node, connection) = (number, link.connection);
            self.schedule(5_000, Event::Verified { node, connection });
        }
        result
    }

    /// The task of a channel panics and starts again.
    pub(super) fn fail_task(&mut self, node: usize, channel: usize) {
        let task = &mut self.nodes[node].channels[channel];
        (task.subscription, task.is_waiting) = (0, false);
        task.confirmations.clear();
        self.registered.remove(&(node, channel));
        self.with_core(node, channel, |core, view| core.reset(view));
    }

    /// Does what a core asks for, until it asks for nothing more.
    fn perform(&mut self, node: usize, channel: usize) {
        while let Some(action) = self.with_core(node, channel, ChannelCore::poll_action) {
            let connection = self.nodes[node].connection;
            let at = Place { node, channel, connection };
            match action {
                ChannelAction::Call(call) => self.call(at, call),
                ChannelAction::AbandonCall => self.task(at).is_waiting = false,
                ChannelAction::Unsubscribe => self.task(at).subscription = 0,
                ChannelAction::Confirm { number } => {
                    self.task(at).confirmations.push(number);
                    match self.nodes[node].is_connected {
                        true => self.send(at, ServerRequest::Confirm { number }),
                        false => self.confirm(at, number, Err(BrokerError::Unavailable)),
                    }
                }
                ChannelAction::Trim { newest } => self.send(at, ServerRequest::Trim { newest }),
                ChannelAction::ReleasePermit => {}
            }
        }
    }

    pub(super) fn task(&mut self, at: Place) -> &mut ChannelTask {
        &mut self.nodes[at.node].channels[at.channel]
    }

    fn call(&mut self, at: Place, what: ChannelCall) {
        let task = self.task(at);
        assert!(!task.is_waiting, "two calls at once");
        task.is_waiting = true;
        task.call += 1;
        task.awaits_store = matches!(what, ChannelCall::AwaitVerifiedStore);
        let call = task.call;
        let done = |result: Result<(), BrokerError>| result.map(|()| CallAnswer::Done);
        if matches!(what, ChannelCall::AwaitPermit | ChannelCall::AwaitVerifiedStore) {
            let is_late = Event::Answer { at, call, result: Err(BrokerError::Unavailable) };
            let is_verified = self.nodes[at.node].state.generations.is_verified(at.connection);
            if is_verified || matches!(what, ChannelCall::AwaitPermit) {
                self.schedule(0, Event::Answer { at, call, result: done(Ok(())) });
            } else {
                self.schedule(micros(ANSWER_TIMEOUT), is_late);
            }
            return;
        }
        if !self.nodes[at.node].is_connected {
            let result = Err(BrokerError::Unavailable);
            return self.schedule(0, Event::Answer { at, call, result });
        }
        match what {
            ChannelCall::Subscribe => {
                self.scheduled += 1;
                let subscription = self.scheduled;
                self.task(at).subscription = subscription;
                self.send(at, ServerRequest::Subscribe { subscription });
                self.schedule(0, Event::Answer { at, call, result: done(Ok(())) });
            }
            ChannelCall::Publish(payload) => {
                self.send(at, ServerRequest::Publish(payload));
                self.schedule(0, Event::Answer { at, call, result: done(Ok(())) });
            }
            what => {
                self.send(at, ServerRequest::Call { call, what });
                let result = Err(BrokerError::Unavailable);
                self.schedule(micros(ANSWER_TIMEOUT), Event::Answer { at, call, result });
            }
        }
    }

    /// Sends a request of a node to the server, in order.
    fn send(&mut self, at: Place, request: ServerRequest) {
        let earliest = self.now + 50 + self.random.below(2_000);
        let arrives = earliest.max(self.nodes[at.node].to_server).max(self.frozen_until);
        self.nodes[at.node].to_server = arrives;
        self.schedule(arrives - self.now, Event::Request { at, request });
    }

    /// Sends something to a node in the order of the server's connection to it.
    pub(super) fn reply_in_order(&mut self, node: usize, event: Event) {
        let arrives = (self.now + 50 + self.random.below(2_000)).max(self.nodes[node].from_server);
        self.nodes[node].from_server = arrives;
        self.schedule(arrives - self.now, event);
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Request { at, request } => self.serve(at, request),
            Event::Answer { at, call, result } => {
                let is_current = self.is_connection(at);
                let task = self.task(at);
                if task.is_waiting && task.call == call {
                    task.is_waiting = false;
                    let result = if is_current { result } else { Err(BrokerError::Unavailable) };
                    self.with_core(at.node, at.channel, |core, view| {
                        core.handle_answer(view, result);
                    });
                }
            }
            Event::Confirmation { at, number, result } => {
                let result =
                    if self.is_connection(at) { result } else { Err(BrokerError::Unavailable) };
                self.confirm(at, number, result);
            }
            Event::Message { at, subscription, sequence, payload } => {
                if self.is_connection(at) && self.task(at).subscription == subscription {
                    self.with_core(at.node, at.channel, |core, view| {
                        core.handle_message(view, sequence, payload);
                    });
                }
            }
            Event::Trimmed { at } => self.task(at).core.handle_trimmed(),
            Event::Connect { node } => self.connect(node),
            Event::Verified { node, connection } => self.set_verified(node, connection),
            Event::Verify { node } => {
                for task in &mut self.nodes[node].channels {
                    task.core.handle_input(ChannelInput::Verify);
                }
            }
            Event::Step => {
                if self.steps > 0 {
                    self.steps -= 1;
                    self.step();
                    let pause = self.random.below(STEP_PAUSE);
                    self.schedule(pause, Event::Step);
                }
            }
        }
    }

    fn set_verified(&mut self, node: usize, connection: u64) {
        if self.nodes[node].connection != connection {
            return;
        }
        self.nodes[node].state.generations.set_verified(connection);
        for channel in 0..CHANNELS {
            let at = Place { node, channel, connection };
            let task = self.task(at);
            if task.is_waiting && task.awaits_store {
                let call = task.call;
                self.schedule(0, Event::Answer { at, call, result: Ok(CallAnswer::Done) });
            }
        }
    }

    pub(super) fn is_connection(&self, at: Place) -> bool {
        let node = &self.nodes[at.node];
        node.is_connected && node.connection == at.connection
    }

    pub(super) fn confirm(&mut self, at: Place, number: u64, result: Result<(), BrokerError>) {
        let task = self.task(at);
        if let Some(index) = task.confirmations.iter().position(|one| *one == number) {
            task.confirmations.remove(index);
            task.core.handle_confirmation(number, result);
        }
    }
}

impl ChannelTask {
    fn new(channel: usize) -> ChannelTask {
        let name: Arc<str> = channel_name(channel).into();
        let core = ChannelCore::new(name.clone(), subject::token(&name).into());
        let (confirmations, is_waiting, awaits_store) = Default::default();
        ChannelTask { core, subscription: 0, call: 0, is_waiting, awaits_store, confirmations }
    }
}

pub(super) fn channel_name(channel: usize) -> String {
    format!("room {channel}")
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap()
}
