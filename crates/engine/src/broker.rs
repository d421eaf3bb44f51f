//! The contract between an endpoint and a broker: the requests that an endpoint submits and the
//! events that a broker delivers.
//!
//! An endpoint is a local user of a broker: a worker, or the server API. It submits a
//! [`BrokerRequest`] without waiting and receives [`BrokerEvent`]s in its inbox. Every broker
//! guarantees:
//!
//! - Requests of one endpoint about one channel take effect in the order of submission.
//! - All endpoints receive the publications of a channel in the same order.
//! - Each request that carries a [`RequestId`] gets exactly one [`BrokerEvent::Reply`].
//! - A reply stands in the inbox behind every event that precedes it in the channel. So the reply
//!   to [`BrokerRequest::Subscribe`] separates the publications that its [`JoinedStream`] covers
//!   from those that follow.

use std::sync::Arc;

use bytes::Bytes;
use wire::protocol::{
    ClientInfo, Disconnect, HistoryResult, PresenceStats, Publication, StreamPosition,
};

use crate::claims::SubscriptionGrant;
use crate::lifecycle::Lifecycle;
use crate::revocation::{Revocation, RevokeOutcome, Subject};

/// Identifies a request of one endpoint. The endpoint chooses it; the reply repeats it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// A request that an endpoint submits to a broker.
#[derive(Clone, Debug)]
pub enum BrokerRequest {
    /// Subscribes the endpoint to a channel, then reads the channel's stream. Idempotent: a second
    /// subscribe only reads. Answered with [`BrokerReply::Subscribed`].
    Subscribe {
        /// Repeated in the reply.
        id: RequestId,
        /// Channel to subscribe to.
        channel: Arc<str>,
        /// Part of the stream to read once the subscription is active.
        read: JoinRead,
    },
    /// Ends the endpoint's subscription to a channel. Has no reply.
    Unsubscribe {
        /// Channel to unsubscribe from.
        channel: Arc<str>,
    },
    /// Publishes to a channel. Answered with [`BrokerReply::Published`].
    Publish {
        /// Repeated in the reply.
        id: RequestId,
        /// Channel to publish to.
        channel: Arc<str>,
        /// Content of the publication. The broker assigns its offset.
        publication: Publication,
        /// Retention, idempotency key and version.
        options: PublishOptions,
    },
    /// Notifies the channel's subscribers that a client joined or left. Has no reply.
    Announce {
        /// Channel that the client joined or left.
        channel: Arc<str>,
        /// The client, as subscribers see it.
        info: Arc<ClientInfo>,
        /// Whether the client joined or left.
        change: Membership,
    },
    /// Adds a client to the channel's presence. It stays until it is removed, the endpoint detaches
    /// or the node's lease expires. Idempotent; replaces the stored information. Has no reply.
    AddPresence {
        /// Channel in which the client is present.
        channel: Arc<str>,
        /// The client, as presence replies show it.
        info: Arc<ClientInfo>,
        /// Whether the broker publishes a leave message for the client when its endpoint detaches
        /// or its node fails.
        announces: bool,
    },
    /// Removes a client from the channel's presence. Has no reply.
    RemovePresence {
        /// Channel from which to remove the client.
        channel: Arc<str>,
        /// The client as it was added; its client id identifies it.
        client: Arc<ClientInfo>,
    },
    /// Reads the clients present in a channel. Answered with [`BrokerReply::Presence`].
    Presence {
        /// Repeated in the reply.
        id: RequestId,
        /// Channel whose presence to read.
        channel: Arc<str>,
    },
    /// Counts the clients and users present in a channel. Answered with
    /// [`BrokerReply::PresenceStats`].
    PresenceStats {
        /// Repeated in the reply.
        id: RequestId,
        /// Channel whose presence to count.
        channel: Arc<str>,
    },
    /// Reads the channel's stream. Answered with [`BrokerReply::History`].
    History {
        /// Repeated in the reply.
        id: RequestId,
        /// Channel whose stream to read.
        channel: Arc<str>,
        /// Part of the stream to read.
        query: HistoryQuery,
        /// Milliseconds for which offset and epoch are stored if this read creates the stream.
        meta_ttl_ms: u64,
    },
    /// Removes the retained publications; offset and epoch remain. Answered with
    /// [`BrokerReply::HistoryRemoved`].
    RemoveHistory {
        /// Repeated in the reply.
        id: RequestId,
        /// Channel whose publications to remove.
        channel: Arc<str>,
    },
    /// Makes the channel temporary: it expires `ttl_ms` after the first such request. Later
    /// requests do not change the expiry. On expiry the retained publications are deleted and
    /// subscribers receive [`BrokerEvent::Expired`]. Has no reply.
    LimitTtl {
        /// Channel to limit.
        channel: Arc<str>,
        /// Lifetime in milliseconds.
        ttl_ms: u64,
    },
    /// Reads the age and the remaining TTL of a temporary channel. Answered with
    /// [`BrokerReply::ChannelTtl`].
    ChannelTtl {
        /// Repeated in the reply.
        id: RequestId,
        /// Channel whose TTL to read.
        channel: Arc<str>,
    },
    /// Sends an order of the server API to all workers of all nodes. Has no reply.
    Control(Arc<Control>),
    /// Publishes that a client connected or disconnected, in the channel
    /// [`crate::channel::LIFECYCLE`]. Events of one client are delivered in order and at least
    /// once. When a node fails, another node publishes the disconnects of its clients. Has no
    /// reply.
    Lifecycle(Lifecycle),
    /// Stores a change of what is revoked and notifies all nodes by [`BrokerEvent::Revocation`].
    /// The change is not stored when the stored change of its subject is as late or later.
    /// Idempotent: the stored change itself is answered with [`RevokeOutcome::Stored`] again.
    /// Answered with [`BrokerReply::Revoked`].
    Revoke {
        /// Repeated in the reply.
        id: RequestId,
        /// Change to store.
        revocation: Arc<Revocation>,
    },
    /// Reads the stored change of a subject, even if it has expired. Answered with
    /// [`BrokerReply::Revocation`].
    FindRevocation {
        /// Repeated in the reply.
        id: RequestId,
        /// Subject to look up.
        subject: Subject,
    },
    /// Reads all stored changes that have not expired. Answered with [`BrokerReply::Revocations`].
    ReadRevocations {
        /// Repeated in the reply.
        id: RequestId,
    },
    /// Sends a question to every other node and collects the answers. Answered with
    /// [`BrokerReply::Survey`].
    Survey {
        /// Repeated in the reply.
        id: RequestId,
        /// Encoded question. Brokers do not read it.
        question: Bytes,
    },
    /// Answers a [`BrokerEvent::Question`] of another node. Has no reply.
    Answer {
        /// Ticket of the question.
        ticket: Ticket,
        /// Encoded answer. Brokers do not read it.
        answer: Bytes,
    },
}

impl BrokerRequest {
    /// Returns the id that the reply will carry; `None` for requests without a reply.
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

    /// Returns the channel of the request; `None` for requests about nodes and revocations.
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

/// The part of a stream that a joining subscriber needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinRead {
    /// No part: the subscription has no position.
    Nothing,
    /// The stream's top position.
    Position {
        /// See [`BrokerRequest::History`].
        meta_ttl_ms: u64,
    },
    /// The publications after `since`, oldest first, at most `limit`.
    Since {
        /// Position of the last publication that the client has received.
        since: StreamPosition,
        /// Maximum number of publications to read.
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

/// How a publication is retained, and when it is rejected as a repetition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishOptions {
    /// Maximum number of publications that the stream retains. 0 retains none and assigns no
    /// offset.
    pub history_size: u32,
    /// Milliseconds for which the stream retains the publication.
    pub history_ttl_ms: u64,
    /// Milliseconds for which offset and epoch are stored after the last publication.
    pub history_meta_ttl_ms: u64,
    /// A publication whose key was used within the last five minutes is not published again. Empty
    /// for no check.
    pub idempotency_key: String,
    /// A publication whose version is not above the last one's is not published. 0 for no check.
    pub version: u64,
    /// Versions are compared within one epoch only.
    pub version_epoch: String,
}

/// The part of a stream to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryQuery {
    /// Maximum number of publications; `None` reads all, `Some(0)` only the position.
    pub limit: Option<u32>,
    /// Reads the publications after this position, or before it if `reverse` is set.
    pub since: Option<StreamPosition>,
    /// Reads the newest publication first.
    pub reverse: bool,
    /// Stops before the publications exceed this many bytes ([`Publication::weight`]). The first
    /// one is always returned. `None` for no limit. A broker that cannot stop in time may return
    /// more.
    pub bytes_max: Option<usize>,
}

/// Whether a client joined or left a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// The client joined.
    Join,
    /// The client left.
    Leave,
}

/// An event that a broker delivers to an endpoint.
#[derive(Clone, Debug)]
pub enum BrokerEvent {
    /// A publication in a channel to which the endpoint is subscribed.
    Publication {
        /// Channel of the publication.
        channel: Arc<str>,
        /// The publication with its offset; offset 0 without history.
        publication: Arc<Publication>,
        /// Epoch of the stream; empty without history.
        epoch: Arc<str>,
    },
    /// A client joined or left a channel to which the endpoint is subscribed.
    Membership {
        /// Channel that the client joined or left.
        channel: Arc<str>,
        /// The client, as subscribers see it.
        info: Arc<ClientInfo>,
        /// Whether the client joined or left.
        change: Membership,
    },
    /// The top position of a channel to which the endpoint is subscribed. A broker sends it when
    /// publications may have been lost, for example after a reconnect. It follows every publication
    /// up to that position.
    Position {
        /// Channel of the stream.
        channel: Arc<str>,
        /// Top position of the stream.
        top: StreamPosition,
    },
    /// A temporary channel to which the endpoint is subscribed has expired. See
    /// [`BrokerRequest::LimitTtl`].
    Expired {
        /// Channel that has expired.
        channel: Arc<str>,
    },
    /// The reply to a request.
    Reply {
        /// Id of the request.
        id: RequestId,
        /// Result of the request.
        result: Result<BrokerReply, BrokerError>,
    },
    /// An order of the server API, submitted at any node.
    Control(Arc<Control>),
    /// A change of what is revoked, stored through any node.
    Revocation(Arc<Revocation>),
    /// Changes of what is revoked may have been missed. The endpoint must read them again.
    RevocationsStale,
    /// A question of another node. One endpoint of this node answers it with
    /// [`BrokerRequest::Answer`].
    Question {
        /// Identifies the question in the answer.
        ticket: Ticket,
        /// Encoded question.
        question: Bytes,
    },
}

/// The successful result of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum BrokerReply {
    /// The endpoint is subscribed; the part of the stream that it requested.
    Subscribed(JoinedStream),
    /// The publication was accepted at this position, zero without history. A repeated idempotency
    /// key or a stale version returns the position of the publication that was accepted before.
    Published(StreamPosition),
    /// The clients present in the channel.
    Presence(Vec<Arc<ClientInfo>>),
    /// The numbers of clients and users present in the channel.
    PresenceStats(PresenceStats),
    /// The part of the stream that was read.
    History(HistoryResult),
    /// The retained publications were removed.
    HistoryRemoved,
    /// Age and remaining TTL of the channel; `None` for a channel that does not expire.
    ChannelTtl(Option<ChannelTtl>),
    /// The answers of the other nodes.
    Survey(Survey),
    /// What the broker did with a change of what is revoked.
    Revoked(RevokeOutcome),
    /// The stored change of the subject; `None` if it was never revoked or the change was deleted.
    Revocation(Option<Arc<Revocation>>),
    /// All stored changes that have not expired.
    Revocations(Vec<Arc<Revocation>>),
}

/// Age and remaining TTL of a temporary channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelTtl {
    /// Milliseconds since the channel was made temporary.
    pub age_ms: u64,
    /// Milliseconds until the channel expires.
    pub left_ms: u64,
}

/// Identifies a question of another node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// Name of the node that asked, in the form that the broker uses.
    pub node: String,
    /// Number of the question, unique within that node.
    pub number: u64,
}

/// The answers of all other nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// One encoded answer for each node that answered.
    pub answers: Vec<Bytes>,
    /// Number of nodes with a valid lease that did not answer in time.
    pub missing: usize,
}

/// The stream as a joining subscriber reads it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JoinedStream {
    /// Top position of the stream.
    pub top: StreamPosition,
    /// Publications requested by [`JoinRead`], oldest first.
    pub publications: Vec<Arc<Publication>>,
}

/// Why a broker rejected a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// The broker is not reachable, or did not answer in time. The request may have taken effect.
    #[error("the broker is unavailable")]
    Unavailable,
    /// The inbox of a subscribed endpoint is full.
    #[error("a subscribed endpoint is overloaded")]
    Overloaded,
    /// The broker's memory limit is reached and nothing stored can be evicted for this request.
    #[error(
        "the broker's memory limit is reached (engine.memory.bytes_max, engine.memory.channels_max)"
    )]
    Full,
    /// The requested position belongs to another epoch.
    #[error("the position is no longer in the stream")]
    UnrecoverablePosition,
    /// The channel's name is too long for this broker. Permanent: a retry fails too.
    #[error("the channel name is too long for the broker")]
    NameTooLong,
    /// The publication is too large for this broker. Permanent: a retry fails too.
    #[error("the publication is too large for the broker")]
    TooLarge,
    /// The broker's configuration does not support the request. Permanent: a retry fails too.
    #[error("the broker's configuration does not support this request")]
    NotSupported,
}

/// An order of the server API for a set of sessions (protocol §3.3).
#[derive(Clone, Debug, PartialEq)]
pub struct Control {
    /// Sessions that the order applies to.
    pub target: Target,
    /// What to do with the sessions.
    pub order: Order,
}

/// Selects sessions by user, and optionally by client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// User id. Empty selects the anonymous users, which count as one user.
    pub user: String,
    /// Client id; empty selects all clients of the user.
    pub client: String,
    /// Client ids that are not selected.
    pub except: Vec<String>,
    /// Selects only sessions admitted before this one: Unix milliseconds and client id.
    pub admitted_before: Option<(i64, String)>,
}

/// What the server API does with sessions.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// Starts a server-side subscription.
    Subscribe {
        /// Channel to subscribe to.
        channel: String,
        /// Unix time in seconds at which the subscription expires; `None` never expires.
        expire_at: Option<i64>,
        /// Differences from the namespace's options.
        grant: SubscriptionGrant,
        /// Position from which to recover; `None` starts at the top.
        recover_since: Option<StreamPosition>,
    },
    /// Ends a subscription, or all subscriptions if the channel is empty.
    Unsubscribe {
        /// Channel to unsubscribe from; empty for all.
        channel: String,
    },
    /// Closes the connection with this code and reason.
    Disconnect(Disconnect),
    /// Changes the connection's expiry or information.
    Refresh {
        /// New `conn_info` that other clients see; empty leaves it unchanged.
        info: Bytes,
        /// New expiry as Unix time in seconds; `None` never expires.
        expire_at: Option<i64>,
        /// Closes the connection as expired (3005) now.
        expired: bool,
    },
}
