//! The simulation: workers, clients, the broker and the links between them, in one thread and
//! simulated time.
//!
//! Invariant: the run depends on the steps only, so that a list of steps can be repeated.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use brokers::{Broker, Clock, Endpoint, MemoryBroker};
use bytes::Bytes;
use engine::SessionKey;
use engine::broker::{
    BrokerEvent, BrokerReply, Control, JoinRead, NodeBusRequest, Order, PresenceRequest,
    PublicationsRequest, RequestId, Target,
};
use engine::claims::{SubscriptionGrant, TokenRefusal};
use engine::counters::Counters;
use engine::hash_keys::HashKeys;
use engine::random::Random;
use engine::rates::{Bucket, Rates};
use engine::rules::Rules;
use engine::shared_buckets::SharedBuckets;
use engine::time::Now;
use wire::protocol::{DisconnectCode, Publication};

use super::channels::{CHANNELS, Kind, kind_of, rates, rules};
use super::client::{Client, Place, Surroundings, is_server_side};
use super::judge::{FOREIGN, skip_foreign};
use super::link::{Link, Mailbox};
use super::node::Node;
use super::oracle::{Oracle, Violation};
use super::plan::{CLIENTS, Fault, NODES, OrderKind, Step};
use super::publishers::Publishers;
use super::truth::Truth;

/// Unix time in milliseconds at which every simulation starts.
const BEGIN_MS: i64 = 1_700_000_000_000;

#[derive(Default)]
struct WorldClock(AtomicU64);

impl Clock for WorldClock {
    fn monotonic_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// The simulation; see the module.
pub(crate) struct World {
    clock: Arc<WorldClock>,
    unix_ahead_ms: i64,
    rules: Arc<Rules>,
    broker: MemoryBroker,
    incarnation: u64,
    observer: (Endpoint, Arc<Mailbox>),
    backend: (Endpoint, Arc<Mailbox>),
    published: u64,
    nodes: Vec<Node>,
    clients: Vec<Client>,
    truth: Truth,
    publishers: Publishers,
    /// Number of faults that took effect.
    pub(crate) faults: u64,
    /// Time since which all faults are repaired.
    calm_since_ms: Option<u64>,
    was_refused: bool,
    /// The broker may have refused publications, as a worker had too many events to take.
    was_overloaded: bool,
    /// Many publications came while a client waited for the answer to a subscription: more than may
    /// be held until then is a gap, without a fault.
    has_held_many: bool,
}

impl World {
    pub(crate) fn new(seed: u64) -> World {
        let clock = Arc::new(WorldClock::default());
        let mut random = Random::new(seed);
        // Every second simulation has rate limits.
        let rates = if random.below(2) == 0 { rates() } else { Rates::default() };
        let rules = Arc::new(Rules { rates, ..rules() });
        let shared = Arc::new(SharedBuckets::new(HashKeys::new([seed, 1])));
        let broker = MemoryBroker::new(clock.clone(), "epoch0-".to_owned());
        let begin = Now { monotonic_ms: 0, unix_ms: BEGIN_MS };
        let nodes = (0..NODES).map(|_| {
            let link = Link::new(&broker, [0, 0, 2, 6][random.below(4) as usize]);
            let mut node = Node::new(begin, rules.clone(), link, random.next_u64());
            node.engine.share_buckets(shared.clone());
            node
        });
        let nodes = nodes.collect();
        let attach = || {
            let mailbox = Arc::new(Mailbox::default());
            (broker.attach(mailbox.clone()), mailbox)
        };
        let (observer, backend) = (attach(), attach());
        let world = World {
            clock,
            unix_ahead_ms: BEGIN_MS,
            rules,
            incarnation: 0,
            observer,
            backend,
            published: 0,
            nodes,
            clients: (0..CLIENTS).map(Client::new).collect(),
            truth: Truth::default(),
            publishers: Publishers::default(),
            faults: 0,
            calm_since_ms: None,
            was_refused: false,
            was_overloaded: false,
            has_held_many: false,
            broker,
        };
        world.subscribe_to_all();
        world
    }

    fn now(&self) -> Now {
        let monotonic_ms = self.clock.monotonic_ms();
        Now { monotonic_ms, unix_ms: self.unix_ahead_ms + monotonic_ms as i64 }
    }

    /// Subscribes the observer to all channels.
    fn subscribe_to_all(&self) {
        for channel in CHANNELS {
            let (id, channel, read) = (RequestId::new(0), channel.name.into(), JoinRead::Nothing);
            let request = PublicationsRequest::Subscribe { id, channel, read };
            self.broker.submit(self.observer.0, request.into());
        }
    }

    /// Records what the broker has accepted.
    fn observe(&mut self) -> Result<(), Violation> {
        self.was_overloaded |= self.nodes.iter().any(|node| node.link.is_full());
        let events = self.observer.1.with(std::mem::take);
        for event in events {
            if let BrokerEvent::Publication { channel, publication, epoch } = event {
                let payload = publication.data.clone();
                self.publishers.accept(&channel, &payload)?;
                self.truth.accept(&channel, &epoch, publication.offset, payload);
            }
        }
        Ok(())
    }

    /// Runs one step, and checks all guarantees.
    pub(crate) fn step(&mut self, step: Step) -> Result<(), Violation> {
        match step {
            Step::Run { ms } => self.run(ms)?,
            Step::Events { node, count } => {
                if !self.is_stalled(node) {
                    let now = self.now();
                    self.nodes[node].receive(now, &self.broker, count)?;
                    self.nodes[node].verify(now, &self.broker)?;
                }
            }
            Step::Write { client } => self.write(client)?,
            Step::Read { client, bytes } => self.read(client, bytes)?,
            Step::Dial { client, node } => self.dial(client, node),
            Step::Subscribe { client, channel } => {
                self.with_client(client, |client, at| client.subscribe(at, channel));
            }
            Step::Unsubscribe { client, channel } => self.clients[client].unsubscribe(channel),
            Step::Rejoin { client, channel } => self.with_client(client, |client, at| {
                for _ in 0..2 {
                    client.unsubscribe(channel);
                    client.subscribe(at, channel);
                }
            }),
            Step::Publish { client, channel } => self.clients[client].publish(channel),
            Step::Burst { channel, count } => self.burst(CHANNELS[channel].name, count),
            Step::Ask { client, channel } => self.clients[client].ask_about(channel),
            Step::Refresh { client, seconds } => {
                self.with_client(client, |client, at| client.refresh(at, seconds));
            }
            Step::Order { client, channel, order } => self.order(client, channel, order),
            Step::RemoveHistory { channel } => {
                let name = CHANNELS[channel].name;
                let request = PublicationsRequest::RemoveHistory {
                    id: RequestId::new(0),
                    channel: name.into(),
                };
                self.broker.submit(self.backend.0, request.into());
                self.truth.drop_retained(name);
            }
            Step::Fault(fault) => self.faults += u64::from(self.fault(fault)?),
        }
        self.observe()?;
        self.backend.1.with(|answers| answers.clear());
        Ok(())
    }

    fn fault(&mut self, fault: Fault) -> Result<bool, Violation> {
        let now = self.now();
        match fault {
            Fault::Cut { client } => {
                let Some(place) = self.clients[client].place else { return Ok(false) };
                self.leave(client, place)?;
            }
            Fault::HalfOpen { client } => {
                let was_there = self.clients[client].place.is_some();
                self.clients[client].end(now.monotonic_ms);
                return Ok(was_there);
            }
            Fault::PauseReading { client, ms } => {
                self.clients[client].read_paused_until_ms = now.monotonic_ms + ms;
            }
            Fault::BadToken { client } => {
                let refusals =
                    [TokenRefusal::Expired, TokenRefusal::Invalid, TokenRefusal::Unavailable];
                self.was_refused = true;
                self.clients[client].bad_token = Some(refusals[client % 3]);
            }
            Fault::Lose { node } => return Ok(self.nodes[node].link.lose()),
            Fault::Delay { node } => return Ok(self.nodes[node].link.delay()),
            Fault::Late { node } => return Ok(self.nodes[node].link.release()),
            Fault::Fail { node } => return Ok(self.nodes[node].link.fail()),
            Fault::LinkCut { node } => return Ok(self.nodes[node].link.cut(&self.broker)),
            Fault::LinkUp { node } => {
                let link = &mut self.nodes[node].link;
                if link.is_up {
                    return Ok(false);
                }
                link.repair(&self.broker);
            }
            Fault::Amnesia => self.forget()?,
            Fault::Stall { node, ms } => {
                self.nodes[node].stalled_until_ms = now.monotonic_ms + ms;
            }
            Fault::SlowCalls { node, ms } => {
                self.nodes[node].backends.slow_down(now.monotonic_ms + ms);
            }
            Fault::FailCalls { node, count } => self.nodes[node].backends.fail(count),
            Fault::Jump { seconds } => self.unix_ahead_ms += seconds * 1000,
        }
        Ok(true)
    }

    /// Replaces the broker by a new one. Events sent by the old one may still arrive.
    fn forget(&mut self) -> Result<(), Violation> {
        self.observe()?;
        self.incarnation += 1;
        let prefix = format!("epoch{}-", self.incarnation);
        self.broker = MemoryBroker::new(self.clock.clone(), prefix);
        self.truth.forget();
        self.observer.0 = self.broker.attach(self.observer.1.clone());
        self.backend.0 = self.broker.attach(self.backend.1.clone());
        self.subscribe_to_all();
        for node in self.nodes.iter_mut().filter(|node| node.link.is_up) {
            node.link.repair(&self.broker);
        }
        Ok(())
    }

    /// Advances time in slices; in each, everything that can progress does.
    fn run(&mut self, ms: u64) -> Result<(), Violation> {
        for _ in 0..ms / SLICE_MS {
            self.clock.0.fetch_add(SLICE_MS, Ordering::SeqCst);
            let now = self.now();
            for _ in 0..2 {
                for index in 0..NODES {
                    if self.is_stalled(index) {
                        continue;
                    }
                    let node = &mut self.nodes[index];
                    node.link.tick();
                    node.tick(now, &self.broker)?;
                    node.verify(now, &self.broker)?;
                    node.receive(now, &self.broker, usize::MAX)?;
                    self.observe()?;
                }
                for client in 0..CLIENTS {
                    self.live(client, now)?;
                }
            }
        }
        Ok(())
    }

    fn live(&mut self, client: usize, now: Now) -> Result<(), Violation> {
        let state = &self.clients[client];
        if state.read_paused_until_ms > now.monotonic_ms {
            return Ok(());
        }
        if state.place.is_none() && state.retry_at_ms <= now.monotonic_ms {
            self.dial(client, (client + (now.monotonic_ms / 1000) as usize) % NODES);
        }
        self.with_client(client, |client, at| {
            if client.place.is_some() {
                client.subscribe_wanted(at);
            }
        });
        self.write(client)?;
        self.read(client, usize::MAX)
    }

    fn dial(&mut self, client: usize, node: usize) {
        if self.clients[client].place.is_some() || self.is_stalled(node) {
            return;
        }
        let capacity = [600, 4_000, 60_000][client % 3];
        let (now, encoding) = (self.now(), self.clients[client].encoding);
        let key = self.nodes[node].open(now, encoding, capacity);
        self.with_client(client, |client, at| client.begin(at, Place { node, key }));
    }

    fn write(&mut self, client: usize) -> Result<(), Violation> {
        let Some(Place { node, key }) = self.clients[client].place else { return Ok(()) };
        let Some(socket) = self.nodes[node].sockets.get_mut(&key) else {
            self.lost(client);
            return Ok(());
        };
        socket.upstream.extend(self.clients[client].write());
        if self.is_stalled(node) {
            return Ok(());
        }
        let now = self.now();
        self.nodes[node].read(now, &self.broker, key)?;
        self.observe()?;
        Ok(())
    }

    fn read(&mut self, client: usize, count: usize) -> Result<(), Violation> {
        let Some(place) = self.clients[client].place else { return Ok(()) };
        let Place { node, key } = place;
        let Some(socket) = self.nodes[node].sockets.get_mut(&key) else {
            self.lost(client);
            return Ok(());
        };
        let was_full = socket.was_full;
        let count = count.min(socket.downstream.len());
        let bytes: Vec<u8> = socket.downstream.drain(..count).collect();
        if count > 0 && !self.is_stalled(node) {
            self.nodes[node].make_room(key);
        }
        let was_overloaded = self.was_overloaded;
        let at = surroundings(&self.truth, self.now(), self.faults, &self.rules);
        let at = Surroundings { was_overloaded, ..at };
        let client_state = &mut self.clients[client];
        let closed = client_state.read(&at, bytes).map_err(|violation| Violation {
            text: format!("client {client}: {}", violation.text),
            ..violation
        })?;
        if let Some(code) = closed {
            self.check_code(client, code, was_full)?;
            return self.leave(client, place);
        }
        if self.clients[client].gives_up {
            return self.leave(client, place);
        }
        Ok(())
    }

    /// The worker has closed the socket.
    fn lost(&mut self, client: usize) {
        let now_ms = self.now().monotonic_ms;
        self.clients[client].end(now_ms);
    }

    fn leave(&mut self, client: usize, place: Place) -> Result<(), Violation> {
        let now = self.now();
        self.clients[client].end(now.monotonic_ms);
        let node = &mut self.nodes[place.node];
        node.gone(now, place.key);
        node.work(now, &self.broker)
    }

    /// A session closes only for an existing cause.
    fn check_code(&self, client: usize, code: u16, was_full: bool) -> Result<(), Violation> {
        let is_calm =
            self.calm_since_ms.is_some_and(|since| since + 20_000 < self.clock.monotonic_ms());
        let has_cause = match code {
            3005 | 3502 => true,
            3008 => was_full,
            // A gap in a server-side subscription, or a new token that names other channels.
            3010 => !is_calm && self.clients[client].has_server_side(),
            3012 | 3503 => !is_calm,
            3013 => self.rules.rates.of(Bucket::ConnectionRefusals).is_some(),
            3500 => self.was_refused,
            _ => false,
        };
        Oracle::Close.check(has_cause, || format!("client {client} is ended with {code}"))
    }

    fn with_client(&mut self, client: usize, act: impl FnOnce(&mut Client, &Surroundings<'_>)) {
        let at = surroundings(&self.truth, self.now(), self.faults, &self.rules);
        act(&mut self.clients[client], &at);
    }

    fn burst(&mut self, channel: &str, count: usize) {
        self.has_held_many |= self.clients.iter().any(Client::is_joining);
        let namespace = channel.trim_start_matches('$').split(':').next().unwrap_or_default();
        let options = self.rules.channels.namespaces[namespace].publish_options();
        for _ in 0..count {
            self.published += 1;
            // Only with faults: a burst above a queue causes a gap.
            let is_big = count >= 20 && kind_of(channel) == Kind::Big;
            let padding = "x".repeat(if is_big { 1_000 } else { 0 });
            let data = format!("{{\"by\":\"backend{padding}\",\"n\":{}}}", self.published);
            let mut data = data.into_bytes();
            if kind_of(channel) == Kind::Mixed && self.published.is_multiple_of(3) {
                data.insert(0, FOREIGN);
            }
            let data = Bytes::from(data);
            let publication = Publication { data, ..Publication::default() };
            let (id, channel, options) = (RequestId::new(0), channel.into(), options.clone());
            let request = PublicationsRequest::Publish { id, channel, publication, options };
            self.broker.submit(self.backend.0, request.into());
        }
    }

    fn order(&mut self, client: usize, channel: usize, order: OrderKind) {
        let channel = CHANNELS[CHANNELS.len() - 1 - channel % 2].name.to_owned();
        let user = self.clients[client].user.clone();
        let order = match order {
            OrderKind::Subscribe => Order::Subscribe {
                channel,
                grant: SubscriptionGrant::default(),
                recover_since: None,
            },
            OrderKind::Unsubscribe => Order::Unsubscribe { channel },
            OrderKind::Disconnect => Order::Disconnect(DisconnectCode::ForceDisconnect.into()),
            OrderKind::Refresh => {
                let expire_at = Some(self.now().unix_ms / 1000 + 5);
                Order::Refresh { info: Bytes::new(), expire_at, expired: false }
            }
        };
        if matches!(order, Order::Refresh { .. }) {
            // It is unknown when, or whether, it arrives: expiry of this user's tokens is no longer
            // checked.
            self.nodes.iter_mut().for_each(|node| node.forget_lifetimes(&user));
        }
        let target = Target { user, ..Target::default() };
        let control = NodeBusRequest::Control(Arc::new(Control { target, order }));
        self.broker.submit(self.backend.0, control.into());
    }

    fn is_stalled(&self, node: usize) -> bool {
        self.nodes[node].stalled_until_ms > self.clock.monotonic_ms()
    }

    /// The counters of all workers.
    pub(crate) fn counters(&self) -> Counters {
        let mut total = Counters::default();
        self.nodes.iter().for_each(|node| total.add(node.engine.counters()));
        total
    }

    /// Repairs all faults. Then every client must receive everything, and after all have left no
    /// state may remain.
    pub(crate) fn finish(&mut self) -> Result<(), Violation> {
        let now_ms = self.clock.monotonic_ms();
        self.calm_since_ms = Some(now_ms);
        for node in &mut self.nodes {
            node.stalled_until_ms = 0;
            if !node.link.is_up {
                node.link.repair(&self.broker);
            }
            node.link.release();
            node.backends.repair();
        }
        for client in &mut self.clients {
            client.read_paused_until_ms = 0;
            client.bad_token = None;
        }
        self.run(40_000)?;
        // Tokens continue to expire: wait for a moment without a client that is reconnecting.
        let mut seen: HashMap<String, (u32, Violation)> = HashMap::new();
        for _ in 0..CALM_SLICES {
            let Some(violation) = self.unsettled() else { return self.leave_all() };
            seen.entry(violation.text.clone()).or_insert((0, violation)).0 += 1;
            self.run(SLICE_MS)?;
        }
        let most = seen.into_values().max_by_key(|(count, _)| *count);
        Err(most.expect("there were violations").1)
    }

    /// What is missing until every client has everything.
    fn unsettled(&self) -> Option<Violation> {
        let missing = |text: String| Some(Violation { oracle: Oracle::Recovered, text });
        for client in &self.clients {
            let who = client.index;
            if client.id.is_none() || client.unanswered() > 0 {
                return missing(format!("client {who} waits for {}", client.unanswered()));
            }
            for (channel, subscription) in &client.subscriptions {
                let is_wanted = subscription.is_wanted || is_server_side(channel);
                if subscription.live.is_some() != is_wanted {
                    return missing(format!("client {who} in {channel}: {subscription:?}"));
                }
                let position =
                    subscription.live.as_ref().filter(|live| live.is_positioned).map(|live| {
                        let position = &live.position;
                        let skipped = skip_foreign(&self.truth, channel, position);
                        let offset = if live.is_json { skipped } else { position.offset };
                        (&*position.epoch, offset)
                    });
                let now = self.truth.now(channel);
                if position.is_some() && now.is_some() && position != now {
                    return Some(Violation {
                        oracle: Oracle::Gap,
                        text: format!("client {who} in {channel} has {position:?}, top {now:?}"),
                    });
                }
            }
        }
        if self.nodes.iter().any(|node| !node.link.is_idle()) {
            return missing("events".into());
        }
        self.absent()
    }

    /// Clients that are wrongly present or absent.
    fn absent(&self) -> Option<Violation> {
        for channel in CHANNELS.iter().filter(|channel| channel.kind == Kind::Room) {
            let living = self.clients.iter().filter(|client| {
                client.subscriptions.get(channel.name).is_some_and(|one| one.live.is_some())
            });
            let living: BTreeSet<String> = living.filter_map(|client| client.id.clone()).collect();
            let present = self.present(channel.name);
            if living != present {
                let text = format!("{}: {living:?} live, {present:?} present", channel.name);
                return Some(Violation { oracle: Oracle::Presence, text });
            }
        }
        None
    }

    fn present(&self, channel: &str) -> BTreeSet<String> {
        self.backend.1.with(|answers| answers.clear());
        let request = PresenceRequest::Clients { id: RequestId::new(0), channel: channel.into() };
        self.broker.submit(self.backend.0, request.into());
        match self.backend.1.with(|answers| answers.pop_back()) {
            Some(BrokerEvent::Reply(BrokerReply::Presence(_, Ok(clients)))) => {
                clients.iter().map(|info| info.client.clone()).collect()
            }
            other => panic!("the broker answers {other:?}"),
        }
    }

    fn leave_all(&mut self) -> Result<(), Violation> {
        for client in 0..CLIENTS {
            if let Some(place) = self.clients[client].place {
                self.leave(client, place)?;
            }
            self.clients[client].retry_at_ms = u64::MAX;
        }
        self.run(15_000)?;
        let gaps = self.counters().gaps_reported;
        Oracle::Gap.check(self.faults > 0 || self.has_held_many || gaps == 0, || {
            format!("{gaps} gaps are told, though nothing went wrong")
        })?;
        let mut remains: HashMap<&str, usize> = HashMap::new();
        for node in &mut self.nodes {
            *remains.entry("sockets").or_default() += node.sockets.len();
            let keys: Vec<SessionKey> = node.engine.keys().collect();
            *remains.entry("sessions").or_default() += keys.len();
            *remains.entry("subscriptions").or_default() += node.engine.subscription_count();
            *remains.entry("channels").or_default() += node.engine.hub().len();
            *remains.entry("users").or_default() += node.engine.users().len();
            *remains.entry("online").or_default() += node.online.len();
            *remains.entry("reported").or_default() += node.reported.len();
        }
        for channel in CHANNELS {
            *remains.entry("present").or_default() += self.present(channel.name).len();
        }
        remains.retain(|_, count| *count > 0);
        Oracle::Leftover.check(remains.is_empty(), || format!("{remains:?}"))
    }
}

fn surroundings<'w>(truth: &'w Truth, now: Now, faults: u64, rules: &'w Rules) -> Surroundings<'w> {
    let (now_ms, unix_seconds) = (now.monotonic_ms, now.unix_ms / 1000);
    let (is_faultless, was_overloaded) = (faults == 0, false);
    Surroundings { truth, now_ms, unix_seconds, is_faultless, was_overloaded, rates: &rules.rates }
}

/// Milliseconds after which everything is checked again.
const SLICE_MS: u64 = 100;

/// Number of slices within which every client must have everything at once.
const CALM_SLICES: usize = 200;
