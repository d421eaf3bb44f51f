//! Outputs of a session: bytes, token requests, events and timers, shared by its parts.
//!
//! Invariant: a reply is matched with the command of this connection that has its id, and with no
//! other.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use wire::protocol::{Codec, Command, Request};

use super::event::{Action, CallId, Event, TokenRequestId, TokenSubject};
use super::outbox::CommandOutbox;
use super::random::Randomness;
use super::timers::SessionTimers;

/// Outputs of a session: bytes, token requests, events and timers.
#[derive(Debug)]
pub(super) struct SessionOutputs {
    pub(super) random: Randomness,
    pub(super) outbox: CommandOutbox,
    pub(super) events: VecDeque<Event>,
    pub(super) actions: VecDeque<Action>,
    pub(super) timers: SessionTimers<Timer>,
    pending: BTreeMap<u32, PendingReply>,
    last_id: u32,
    last_token_request: u64,
    timeout: Duration,
}

/// What a command was sent for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PendingReply {
    Connect,
    Subscribe(Arc<str>),
    Unsubscribe,
    Refresh,
    SubRefresh(Arc<str>),
    Call(CallId),
}

/// What is due at a time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The current step of connecting takes too long.
    Step,
    Reconnect,
    /// The server has sent nothing for too long.
    Ping,
    /// The connection token expires.
    Refresh,
    /// The reply to the command with this id takes too long.
    Reply(u32),
    /// A call takes too long.
    Call(CallId),
    Resubscribe(Arc<str>),
    /// The subscription token expires.
    SubRefresh(Arc<str>),
}

impl SessionOutputs {
    pub(super) fn new(codec: Codec, random: Randomness, timeout: Duration) -> SessionOutputs {
        SessionOutputs {
            random,
            outbox: CommandOutbox::new(codec),
            events: VecDeque::new(),
            actions: VecDeque::new(),
            timers: SessionTimers::new(),
            pending: BTreeMap::new(),
            last_id: 0,
            last_token_request: 0,
            timeout,
        }
    }

    /// Sends a command; gives its id. Calls have a timer of their own.
    pub(super) fn command(&mut self, now: Instant, request: Request, pending: PendingReply) -> u32 {
        self.last_id = self.last_id.checked_add(1).unwrap_or(1);
        let id = self.last_id;
        match pending {
            PendingReply::Connect | PendingReply::Call(_) => {}
            _ => self.timers.set(Timer::Reply(id), now + self.timeout),
        }
        self.pending.insert(id, pending);
        self.outbox.command(&Command { id, request }, &mut self.random);
        id
    }

    /// What the command with this id was sent for; there is one answer only.
    pub(super) fn take_pending(&mut self, id: u32) -> Option<PendingReply> {
        self.timers.clear(&Timer::Reply(id));
        self.pending.remove(&id)
    }

    /// The result of this call is not waited for any more.
    pub(super) fn forget_call(&mut self, call: CallId) {
        self.pending.retain(|_, pending| *pending != PendingReply::Call(call));
    }

    pub(super) fn ask_token(&mut self, subject: TokenSubject) -> TokenRequestId {
        self.last_token_request += 1;
        let request = TokenRequestId(self.last_token_request);
        self.actions.push_back(Action::GetToken { request, subject });
        request
    }

    /// The connection has ended: gives the calls that were sent and not answered.
    pub(super) fn reset(&mut self) -> Vec<CallId> {
        self.last_id = 0;
        self.timers.retain(|timer| matches!(timer, Timer::Call(_)));
        let pending = std::mem::take(&mut self.pending).into_values();
        let calls = pending.filter_map(|pending| match pending {
            PendingReply::Call(call) => Some(call),
            _ => None,
        });
        calls.collect()
    }

    /// A random delay between two bounds.
    pub(super) fn delay(&mut self, (least, most): (Duration, Duration)) -> Duration {
        least + super::backoff::scaled(most - least, self.random.next())
    }
}
