//! The worker, the memory broker, the sockets and the time, as changed by operations.

use std::collections::{HashMap, VecDeque};
use std::io::IoSlice;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use brokers::{Broker, Clock, Endpoint, Inbox, MemoryBroker};
use bytes::Bytes;
use engine::broker::{
    BrokerError, BrokerEvent, BrokerReply, BrokerRequest, Control, NodeBusRequest, Order,
    PublicationsRequest, RequestId, Target,
};
use engine::claims::{
    ConnectionClaims, Overrides, SubscriptionClaims, SubscriptionGrant, TokenRefusal,
};
use engine::encoding::{Encoder, Encoding};
use engine::hash_keys::HashKeys;
use engine::rules::Rules;
use engine::time::Now;
use engine::worker::Worker;
use engine::{
    CallOutcome, Effect, Opening, PingStyle, SessionCall, SessionCallId, SessionKey, TokenKind,
};
use wire::protocol::{
    Codec, DisconnectCode, Publication, Request, StreamPosition, decode_commands,
};
use wire::websocket::deflate::{Deflater, Inflater, Window};

use crate::operation::{Judged, Manner, Operation, Ordered, Say};
use crate::peer::{Answer, Ledger, Peer};
use crate::rules::{self, QUEUE_MAX_SIZE, channel, user};

/// Unix time in milliseconds at which every run starts.
const BEGIN_MS: i64 = 1_700_000_000_000;

/// First byte of a payload that is not JSON.
const NO_JSON: u8 = 0xFF;

/// Maximum number of sessions of one run, including removed ones.
const PEERS_MAX: usize = 16;

#[derive(Default)]
pub struct WorldClock(AtomicU64);

impl Clock for WorldClock {
    fn monotonic_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Default)]
pub struct Queue(Mutex<VecDeque<BrokerEvent>>);

impl Inbox for Queue {
    fn deliver(&self, event: BrokerEvent) {
        self.0.lock().expect("one thread").push_back(event);
    }

    fn is_full(&self) -> bool {
        false
    }
}

impl Queue {
    pub fn pop(&self) -> Option<BrokerEvent> {
        self.0.lock().expect("one thread").pop_front()
    }

    fn unpop(&self, event: BrokerEvent) {
        self.0.lock().expect("one thread").push_front(event);
    }
}

pub struct World {
    pub worker: Worker,
    pub peers: Vec<Peer>,
    pub queue: Arc<Queue>,
    rules: Rules,
    broker: MemoryBroker,
    endpoint: Endpoint,
    outside: Endpoint,
    answers: Arc<Queue>,
    clock: Arc<WorldClock>,
    calls: VecDeque<(SessionKey, SessionCallId, SessionCall)>,
    /// The channel of each request to the broker.
    questions: HashMap<u64, Arc<str>>,
    inflater: Inflater,
    ledger: Ledger,
    published: u32,
    is_eager: bool,
}

impl World {
    pub fn new(is_eager: bool) -> World {
        let clock = Arc::new(WorldClock::default());
        let broker = MemoryBroker::new(clock.clone(), "epoch".to_owned());
        let (queue, answers) = (Arc::new(Queue::default()), Arc::new(Queue::default()));
        let (endpoint, outside) = (broker.attach(queue.clone()), broker.attach(answers.clone()));
        let rules = rules::rules();
        let now = Now { monotonic_ms: 0, unix_ms: BEGIN_MS };
        let encoder = Encoder::new(Deflater::new(1), 64);
        World {
            worker: Worker::new(now, Arc::new(rules.clone()), encoder, 1, HashKeys::new([1, 2])),
            peers: Vec::new(),
            queue,
            rules,
            broker,
            endpoint,
            outside,
            answers,
            clock,
            calls: VecDeque::new(),
            questions: HashMap::new(),
            inflater: Inflater::default(),
            ledger: Ledger::new(),
            published: 0,
            is_eager,
        }
    }

    pub fn happens(&mut self, operation: &Operation) {
        let queued = self.queued();
        match operation {
            Operation::Open { manner } => self.open(*manner),
            Operation::Say { peer, goes_on, say } => self.say(*peer, *goes_on, *say),
            Operation::Babble { peer, bytes } => self.babble(*peer, bytes),
            Operation::PongFrame { peer } => {
                let now = self.now();
                if let Some(key) = self.pick(*peer) {
                    self.worker.handle_pong_frame(now, key);
                }
            }
            Operation::Verdict { which, verdict } => self.judge(*which, *verdict),
            Operation::Events { count } => (0..*count).for_each(|_| _ = self.step()),
            Operation::Lose => self.lose(),
            Operation::Fail => self.fail(),
            Operation::Overtake { which } => self.overtake(*which),
            Operation::Publish { channel } => self.publish(rules::channel(*channel)),
            Operation::Forget { channel } => {
                let channel = rules::channel(*channel).into();
                self.ask(
                    PublicationsRequest::RemoveHistory { id: RequestId::new(0), channel }.into(),
                );
            }
            Operation::Order { user, order } => self.order(*user, *order),
            Operation::Pass { tenths } => self.pass(u64::from(*tenths) * 100),
            Operation::Block { peer, room } => {
                self.with_peer(*peer, |peer| peer.room = Some(usize::from(*room)));
            }
            Operation::Unblock { peer } => self.unblock(*peer),
            Operation::Close { peer } => {
                let now = self.now();
                if let Some(key) = self.pick(*peer) {
                    self.worker.close(now, key, DisconnectCode::Shutdown);
                }
            }
            Operation::Cut { peer } => self.cut(*peer),
            Operation::Turn => self.turn(),
        }
        if self.is_eager {
            self.turn();
        }
        self.check(&queued);
    }

    pub fn now(&self) -> Now {
        let monotonic_ms = self.clock.monotonic_ms();
        Now { monotonic_ms, unix_ms: BEGIN_MS.saturating_add_unsigned(monotonic_ms) }
    }

    /// The session of a choice, if it exists.
    fn pick(&self, choice: u8) -> Option<SessionKey> {
        let index = usize::from(choice).checked_rem(self.peers.len())?;
        Some(&self.peers[index]).filter(|peer| !peer.is_cut).map(|peer| peer.key)
    }

    fn with_peer(&mut self, choice: u8, change: impl FnOnce(&mut Peer)) {
        if let Some(index) = usize::from(choice).checked_rem(self.peers.len()) {
            change(&mut self.peers[index]);
        }
    }

    fn peer_mut(&mut self, key: SessionKey) -> &mut Peer {
        self.peers.iter_mut().find(|peer| peer.key == key).expect("a session has a peer")
    }

    fn open(&mut self, manner: Manner) {
        if self.peers.len() >= PEERS_MAX {
            return;
        }
        let opening = Opening {
            encoding: Encoding {
                codec: manner.codec(),
                deflate: manner.deflate.then_some(Window::Full),
            },
            user: manner.is_proxy_authenticated.then(|| "ann".into()),
            ping_style: if manner.pings_in_frames { PingStyle::Frame } else { PingStyle::Protocol },
        };
        let key = self.worker.handle_open(self.now(), opening);
        self.peers.push(Peer::new(key, manner));
    }

    fn say(&mut self, choice: u8, goes_on: bool, say: Say) {
        let Some(key) = self.pick(choice) else { return };
        let data = self.new_data(matches!(say, Say::Publish { is_binary: true, .. }));
        let peer = self.peer_mut(key);
        let is_json = data.first() != Some(&NO_JSON);
        if is_json || peer.codec == Codec::Protobuf {
            let request = say.request(|channel| peer.known(channel), data);
            peer.speak(request);
        }
        if !goes_on {
            self.send(key);
        }
    }

    /// Sends a peer's current message.
    fn send(&mut self, key: SessionKey) {
        let message = std::mem::take(&mut self.peer_mut(key).message);
        if !message.is_empty() {
            self.worker.handle_message(self.now(), key, &message);
        }
    }

    /// Sends the current messages of all peers.
    pub fn send_all(&mut self) {
        let here = self.peers.iter().filter(|peer| !peer.is_cut);
        let keys: Vec<SessionKey> = here.map(|peer| peer.key).collect();
        keys.into_iter().for_each(|key| self.send(key));
    }

    fn babble(&mut self, choice: u8, bytes: &[u8]) {
        let Some(key) = self.pick(choice) else { return };
        let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        let peer = self.peer_mut(key);
        if let Ok(commands) = decode_commands(peer.codec, bytes) {
            commands.iter().for_each(|command| peer.note(command));
        }
        self.worker.handle_message(self.now(), key, bytes);
    }

    /// Returns a unique payload; one that is not JSON starts with a byte of its own.
    fn new_data(&mut self, is_binary: bool) -> Bytes {
        self.published += 1;
        let number = self.published.to_string().into_bytes();
        if is_binary { [&[NO_JSON], &number[..]].concat().into() } else { number.into() }
    }

    fn judge(&mut self, which: u8, judged: Judged) {
        let Some(index) = usize::from(which).checked_rem(self.calls.len()) else { return };
        let Some((key, call, what)) = self.calls.remove(index) else { return };
        // The rules have no proxies.
        let SessionCall::Verify { kind, token } = what else { return };
        let refusal = match judged {
            Judged::Good { .. } => None,
            Judged::Expired => Some(TokenRefusal::Expired),
            Judged::Invalid => Some(TokenRefusal::Invalid),
            Judged::Unavailable => Some(TokenRefusal::Unavailable),
            Judged::Close => {
                let result = CallOutcome::Close(DisconnectCode::ConnectionLimit);
                return self.worker.handle_call_result(self.now(), key, call, result);
            }
        };
        let now = self.now();
        let held = self.worker.identity(key).filter(|identity| !identity.client.is_empty());
        let held = held.map(|identity| identity.user.to_owned());
        let claims = |wanted: &str| claims(now, judged, held.as_deref(), wanted);
        let result = match (kind, refusal) {
            (TokenKind::Connection, None) => CallOutcome::Connection(Ok(claims(&token).0)),
            (TokenKind::Connection, Some(refusal)) => CallOutcome::Connection(Err(refusal)),
            (TokenKind::Subscription, None) => CallOutcome::Subscription(Ok(claims(&token).1)),
            (TokenKind::Subscription, Some(refusal)) => CallOutcome::Subscription(Err(refusal)),
        };
        self.worker.handle_call_result(now, key, call, result);
    }

    /// Delivers the oldest broker event. Returns whether there was one.
    pub fn step(&mut self) -> bool {
        let Some(event) = self.queue.pop() else { return false };
        let event = self.written_down(event);
        self.worker.handle_broker_event(self.now(), event);
        true
    }

    /// Records an event, so that peers can check what they receive against it.
    fn written_down(&mut self, event: BrokerEvent) -> BrokerEvent {
        let mut note = |publication: &Publication, epoch: &str| {
            let position = StreamPosition { offset: publication.offset, epoch: epoch.to_owned() };
            self.ledger.insert(publication.data.clone(), position);
        };
        match &event {
            BrokerEvent::Publication { publication, epoch, .. } => note(publication, epoch),
            BrokerEvent::Reply(BrokerReply::Subscribed(_, Ok(stream))) => {
                stream.publications.iter().for_each(|one| note(one, &stream.top.epoch));
            }
            _ => {}
        }
        event
    }

    fn lose(&mut self) {
        if let Some(answer @ BrokerEvent::Reply(_)) = self.queue.pop() {
            self.queue.unpop(answer);
        }
    }

    fn fail(&mut self) {
        match self.queue.pop() {
            Some(BrokerEvent::Reply(mut reply)) => {
                reply.refuse(BrokerError::Unavailable);
                self.worker.handle_broker_event(self.now(), BrokerEvent::Reply(reply));
            }
            Some(event) => self.queue.unpop(event),
            None => {}
        }
    }

    /// Only the events of one channel keep their order.
    fn overtake(&mut self, which: u8) {
        let mut events = self.queue.0.lock().expect("one thread");
        let Some(index) = usize::from(which).checked_rem(events.len()) else { return };
        let channel = |event: &BrokerEvent| match event {
            BrokerEvent::Publication { channel, .. }
            | BrokerEvent::Membership { channel, .. }
            | BrokerEvent::Position { channel, .. }
            | BrokerEvent::Expired { channel } => Some(channel.clone()),
            BrokerEvent::Reply(reply) => self.questions.get(&reply.outcome().0).cloned(),
            BrokerEvent::Control(_)
            | BrokerEvent::Question { .. }
            | BrokerEvent::Revocation(_)
            | BrokerEvent::RevocationsStale => None,
        };
        let overtaking = channel(&events[index]);
        if events.iter().take(index).all(|event| channel(event) != overtaking)
            && let Some(event) = events.remove(index)
        {
            events.push_front(event);
        }
    }

    pub fn publish(&mut self, channel: &str) {
        let data = self.new_data(false);
        let namespace = channel.split_once(':').map(|(name, _)| name);
        let channels = &self.rules.channels;
        let namespace = match namespace {
            Some(name) => channels.namespaces.get(name),
            None => Some(&channels.without_namespace),
        };
        let Some(options) = namespace.map(|namespace| namespace.publish_options()) else { return };
        let publication = Publication { data, ..Publication::default() };
        let (id, channel) = (RequestId::new(0), channel.into());
        self.ask(PublicationsRequest::Publish { id, channel, publication, options }.into());
    }

    /// The broker's reply to a request from outside the worker.
    pub fn ask(&mut self, request: BrokerRequest) -> Option<BrokerReply> {
        while self.answers.pop().is_some() {}
        self.broker.submit(self.outside, request);
        match self.answers.pop() {
            Some(BrokerEvent::Reply(reply)) => Some(reply),
            _ => None,
        }
    }

    fn order(&mut self, choice: u8, ordered: Ordered) {
        let now = self.now();
        let until = |seconds: Option<u8>| seconds.map(|seconds| end_of(now, seconds));
        let order = match ordered {
            Ordered::Subscribe { channel: choice, expires_in, since } => Order::Subscribe {
                channel: channel(choice).to_owned(),
                grant: SubscriptionGrant {
                    expire_at: until(expires_in),
                    ..SubscriptionGrant::default()
                },
                recover_since: since
                    .filter(|_| !rules::is_cache(channel(choice)))
                    .map(|offset| StreamPosition { offset: offset.into(), epoch: String::new() }),
            },
            Ordered::Unsubscribe { channel: choice } => {
                Order::Unsubscribe { channel: channel(choice).to_owned() }
            }
            Ordered::UnsubscribeAll => Order::Unsubscribe { channel: String::new() },
            Ordered::Disconnect => Order::Disconnect(DisconnectCode::ForceDisconnect.into()),
            Ordered::Refresh { expires_in, expired } => {
                Order::Refresh { info: Bytes::new(), expire_at: until(expires_in), expired }
            }
        };
        let target = Target { user: user(choice).to_owned(), ..Target::default() };
        self.broker.submit(
            self.outside,
            NodeBusRequest::Control(Arc::new(Control { target, order })).into(),
        );
    }

    /// Advances time; timers run second by second.
    pub fn pass(&mut self, mut ms: u64) {
        while ms > 0 {
            let step = ms.min(1_000);
            ms -= step;
            self.clock.0.fetch_add(step, Ordering::Relaxed);
            self.broker.expire();
            self.worker.handle_timeout(self.now());
            assert!(self.worker.next_timeout_ms() > self.now().monotonic_ms, "nothing is overdue");
            self.turn();
        }
    }

    fn unblock(&mut self, choice: u8) {
        let Some(key) = self.pick(choice) else { return };
        self.peer_mut(key).room = None;
        if let Some(outbox) = self.worker.outbox(key) {
            outbox.mark_writable();
        }
        self.flush(key);
    }

    pub fn unblock_all(&mut self) {
        (0..self.peers.len()).for_each(|index| self.unblock(index as u8));
    }

    pub fn cut(&mut self, choice: u8) {
        let Some(key) = self.pick(choice) else { return };
        self.worker.handle_gone(self.now(), key);
        self.peer_mut(key).is_cut = true;
    }

    /// Performs the engine's effects and writes outboxes until nothing is left.
    pub fn turn(&mut self) {
        loop {
            let mut had_any = self.take_effects();
            while let Some(key) = self.worker.poll_pressed().or_else(|| self.worker.poll_touched())
            {
                had_any = true;
                self.flush(key);
            }
            if !had_any {
                break;
            }
        }
        for peer in self.peers.iter().filter(|peer| peer.is_alive()) {
            let outbox = self.worker.outbox(peer.key).expect("a session that is not gone");
            assert!(outbox.is_empty() || outbox.is_blocked(), "nobody was told to write");
        }
    }

    fn take_effects(&mut self) -> bool {
        let mut had_any = false;
        while let Some(effect) = self.worker.poll_effect() {
            had_any = true;
            match effect {
                Effect::Broker(request) => {
                    if let Some((id, channel)) = question(&request) {
                        self.questions.insert(id, channel);
                    }
                    self.broker.submit(self.endpoint, request);
                }
                Effect::Call { key, call, what } => self.calls.push_back((key, call, what)),
                Effect::Event(_) | Effect::Note { .. } => {}
                Effect::Close { key, disconnect } => {
                    let Some(outbox) = self.worker.outbox(key) else { continue };
                    if disconnect == DisconnectCode::Slow.into() {
                        outbox.drop_unbegun();
                    }
                    let queued = outbox.queued();
                    let before = self.peer_mut(key).ended_with.replace(queued);
                    assert_eq!(before, None, "a session ends once");
                }
            }
        }
        had_any
    }

    /// Writes as much as the socket accepts.
    fn flush(&mut self, key: SessionKey) {
        let World { worker, peers, inflater, ledger, .. } = self;
        let Some(outbox) = worker.outbox(key).filter(|outbox| !outbox.is_blocked()) else { return };
        let peer = peers.iter_mut().find(|peer| peer.key == key).expect("a session has a peer");
        let mut bytes = Vec::new();
        while !outbox.is_empty() {
            let mut slices = [IoSlice::new(&[]); 4];
            let used = outbox.slices(&mut slices);
            let offered: usize = slices[..used].iter().map(|slice| slice.len()).sum();
            let taken = peer.room.map_or(offered, |room| room.min(offered));
            if taken == 0 {
                outbox.mark_blocked();
                break;
            }
            let written = slices[..used].iter().flat_map(|slice| slice.iter().copied());
            bytes.extend(written.take(taken));
            outbox.advance(taken);
            peer.room = peer.room.map(|room| room - taken);
        }
        peer.ended_with = peer.ended_with.map(|ended| ended.saturating_sub(bytes.len()));
        for answer in peer.receive(&mut bytes, inflater, ledger) {
            let now = self.now();
            match answer {
                Answer::PongFrame => self.worker.handle_pong_frame(now, key),
                Answer::Pong => {
                    self.peer_mut(key).speak(Request::Pong);
                    self.send(key);
                }
            }
        }
    }

    /// Bytes queued for each peer.
    fn queued(&mut self) -> Vec<usize> {
        let World { worker, peers, .. } = self;
        peers
            .iter()
            .map(|peer| worker.outbox(peer.key).map_or(0, |outbox| outbox.queued()))
            .collect()
    }

    /// Checks what must hold after every operation.
    fn check(&mut self, queued_before: &[usize]) {
        let queued = self.queued();
        for (index, peer) in self.peers.iter().enumerate() {
            if let Some(ended_with) = peer.ended_with.filter(|_| !peer.is_cut) {
                assert!(queued[index] <= ended_with, "a session that has ended speaks");
            }
            let is_blocked = self.worker.outbox(peer.key).is_some_and(|outbox| outbox.is_blocked());
            let before = queued_before.get(index).copied().unwrap_or(0);
            assert!(
                !is_blocked || queued[index] <= before.max(QUEUE_MAX_SIZE),
                "an outbox overflows"
            );
        }
        let here = self.peers.iter().filter(|peer| !peer.is_cut).count();
        assert_eq!(self.worker.session_count(), here);
        assert!(self.worker.subscription_count() <= here * rules::CHANNEL_LIMIT);
        assert!(self.worker.users().len() <= here);
        assert!(self.worker.hub().channel_counts().all(|(_, subscribers)| subscribers > 0));
    }

    pub fn deny_all(&mut self) {
        while !self.calls.is_empty() {
            self.judge(0, Judged::Unavailable);
            self.turn();
        }
    }
}

/// The number of a request with a reply, and its channel.
fn question(request: &BrokerRequest) -> Option<(u64, Arc<str>)> {
    let reply = request.refuse(BrokerError::Unavailable)?;
    Some((reply.outcome().0, request.channel()?.clone()))
}

fn end_of(now: Now, seconds: u8) -> i64 {
    now.unix_ms / 1000 + i64::from(seconds)
}

/// The claims of a valid token of either kind; `held` is the session's user, if it has one.
fn claims(
    now: Now,
    judged: Judged,
    held: Option<&str>,
    wanted: &str,
) -> (ConnectionClaims, SubscriptionClaims) {
    let Judged::Good { user: choice, is_for_another, expires_in, channels, overrides } = judged
    else {
        return Default::default();
    };
    let user = held.filter(|_| !is_for_another).unwrap_or(user(choice)).to_owned();
    let expire_at = expires_in.map(|seconds| end_of(now, seconds));
    let on = |bit: u8| (overrides & (1 << bit) != 0).then_some(true);
    let overrides = Overrides {
        presence: on(0),
        join_leave: on(1),
        force_push_join_leave: on(2),
        force_recovery: on(3),
        force_positioning: on(4),
    };
    let grant = SubscriptionGrant { overrides, ..SubscriptionGrant::default() };
    let channels = channels.into_iter().flatten();
    let subscriptions = channels.map(|one| (channel(one).to_owned(), grant.clone())).collect();
    let connection =
        ConnectionClaims { user: user.clone(), expire_at, subscriptions, ..Default::default() };
    let (channel, grant) = (wanted.to_owned(), SubscriptionGrant { expire_at, ..grant });
    let subscription = SubscriptionClaims { user, channel, grant, ..SubscriptionClaims::default() };
    (connection, subscription)
}
