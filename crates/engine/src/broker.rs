//! What the engine asks of a broker and what it hears from one.
//!
//! An endpoint (a worker, or the server API) submits requests and gets events. The contract that
//! every broker keeps: requests of one endpoint about one channel take effect in the order
//! submitted; all endpoints see the publications of a channel in one order; every request that
//! carries a [`RequestId`] gets exactly one [`BrokerEvent::Reply`].

use std::sync::Arc;

use bytes::Bytes;
use wire::protocol::{
    ClientInfo, Disconnect, HistoryResult, PresenceStats, Publication, StreamPosition,
};

use crate::claims::SubscriptionGrant;
use crate::lifecycle::Lifecycle;
use crate::revocation::{Revocation, RevokeOutcome, Subject};

/// Chosen by the endpoint that asks, echoed in the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// What an endpoint asks of the broker.
#[derive(Clone, Debug)]
pub enum BrokerRequest {
    /// Subscribe to this channel, and then read its stream. Asking again is no error; the answer is
    /// [`BrokerReply::Subscribed`].
    Subscribe {
        /// Echoed in the reply.
        id: RequestId,
        /// The channel to subscribe to.
        channel: Arc<str>,
        /// What to read after subscribing.
        read: JoinRead,
    },
    /// End the subscription to this channel.
    Unsubscribe {
        /// The channel.
        channel: Arc<str>,
    },
    /// Accept a publication; the answer is [`BrokerReply::Published`].
    Publish {
        /// Echoed in the reply.
        id: RequestId,
        /// Where to.
        channel: Arc<str>,
        /// What; its offset is assigned by the broker.
        publication: Publication,
        /// How.
        options: PublishOptions,
    },
    /// Notify subscribers that somebody joined or left.
    Announce {
        /// Where.
        channel: Arc<str>,
        /// Who.
        info: Arc<ClientInfo>,
        /// Which.
        change: Membership,
    },
    /// Keep this client in the channel's presence until removed, or until the endpoint is gone.
    AddPresence {
        /// Where.
        channel: Arc<str>,
        /// Who.
        info: Arc<ClientInfo>,
        /// Whether subscribers must be told when it leaves with its endpoint, and nobody else can
        /// say so.
        announces: bool,
    },
    /// Take this client out of the channel's presence.
    RemovePresence {
        /// Where.
        channel: Arc<str>,
        /// Client id.
        client: Arc<ClientInfo>,
    },
    /// Who is there; the answer is [`BrokerReply::Presence`].
    Presence {
        /// Echoed in the reply.
        id: RequestId,
        /// Where.
        channel: Arc<str>,
    },
    /// How many are there; the answer is [`BrokerReply::PresenceStats`].
    PresenceStats {
        /// Echoed in the reply.
        id: RequestId,
        /// Where.
        channel: Arc<str>,
    },
    /// Read the stream; the answer is [`BrokerReply::History`].
    History {
        /// Echoed in the reply.
        id: RequestId,
        /// Which stream.
        channel: Arc<str>,
        /// What of it.
        query: HistoryQuery,
        /// How long offset and epoch are kept, milliseconds, when this read creates them.
        meta_ttl_ms: u64,
    },
    /// Drop what is retained, keeping offset and epoch; the answer is
    /// [`BrokerReply::HistoryRemoved`].
    RemoveHistory {
        /// Echoed in the reply.
        id: RequestId,
        /// Which stream.
        channel: Arc<str>,
    },
    /// This channel lasts so long from the first such request on: then what it retains is gone, and
    /// its subscribers are notified by [`BrokerEvent::Expired`].
    LimitTtl {
        /// Which.
        channel: Arc<str>,
        /// Milliseconds.
        ttl_ms: u64,
    },
    /// Read the age and the remaining TTL of a temporary channel; the answer is
    /// [`BrokerReply::ChannelTtl`].
    ChannelTtl {
        /// Echoed in the reply.
        id: RequestId,
        /// Which.
        channel: Arc<str>,
    },
    /// Tell the workers that have the sessions.
    Control(Arc<Control>),
    /// Tell that a client came or went: in the channel [`crate::channel::LIFECYCLE`], at least once
    /// and in order for each client; other nodes say of a node that is gone that its clients are.
    Lifecycle(Lifecycle),
    /// Store this change unless one of its subject is stored that is as late or later, and notify
    /// all nodes by [`BrokerEvent::Revocation`]; the answer is [`BrokerReply::Revoked`]. To store
    /// the same change again is [`RevokeOutcome::Stored`].
    Revoke {
        /// Echoed in the reply.
        id: RequestId,
        /// The change.
        revocation: Arc<Revocation>,
    },
    /// Read the change of a subject that is stored, even if it has expired; the answer is
    /// [`BrokerReply::Revocation`].
    FindRevocation {
        /// Echoed in the reply.
        id: RequestId,
        /// What may be revoked.
        subject: Subject,
    },
    /// Read every change that is kept and not over; the answer is [`BrokerReply::Revocations`].
    ReadRevocations {
        /// Echoed in the reply.
        id: RequestId,
    },
    /// Ask every other node; the answer is [`BrokerReply::Survey`].
    Survey {
        /// Echoed in the reply.
        id: RequestId,
        /// What; the nodes know how to read it.
        question: Bytes,
    },
    /// Answer another node's question.
    Answer {
        /// Of [`BrokerEvent::Question`].
        ticket: Ticket,
        /// What.
        answer: Bytes,
    },
}

impl BrokerRequest {
    /// The id that its reply will carry; `None` when it has no reply.
    #[must_use]
    pub fn id(&self) -> Option<RequestId> {
        match self {
            BrokerRequest::Subscribe { id, .. }
            | BrokerRequest::Publish { id, .. }
            | BrokerRequest::Presence { id, .. }
            | BrokerRequest::PresenceStats { id, .. }
            | BrokerRequest::History { id, .. }
            | BrokerRequest::RemoveHistory { id, .. }
            | BrokerRequest::ChannelTtl { id, .. }
            | BrokerRequest::Revoke { id, .. }
            | BrokerRequest::FindRevocation { id, .. }
            | BrokerRequest::ReadRevocations { id }
            | BrokerRequest::Survey { id, .. } => Some(*id),
            BrokerRequest::Unsubscribe { .. }
            | BrokerRequest::Announce { .. }
            | BrokerRequest::AddPresence { .. }
            | BrokerRequest::RemovePresence { .. }
            | BrokerRequest::LimitTtl { .. }
            | BrokerRequest::Control(_)
            | BrokerRequest::Lifecycle(_)
            | BrokerRequest::Answer { .. } => None,
        }
    }

    /// The channel that it is about; `None` for what concerns nodes.
    #[must_use]
    pub fn channel(&self) -> Option<&Arc<str>> {
        match self {
            BrokerRequest::Subscribe { channel, .. }
            | BrokerRequest::Unsubscribe { channel }
            | BrokerRequest::Publish { channel, .. }
            | BrokerRequest::Announce { channel, .. }
            | BrokerRequest::AddPresence { channel, .. }
            | BrokerRequest::RemovePresence { channel, .. }
            | BrokerRequest::Presence { channel, .. }
            | BrokerRequest::PresenceStats { channel, .. }
            | BrokerRequest::History { channel, .. }
            | BrokerRequest::RemoveHistory { channel, .. }
            | BrokerRequest::LimitTtl { channel, .. }
            | BrokerRequest::ChannelTtl { channel, .. } => Some(channel),
            BrokerRequest::Control(_)
            | BrokerRequest::Lifecycle(_)
            | BrokerRequest::Revoke { .. }
            | BrokerRequest::FindRevocation { .. }
            | BrokerRequest::ReadRevocations { .. }
            | BrokerRequest::Survey { .. }
            | BrokerRequest::Answer { .. } => None,
        }
    }
}

/// What a subscriber needs to know of the stream when it joins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinRead {
    /// Nothing: the subscription has no position.
    Nothing,
    /// The position of the top.
    Position {
        /// See [`BrokerRequest::History`].
        meta_ttl_ms: u64,
    },
    /// Everything behind `since`, at most `limit`.
    Since {
        /// The position that the client holds.
        since: StreamPosition,
        /// Publications at most.
        limit: u32,
        /// See [`HistoryQuery::bytes_max`].
        bytes_max: Option<usize>,
        /// See [`BrokerRequest::History`].
        meta_ttl_ms: u64,
    },
    /// The newest publication.
    Newest {
        /// See [`BrokerRequest::History`].
        meta_ttl_ms: u64,
    },
}

/// How a publication is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishOptions {
    /// Publications retained; 0 keeps none and assigns no offset.
    pub history_size: u32,
    /// Milliseconds retained.
    pub history_ttl_ms: u64,
    /// Milliseconds that offset and epoch outlive the last publication.
    pub history_meta_ttl_ms: u64,
    /// A publication with a key seen within five minutes is not published again; empty for none.
    pub idempotency_key: String,
    /// A publication whose version is not above the last is not published; 0 for none.
    pub version: u64,
    /// Versions of different epochs are not compared.
    pub version_epoch: String,
}

/// Which part of a stream to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryQuery {
    /// `None` reads all; `Some(0)` only the position.
    pub limit: Option<u32>,
    /// Start behind this position, or before it in reverse.
    pub since: Option<StreamPosition>,
    /// Newest first.
    pub reverse: bool,
    /// Stop before the publications weigh more than this ([`Publication::weight`]), but not before
    /// the first of them. `None` for no limit. A broker that cannot stop in time may answer with
    /// more.
    pub bytes_max: Option<usize>,
}

/// Whether somebody came or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// Came.
    Join,
    /// Went.
    Leave,
}

/// Events that a broker delivers to an endpoint.
#[derive(Clone, Debug)]
pub enum BrokerEvent {
    /// A publication in a channel to which the endpoint is subscribed.
    Publication {
        /// Where.
        channel: Arc<str>,
        /// What.
        publication: Arc<Publication>,
        /// The stream's epoch; empty without history.
        epoch: Arc<str>,
    },
    /// A client joined or left a channel to which the endpoint is subscribed.
    Membership {
        /// Where.
        channel: Arc<str>,
        /// Who.
        info: Arc<ClientInfo>,
        /// Which.
        change: Membership,
    },
    /// Where the stream of a channel stands that the endpoint hears, said unasked when something
    /// may have been lost. It comes behind every publication up to there.
    Position {
        /// Where.
        channel: Arc<str>,
        /// The stream's top.
        top: StreamPosition,
    },
    /// A channel to which the endpoint is subscribed has expired: see [`BrokerRequest::LimitTtl`].
    Expired {
        /// Which.
        channel: Arc<str>,
    },
    /// The answer to a request.
    Reply {
        /// The request's id.
        id: RequestId,
        /// What came of it.
        result: Result<BrokerReply, BrokerError>,
    },
    /// An order of the server API.
    Control(Arc<Control>),
    /// A change of what is revoked, made at any node.
    Revocation(Arc<Revocation>),
    /// Changes of what is revoked may have been missed: they are to be read again.
    RevocationsStale,
    /// Another node asks; one endpoint of this node answers with [`BrokerRequest::Answer`].
    Question {
        /// To be given back.
        ticket: Ticket,
        /// What.
        question: Bytes,
    },
}

/// Answers of a broker.
#[derive(Clone, Debug, PartialEq)]
pub enum BrokerReply {
    /// The endpoint is subscribed; the part of the stream that it requested.
    Subscribed(JoinedStream),
    /// The publication is accepted at this position (zero without history). A repeated idempotency
    /// key and a stale version answer with the position of what was accepted before.
    Published(StreamPosition),
    /// Who is there.
    Presence(Vec<Arc<ClientInfo>>),
    /// How many are there.
    PresenceStats(PresenceStats),
    /// What was read.
    History(HistoryResult),
    /// What was retained is gone.
    HistoryRemoved,
    /// Age and remaining TTL of the channel; `None` for one that does not expire.
    ChannelTtl(Option<ChannelTtl>),
    /// What other nodes say.
    Survey(Survey),
    /// What was done with a change of what is revoked.
    Revoked(RevokeOutcome),
    /// The change of a subject that is stored; `None` when it was never revoked, or that is
    /// forgotten.
    Revocation(Option<Arc<Revocation>>),
    /// Every change that is kept.
    Revocations(Vec<Arc<Revocation>>),
}

/// Age and remaining TTL of a temporary channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelTtl {
    /// Milliseconds since it began.
    pub age_ms: u64,
    /// Milliseconds until it ends.
    pub left_ms: u64,
}

/// Which node asked, and which of its questions.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// As the broker names it.
    pub node: String,
    /// Of that node.
    pub number: u64,
}

/// Answers of all other nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// One of each node that answered.
    pub answers: Vec<Bytes>,
    /// Nodes that live, as far as is known, and did not answer in time.
    pub missing: usize,
}

/// The stream as a joining subscriber finds it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JoinedStream {
    /// The stream's top.
    pub top: StreamPosition,
    /// What was asked for by [`JoinRead`], oldest first.
    pub publications: Vec<Arc<Publication>>,
}

/// Why a broker did not do what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// It cannot be reached or did not answer in time.
    #[error("the broker is unavailable")]
    Unavailable,
    /// A receiving endpoint is so far behind that taking more would lose messages.
    #[error("a receiver of the channel is overloaded")]
    Overloaded,
    /// It keeps as much as it may, and nothing is given up for this.
    #[error(
        "the broker keeps as much as it may (engine.memory.bytes_max, engine.memory.channels_max)"
    )]
    Full,
    /// The position asked for belongs to another epoch.
    #[error("the position is not in the stream any more")]
    UnrecoverablePosition,
    /// The channel's name is longer than this broker can carry; asking again does not help.
    #[error("the channel name is too long for the broker")]
    NameTooLong,
    /// The publication is larger than this broker can carry; asking again does not help.
    #[error("the publication is too large for the broker")]
    TooLarge,
    /// It cannot do this as it is set up; asking again does not help.
    #[error("the broker cannot do this as it is set up")]
    NotSupported,
}

/// An order of the server API to the sessions that it names (protocol §3.3).
#[derive(Clone, Debug, PartialEq)]
pub struct Control {
    /// Whose sessions.
    pub target: Target,
    /// What to do with them.
    pub order: Order,
}

/// Names sessions by user and, optionally, by client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// User id; empty means the anonymous users, as a group of their own.
    pub user: String,
    /// Only this client, when not empty.
    pub client: String,
    /// Not these clients.
    pub except: Vec<String>,
    /// Only sessions that were admitted before this one: Unix milliseconds and client id.
    pub admitted_before: Option<(i64, String)>,
}

/// What the server API wants of sessions.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// Begin a server-side subscription.
    Subscribe {
        /// Where.
        channel: String,
        /// Lifetime in Unix seconds.
        expire_at: Option<i64>,
        /// How it differs from the namespace's options.
        grant: SubscriptionGrant,
        /// Recover from here.
        recover_since: Option<StreamPosition>,
    },
    /// End a subscription, or all when the channel is empty.
    Unsubscribe {
        /// Where.
        channel: String,
    },
    /// End the connection.
    Disconnect(Disconnect),
    /// Change the connection's lifetime.
    Refresh {
        /// Replaces what others see of the connection, when not empty.
        info: Bytes,
        /// Unix seconds; `None` for no end.
        expire_at: Option<i64>,
        /// End it now (3005).
        expired: bool,
    },
}
