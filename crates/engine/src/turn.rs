//! What a session may touch while it handles one input: the time, the rules, the worker's index,
//! the outputs.
//!
//! Invariant: handlers change only their own session, the hub and the outputs; everything else is
//! an [`Effect`] that the driver performs.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;
use wire::protocol::{Disconnect, ErrorCode};

use crate::broker::{BrokerRequest, RequestId};
use crate::checks::Checks;
use crate::counters::{CommandKind, Counters};
use crate::encoding::Encoder;
use crate::hash_keys::HashKeys;
use crate::hub::{Hub, SubscriberKey};
use crate::limits::{NOTED_CHARACTERS_MAX, NOTES_MAX};
use crate::random::Random;
use crate::rates::Bucket;
use crate::recent_channels::RecentChannels;
use crate::rules::Rules;
use crate::session::{Refusal, SessionKey};
use crate::shared_buckets::SharedBuckets;
use crate::time::Now;
use crate::users::Users;

/// What the driver has to do for the engine.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a request to the broker is the usual effect, and a box would cost it an allocation"
)]
pub enum Effect {
    /// Submit this to the broker.
    Broker(BrokerRequest),
    /// Verify this token and answer with [`crate::worker::Worker::handle_verdict`].
    Verify {
        /// Whose token.
        key: SessionKey,
        /// What kind of token.
        kind: TokenKind,
        /// The token; never to be logged.
        token: String,
    },
    /// Tell the operator; nothing else follows from it.
    Note {
        /// Whose doing.
        key: SessionKey,
        /// Where.
        channel: Arc<str>,
        /// What.
        cause: SessionNotice,
    },
    /// Write what is queued, then close the socket with this reason.
    Close {
        /// Whose socket.
        key: SessionKey,
        /// Why.
        disconnect: Disconnect,
    },
}

/// What an operator may want to know of a session in a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionNotice {
    /// A command was refused.
    Refused {
        /// What was asked.
        command: CommandKind,
        /// What the client is told.
        code: ErrorCode,
    },
    /// A token holds, but is not for this session or this channel.
    TokenMismatch {
        /// Of which kind it is.
        kind: TokenKind,
        /// What differs.
        claim: TokenClaim,
        /// What the token has there; cut, and empty where it is not one text.
        found: Box<str>,
    },
    /// It was refused by a bucket.
    Limited(Bucket),
    /// The subscription missed something and was told.
    Gap,
    /// A publication is no JSON and cannot be sent to this client.
    Skipped,
}

/// A claim that must be as the session has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenClaim {
    /// The user.
    User,
    /// The channel of a subscription token.
    Channel,
    /// The client of a subscription token.
    Client,
    /// The server-side subscriptions of a connection token.
    Channels,
}

impl TokenClaim {
    /// The name used in logs and metrics.
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

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// The connection.
    Connection,
    /// One subscription.
    Subscription,
}

impl TokenKind {
    /// The name used in logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            TokenKind::Connection => "connection",
            TokenKind::Subscription => "subscription",
        }
    }
}

/// The worker's state as one input sees it.
pub(crate) struct Turn<'w> {
    pub(crate) now: Now,
    pub(crate) rules: &'w Rules,
    pub(crate) random: &'w mut Random,
    pub(crate) hub: &'w mut Hub,
    pub(crate) users: &'w mut Users,
    /// Channels that the worker knows.
    pub(crate) recent: &'w mut RecentChannels,
    /// Buckets of users, where the node has some.
    pub(crate) shared: Option<&'w SharedBuckets>,
    pub(crate) checks: &'w mut Checks,
    pub(crate) out: &'w mut Outputs,
}

/// Everything that inputs leave behind for the worker and its driver.
#[derive(Debug)]
pub(crate) struct Outputs {
    pub(crate) encoder: Encoder,
    pub(crate) effects: VecDeque<Effect>,
    /// Sessions whose outbox was empty and is not any more.
    pub(crate) touched: Vec<SessionKey>,
    /// Sessions whose outbox is half full before anything of it was written.
    pub(crate) pressed: Vec<SessionKey>,
    /// Sessions to close; the worker removes them when the input has been handled.
    pub(crate) closing: Vec<(SessionKey, Disconnect)>,
    /// Subscriptions that missed something: slot of the session and key of the subscriber.
    pub(crate) gaps: Vec<(u32, SubscriberKey)>,
    /// Questions to the broker that are not answered yet.
    pub(crate) pending: HashMap<RequestId, Pending, HashKeys>,
    pub(crate) counters: Counters,
    next_request: u64,
}

/// Who waits for a broker's answer, and for what.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) session: SessionKey,
    pub(crate) question: PendingQuestion,
}

/// A command that the broker answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PendingCommand {
    /// Chosen by the client.
    pub(crate) id: u32,
    /// How much of [`crate::limits::QUESTIONS_MAX`] it takes until it is answered.
    pub(crate) cost: u16,
}

/// What was asked.
#[derive(Debug)]
pub(crate) enum PendingQuestion {
    /// To hear a channel and read its stream.
    Join,
    /// A client's command.
    Command(PendingCommand),
    /// Whether this worker has everything of a channel.
    Check { channel: Arc<str> },
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
            pending: HashMap::with_hasher(hasher),
            counters: Counters::default(),
            next_request: 0,
        }
    }

    /// Notes who waits and returns the id to ask with.
    pub(crate) fn expect(&mut self, session: SessionKey, question: PendingQuestion) -> RequestId {
        self.next_request += 1;
        let id = RequestId(self.next_request);
        self.pending.insert(id, Pending { session, question });
        id
    }

    /// Notes a refusal on its way to the peer; gives it back. Of a flood of them only the first are
    /// noted.
    pub(crate) fn note(
        &mut self,
        key: SessionKey,
        command: CommandKind,
        channel: &str,
        refusal: Refusal,
    ) -> Refusal {
        let cause = match refusal {
            Refusal::Error(code) => SessionNotice::Refused { command, code },
            Refusal::Limited(limited) => SessionNotice::Limited(limited.bucket),
            Refusal::Close(_) => return refusal,
        };
        self.note_cause(key, channel, cause);
        refusal
    }

    /// Notes that a token is not for the session or the channel that it was used for.
    pub(crate) fn note_mismatch(
        &mut self,
        key: SessionKey,
        kind: TokenKind,
        channel: &str,
        (claim, found): (TokenClaim, &str),
    ) {
        let found = found.chars().take(NOTED_CHARACTERS_MAX).collect::<String>().into();
        self.note_cause(key, channel, SessionNotice::TokenMismatch { kind, claim, found });
    }

    fn note_cause(&mut self, key: SessionKey, channel: &str, cause: SessionNotice) {
        if self.effects.len() < NOTES_MAX {
            self.effects.push_back(Effect::Note { key, channel: channel.into(), cause });
        }
    }

    pub(crate) fn submit(&mut self, request: BrokerRequest) {
        self.effects.push_back(Effect::Broker(request));
    }
}
