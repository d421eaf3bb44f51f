//! The connection of a session: what is sent, and what replies, pushes, closes and silence lead to.
//!
//! Invariant: replies, subscriptions and calls belong to one byte stream. When it is lost, every
//! call that was sent ends, and every subscription waits for the next one.

use std::time::{Duration, Instant};

use wire::protocol::{
    ConnectRequest, ConnectResult, DisconnectCode, ErrorReply, Push, PushEvent, Reply, ReplyBody,
    Request,
};

use super::backoff::has_lived;
use super::calls::Calls;
use super::credential::{Credential, lifetime};
use super::event::{
    Action, CallId, Connected, Event, Failure, Subscribed, SubscriptionOrigin, TokenRequestId,
    TokenSubject,
};
use super::message_stream::{Item, MessageStream};
use super::options::SessionOptions;
use super::outputs::{PendingReply, SessionOutputs, Timer};
use super::random::Randomness;
use super::reason::{self, Reason, is_reconnect, is_retried, is_token_expired};
use super::server_subscriptions::{ServerSubscriptions, TooMany};
use super::subscriptions::Subscriptions;
use crate::error::{CallError, TokenError, TransportError};
use crate::limits::REFRESH_RETRY;
use crate::url::ServerUrl;

/// State of a session for its current connection.
#[derive(Debug)]
pub(super) struct SessionCore {
    url: ServerUrl,
    options: SessionOptions,
    phase: ConnectionPhase,
    /// Attempts to connect since the last connection that has lived for a while.
    attempts: u32,
    /// When the server accepted the last connection.
    accepted_at: Option<Instant>,
    credential: Credential,
    stream: Option<MessageStream>,
    ping: Ping,
    /// Publications for channels without a live subscription.
    pub(super) strays: u64,
    pub(super) calls: Calls,
    pub(super) subscriptions: Subscriptions,
    pub(super) server_subscriptions: ServerSubscriptions,
    pub(super) out: SessionOutputs,
}

/// How far the connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionPhase {
    Disconnected,
    /// Between two attempts.
    Waiting,
    /// A token was asked for.
    Token,
    /// The driver opens the byte stream.
    Opening,
    /// The handshake was sent.
    Handshake,
    /// The connect command was sent.
    Greeting,
    Connected,
}

/// What the server said about pings.
#[derive(Clone, Copy, Debug, Default)]
struct Ping {
    /// Silence after which the connection counts as lost; zero when the server does not ping.
    patience: Duration,
    is_answered: bool,
}

impl SessionCore {
    pub(super) fn new(url: ServerUrl, options: SessionOptions, random: Randomness) -> SessionCore {
        let options = options.bounded();
        SessionCore {
            url,
            phase: ConnectionPhase::Disconnected,
            attempts: 0,
            accepted_at: None,
            credential: Credential::new(options.token.clone()),
            stream: None,
            ping: Ping::default(),
            strays: 0,
            calls: Calls::new(options.outgoing_bytes_max),
            subscriptions: Subscriptions::new(options.resubscribe),
            server_subscriptions: ServerSubscriptions::default(),
            out: SessionOutputs::new(options.codec, random, options.timeout),
            options,
        }
    }

    pub(super) fn options(&self) -> &SessionOptions {
        &self.options
    }

    pub(super) fn phase(&self) -> ConnectionPhase {
        self.phase
    }

    pub(super) fn connect(&mut self, now: Instant) {
        if self.phase == ConnectionPhase::Disconnected {
            self.attempts = 0;
            self.phase = ConnectionPhase::Waiting;
            self.out.events.push_back(Event::Connecting(Reason::CONNECT_CALLED));
            self.begin(now);
        }
    }

    pub(super) fn disconnect(&mut self) {
        if self.phase != ConnectionPhase::Disconnected {
            self.end(Reason::DISCONNECT_CALLED);
        }
    }

    /// The byte stream is open: the handshake begins.
    pub(super) fn handle_opened(&mut self, now: Instant) {
        if self.phase == ConnectionPhase::Opening {
            let SessionOutputs { random, outbox, .. } = &mut self.out;
            self.stream = Some(MessageStream::new(&self.url, &self.options, random, outbox));
            self.phase = ConnectionPhase::Handshake;
            self.out.timers.set(Timer::Step, now + self.options.timeout);
        }
    }

    pub(super) fn handle_bytes(&mut self, now: Instant, mut bytes: &mut [u8]) {
        if self.phase == ConnectionPhase::Connected {
            self.expect_ping(now);
        }
        while let Some(stream) = &mut self.stream {
            match stream.next(&mut bytes, &mut self.out.outbox) {
                Ok(None) => return,
                Ok(Some(Item::Open)) => self.greet(now),
                Ok(Some(Item::Closed { code, reason })) => {
                    self.handle_close(now, code.into(), &reason);
                }
                Ok(Some(Item::Replies(replies))) => {
                    for reply in replies {
                        if self.stream.is_some() {
                            self.handle_reply(now, reply);
                        }
                    }
                }
                Err(TransportError::Codec(error)) => {
                    self.out.events.push_back(failed(TransportError::Codec(error)));
                    self.end(Reason::BAD_PROTOCOL);
                }
                Err(error) => {
                    self.close();
                    self.fail(now, error);
                }
            }
        }
    }

    /// The byte stream could not be opened, or has ended.
    pub(super) fn handle_closed(&mut self, now: Instant, error: TransportError) {
        let error = match (&self.stream, error) {
            (Some(stream), TransportError::Closed) => stream.end(),
            (_, error) => error,
        };
        if self.stream.is_some() || self.phase == ConnectionPhase::Opening {
            self.out.outbox.clear();
            self.fail(now, error);
        }
    }

    /// The application has a token, or has none.
    pub(super) fn handle_token(
        &mut self,
        now: Instant,
        request: TokenRequestId,
        token: Result<String, TokenError>,
    ) {
        if !self.credential.take_request(request) {
            return self.subscriptions.handle_token(now, request, token, &mut self.out);
        }
        let error = match token {
            Ok(token) if !token.is_empty() => {
                self.credential.renew(token.clone());
                match self.phase {
                    ConnectionPhase::Token => self.begin(now),
                    ConnectionPhase::Connected => {
                        self.out.command(now, Request::Refresh { token }, PendingReply::Refresh);
                    }
                    _ => {}
                }
                return;
            }
            Ok(_) | Err(TokenError::Unauthorized) => return self.end(Reason::UNAUTHORIZED),
            Err(error) => error,
        };
        match self.phase {
            ConnectionPhase::Token => self.retry(now),
            ConnectionPhase::Connected => self.retry_refresh(now),
            _ => {}
        }
        let subject = TokenSubject::Connection;
        self.out.events.push_back(Event::Failed(Failure::Token { subject, error }));
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.out.timers.take_due(now) {
            match timer {
                Timer::Step => {
                    self.close();
                    self.fail(now, TransportError::Timeout);
                }
                Timer::Reconnect => self.begin(now),
                Timer::Ping => self.reconnect(now, Reason::NO_PING),
                Timer::Refresh => self.ask_token(),
                Timer::Reply(id) => self.handle_no_reply(now, id),
                Timer::Call(call) => {
                    self.out.forget_call(call);
                    self.end_call(call, Err(CallError::Timeout));
                }
                Timer::Resubscribe(channel) => {
                    self.subscriptions.handle_resubscribe(now, &channel, &mut self.out);
                }
                Timer::SubRefresh(channel) => {
                    self.subscriptions.handle_refresh_due(&channel, &mut self.out);
                }
            }
        }
    }

    // Connecting.

    /// Begins an attempt: with a token, and then with a byte stream.
    fn begin(&mut self, now: Instant) {
        if self.credential.is_exhausted() {
            return self.end(Reason::UNAUTHORIZED);
        }
        if self.credential.is_missing() {
            self.phase = ConnectionPhase::Token;
            return self.ask_token();
        }
        self.phase = ConnectionPhase::Opening;
        self.out.timers.set(Timer::Step, now + self.options.timeout);
        self.out.actions.push_back(Action::Open);
    }

    fn ask_token(&mut self) {
        if !self.credential.is_waiting() {
            let request = self.out.ask_token(TokenSubject::Connection);
            self.credential.ask(request);
        }
    }

    /// Sends the connect command, and the subscriptions behind it in the same frame.
    fn greet(&mut self, now: Instant) {
        self.phase = ConnectionPhase::Greeting;
        self.out.timers.set(Timer::Step, now + self.options.timeout);
        let request = ConnectRequest {
            token: self.credential.token().to_owned(),
            data: self.options.data.clone(),
            subs: self.server_subscriptions.requests(),
            name: self.options.name.clone(),
            version: self.options.version.clone(),
            headers: self.options.emulated_headers.clone(),
            flag: 0,
        };
        self.out.command(now, Request::Connect(Box::new(request)), PendingReply::Connect);
        self.subscriptions.open(now, &mut self.out);
    }

    fn handle_connected(&mut self, now: Instant, result: ConnectResult) {
        self.phase = ConnectionPhase::Connected;
        self.accepted_at = Some(now);
        self.out.timers.clear(&Timer::Step);
        let interval = Duration::from_secs(result.ping.into());
        let patience = match interval {
            Duration::ZERO => Duration::ZERO,
            interval => interval + self.options.ping_delay_max,
        };
        self.ping = Ping { patience, is_answered: result.pong };
        self.expect_ping(now);
        self.set_refresh(now, result.expires.then(|| lifetime(result.ttl)));
        let ConnectResult { client, version, data, time, subs, .. } = result;
        let connected = Connected { client, version, data, time };
        self.out.events.push_back(Event::Connected(Box::new(connected)));
        if self.server_subscriptions.handle_connected(&subs, &mut self.out) == Err(TooMany) {
            return self.end(Reason::BAD_PROTOCOL);
        }
        while let Some((call, request)) = self.calls.next_waiting() {
            self.out.command(now, request, PendingReply::Call(call));
        }
    }

    fn handle_connect_error(&mut self, now: Instant, error: ErrorReply) {
        if !is_retried(&error) {
            return self.end(Reason::of_server(error.code, &error.message));
        }
        if is_token_expired(&error) {
            self.credential.expire();
            if self.credential.is_exhausted() {
                return self.end(Reason::of_server(error.code, &error.message));
            }
        }
        self.out.events.push_back(Event::Failed(Failure::Connect(error)));
        self.close();
        self.lose(now, Reason::TRANSPORT_CLOSED);
    }

    // Losing the connection.

    /// The byte stream is lost.
    fn fail(&mut self, now: Instant, error: TransportError) {
        self.out.events.push_back(failed(error));
        self.lose(now, Reason::TRANSPORT_CLOSED);
    }

    /// Gives a byte stream up that is of no use.
    fn reconnect(&mut self, now: Instant, reason: Reason) {
        self.close();
        self.lose(now, reason);
    }

    /// The server closes, and says whether to come back.
    fn handle_close(&mut self, now: Instant, code: u32, text: &str) {
        let reason = match code {
            reason::CLOSE_TOO_BIG => Reason::MESSAGE_SIZE_LIMIT,
            0..3000 => Reason::TRANSPORT_CLOSED,
            code => Reason::of_server(code, text),
        };
        if code == u32::from(DisconnectCode::StateInvalidated.number()) {
            self.credential.invalidate();
            self.subscriptions.invalidate();
            self.server_subscriptions.invalidate();
        }
        if !is_reconnect(code) {
            return self.end(reason);
        }
        if self.phase != ConnectionPhase::Connected {
            self.out.events.push_back(Event::Failed(Failure::Closed(reason.clone())));
        }
        self.close();
        self.lose(now, reason);
    }

    /// Closes the byte stream, or stops opening it, with a close frame where that makes sense.
    fn close(&mut self) {
        self.out.outbox.clear();
        if matches!(self.phase, ConnectionPhase::Greeting | ConnectionPhase::Connected) {
            self.out.outbox.close(&mut self.out.random);
        }
        self.out.actions.push_back(Action::Close);
    }

    /// Goes back to connecting, after a delay.
    fn lose(&mut self, now: Instant, reason: Reason) {
        let was_connected = self.phase == ConnectionPhase::Connected;
        self.suspend(&CallError::ConnectionLost);
        if was_connected {
            self.out.events.push_back(Event::Connecting(reason));
        }
        self.retry(now);
    }

    fn retry(&mut self, now: Instant) {
        self.phase = ConnectionPhase::Waiting;
        if has_lived(self.accepted_at.take(), now) {
            self.attempts = 0;
        }
        let delay = self.options.reconnect.delay(self.attempts, self.out.random.next());
        self.attempts = self.attempts.saturating_add(1);
        self.out.timers.set(Timer::Reconnect, now + delay);
    }

    /// Disconnects for good.
    fn end(&mut self, reason: Reason) {
        if self.stream.is_some() || self.phase == ConnectionPhase::Opening {
            self.close();
        }
        self.suspend(&CallError::Disconnected);
        self.phase = ConnectionPhase::Disconnected;
        self.credential.forget_request();
        for call in self.calls.end_all() {
            self.tell_call(call, Err(CallError::Disconnected));
        }
        self.out.events.push_back(Event::Disconnected(reason));
    }

    /// Nothing of this connection is valid any more.
    fn suspend(&mut self, error: &CallError) {
        self.stream = None;
        for call in self.out.reset() {
            self.end_call(call, Err(error.clone()));
        }
        if self.phase == ConnectionPhase::Connected {
            self.server_subscriptions.suspend(&mut self.out);
        }
        self.subscriptions.suspend(&mut self.out);
    }

    // What the server says.

    fn handle_reply(&mut self, now: Instant, reply: Reply) {
        let Reply { id, body } = reply;
        match body {
            ReplyBody::Ping if id == 0 => {
                if self.ping.is_answered && self.phase == ConnectionPhase::Connected {
                    self.out.outbox.pong();
                }
            }
            ReplyBody::Push(push) => self.handle_push(now, push),
            body => match self.out.take_pending(id) {
                // The reply to a command that timed out.
                None => {}
                Some(pending) => self.handle_answer(now, id, pending, body),
            },
        }
    }

    fn handle_answer(&mut self, now: Instant, id: u32, pending: PendingReply, body: ReplyBody) {
        let out = &mut self.out;
        match (pending, body) {
            (PendingReply::Connect, ReplyBody::Connect(result)) => {
                self.handle_connected(now, *result);
            }
            (PendingReply::Connect, ReplyBody::Error(error)) => {
                self.handle_connect_error(now, error);
            }
            (PendingReply::Subscribe(channel), body) => {
                match body {
                    // The application has changed its mind since.
                    _ if !self.subscriptions.is_waiting_for(&channel, id) => {}
                    ReplyBody::Subscribe(result) => {
                        self.subscriptions.handle_result(now, &channel, &result, out);
                    }
                    ReplyBody::Error(error) => {
                        self.subscriptions.handle_error(now, &channel, &error, out);
                    }
                    _ => self.end(Reason::BAD_PROTOCOL),
                }
            }
            (PendingReply::Unsubscribe, ReplyBody::Unsubscribe) => {}
            (PendingReply::Unsubscribe, ReplyBody::Error(_)) => {
                self.reconnect(now, Reason::UNSUBSCRIBE_ERROR);
            }
            (PendingReply::Refresh, ReplyBody::Refresh(result)) => {
                self.set_refresh(now, result.expires.then(|| lifetime(result.ttl)));
            }
            (PendingReply::Refresh, ReplyBody::Error(error)) => {
                self.handle_refresh_error(now, error);
            }
            (PendingReply::SubRefresh(channel), body) => match body {
                // Of a subscription that has ended since.
                _ if !self.subscriptions.is_waiting_for(&channel, id) => {}
                ReplyBody::SubRefresh { expires, ttl } => {
                    let after = expires.then(|| lifetime(ttl));
                    self.subscriptions.set_refresh(now, &channel, after, out);
                }
                ReplyBody::Error(error) => {
                    self.subscriptions.handle_refresh_error(now, &channel, &error, out);
                }
                _ => self.end(Reason::BAD_PROTOCOL),
            },
            (PendingReply::Call(call), ReplyBody::Error(error)) => {
                self.end_call(call, Err(CallError::Refused(error)));
            }
            (PendingReply::Call(call), body) => self.end_call(call, Ok(body)),
            _ => self.end(Reason::BAD_PROTOCOL),
        }
    }

    fn handle_push(&mut self, now: Instant, push: Push) {
        let Push { channel, event } = push;
        let is_live =
            self.subscriptions.is_live(&channel) || self.server_subscriptions.contains(&channel);
        let out = &mut self.out;
        match event {
            PushEvent::Publication(publication) => {
                let is_taken = self.subscriptions.handle_publication(&channel, &publication, out)
                    || self.server_subscriptions.handle_publication(&channel, &publication, out);
                self.strays += u64::from(!is_taken);
            }
            PushEvent::Join(_) | PushEvent::Leave(_) if !is_live => {}
            PushEvent::Join(info) => out.events.push_back(Event::Join { channel, info }),
            PushEvent::Leave(info) => out.events.push_back(Event::Leave { channel, info }),
            PushEvent::Unsubscribe { code, reason } => {
                let reason = Reason::of_server(code, &reason);
                let own = &mut self.subscriptions;
                if !own.handle_unsubscribed(now, &channel, reason.clone(), out) {
                    self.server_subscriptions.end(&channel, reason, out);
                }
            }
            PushEvent::Message { data } => out.events.push_back(Event::Message(data)),
            PushEvent::Subscribe { recoverable, positioned, position, data } => {
                let subscribed = Subscribed {
                    origin: SubscriptionOrigin::Server,
                    recoverable,
                    positioned,
                    was_recovering: false,
                    recovered: false,
                    missed: 0,
                    position,
                    data,
                };
                let begun = self.server_subscriptions.handle_subscribed(&channel, subscribed, out);
                if begun == Err(TooMany) {
                    self.end(Reason::BAD_PROTOCOL);
                }
            }
            PushEvent::Disconnect { code, reason, .. } => self.handle_close(now, code, &reason),
            PushEvent::Refresh { expires, ttl } => {
                self.set_refresh(now, expires.then(|| lifetime(ttl)));
            }
            PushEvent::Unknown => {}
        }
    }

    /// A command got no reply in time.
    fn handle_no_reply(&mut self, now: Instant, id: u32) {
        match self.out.take_pending(id) {
            Some(PendingReply::Subscribe(channel)) => {
                if self.subscriptions.is_waiting_for(&channel, id) {
                    self.reconnect(now, Reason::SUBSCRIBE_TIMEOUT);
                }
            }
            Some(PendingReply::Unsubscribe) => self.reconnect(now, Reason::UNSUBSCRIBE_ERROR),
            Some(PendingReply::Refresh) => self.retry_refresh(now),
            Some(PendingReply::SubRefresh(channel)) => {
                if self.subscriptions.is_waiting_for(&channel, id) {
                    self.subscriptions.retry_refresh(now, &channel, &mut self.out);
                }
            }
            Some(PendingReply::Connect | PendingReply::Call(_)) | None => {}
        }
    }

    // The connection's lifetime.

    fn expect_ping(&mut self, now: Instant) {
        if self.ping.patience > Duration::ZERO {
            self.out.timers.set(Timer::Ping, now + self.ping.patience);
        }
    }

    fn set_refresh(&mut self, now: Instant, after: Option<Duration>) {
        match after.filter(|_| self.credential.is_asked()) {
            Some(after) => self.out.timers.set(Timer::Refresh, now + after),
            None => self.out.timers.clear(&Timer::Refresh),
        }
    }

    fn retry_refresh(&mut self, now: Instant) {
        let delay = self.out.delay(REFRESH_RETRY);
        self.set_refresh(now, Some(delay));
    }

    fn handle_refresh_error(&mut self, now: Instant, error: ErrorReply) {
        if !is_retried(&error) {
            return self.end(Reason::of_server(error.code, &error.message));
        }
        self.retry_refresh(now);
        let subject = TokenSubject::Connection;
        self.out.events.push_back(Event::Failed(Failure::Refresh { subject, error }));
    }

    // Calls.

    pub(super) fn call(&mut self, now: Instant, request: Request) -> Result<CallId, CallError> {
        if self.phase == ConnectionPhase::Disconnected {
            return Err(CallError::Disconnected);
        }
        let call = self.calls.add(request)?;
        self.out.timers.set(Timer::Call(call), now + self.options.timeout);
        if self.phase == ConnectionPhase::Connected
            && let Some((call, request)) = self.calls.next_waiting()
        {
            self.out.command(now, request, PendingReply::Call(call));
        }
        Ok(call)
    }

    fn end_call(&mut self, call: CallId, result: Result<ReplyBody, CallError>) {
        if self.calls.end(call) {
            self.tell_call(call, result);
        }
    }

    fn tell_call(&mut self, call: CallId, result: Result<ReplyBody, CallError>) {
        self.out.timers.clear(&Timer::Call(call));
        self.out.events.push_back(Event::Reply { call, result });
    }
}

fn failed(error: TransportError) -> Event {
    Event::Failed(Failure::Transport(error))
}
