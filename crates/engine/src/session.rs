//! The state machine of one client: commands in, replies and pushes out, effects for the rest.
//!
//! Invariant: a session that is closed neither speaks nor acts again, and it closes for exactly one
//! reason.
//!
//! | phase | connect | other command | verdict | broker's answer |
//! |---|---|---|---|---|
//! | `New` | verify, or admit | 3501 | admit, refuse or close | – |
//! | `New`, blocked | waits | waits | as above | joins of the connect reply |
//! | `Live` | 3501 | handled | applied | answered |
//! | `Refused` | 3501 | 3501 | – | – |
//! | `Closed` | dropped | dropped | dropped | dropped |

pub(crate) mod connect;
pub(crate) mod join;
pub(crate) mod metering;
pub(crate) mod orders;
mod payload;
pub(crate) mod queries;
pub(crate) mod refresh;
pub(crate) mod skipped;
pub(crate) mod subscribe;
pub(crate) mod timers;

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use wire::protocol::{
    ClientInfo, Command, ConnectRequest, ConnectResult, Disconnect, DisconnectCode, ErrorCode,
    ErrorReply, Push, PushEvent, Reply, ReplyBody, Request, SubscribeRequest,
};

use crate::broker::Control;
use crate::buckets::ConnectionBuckets;
use crate::budget::Budget;
use crate::channel::Actor;
use crate::counters::CommandKind;
use crate::credentials::Credentials;
use crate::encoding::Encoding;
use crate::hub::SubscriberKey;
use crate::limits::{
    BACKLOG_BYTES_MAX, BACKLOG_BYTES_WANTED, BACKLOG_COMMANDS_MAX, BACKLOG_COMMANDS_WANTED,
};
use crate::outbox::Outbox;
use crate::rates::Limited;
use crate::revocation::Holder;
use crate::session::join::Joining;
use crate::session::timers::Timers;
use crate::turn::{Outputs, Turn};

/// Names a session for as long as its worker runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey {
    /// Place in the worker's table.
    pub slot: u32,
    /// Which of the sessions that had this place.
    pub generation: u32,
}

/// How a session begins.
#[derive(Clone, Debug)]
pub struct Opening {
    /// How its messages become frames.
    pub encoding: Encoding,
    /// User id from a reverse proxy that authenticates users (`client.user_id_http_header`).
    pub user: Option<Box<str>>,
    /// Who pings.
    pub ping_style: PingStyle,
}

/// How the server pings a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PingStyle {
    /// By empty replies (§1.7).
    Protocol,
    /// By WebSocket ping frames (`cf_ws_frame_ping_pong`, §1.6).
    Frame,
}

/// One client.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) key: SessionKey,
    pub(crate) encoding: Encoding,
    pub(crate) phase: Phase,
    pub(crate) outbox: Outbox,
    pub(crate) subscriptions: Vec<Subscription>,
    /// Who it is, from the moment it is admitted.
    pub(crate) info: Option<Arc<ClientInfo>>,
    /// Unix seconds at which its lifetime ends.
    pub(crate) expire_at: Option<i64>,
    pub(crate) timers: Timers,
    pub(crate) ping_style: PingStyle,
    /// Commands that the broker has not answered yet.
    pub(crate) questions: u16,
    /// Unix milliseconds at which it was admitted.
    pub(crate) admitted_at_ms: i64,
    /// Roles and id of its token, where it has any.
    pub(crate) credentials: Option<Box<Credentials>>,
    /// Unix seconds at which its token was issued; of a session without a token, at which it was
    /// admitted. 0 when the token does not say.
    pub(crate) issued_at: u32,
    /// Whether it was said that it came.
    pub(crate) is_online: bool,
    /// What it may still do before it is asked to wait.
    pub(crate) buckets: ConnectionBuckets,
    proxy_user: Option<Box<str>>,
    blocked: Option<Box<Blocked>>,
}

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No connect command has been accepted.
    New,
    /// Everything may be asked.
    Live,
    /// Connect was answered with an error.
    Refused,
    /// Over.
    Closed,
}

/// A session × channel.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) channel: Arc<str>,
    pub(crate) subscriber_key: SubscriberKey,
    /// Who it is in this channel: the session's information and the subscription's own.
    pub(crate) info: Arc<ClientInfo>,
    /// Unix seconds at which its lifetime ends.
    pub(crate) expire_at: Option<i64>,
    pub(crate) traits: SubscriptionTraits,
    /// Until it has been answered.
    pub(crate) joining: Option<Box<Joining>>,
}

/// Properties of a subscription that do not change.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SubscriptionTraits {
    pub(crate) is_server_side: bool,
    /// Named by the connection token.
    pub(crate) is_of_token: bool,
    pub(crate) is_positioned: bool,
    pub(crate) is_recoverable: bool,
    /// Listed in the channel's presence.
    pub(crate) is_present: bool,
    /// Others are told when it comes and goes.
    pub(crate) is_announced: bool,
    /// It is told when others come and go.
    pub(crate) wants_membership: bool,
    /// It was told that it misses publications that are no JSON.
    pub(crate) knows_of_skipped: bool,
}

/// Commands wait here while an answer from outside is needed to go on.
#[derive(Debug)]
struct Blocked {
    wait: Wait,
    commands: VecDeque<Command>,
    /// Bytes of the messages that came while it was blocked, as long as any of their commands wait.
    bytes: usize,
    /// Orders of the server API that must follow the connect reply.
    orders: Vec<Arc<Control>>,
}

/// What waited while a session was blocked.
#[derive(Debug)]
pub(crate) struct Backlog {
    commands: VecDeque<Command>,
    bytes: usize,
    orders: Vec<Arc<Control>>,
}

/// What a blocked session waits for.
#[derive(Debug)]
pub(crate) enum Wait {
    /// The verdict on a connection token.
    ConnectToken { id: u32, request: Box<ConnectRequest> },
    /// The server-side subscriptions of the connect reply.
    ConnectJoins { id: u32, result: Box<ConnectResult>, missing: usize, budget: Budget },
    /// The verdict on a subscription token.
    SubscribeToken { id: u32, request: Box<SubscribeRequest> },
    /// The verdict on a new connection token.
    RefreshToken { id: u32 },
    /// The verdict on a new subscription token.
    SubRefreshToken { id: u32, channel: String },
    /// The answer to a subscription that the client leaves already.
    Leave { id: u32, channel: String },
    /// Answers of the broker: it has asked more than is answered at once.
    Answers,
}

/// How much of a reply or a push a peer was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SentPart {
    /// All of it.
    Whole,
    /// Publications were left out that the peer's codec cannot carry, and it was not told so yet.
    InPart,
}

/// Why a command is not done: told to the peer, or the end of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Error(ErrorCode),
    /// Too often: later it may be done.
    Limited(Limited),
    Close(DisconnectCode),
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Refusal {
        Refusal::Error(code)
    }
}

impl From<DisconnectCode> for Refusal {
    fn from(code: DisconnectCode) -> Refusal {
        Refusal::Close(code)
    }
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
            blocked: None,
        }
    }

    /// Handles one command, or keeps it for later when the session is blocked.
    pub(crate) fn handle_command(&mut self, turn: &mut Turn<'_>, command: Command) {
        if self.phase == Phase::Closed {
            return;
        }
        turn.out.counters.commands[kind(&command.request) as usize] += 1;
        match &mut self.blocked {
            // A pong waits for nothing: its time is measured.
            Some(_) if self.phase == Phase::Live && command.request == Request::Pong => {
                self.execute(turn, command);
            }
            Some(blocked) => {
                blocked.commands.push_back(command);
                let is_flood = blocked.commands.len() > BACKLOG_COMMANDS_MAX;
                if is_flood || blocked.bytes > BACKLOG_BYTES_MAX {
                    self.close(turn.out, DisconnectCode::TooManyRequests);
                }
            }
            None => self.execute(turn, command),
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

    /// A command is not done: the peer is told why, or the connection ends.
    pub(crate) fn refuse(&mut self, turn: &mut Turn<'_>, id: u32, refusal: Refusal) {
        match refusal {
            // What has no number expects no answer.
            Refusal::Limited(_) if id == 0 => turn.out.counters.error_replies += 1,
            Refusal::Limited(limited) => self.reply_error(turn, id, limited),
            Refusal::Error(code) => self.reply_error(turn, id, code),
            Refusal::Close(code) => self.close(turn.out, code),
        }
    }

    /// Refuses a command of a message that was more than the connection may send now; what answers
    /// the server counts.
    pub(crate) fn refuse_command(
        &mut self,
        turn: &mut Turn<'_>,
        command: Command,
        refusal: Refusal,
    ) {
        match command.request {
            _ if self.phase == Phase::Closed => {}
            _ if metering::is_free(self, &command.request) => self.handle_command(turn, command),
            Request::Connect(_) if self.phase == Phase::New && self.blocked.is_none() => {
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
                Request::Ping | Request::Rpc { .. } => Err(ErrorCode::NotAvailable.into()),
                Request::Send { .. } => Err(DisconnectCode::NotAvailable.into()),
                Request::Missing | Request::Connect(_) => Err(DisconnectCode::BadRequest.into()),
            },
        }
    }

    /// Counts the bytes of a message all of whose commands have been handled or wait.
    pub(crate) fn note_message(&mut self, length: usize) {
        if let Some(blocked) = self.blocked.as_mut().filter(|one| !one.commands.is_empty()) {
            blocked.bytes += length;
        }
    }

    /// Whether so much waits in front of the session that its peer should not be read any further.
    pub(crate) fn is_congested(&self) -> bool {
        self.blocked.as_ref().is_some_and(|blocked| {
            blocked.bytes >= BACKLOG_BYTES_WANTED
                || blocked.commands.len() >= BACKLOG_COMMANDS_WANTED
        })
    }

    /// Stops handling commands until [`Session::unblock`].
    pub(crate) fn block(&mut self, wait: Wait) {
        match &mut self.blocked {
            Some(blocked) => blocked.wait = wait,
            None => {
                let (commands, orders) = (VecDeque::new(), Vec::new());
                self.blocked = Some(Box::new(Blocked { wait, commands, bytes: 0, orders }));
            }
        }
    }

    /// The channel whose subscription token is being verified; empty when it is a connection token.
    pub(crate) fn channel_of_token(&self) -> &str {
        match self.blocked.as_ref().map(|blocked| &blocked.wait) {
            Some(Wait::SubscribeToken { request, .. }) => &request.channel,
            Some(Wait::SubRefreshToken { channel, .. }) => channel,
            _ => "",
        }
    }

    /// What the session waits for.
    pub(crate) fn wait_mut(&mut self) -> Option<&mut Wait> {
        self.blocked.as_mut().map(|blocked| &mut blocked.wait)
    }

    /// Keeps an order of the server API until the connect reply is said; `false` when there is no
    /// need to.
    pub(crate) fn defer_order(&mut self, control: &Arc<Control>) -> bool {
        match &mut self.blocked {
            Some(blocked) if self.phase == Phase::New => {
                if blocked.orders.len() < BACKLOG_COMMANDS_MAX {
                    blocked.orders.push(control.clone());
                }
                true
            }
            _ => false,
        }
    }

    /// Ends the waiting; the caller handles what was waited for and then calls [`Session::resume`].
    pub(crate) fn unblock(&mut self) -> Option<(Wait, Backlog)> {
        let Blocked { wait, commands, bytes, orders } = *self.blocked.take()?;
        Some((wait, Backlog { commands, bytes, orders }))
    }

    /// Handles what waited. Commands may block the session again, and then wait on.
    pub(crate) fn resume(&mut self, turn: &mut Turn<'_>, backlog: Backlog) {
        for control in backlog.orders {
            orders::apply(self, turn, &control);
        }
        let mut commands = backlog.commands;
        while self.phase != Phase::Closed {
            if let Some(blocked) = &mut self.blocked {
                blocked.commands = commands;
                blocked.bytes = backlog.bytes;
                return;
            }
            let Some(command) = commands.pop_front() else { return };
            self.execute(turn, command);
        }
    }

    /// Says something to the peer.
    pub(crate) fn send(&mut self, turn: &mut Turn<'_>, reply: &Reply) {
        self.send_or_part(turn, reply);
    }

    /// Says something to the peer that may have publications in it.
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

    /// Queues a frame: the one place where a slow consumer is noticed.
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
        // Half of the bound was passed: let the driver write before more piles up.
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

    /// Closes the session: it sends and does nothing more, and the worker removes it after this
    /// input.
    pub(crate) fn close(&mut self, out: &mut Outputs, disconnect: impl Into<Disconnect>) {
        if self.phase != Phase::Closed {
            self.phase = Phase::Closed;
            self.blocked = None;
            out.closing.push((self.key, disconnect.into()));
        }
    }

    /// Who it is, as far as revocations ask; `None` as long as nobody has said.
    pub(crate) fn holder(&self) -> Option<Holder<'_>> {
        let user = match (&self.info, &self.proxy_user) {
            (Some(info), _) => &*info.user,
            (None, Some(user)) => user,
            (None, None) => return None,
        };
        let token_id = self.credentials.as_ref().map_or("", |credentials| &credentials.token_id);
        Some(Holder { user, token_id, issued_at: self.issued_at.into() })
    }

    /// Whether something in front of the server has said who it is, and it has not connected yet.
    pub(crate) fn is_proxy_authenticated(&self) -> bool {
        self.proxy_user.is_some()
    }

    /// The user; empty for anonymous and for sessions not yet admitted.
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

    /// Who it is, in a channel that it is not subscribed to.
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
