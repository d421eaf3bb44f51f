//! One worker with its sockets, in the role of the driver: reads bytes, performs effects, writes
//! outboxes to sockets of limited size.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io::IoSlice;
use std::sync::Arc;

use brokers::MemoryBroker;
use engine::broker::{BrokerRequest, NodeBusRequest};
use engine::encoding::{Encoder, Encoding};
use engine::hash_keys::HashKeys;
use engine::lifecycle::{Change, Lifecycle};
use engine::rules::Rules;
use engine::time::Now;
use engine::worker::Worker;
use engine::{Effect, Opening, PingStyle, SessionKey};
use wire::websocket::Role;
use wire::websocket::decoder::{Decoder, DecoderLimits, Message};
use wire::websocket::deflate::{Deflater, Inflater};
use wire::websocket::encoder;

use super::calls::Backends;
use super::link::Link;
use super::oracle::{Oracle, Violation};
use super::reported::Reported;

/// Limits of a message in either direction.
pub(crate) const LIMITS: DecoderLimits =
    DecoderLimits { message_size: 1 << 20, inflated_size: 1 << 20 };

/// Milliseconds in which a peer must answer a close frame.
const CLOSE_TIMEOUT_MS: u64 = 5_000;

/// A socket between a session and its client.
pub(crate) struct Socket {
    /// Frames that the client has written.
    pub(crate) upstream: VecDeque<Vec<u8>>,
    /// Bytes that the client has not read.
    pub(crate) downstream: VecDeque<u8>,
    capacity: usize,
    /// Whether it was full at any time.
    pub(crate) was_full: bool,
    decoder: Decoder,
    /// Time at which it is closed after a close frame.
    ends_at_ms: Option<u64>,
    /// Unix time in seconds at which the connection expires.
    expire_at: Option<i64>,
    /// Monotonic time since which the connection is expired.
    overdue_since_ms: Option<u64>,
}

/// A worker with its sockets; see the module.
pub(crate) struct Node {
    pub(crate) engine: Worker,
    pub(crate) link: Link,
    pub(crate) sockets: BTreeMap<SessionKey, Socket>,
    pub(crate) stalled_until_ms: u64,
    pub(crate) backends: Backends,
    /// Clients with an online event and no offline event.
    pub(crate) online: BTreeSet<String>,
    pub(crate) reported: Reported,
    /// Codes of closed sessions.
    closes: HashMap<SessionKey, u16>,
    inflater: Inflater,
    queue_max_size: usize,
}

impl Node {
    pub(crate) fn new(now: Now, rules: Arc<Rules>, link: Link, seed: u64) -> Node {
        let queue_max_size = rules.client.queue_max_size;
        Node {
            engine: Worker::new(
                now,
                rules,
                Encoder::new(Deflater::new(1), 0),
                seed,
                HashKeys::new([seed, 0]),
            ),
            link,
            sockets: BTreeMap::new(),
            stalled_until_ms: 0,
            backends: Backends::new(seed),
            online: BTreeSet::new(),
            reported: Reported::default(),
            closes: HashMap::new(),
            inflater: Inflater::default(),
            queue_max_size,
        }
    }

    /// Opens a session after a client's handshake.
    pub(crate) fn open(&mut self, now: Now, encoding: Encoding, capacity: usize) -> SessionKey {
        let opening = Opening { encoding, user: None, ping_style: PingStyle::Protocol };
        let key = self.engine.handle_open(now, opening);
        let socket = Socket {
            upstream: VecDeque::new(),
            downstream: VecDeque::new(),
            capacity,
            was_full: false,
            decoder: Decoder::new(Role::Server, LIMITS, encoding.deflate),
            ends_at_ms: None,
            expire_at: None,
            overdue_since_ms: None,
        };
        self.sockets.insert(key, socket);
        key
    }

    /// Reads what a client has written.
    pub(crate) fn read(
        &mut self,
        now: Now,
        broker: &MemoryBroker,
        key: SessionKey,
    ) -> Result<(), Violation> {
        while let Some(mut frame) =
            self.sockets.get_mut(&key).and_then(|socket| socket.upstream.pop_front())
        {
            let mut input = &mut frame[..];
            while let Some(socket) = self.sockets.get_mut(&key) {
                match socket.decoder.next(&mut self.inflater, &mut input) {
                    Ok(None) => break,
                    Ok(Some(Message::Text(payload) | Message::Binary(payload))) => {
                        self.engine.handle_message(now, key, &payload);
                    }
                    Ok(Some(Message::Close(_))) => self.gone(now, key),
                    Ok(Some(Message::Ping(_) | Message::Pong(_))) => {}
                    Err(error) => return Oracle::Close.broken(format!("the client broke {error}")),
                }
                self.work(now, broker)?;
            }
        }
        Ok(())
    }

    /// Delivers up to `count` broker events.
    pub(crate) fn receive(
        &mut self,
        now: Now,
        broker: &MemoryBroker,
        count: usize,
    ) -> Result<(), Violation> {
        for _ in 0..count {
            let Some(event) = self.link.take() else { return Ok(()) };
            self.engine.handle_broker_event(now, event);
            self.work(now, broker)?;
        }
        Ok(())
    }

    /// Returns the results of the calls that are due.
    pub(crate) fn verify(&mut self, now: Now, broker: &MemoryBroker) -> Result<(), Violation> {
        while let Some(call) = self.backends.take_due(now.monotonic_ms) {
            let outcome = self.backends.outcome(now, &call);
            if let (Some(expire_at), Some(socket)) =
                (call.lifetime(&outcome), self.sockets.get_mut(&call.key))
            {
                socket.expire_at = expire_at;
            }
            self.engine.handle_call_result(now, call.key, call.call, outcome);
            self.backends.repeat(now.monotonic_ms, call);
            self.work(now, broker)?;
        }
        Ok(())
    }

    /// Runs due timers.
    pub(crate) fn tick(&mut self, now: Now, broker: &MemoryBroker) -> Result<(), Violation> {
        self.engine.handle_timeout(now);
        self.work(now, broker)?;
        let is_over =
            |socket: &Socket| socket.ends_at_ms.is_some_and(|at_ms| at_ms <= now.monotonic_ms);
        let over: Vec<SessionKey> =
            self.sockets.iter().filter(|(_, s)| is_over(s)).map(|(key, _)| *key).collect();
        for key in over {
            self.gone(now, key);
        }
        self.work(now, broker)?;
        self.check_lifetimes(now)
    }

    /// Handles a closed socket.
    pub(crate) fn gone(&mut self, now: Now, key: SessionKey) {
        if self.sockets.remove(&key).is_some() {
            self.engine.handle_gone(now, key);
        }
    }

    /// Stops checking expiry of a user's tokens.
    pub(crate) fn forget_lifetimes(&mut self, user: &str) {
        for (key, socket) in &mut self.sockets {
            if self.engine.identity(*key).is_some_and(|identity| identity.user == user) {
                socket.expire_at = None;
            }
        }
    }

    /// Handles that the client has read: there may be room again.
    pub(crate) fn make_room(&mut self, key: SessionKey) {
        if let Some(outbox) = self.engine.outbox(key) {
            outbox.mark_writable();
            self.flush(key);
        }
    }

    /// Performs the engine's effects and writes.
    pub(crate) fn work(&mut self, now: Now, broker: &MemoryBroker) -> Result<(), Violation> {
        while let Some(key) = self.engine.poll_pressed() {
            self.flush(key);
        }
        while let Some(effect) = self.engine.poll_effect() {
            match effect {
                Effect::Broker(BrokerRequest::NodeBus(NodeBusRequest::Lifecycle(Lifecycle {
                    info,
                    change,
                    ..
                }))) => {
                    let is_next = match change {
                        Change::Online => self.online.insert(info.client.clone()),
                        Change::Offline { .. } => self.online.remove(&info.client),
                    };
                    let text = || format!("client {} is {change:?} out of turn", info.client);
                    Oracle::Lifecycle.check(is_next, text)?;
                }
                Effect::Broker(request) => self.link.submit(broker, request),
                Effect::Call { key, call, what } => {
                    self.backends.ask(now.monotonic_ms, (key, call), what)?;
                }
                Effect::Event(event) => self.reported.note(&event)?,
                Effect::Note { .. } => {}
                Effect::Close { key, disconnect } => {
                    let code = disconnect.number();
                    if let Some(before) = self.closes.insert(key, code) {
                        return Oracle::Close.broken(format!("{key:?} ends {before}, then {code}"));
                    }
                    self.say_goodbye(now, key, code, disconnect.reason());
                }
            }
        }
        while let Some(key) = self.engine.poll_touched() {
            self.flush(key);
        }
        self.check_bounds()
    }

    fn say_goodbye(&mut self, now: Now, key: SessionKey, code: u16, reason: &str) {
        let Some(socket) = self.sockets.get_mut(&key) else { return };
        socket.ends_at_ms = Some(now.monotonic_ms + CLOSE_TIMEOUT_MS);
        if let Some(outbox) = self.engine.outbox(key) {
            if code == 3008 {
                outbox.drop_unbegun();
            }
            let _slow = outbox.push(encoder::close_frame(code, reason), usize::MAX);
        }
        self.flush(key);
    }

    fn flush(&mut self, key: SessionKey) {
        let Some(socket) = self.sockets.get_mut(&key) else { return };
        let Some(outbox) = self.engine.outbox(key) else { return };
        while !outbox.is_empty() && !outbox.is_blocked() {
            let mut slices = [IoSlice::new(&[]); 4];
            let used = outbox.slices(&mut slices);
            let room = socket.capacity.saturating_sub(socket.downstream.len());
            let bytes = slices[..used].iter().flat_map(|slice| slice.iter()).take(room);
            let before = socket.downstream.len();
            socket.downstream.extend(bytes);
            let written = socket.downstream.len() - before;
            outbox.advance(written);
            if written == 0 {
                socket.was_full = true;
                outbox.mark_blocked();
            }
        }
    }

    fn check_bounds(&mut self) -> Result<(), Violation> {
        for key in self.sockets.keys() {
            let queued = self.engine.outbox(*key).map_or(0, |outbox| outbox.queued());
            // One input may queue much before a write is tried: as much again, of publications held
            // for a join.
            Oracle::Bound.check(queued <= 2 * self.queue_max_size + ONE_INPUT_MAX, || {
                format!("{queued} bytes are queued for {key:?}")
            })?;
        }
        Ok(())
    }

    /// Sessions are checked regularly, however the Unix clock jumps, so that an expired one closes.
    fn check_lifetimes(&mut self, now: Now) -> Result<(), Violation> {
        for (key, socket) in &mut self.sockets {
            let is_over = |at: i64| at * 1000 + EXPIRED_CLOSE_DELAY_MS <= now.unix_ms;
            if socket.ends_at_ms.is_some() || !socket.expire_at.is_some_and(is_over) {
                socket.overdue_since_ms = None;
                continue;
            }
            let since_ms = *socket.overdue_since_ms.get_or_insert(now.monotonic_ms);
            let overdue_ms = now.monotonic_ms - since_ms;
            Oracle::Expiry.check(overdue_ms < OVERDUE_MAX_MS, || {
                format!("{key:?} lives on for {overdue_ms} ms after its token and the grace")
            })?;
        }
        Ok(())
    }
}

/// Maximum bytes that one input makes a session send: a history reply or a recovery.
const ONE_INPUT_MAX: usize = 8 * 1024;

/// The grace period of the rules.
pub(crate) const EXPIRED_CLOSE_DELAY_MS: i64 = 3_000;

/// The interval of checks of a session: a ping, or the stale delay of a refused session; plus the
/// resolution of timers and of the simulation.
const OVERDUE_MAX_MS: u64 = 10_500;
