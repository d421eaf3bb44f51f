//! The state machine of one client: it takes commands and returns replies, pushes and effects.
//!
//! Invariant: a closed session sends nothing and changes nothing, and it closes with exactly one
//! code.
//!
//! | phase | connect | other command | result of a call | broker's reply |
//! |---|---|---|---|---|
//! | `New` | verify, or admit | 3501 | admit, refuse or close | – |
//! | `New`, waiting | queued | queued | as above | joins of the connect reply |
//! | `Live` | 3501 | handled, or queued | applied | applied |
//! | `Refused` | 3501 | 3501 | – | – |
//! | `Closed` | dropped | dropped | dropped | dropped |

pub(crate) mod connect;
pub(crate) mod join;
pub(crate) mod metering;
pub(crate) mod orders;
mod payload;
pub(crate) mod queries;
pub(crate) mod refresh;
pub(crate) mod renewal;
pub(crate) mod rpc;
pub(crate) mod skipped;
pub(crate) mod subscribe;
pub(crate) mod timers;
pub(crate) mod waiting;

use std::sync::Arc;

use bytes::Bytes;
use wire::protocol::{
    ClientInfo, Command, Disconnect, DisconnectCode, ErrorCode, ErrorReply, Push, PushEvent, Reply,
    ReplyBody, Request,
};

use crate::broker::Control;
use crate::buckets::ConnectionBuckets;
use crate::call::{CallContext, CallRefusal, Caller, SessionCall};
use crate::channel::Actor;
use crate::counters::CommandKind;
use crate::credentials::Credentials;
use crate::encoding::Encoding;
use crate::hub::SubscriberKey;
use crate::outbox::Outbox;
use crate::refusal::Refusal;
use crate::revocation::Holder;
use crate::session::join::Joining;
use crate::session::timers::Timers;
use crate::session::waiting::{SessionWaits, Wait};
use crate::session_key::SessionKey;
use crate::turn::{Effect, Outputs, Turn};

/// Parameters of a new session.
#[derive(Clone, Debug)]
pub struct Opening {
    /// How its messages are encoded as frames.
    pub encoding: Encoding,
    /// User id from a reverse proxy that authenticates users (`client.user_id_http_header`).
    pub user: Option<Box<str>>,
    /// How the server pings the client.
    pub ping_style: PingStyle,
}

/// How the server pings a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PingStyle {
    /// By empty replies, which the client answers with empty commands.
    Protocol,
    /// By WebSocket ping frames (query parameter `cf_ws_frame_ping_pong`).
    Frame,
}

/// The state of one client.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) key: SessionKey,
    pub(crate) encoding: Encoding,
    pub(crate) phase: Phase,
    pub(crate) outbox: Outbox,
    pub(crate) subscriptions: Vec<Subscription>,
    /// The client as others see it; `None` until it is admitted.
    pub(crate) info: Option<Arc<ClientInfo>>,
    /// Unix time in seconds at which the connection expires; `None` never expires.
    pub(crate) expire_at: Option<i64>,
    pub(crate) timers: Timers,
    pub(crate) ping_style: PingStyle,
    /// Cost of the commands that await the broker, up to [`PENDING_COMMANDS_MAX`].
    pub(crate) questions: u16,
    /// Unix time in milliseconds of the admission.
    pub(crate) admitted_at_ms: i64,
    /// Roles and id of the token, and what calls pass on; `None` if there is nothing of it.
    pub(crate) credentials: Option<Box<Credentials>>,
    /// Unix time in seconds at which the token was issued; without a token, of the admission. 0 if
    /// the token does not say.
    pub(crate) issued_at: u32,
    /// Whether an online event was published, and an offline event must follow.
    pub(crate) is_online: bool,
    /// Rate limits of the connection.
    pub(crate) buckets: ConnectionBuckets,
    proxy_user: Option<Box<str>>,
    waiting: Option<Box<SessionWaits>>,
}

/// The phase of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No connect command was accepted yet.
    New,
    /// Connected: all commands are handled.
    Live,
    /// The connect command was answered with an error.
    Refused,
    /// Closed: everything is dropped.
    Closed,
}

/// A session's subscription to one channel.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) channel: Arc<str>,
    pub(crate) subscriber_key: SubscriberKey,
    /// The client as others see it in this channel: `conn_info` of the session, `chan_info` of the
    /// subscription.
    pub(crate) info: Arc<ClientInfo>,
    /// Unix time in seconds at which the subscription expires; `None` never expires.
    pub(crate) expire_at: Option<i64>,
    pub(crate) traits: SubscriptionTraits,
    /// State until the subscription is active; `None` afterwards.
    pub(crate) joining: Option<Box<Joining>>,
}

/// Flags of a subscription. Fixed when it begins, except `was_notified_of_skip`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SubscriptionTraits {
    pub(crate) is_server_side: bool,
    /// Whether the connection token names it.
    pub(crate) is_of_token: bool,
    pub(crate) is_positioned: bool,
    pub(crate) is_recoverable: bool,
    /// Whether the client is in the channel's presence.
    pub(crate) is_present: bool,
    /// Whether other subscribers are notified of its join and leave.
    pub(crate) is_announced: bool,
    /// Whether it receives joins and leaves of others.
    pub(crate) wants_membership: bool,
    /// Whether the client was notified that it misses publications that are not JSON.
    pub(crate) was_notified_of_skip: bool,
}

/// Whether a reply or push was sent as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SentPart {
    /// Everything was sent.
    Whole,
    /// Publications that the peer's codec cannot carry were left out, and the client has yet to be
    /// notified.
    InPart,
}

impl Session {
    pub(crate) fn new(
        key: SessionKey,
        opening: Opening,
        timers: Timers,
        buckets: ConnectionBuckets,
    ) -> Session {
        Session {
            key,
            encoding: opening.encoding,
            phase: Phase::New,
            outbox: Outbox::default(),
            subscriptions: Vec::new(),
            info: None,
            expire_at: None,
            timers,
            ping_style: opening.ping_style,
            questions: 0,
            admitted_at_ms: 0,
            credentials: None,
            issued_at: 0,
            is_online: false,
            buckets,
            proxy_user: opening.user,
            waiting: None,
        }
    }

    /// Handles one command, or queues it behind what it waits for.
    pub(crate) fn handle_command(&mut self, turn: &mut Turn<'_>, command: Command) {
        if self.phase == Phase::Closed {
            return;
        }
        turn.out.counters.commands[kind(&command.request) as usize] += 1;
        let (is_connecting, is_live) = (self.phase == Phase::New, self.phase == Phase::Live);
        let queued = match &mut self.waiting {
            None => return self.execute(turn, command),
            // A pong is handled at once, because its delay is measured.
            Some(_) if is_live && command.request == Request::Pong => {
                return self.execute(turn, command);
            }
            Some(waiting) if is_connecting || waiting.has_queue() => waiting.put_in_queue(command),
            Some(waiting) if waiting.is_full(turn.rules.client.concurrency) => {
                waiting.put_in_queue(command)
            }
            Some(waiting) if waiting.holds(&command.request) => waiting.put_in_lane(command),
            Some(_) => return self.execute(turn, command),
        };
        if queued.is_err() {
            self.close(turn.out, DisconnectCode::TooManyRequests);
        }
    }

    fn execute(&mut self, turn: &mut Turn<'_>, command: Command) {
        let Command { id, request } = command;
        let is_connect = matches!(request, Request::Connect(_));
        let checked =
            metering::command(self, turn, &request).and_then(|()| payload::check(&request));
        match checked.and_then(|()| self.dispatch(turn, id, request)) {
            Ok(()) => {}
            Err(refusal) if is_connect => connect::refuse(self, turn, id, refusal),
            Err(refusal) => self.refuse(turn, id, refusal),
        }
    }

    /// Rejects a command: replies with an error or closes the connection.
    pub(crate) fn refuse(&mut self, turn: &mut Turn<'_>, id: u32, refusal: Refusal) {
        match refusal {
            // A command without an id has no reply.
            Refusal::Limited(_) if id == 0 => turn.out.counters.error_replies += 1,
            Refusal::Limited(limited) => self.reply_error(turn, id, limited),
            Refusal::Error(code) => self.reply_error(turn, id, code),
            Refusal::Close(code) => self.close(turn.out, code),
            Refusal::Backend(refusal) => match *refusal {
                CallRefusal::Error(error) => self.reply_error(turn, id, error),
                CallRefusal::Disconnect(disconnect) => self.close(turn.out, disconnect),
            },
        }
    }

    /// Rejects a command of a message that exceeded a rate limit. Pongs are still counted.
    pub(crate) fn refuse_command(
        &mut self,
        turn: &mut Turn<'_>,
        command: Command,
        refusal: Refusal,
    ) {
        match command.request {
            _ if self.phase == Phase::Closed => {}
            _ if metering::is_free(self, &command.request) => self.handle_command(turn, command),
            Request::Connect(_) if self.phase == Phase::New && self.waiting.is_none() => {
                connect::refuse(self, turn, command.id, refusal);
            }
            _ => {
                turn.out.counters.commands[kind(&command.request) as usize] += 1;
                self.refuse(turn, command.id, refusal);
            }
        }
    }

    fn dispatch(&mut self, turn: &mut Turn<'_>, id: u32, request: Request) -> Result<(), Refusal> {
        match (self.phase, request) {
            (Phase::New, Request::Connect(request)) => connect::begin(self, turn, id, request),
            (Phase::New | Phase::Refused | Phase::Closed, _) | (_, Request::Connect(_)) => {
                Err(DisconnectCode::BadRequest.into())
            }
            (Phase::Live, request) => match request {
                Request::Subscribe(request) => subscribe::begin(self, turn, id, request),
                Request::Unsubscribe { channel } => subscribe::end(self, turn, id, &channel),
                Request::Publish(request) => queries::publish(self, turn, id, request),
                Request::Presence { channel } => queries::presence(self, turn, id, &channel),
                Request::PresenceStats { channel } => {
                    queries::presence_stats(self, turn, id, &channel)
                }
                Request::History(request) => queries::history(self, turn, id, request),
                Request::Refresh { token } => refresh::begin(self, turn, id, token),
                Request::SubRefresh(request) => refresh::begin_sub(self, turn, id, request),
                Request::Pong => self.timers.handle_pong(),
                Request::Rpc { method, data } => rpc::begin(self, turn, id, (method, data)),
                Request::Ping => Err(ErrorCode::NotAvailable.into()),
                Request::Send { .. } => Err(DisconnectCode::NotAvailable.into()),
                Request::Missing | Request::Connect(_) => Err(DisconnectCode::BadRequest.into()),
            },
        }
    }

    /// Returns whether reading from the peer must stop because too much is queued.
    pub(crate) fn is_congested(&self) -> bool {
        self.waiting.as_ref().is_some_and(|waiting| waiting.is_congested())
    }

    /// Makes commands about the same subject wait.
    pub(crate) fn wait(&mut self, wait: Wait) {
        self.waiting.get_or_insert_default().begin(wait, None);
    }

    /// Asks, and makes commands about the same subject wait for the result.
    pub(crate) fn call(&mut self, turn: &mut Turn<'_>, wait: Wait, what: SessionCall) {
        let call = turn.out.calls.next();
        self.waiting.get_or_insert_default().begin(wait, Some(call));
        turn.out.effects.push_back(Effect::Call { key: self.key, call, what });
    }

    /// The client as backends get it; `None` until it is admitted.
    pub(crate) fn caller(&self) -> Option<Caller> {
        let context = self.credentials.as_ref().and_then(|one| one.context.clone());
        Some(Caller { info: self.info.clone()?, codec: self.encoding.codec, context })
    }

    /// Replaces what token or backend attached to the connection, unless it is empty.
    pub(crate) fn set_meta(&mut self, meta: Bytes) {
        if !meta.is_empty() {
            let credentials = self.credentials.get_or_insert_default();
            credentials.context = CallContext::with_meta(credentials.context.take(), meta);
        }
    }

    /// What the session waits for, if for anything.
    pub(crate) fn waiting(&self) -> Option<&SessionWaits> {
        self.waiting.as_deref()
    }

    /// What the session waits for, if for anything. Commands continue by [`Session::resume`].
    pub(crate) fn waiting_mut(&mut self) -> Option<&mut SessionWaits> {
        self.waiting.as_deref_mut()
    }

    /// Makes all commands wait for replies of the broker.
    pub(crate) fn await_answers(&mut self) {
        self.waiting.get_or_insert_default().await_answers();
    }

    /// Queues an order of the server API until the connect reply is sent. Returns `false` if it can
    /// be applied now.
    pub(crate) fn defer_order(&mut self, control: &Arc<Control>) -> bool {
        match &mut self.waiting {
            Some(waiting) if self.phase == Phase::New => {
                waiting.defer(control);
                true
            }
            _ => false,
        }
    }

    /// Handles the queued orders and commands that wait for nothing any more. Called after every
    /// input, because any may end a wait.
    pub(crate) fn resume(&mut self, turn: &mut Turn<'_>) {
        while let Some(waiting) = &mut self.waiting {
            if waiting.is_over() {
                self.waiting = None;
                return;
            }
            if self.phase == Phase::New {
                return;
            }
            for control in waiting.take_orders() {
                orders::apply(self, turn, &control);
            }
            let calls_max = turn.rules.client.concurrency;
            let Some(waiting) = self.waiting.as_mut().filter(|one| !one.is_full(calls_max)) else {
                return;
            };
            match waiting.next() {
                Some(command) => self.execute(turn, command),
                None if waiting.is_over() => self.waiting = None,
                None => return,
            }
        }
    }

    /// Sends a reply or push without publications.
    pub(crate) fn send(&mut self, turn: &mut Turn<'_>, reply: &Reply) {
        self.send_or_part(turn, reply);
    }

    /// Sends a reply or push that may contain publications.
    pub(crate) fn send_or_part(&mut self, turn: &mut Turn<'_>, reply: &Reply) -> SentPart {
        if self.phase == Phase::Closed {
            return SentPart::Whole;
        }
        match turn.out.encoder.frame(self.encoding, reply) {
            Ok(frame) => {
                self.send_frame(turn.out, frame, turn.rules.client.queue_max_size);
                SentPart::Whole
            }
            Err(_) => skipped::send_rest(self, turn, reply),
        }
    }

    /// Queues a frame. The only place that detects a slow consumer.
    pub(crate) fn send_frame(&mut self, out: &mut Outputs, frame: Bytes, queue_max_size: usize) {
        if self.phase == Phase::Closed {
            return;
        }
        if self.outbox.is_empty() {
            out.touched.push(self.key);
        }
        let before = self.outbox.weight();
        if self.outbox.push(frame, queue_max_size).is_err() {
            return self.close(out, DisconnectCode::Slow);
        }
        // The queue has passed half of its bound: the driver should write before it grows further.
        let half = queue_max_size / 2;
        if !self.outbox.is_blocked() && before <= half && self.outbox.weight() > half {
            out.pressed.push(self.key);
        }
    }

    pub(crate) fn reply(&mut self, turn: &mut Turn<'_>, id: u32, body: ReplyBody) {
        self.send(turn, &Reply { id, body });
    }

    pub(crate) fn reply_error(
        &mut self,
        turn: &mut Turn<'_>,
        id: u32,
        error: impl Into<ErrorReply>,
    ) {
        turn.out.counters.error_replies += 1;
        self.reply(turn, id, ReplyBody::Error(error.into()));
    }

    pub(crate) fn push(&mut self, turn: &mut Turn<'_>, channel: Arc<str>, event: PushEvent) {
        self.reply(turn, 0, ReplyBody::Push(Push { channel, event }));
    }

    /// Closes the session. It sends nothing afterwards; the worker removes it after this input.
    pub(crate) fn close(&mut self, out: &mut Outputs, disconnect: impl Into<Disconnect>) {
        if self.phase != Phase::Closed {
            self.phase = Phase::Closed;
            self.waiting = None;
            out.closing.push((self.key, disconnect.into()));
        }
    }

    /// The holder of the session's token, as revocations see it; `None` before authentication.
    pub(crate) fn holder(&self) -> Option<Holder<'_>> {
        let user = match (&self.info, &self.proxy_user) {
            (Some(info), _) => &*info.user,
            (None, Some(user)) => user,
            (None, None) => return None,
        };
        let token_id = self.credentials.as_ref().map_or("", |credentials| &credentials.token_id);
        Some(Holder { user, token_id, issued_at: self.issued_at.into() })
    }

    /// Returns whether a reverse proxy has authenticated the user and the session is not connected
    /// yet.
    pub(crate) fn is_proxy_authenticated(&self) -> bool {
        self.proxy_user.is_some()
    }

    /// User id; empty for anonymous and for sessions that are not admitted.
    pub(crate) fn user(&self) -> &str {
        self.info.as_ref().map_or("", |info| &info.user)
    }

    pub(crate) fn find(&self, channel: &str) -> Option<usize> {
        self.subscriptions.iter().position(|subscription| &*subscription.channel == channel)
    }

    pub(crate) fn find_subscription(&self, subscriber_key: SubscriberKey) -> Option<usize> {
        self.subscriptions
            .iter()
            .position(|subscription| subscription.subscriber_key == subscriber_key)
    }

    pub(crate) fn actor(&self, channel: &str) -> Actor<'_> {
        Actor { is_subscriber: self.find(channel).is_some(), ..self.any_actor() }
    }

    /// The actor for a channel to which the session is not subscribed.
    pub(crate) fn any_actor(&self) -> Actor<'_> {
        let roles = self.credentials.as_ref().map_or(&[][..], |credentials| &credentials.roles);
        Actor { user: self.user(), roles, is_subscriber: false }
    }
}

fn kind(request: &Request) -> CommandKind {
    match request {
        Request::Connect(_) => CommandKind::Connect,
        Request::Ping => CommandKind::Ping,
        Request::Subscribe(_) => CommandKind::Subscribe,
        Request::Unsubscribe { .. } => CommandKind::Unsubscribe,
        Request::Publish(_) => CommandKind::Publish,
        Request::Presence { .. } => CommandKind::Presence,
        Request::PresenceStats { .. } => CommandKind::PresenceStats,
        Request::History(_) => CommandKind::History,
        Request::Rpc { .. } => CommandKind::Rpc,
        Request::Send { .. } => CommandKind::Send,
        Request::Refresh { .. } => CommandKind::Refresh,
        Request::SubRefresh(_) => CommandKind::SubRefresh,
        Request::Pong => CommandKind::Pong,
        Request::Missing => CommandKind::Unknown,
    }
}
