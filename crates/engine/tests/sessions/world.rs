//! One worker with the memory broker, stepped by hand: nothing happens until a test requests it,
//! broker events included.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use brokers::{Broker, Clock, Endpoint, Inbox, MemoryBroker};
use bytes::Bytes;
use engine::broker::{
    BrokerEvent, BrokerReply, Control, NodeBusRequest, Order, PresenceRequest, PublicationsRequest,
    PublishOptions, RequestId, Target,
};
use engine::claims::{ConnectionClaims, SubscriptionClaims, SubscriptionGrant, TokenRefusal};
use engine::encoding::{Encoder, Encoding};
use engine::hash_keys::HashKeys;
use engine::rules::{Namespace, Permission, Rules, SubscribePermission};
use engine::time::Now;
use engine::worker::Worker;
use engine::{
    CallOutcome, Effect, Opening, PingStyle, SessionCall, SessionCallId, SessionEvent, SessionKey,
    TokenKind,
};
use wire::protocol::{Codec, Publication};
use wire::websocket::Role;
use wire::websocket::decoder::{Decoder, DecoderLimits, Message};
use wire::websocket::deflate::{Deflater, Inflater};

/// Unix time in seconds at which every world starts.
pub(crate) const BEGIN: i64 = 1_700_000_000;

#[derive(Default)]
struct WorldClock(AtomicU64);

impl Clock for WorldClock {
    fn monotonic_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

#[derive(Default)]
struct Queue(Mutex<VecDeque<BrokerEvent>>);

impl Inbox for Queue {
    fn deliver(&self, event: BrokerEvent) {
        self.0.lock().unwrap().push_back(event);
    }

    fn is_full(&self) -> bool {
        false
    }
}

pub(crate) struct World {
    pub(crate) worker: Worker,
    pub(crate) rules: Rules,
    broker: MemoryBroker,
    endpoint: Endpoint,
    queue: Arc<Queue>,
    outside: Endpoint,
    answers: Arc<Queue>,
    clock: Arc<WorldClock>,
    /// Calls without a result yet.
    pub(crate) calls: VecDeque<(SessionKey, SessionCallId, SessionCall)>,
    /// Closed sessions with their codes.
    pub(crate) closes: Vec<(SessionKey, u16)>,
    /// Reported events.
    pub(crate) events: Vec<SessionEvent>,
}

/// Rules with one namespace for each feature.
pub(crate) fn rules() -> Rules {
    let mut rules = Rules::default();
    let client = &mut rules.client;
    client.channel_limit = 4;
    client.queue_max_size = 1 << 20;
    client.stale_close_delay_ms = 10_000;
    client.expired_close_delay_ms = 25_000;
    client.expired_sub_close_delay_ms = 25_000;
    client.ping_interval_ms = 25_000;
    client.pong_timeout_ms = 8_000;
    client.position_check_delay_ms = 40_000;
    client.history_max_publication_limit = 300;
    client.recovery_max_publication_limit = 5;
    client.allow_anonymous_connect_without_token = true;
    let everybody = Permission { client: true, subscriber: true, anonymous: true };
    let open = Namespace {
        subscribe: SubscribePermission { client: true, anonymous: true },
        publish: everybody,
        presence_read: everybody,
        history_read: everybody,
        ..Namespace::default()
    };
    let kept = Namespace {
        history_size: 10,
        history_ttl_ms: 600_000,
        history_meta_ttl_ms: 600_000,
        force_recovery: true,
        ..open.clone()
    };
    let people =
        Namespace { presence: true, join_leave: true, force_push_join_leave: true, ..open.clone() };
    let namespaces = [
        ("kept", kept.clone()),
        ("people", people),
        ("closed", Namespace::default()),
        ("closedkept", Namespace { subscribe: SubscribePermission::default(), ..kept }),
    ];
    rules.channels.namespaces =
        namespaces.into_iter().map(|(name, namespace)| (name.to_owned(), namespace)).collect();
    rules.channels.without_namespace = open;
    rules
}

impl World {
    pub(crate) fn new() -> World {
        World::with(rules())
    }

    pub(crate) fn with(rules: Rules) -> World {
        let clock = Arc::new(WorldClock::default());
        let broker = MemoryBroker::new(clock.clone(), "epoch".to_owned());
        let queue = Arc::new(Queue::default());
        let answers = Arc::new(Queue::default());
        let (endpoint, outside) = (broker.attach(queue.clone()), broker.attach(answers.clone()));
        let encoder = Encoder::new(Deflater::new(1), 0);
        let now = Now { monotonic_ms: 0, unix_ms: BEGIN * 1000 };
        let worker = Worker::new(now, Arc::new(rules.clone()), encoder, 1, HashKeys::new([1, 2]));
        World {
            worker,
            rules,
            broker,
            endpoint,
            queue,
            outside,
            answers,
            clock,
            calls: VecDeque::new(),
            closes: Vec::new(),
            events: Vec::new(),
        }
    }

    pub(crate) fn now(&self) -> Now {
        let monotonic_ms = self.clock.monotonic_ms();
        Now { monotonic_ms, unix_ms: BEGIN * 1000 + i64::try_from(monotonic_ms).unwrap() }
    }

    pub(crate) fn open(&mut self) -> SessionKey {
        self.open_with(Codec::Json)
    }

    pub(crate) fn open_with(&mut self, codec: Codec) -> SessionKey {
        let encoding = Encoding { codec, deflate: None };
        let opening = Opening { encoding, user: None, ping_style: PingStyle::Protocol };
        self.worker.handle_open(self.now(), opening)
    }

    /// A session connected as an anonymous user.
    pub(crate) fn anonymous(&mut self) -> SessionKey {
        let key = self.open();
        self.says(key, r#"{"id":1,"connect":{}}"#);
        self.settle();
        assert!(self.received(key)[0].contains("\"connect\""));
        key
    }

    /// A session connected by a token with these claims.
    pub(crate) fn user(&mut self, claims: ConnectionClaims) -> SessionKey {
        let key = self.open();
        self.says(key, r#"{"id":1,"connect":{"token":"t"}}"#);
        self.verify(Ok(claims));
        self.settle();
        key
    }

    pub(crate) fn says(&mut self, key: SessionKey, text: &str) {
        self.worker.handle_message(self.now(), key, text.as_bytes());
        self.take_effects();
    }

    /// All messages queued for a session.
    pub(crate) fn received(&mut self, key: SessionKey) -> Vec<String> {
        let mut bytes = Vec::new();
        let Some(outbox) = self.worker.outbox(key) else { return Vec::new() };
        while !outbox.is_empty() {
            let mut slices = [IoSlice::new(&[]); 4];
            let used = outbox.slices(&mut slices);
            let written: usize = slices[..used].iter().map(|slice| slice.len()).sum();
            slices[..used].iter().for_each(|slice| bytes.extend_from_slice(slice));
            outbox.advance(written);
        }
        let limits = DecoderLimits { message_size: 1 << 24, inflated_size: 1 << 24 };
        let mut decoder = Decoder::new(Role::Client, limits, None);
        let mut input = &mut bytes[..];
        let mut lines = Vec::new();
        while let Some(message) = decoder.next(&mut Inflater::default(), &mut input).unwrap() {
            let Message::Text(text) = message else { panic!("a JSON session gets text") };
            lines.extend(String::from_utf8(text.to_vec()).unwrap().lines().map(str::to_owned));
        }
        lines
    }

    /// Performs the engine's effects, but leaves broker events in the queue.
    pub(crate) fn take_effects(&mut self) {
        while let Some(effect) = self.worker.poll_effect() {
            match effect {
                Effect::Broker(request) => self.broker.submit(self.endpoint, request),
                Effect::Call { key, call, what } => self.calls.push_back((key, call, what)),
                Effect::Event(event) => self.events.push(*event),
                Effect::Note { .. } => {}
                Effect::Close { key, disconnect } => self.closes.push((key, disconnect.number())),
            }
        }
    }

    /// Delivers the oldest broker event.
    pub(crate) fn step(&mut self) -> bool {
        let Some(event) = self.lose() else { return false };
        self.happens(event);
        true
    }

    /// Removes the oldest broker event; the worker never receives it.
    pub(crate) fn lose(&mut self) -> Option<BrokerEvent> {
        self.queue.0.lock().unwrap().pop_front()
    }

    pub(crate) fn happens(&mut self, event: BrokerEvent) {
        self.worker.handle_broker_event(self.now(), event);
        self.take_effects();
    }

    /// Delivers all broker events.
    pub(crate) fn settle(&mut self) {
        while self.step() {}
    }

    /// Removes the oldest call, which the test returns a result for.
    pub(crate) fn take_call(&mut self) -> SessionCallId {
        self.calls.pop_front().expect("a call").1
    }

    /// Returns the result of the call with this index among those without one.
    pub(crate) fn answer(&mut self, index: usize, result: CallOutcome) {
        let (key, call, _) = self.calls.remove(index).expect("a call");
        self.worker.handle_call_result(self.now(), key, call, result);
        self.take_effects();
    }

    /// Returns a verdict on the oldest connection token.
    pub(crate) fn verify(&mut self, verdict: Result<ConnectionClaims, TokenRefusal>) {
        self.assert_verifies(TokenKind::Connection);
        self.answer(0, CallOutcome::Connection(verdict));
    }

    /// Returns a verdict on the oldest subscription token.
    pub(crate) fn verify_subscription(
        &mut self,
        verdict: Result<SubscriptionClaims, TokenRefusal>,
    ) {
        self.assert_verifies(TokenKind::Subscription);
        self.answer(0, CallOutcome::Subscription(verdict));
    }

    fn assert_verifies(&self, expected: TokenKind) {
        let what = self.calls.front().map(|(_, _, what)| what);
        let is_meant = matches!(what, Some(SessionCall::Verify { kind, .. }) if *kind == expected);
        assert!(is_meant, "{what:?}");
    }

    /// Advances time second by second, and performs everything that follows.
    pub(crate) fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.clock.0.fetch_add(1000, Ordering::SeqCst);
            self.broker.expire();
            self.worker.handle_timeout(self.now());
            self.take_effects();
            self.settle();
        }
    }

    /// Advances time for sessions that answer their pings. Returns the messages of the first.
    pub(crate) fn live(&mut self, keys: &[SessionKey], seconds: u64) -> Vec<String> {
        let mut received = Vec::new();
        for _ in 0..seconds {
            self.pass(1);
            for key in keys {
                let lines = self.received(*key);
                if lines.contains(&"{}".to_owned()) {
                    self.says(*key, "{}");
                }
                if key == &keys[0] {
                    received.extend(lines);
                }
            }
        }
        received
    }

    /// Publishes a number through the API.
    pub(crate) fn publish(&mut self, channel: &str, number: u32) {
        self.publish_data(channel, number.to_string().into());
    }

    /// Publishes any bytes through the API.
    pub(crate) fn publish_data(&mut self, channel: &str, data: Bytes) {
        let namespace = channel.split_once(':').map(|(namespace, _)| namespace);
        let of_name = |name: &str| &self.rules.channels.namespaces[name];
        let namespace = namespace.map_or(&self.rules.channels.without_namespace, of_name);
        let request = PublicationsRequest::Publish {
            id: RequestId::new(0),
            channel: channel.into(),
            publication: Publication { data, ..Publication::default() },
            options: PublishOptions { ..namespace.publish_options() },
        };
        self.broker.submit(self.outside, request.into());
        self.answers.0.lock().unwrap().clear();
    }

    /// Sends an order of the API to a user's sessions.
    pub(crate) fn order(&mut self, user: &str, order: Order) {
        let target = Target { user: user.to_owned(), ..Target::default() };
        let control = Arc::new(Control { target, order });
        self.broker.submit(self.outside, NodeBusRequest::Control(control).into());
        self.settle();
    }

    /// Closes the session's socket.
    pub(crate) fn cut(&mut self, key: SessionKey) {
        self.worker.handle_gone(self.now(), key);
        self.take_effects();
        self.settle();
    }

    /// The channel's presence at the broker.
    pub(crate) fn present(&mut self, channel: &str) -> String {
        let request = PresenceRequest::Stats { id: RequestId::new(0), channel: channel.into() };
        self.broker.submit(self.outside, request.into());
        let mut answers = self.answers.0.lock().unwrap();
        let answer = answers.pop_back();
        answers.clear();
        match answer {
            Some(BrokerEvent::Reply(BrokerReply::PresenceStats(_, result))) => {
                format!("{:?}", result.unwrap())
            }
            other => panic!("{other:?}"),
        }
    }

    /// Closes all sessions and asserts that no state remains.
    pub(crate) fn assert_no_state_remains(&mut self) {
        let keys: Vec<SessionKey> = self.worker.keys().collect();
        keys.into_iter().for_each(|key| self.cut(key));
        assert_eq!(self.worker.session_count(), 0);
        assert_eq!(self.worker.subscription_count(), 0);
        assert!(self.worker.hub().is_empty());
        assert_eq!(self.worker.users().names().count(), 0);
    }

    /// The code with which a session closed; panics unless it closed exactly once.
    pub(crate) fn code(&self, key: SessionKey) -> u16 {
        let codes: Vec<u16> =
            self.closes.iter().filter(|(one, _)| *one == key).map(|(_, code)| *code).collect();
        assert_eq!(codes.len(), 1, "one reason to close, not {codes:?}");
        codes[0]
    }
}

pub(crate) fn claims(user: &str) -> ConnectionClaims {
    ConnectionClaims { user: user.to_owned(), ..ConnectionClaims::default() }
}

pub(crate) fn subscribed_to(user: &str, channels: &[&str]) -> ConnectionClaims {
    let subscriptions =
        channels.iter().map(|name| ((*name).to_owned(), SubscriptionGrant::default())).collect();
    ConnectionClaims { subscriptions, ..claims(user) }
}
