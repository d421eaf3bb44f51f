//! What a session can access while it handles one input: time, rules, the worker's index and
//! outputs.
//!
//! Invariant: handlers change only their own session, the hub and the outputs. Everything else is
//! an [`Effect`] that the driver performs.

use std::collections::VecDeque;
use std::sync::Arc;

use wire::protocol::{ClientInfo, Disconnect, ErrorCode};

use crate::broker::BrokerRequest;
use crate::broker::NodeBusRequest;
use crate::call::{CallIds, SessionCall, SessionCallId};
use crate::checks::Checks;
use crate::counters::{CommandKind, Counters};
use crate::encoding::Encoder;
use crate::hash_keys::HashKeys;
use crate::hub::{Hub, SubscriberKey};
use crate::lifecycle::{Change, Lifecycle};
use crate::limits::{NOTED_CHARACTERS_MAX, NOTES_MAX};
use crate::pending::PendingRequests;
use crate::random::Random;
use crate::rates::Bucket;
use crate::recent_channels::RecentChannels;
use crate::refusal::Refusal;
use crate::rules::{ClientRules, Rules};
use crate::session_event::{SessionChange, SessionEvent};
use crate::session_key::SessionKey;
use crate::shared_buckets::SharedBuckets;
use crate::time::Now;
use crate::users::Users;

/// An action that the driver performs for the engine.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a request to the broker is the usual effect, and a box would cost it an allocation"
)]
pub enum Effect {
    /// Submit this request to the broker.
    Broker(BrokerRequest),
    /// A request of a session to the driver, which returns the result by
    /// [`crate::worker::Worker::handle_call_result`].
    Call {
        /// Session that waits for the result.
        key: SessionKey,
        /// Repeated with the result.
        call: SessionCallId,
        /// The request.
        what: SessionCall,
    },
    /// Report what the rules ask to report.
    Event(Box<SessionEvent>),
    /// Inform the operator; nothing else depends on it.
    Note {
        /// Session concerned.
        key: SessionKey,
        /// Channel concerned; empty for none.
        channel: Arc<str>,
        /// What happened.
        cause: SessionNotice,
    },
    /// Write the queued frames, then close the socket with this code.
    Close {
        /// Session to close.
        key: SessionKey,
        /// Code and reason.
        disconnect: Disconnect,
    },
}

/// An event in a session or channel that may interest an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionNotice {
    /// A command was refused.
    Refused {
        /// Kind of the command.
        command: CommandKind,
        /// Error sent to the client.
        code: ErrorCode,
    },
    /// A token is valid, but for another session or channel.
    TokenMismatch {
        /// Kind of the token.
        kind: TokenKind,
        /// Claim that differs.
        claim: TokenClaim,
        /// The token's value, truncated; empty if it is not a single text.
        found: Box<str>,
    },
    /// A command was refused by this rate limit.
    Limited(Bucket),
    /// A subscription missed publications, and the client was notified.
    Gap,
    /// A publication is not JSON and cannot be sent to this client.
    Skipped,
}

/// A claim that must match the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenClaim {
    /// User id.
    User,
    /// Channel of a subscription token.
    Channel,
    /// Client id of a subscription token.
    Client,
    /// Server-side subscriptions of a connection token.
    Channels,
}

impl TokenClaim {
    /// Returns the name used in logs and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            TokenClaim::User => "user",
            TokenClaim::Channel => "channel",
            TokenClaim::Client => "client",
            TokenClaim::Channels => "channels",
        }
    }
}

/// What a token authorizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// A connection.
    Connection,
    /// One subscription.
    Subscription,
}

impl TokenKind {
    /// Returns the name used in logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            TokenKind::Connection => "connection",
            TokenKind::Subscription => "subscription",
        }
    }
}

/// The worker's state while a session handles one input.
pub(crate) struct Turn<'w> {
    pub(crate) now: Now,
    pub(crate) rules: &'w Rules,
    pub(crate) random: &'w mut Random,
    pub(crate) hub: &'w mut Hub,
    pub(crate) users: &'w mut Users,
    /// Channels that the worker has seen recently.
    pub(crate) recent: &'w mut RecentChannels,
    /// Rate limits of users, if the node has any.
    pub(crate) shared: Option<&'w SharedBuckets>,
    pub(crate) checks: &'w mut Checks,
    pub(crate) out: &'w mut Outputs,
}

/// A claim of a token that does not match the session or channel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokenMismatch<'t> {
    pub(crate) kind: TokenKind,
    pub(crate) claim: TokenClaim,
    /// Value of the claim.
    pub(crate) found: &'t str,
}

/// Outputs produced while handling inputs, for the worker and its driver.
#[derive(Debug)]
pub(crate) struct Outputs {
    pub(crate) encoder: Encoder,
    pub(crate) effects: VecDeque<Effect>,
    /// Sessions whose outbox is no longer empty.
    pub(crate) touched: Vec<SessionKey>,
    /// Sessions whose outbox is half full and must be written before the end of the turn.
    pub(crate) pressed: Vec<SessionKey>,
    /// Sessions to close; the worker removes them after the input.
    pub(crate) closing: Vec<(SessionKey, Disconnect)>,
    /// Subscriptions with a gap: slot of the session and key of the subscriber.
    pub(crate) gaps: Vec<(u32, SubscriberKey)>,
    /// Requests to the broker without a reply yet.
    pub(crate) pending: PendingRequests,
    pub(crate) calls: CallIds,
    pub(crate) counters: Counters,
}

impl Outputs {
    pub(crate) fn new(encoder: Encoder, hasher: HashKeys) -> Outputs {
        Outputs {
            encoder,
            effects: VecDeque::new(),
            touched: Vec::new(),
            pressed: Vec::new(),
            closing: Vec::new(),
            gaps: Vec::new(),
            pending: PendingRequests::new(hasher),
            calls: CallIds::default(),
            counters: Counters::default(),
        }
    }

    /// Records a refusal for the operator and returns it. Of a flood of refusals only the first are
    /// recorded.
    pub(crate) fn note(
        &mut self,
        key: SessionKey,
        command: CommandKind,
        channel: &str,
        refusal: Refusal,
    ) -> Refusal {
        let cause = match &refusal {
            Refusal::Error(code) => SessionNotice::Refused { command, code: *code },
            Refusal::Limited(limited) => SessionNotice::Limited(limited.bucket),
            Refusal::Close(_) | Refusal::Backend(_) => return refusal,
        };
        self.note_cause(key, channel, cause);
        refusal
    }

    /// Records that a token does not match the session or channel that used it.
    pub(crate) fn note_mismatch(
        &mut self,
        key: SessionKey,
        channel: &str,
        TokenMismatch { kind, claim, found }: TokenMismatch<'_>,
    ) {
        let found = found.chars().take(NOTED_CHARACTERS_MAX).collect::<String>().into();
        self.note_cause(key, channel, SessionNotice::TokenMismatch { kind, claim, found });
    }

    fn note_cause(&mut self, key: SessionKey, channel: &str, cause: SessionNotice) {
        if self.effects.len() < NOTES_MAX {
            self.effects.push_back(Effect::Note { key, channel: channel.into(), cause });
        }
    }

    /// Reports that a client connected or disconnected, to whom the rules say.
    pub(crate) fn report_client(
        &mut self,
        rules: &ClientRules,
        (info, at_ms): (&Arc<ClientInfo>, i64),
        change: Change,
    ) {
        if rules.reports.clients {
            let (info, what) = (info.clone(), SessionChange::Client(change.clone()));
            self.effects.push_back(Effect::Event(Box::new(SessionEvent { info, what, at_ms })));
        }
        if rules.sends_lifecycle {
            let info = info.clone();
            self.submit(NodeBusRequest::Lifecycle(Lifecycle { info, change, at_ms }));
        }
    }

    /// Reports that a subscription became active or ended, if the rules say so.
    pub(crate) fn report_subscription(
        &mut self,
        rules: &ClientRules,
        (info, at_ms): (&Arc<ClientInfo>, i64),
        what: impl FnOnce() -> SessionChange,
    ) {
        if rules.reports.subscriptions {
            let event = SessionEvent { info: info.clone(), what: what(), at_ms };
            self.effects.push_back(Effect::Event(Box::new(event)));
        }
    }

    pub(crate) fn submit(&mut self, request: impl Into<BrokerRequest>) {
        self.effects.push_back(Effect::Broker(request.into()));
    }
}
