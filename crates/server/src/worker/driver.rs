//! A worker's event loop: wait, read, handle, flush. Decisions belong to the engine.
//!
//! Invariant: one turn ends with every touched connection flushed once; the worker sleeps only when
//! its inbox is empty.

mod admitting;
mod answers;
mod backends;
mod closing;
mod notes;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use brokers::PartsEndpoint;
use engine::encoding::Encoder;
use engine::time::Now;
use engine::worker::Worker as Engine;
use engine::{Effect, SessionCall, SessionKey};
use mio::{Events, Poll, Token};
use tracing::{debug, warn};
use wire::protocol::DisconnectCode;
use wire::websocket::decoder::Message;
use wire::websocket::deflate::{Deflater, Inflater};
use wire::websocket::encoder::{self, FrameKind};

use super::connection::{CloseState, Connection, ReadTurn};
use super::drain::Drain;
use super::inbox::{Input, WAKE, WorkerInbox};
use super::sandbox;
use super::{Arrival, Traffic, WorkerParts};
use crate::admission::call_place::CallPlace;
use crate::admission::token_result::TokenResult;
use crate::admission::verification::TokenCheck;
use crate::events;
use crate::limits::{PASSES_PER_TURN, READ_BUFFER, READS_PER_TURN, TURN_MS_MAX};
use crate::telemetry::CloseCounts;

/// State of a worker's thread.
pub(super) struct Driver {
    parts: WorkerParts,
    poll: Poll,
    inbox: Arc<WorkerInbox>,
    /// Inputs of the current pass; kept between passes to reuse its memory.
    inputs: Vec<Input>,
    endpoint: PartsEndpoint,
    engine: Engine,
    connections: Vec<Option<Box<Connection>>>,
    count: Arc<AtomicUsize>,
    read_buffer: Box<[u8]>,
    inflater: Inflater,
    /// Connections that are [`ReadTurn::Unread`], each once.
    unread: Vec<SessionKey>,
    /// Connections that are [`ReadTurn::Paused`], each once.
    paused: Vec<SessionKey>,
    /// Deadlines for the peer's close frame and for the end of its stream, in order of time.
    close_deadlines: VecDeque<(u64, SessionKey)>,
    /// Times at which writing is shut down on failed connections, in order of time.
    half_closes: VecDeque<(u64, SessionKey)>,
    drain: Option<Drain>,
    traffic: Traffic,
    closes: CloseCounts,
}

impl Driver {
    pub(super) fn new(
        seed: u64,
        parts: WorkerParts,
        poll: Poll,
        inbox: Arc<WorkerInbox>,
        count: Arc<AtomicUsize>,
    ) -> Driver {
        let endpoint = parts.broker.attach(inbox.clone());
        let deflater = Deflater::new(parts.wire.deflate_level);
        let encoder = Encoder::new(deflater, parts.wire.deflate_min_size);
        let (now, rules) = (parts.clock.now(), parts.rules.clone());
        let mut engine = Engine::new(now, rules, encoder, seed, parts.hasher);
        engine.share_buckets(parts.buckets.clone());
        Driver {
            parts,
            poll,
            inbox,
            inputs: Vec::new(),
            endpoint,
            engine,
            connections: Vec::new(),
            count,
            read_buffer: vec![0; READ_BUFFER].into_boxed_slice(),
            inflater: Inflater::default(),
            unread: Vec::new(),
            paused: Vec::new(),
            close_deadlines: VecDeque::new(),
            half_closes: VecDeque::new(),
            drain: None,
            traffic: Traffic::default(),
            closes: CloseCounts::default(),
        }
    }

    /// Runs until all connections are drained.
    ///
    /// # Errors
    /// When the poller fails.
    pub(super) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        while !self.is_done() {
            self.wait(&mut events)?;
            for event in &events {
                if event.token() != WAKE {
                    self.handle_ready(event.token().0, event);
                }
            }
            for key in std::mem::take(&mut self.unread) {
                self.read(key);
            }
            self.turn();
            self.resume_paused();
        }
        self.engine.publish_delayed_leaves();
        self.handle_effects();
        self.parts.broker.detach(self.endpoint);
        self.inbox.close();
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.drain.is_some() && self.count.load(Ordering::Relaxed) == 0
    }

    fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        let is_idle = self.unread.is_empty() && self.inbox.prepare_sleep();
        let timeout = if is_idle { self.sleep_time() } else { Duration::ZERO };
        let result = self.poll.poll(events, Some(timeout));
        self.inbox.end_sleep();
        match result {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            result => result,
        }
    }

    fn sleep_time(&self) -> Duration {
        let now_ms = self.parts.clock.monotonic_ms();
        let mut at_ms = self.engine.next_timeout_ms();
        if let Some((half_close_ms, _)) = self.half_closes.front() {
            at_ms = at_ms.min(*half_close_ms);
        }
        if let Some((deadline_ms, _)) = self.close_deadlines.front() {
            at_ms = at_ms.min(*deadline_ms);
        }
        if self.drain.as_ref().is_some_and(Drain::is_under_way) {
            at_ms = at_ms.min(now_ms + 10);
        }
        Duration::from_millis(at_ms.saturating_sub(now_ms))
    }

    /// Handles inputs, effects and timers until none is left or the turn is over, then flushes.
    fn turn(&mut self) {
        let over_ms = self.parts.clock.monotonic_ms() + TURN_MS_MAX;
        for _ in 0..PASSES_PER_TURN {
            let mut inputs = std::mem::take(&mut self.inputs);
            self.inbox.take(&mut inputs);
            let is_empty = inputs.is_empty();
            for input in inputs.drain(..) {
                self.handle_input(input);
                self.flush_pressed();
            }
            inputs.shrink_to(4096);
            self.inputs = inputs;
            if !self.handle_effects() && is_empty {
                break;
            }
            // Requests to the broker and their replies may continue for long, while other sockets
            // wait.
            if self.parts.clock.monotonic_ms() > over_ms {
                break;
            }
        }
        let now = self.parts.clock.now();
        sandbox::run(&mut self.engine, now, |engine| engine.handle_timeout(now));
        self.step_drain(now);
        self.half_close(now);
        self.remove_overdue(now);
        self.handle_effects();
        loop {
            while let Some(key) = self.engine.poll_touched() {
                self.flush(key);
            }
            // A failed flush removes its connection, which may have further effects.
            if !self.handle_effects() {
                break;
            }
        }
    }

    fn handle_input(&mut self, input: Input) {
        let now = self.parts.clock.now();
        match input {
            Input::Arrival(arrival) => self.handle_arrival(now, *arrival),
            Input::Broker(event) => {
                sandbox::run(&mut self.engine, now, |engine| {
                    engine.handle_broker_event(now, event);
                });
            }
            Input::BackendResult(place, outcome) => {
                self.handle_backend_result(now, place, *outcome);
            }
            Input::TokenResult(place, token_result) => {
                self.handle_token_result(now, place, token_result);
            }
            // The receiver may have timed out.
            Input::Report(answer) => drop(answer.send(self.report())),
            Input::ChannelCounts(answer) => drop(answer.send(self.channel_counts())),
            Input::Clients(filter, answer) => drop(answer.send(self.clients(&filter))),
            Input::Subscribers(filter, answer) => drop(answer.send(self.subscribers(&filter))),
            Input::MakeRoom(key) => self.make_room(now, key),
            Input::Rules(rules) => self.engine.set_rules(rules),
            Input::Revoke(revocation) => {
                sandbox::run(&mut self.engine, now, |engine| engine.revoke(now, &revocation));
            }
            Input::Drain { window_ms } => {
                let keys: Vec<SessionKey> = self.engine.keys().collect();
                self.drain = Some(Drain::new(now.monotonic_ms, keys, window_ms));
            }
        }
    }

    fn handle_arrival(&mut self, now: Now, arrival: Arrival) {
        let proxy_user = arrival.user.clone();
        let key = self.engine.handle_open(now, arrival.opening());
        let (mut connection, mut early) = arrival.into_connection(key, self.parts.wire.limits);
        let slot = key.slot as usize;
        let registered = connection.socket.register(self.poll.registry(), Token(slot));
        if self.connections.len() <= slot {
            self.connections.resize_with(slot + 1, || None);
        }
        self.connections[slot] = Some(Box::new(connection));
        if let Err(failure) = registered {
            warn!(%failure, "socket cannot be registered with the poller");
            return self.remove(key, DisconnectCode::WriteError.number());
        }
        if self.drain.is_some() {
            return self.close_session(now, key, DisconnectCode::Shutdown);
        }
        if let Some(user) = proxy_user
            && self.parts.revoked.refuses_user(&user)
        {
            return self.close_session(now, key, DisconnectCode::InvalidToken);
        }
        self.assign(now, key);
        if !early.is_empty() {
            self.handle_bytes(key, &mut early);
        }
        self.read(key);
    }

    fn handle_ready(&mut self, slot: usize, event: &mio::event::Event) {
        let Some(connection) = self.connections.get_mut(slot).and_then(Option::as_mut) else {
            return;
        };
        let key = connection.key;
        if event.is_writable()
            && let Some(outbox) = self.engine.outbox(key)
            && outbox.is_blocked()
        {
            outbox.mark_writable();
            self.flush(key);
        }
        let Some(connection) = self.connection(key) else {
            return;
        };
        connection.is_ending |= event.is_read_closed() || event.is_error();
        // Unread and paused connections are already scheduled.
        let has_more = event.is_readable() || connection.is_ending;
        if has_more && connection.reading == ReadTurn::Ready {
            self.read(key);
        }
    }

    /// Schedules paused connections that are no longer congested.
    fn resume_paused(&mut self) {
        let Driver { engine, paused, unread, .. } = self;
        unread.extend(paused.extract_if(.., |key| !engine.is_congested(*key)));
    }

    fn connection(&mut self, key: SessionKey) -> Option<&mut Connection> {
        let connection = self.connections.get_mut(key.slot as usize)?.as_mut()?;
        (connection.key == key).then_some(&mut **connection)
    }

    /// Reads until the kernel has no more data, or until the bound of reads per turn.
    fn read(&mut self, key: SessionKey) {
        let mut buffer = std::mem::take(&mut self.read_buffer);
        let mut is_drained = false;
        for _ in 0..READS_PER_TURN {
            let Some(connection) = self.connection(key) else {
                is_drained = true;
                break;
            };
            if matches!(connection.state, CloseState::Lingering { .. }) {
                is_drained = self.discard(key, &mut buffer);
                break;
            }
            if self.engine.is_congested(key) {
                break;
            }
            let Some(connection) = self.connection(key) else { break };
            match connection.socket.read(&mut buffer) {
                Ok(result) if result.count == 0 => {
                    is_drained = true;
                    self.remove(key, DisconnectCode::ConnectionClosed.number());
                }
                Ok(result) => {
                    // No further event reports an end of stream that arrived with the last bytes.
                    is_drained = result.is_drained && !connection.is_ending;
                    self.traffic.received += result.count as u64;
                    self.handle_bytes(key, &mut buffer[..result.count]);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => is_drained = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    self.handle_tls_breach(key);
                }
                Err(_) => {
                    is_drained = true;
                    self.remove(key, DisconnectCode::ConnectionClosed.number());
                }
            }
            if is_drained {
                break;
            }
        }
        self.read_buffer = buffer;
        let reading = match is_drained {
            true => ReadTurn::Ready,
            false if self.engine.is_congested(key) => ReadTurn::Paused,
            false => ReadTurn::Unread,
        };
        self.plan_reading(key, reading);
    }

    /// Records when the connection is read again.
    fn plan_reading(&mut self, key: SessionKey, reading: ReadTurn) {
        let Some(connection) = self.connection(key) else {
            return;
        };
        connection.reading = reading;
        match reading {
            ReadTurn::Ready => {}
            ReadTurn::Unread => self.unread.push(key),
            ReadTurn::Paused => self.paused.push(key),
        }
    }

    fn handle_bytes(&mut self, key: SessionKey, mut input: &mut [u8]) {
        let now = self.parts.clock.now();
        loop {
            let Driver { connections, inflater, .. } = self;
            let Some(Some(connection)) = connections.get_mut(key.slot as usize) else {
                return;
            };
            if connection.key != key || !connection.state.is_listening() {
                return;
            }
            match connection.decoder.next(inflater, &mut input) {
                Ok(None) => {
                    let stored = connection.decoder.kept();
                    return self.hold_unfinished(key, stored);
                }
                Ok(Some(message)) => self.handle_message(now, key, message),
                Err(failure) => return self.handle_breach(key, failure),
            }
            self.flush_pressed();
        }
    }

    fn handle_message(&mut self, now: Now, key: SessionKey, message: Message<'_>) {
        match message {
            Message::Text(payload) | Message::Binary(payload) => {
                self.hold_message(key, payload.len());
                sandbox::run_for(&mut self.engine, now, key, |engine| {
                    engine.handle_message(now, key, &payload);
                });
                self.note_admission(now, key);
            }
            Message::Ping(payload) => {
                let pong = encoder::frame(FrameKind::Pong, &payload);
                sandbox::run_for(&mut self.engine, now, key, |engine| {
                    engine.send_frame(now, key, pong);
                });
            }
            Message::Pong(_) => {
                sandbox::run_for(&mut self.engine, now, key, |engine| {
                    engine.handle_pong_frame(now, key);
                });
            }
            Message::Close(close) => {
                let code = close.as_ref().map_or(1005, |close| close.code.number());
                let Some(connection) = self.connection(key) else {
                    return;
                };
                let was_open = connection.state == CloseState::Open;
                connection.state = CloseState::Closed;
                sandbox::run_for(&mut self.engine, now, key, |engine| {
                    engine.handle_disconnect(now, key);
                });
                if was_open {
                    let (user, client) = self.identity_of(key);
                    debug!(code, user, client, "client closed the connection");
                    self.closes.count(DisconnectCode::ConnectionClosed.number());
                    self.send_close_frame(key, encoder::close_answer(close.as_ref()));
                }
                self.finish(key);
            }
        }
    }

    /// Flushes sessions with too much queued data to wait for the end of the turn.
    fn flush_pressed(&mut self) {
        while let Some(key) = self.engine.poll_pressed() {
            self.flush(key);
        }
    }

    /// Executes the effects of the engine. Returns whether there were any.
    fn handle_effects(&mut self) -> bool {
        let mut had_any = false;
        while let Some(effect) = self.engine.poll_effect() {
            had_any = true;
            match effect {
                Effect::Broker(request) => self.parts.broker.submit(self.endpoint, request),
                Effect::Call { key, call, what } => self.call(CallPlace { key, call }, what),
                Effect::Event(event) => events::record(&self.parts.events, &event),
                Effect::Note { key, channel, cause } => self.note(key, &channel, &cause),
                Effect::Close { key, disconnect } => self.close(key, &disconnect),
            }
        }
        had_any
    }

    fn call(&mut self, place: CallPlace, what: SessionCall) {
        match what {
            SessionCall::Verify { kind, token } => self.verify(TokenCheck { place, kind, token }),
            what => self.call_backend(place, what),
        }
    }

    fn verify(&mut self, check: TokenCheck) {
        let (now, place) = (self.parts.clock.now(), check.place);
        let verification = self.parts.verification.clone();
        if let Some(token_result) = verification.verify(now.unix_ms, check, &self.inbox) {
            self.handle_token_result(now, place, token_result);
        }
    }

    fn handle_token_result(&mut self, now: Now, place: CallPlace, token_result: TokenResult) {
        let token_result = self.parts.revoked.refuse_if_revoked(token_result);
        if let Some(cause) = token_result.cause {
            self.note_token(place, cause);
        }
        self.handle_call_result(now, place, token_result.result);
    }

    /// User and client id of a session, for logs.
    fn identity_of(&self, key: SessionKey) -> (String, String) {
        let identity = self.engine.identity(key);
        identity.map_or_else(Default::default, |identity| {
            (identity.user.to_owned(), identity.client.to_owned())
        })
    }

    /// Writes the queued frames in as few system calls as possible.
    fn flush(&mut self, key: SessionKey) {
        let Driver { engine, connections, traffic, .. } = self;
        let Some(Some(connection)) = connections.get_mut(key.slot as usize) else {
            return;
        };
        let Some(outbox) = engine.outbox(key) else {
            return;
        };
        if connection.key != key || outbox.is_blocked() {
            return;
        }
        let mut result = Ok(());
        while !outbox.is_empty() {
            traffic.writes += 1;
            match connection.socket.send(outbox) {
                Ok(count) => {
                    traffic.sent += count as u64;
                    outbox.advance(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    result = Err(error);
                    break;
                }
            }
        }
        let result = result.and_then(|()| connection.socket.flush());
        match result {
            Ok(()) => {
                if matches!(connection.state, CloseState::Closed | CloseState::Failed) {
                    self.linger(key);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => outbox.mark_blocked(),
            Err(_) => self.remove(key, DisconnectCode::WriteError.number()),
        }
    }

    pub(super) fn close_session(&mut self, now: Now, key: SessionKey, code: DisconnectCode) {
        sandbox::run_for(&mut self.engine, now, key, |engine| engine.close(now, key, code));
    }

    /// Closes the connections that are due in a drain.
    fn step_drain(&mut self, now: Now) {
        let Some(drain) = &mut self.drain else { return };
        for key in drain.due(now.monotonic_ms) {
            self.close_session(now, key, DisconnectCode::Shutdown);
        }
    }
}
