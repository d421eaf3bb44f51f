//! Requests about the publications of a channel: subscribe, publish, history, expiry.
//!
//! Invariant: requests of one endpoint about one channel take effect in the order of submission.

use std::sync::Arc;

use wire::protocol::{ClientInfo, HistoryResult, Publication, StreamPosition};

use super::reply::{BrokerReply, RequestId};
use super::{BrokerError, BrokerRequest};

/// A request about the publications of one channel.
#[derive(Clone, Debug)]
pub enum PublicationsRequest {
    /// Subscribes the endpoint to a channel, then reads the channel's stream. Idempotent: a second
    /// subscribe only reads.
    Subscribe {
        /// Repeated in the reply.
        id: RequestId<JoinedStream>,
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
    /// Publishes to a channel.
    Publish {
        /// Repeated in the reply.
        id: RequestId<StreamPosition>,
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
    /// Reads the channel's stream.
    History {
        /// Repeated in the reply.
        id: RequestId<HistoryResult>,
        /// Channel whose stream to read.
        channel: Arc<str>,
        /// Part of the stream to read.
        query: HistoryQuery,
        /// Milliseconds for which offset and epoch are stored if this read creates the stream.
        meta_ttl_ms: u64,
    },
    /// Removes the retained publications; offset and epoch remain.
    RemoveHistory {
        /// Repeated in the reply.
        id: RequestId<HistoryRemoved>,
        /// Channel whose publications to remove.
        channel: Arc<str>,
    },
    /// Makes the channel temporary: it expires `ttl_ms` after the first such request. Later
    /// requests do not change the expiry. On expiry the retained publications are deleted and
    /// subscribers receive [`super::BrokerEvent::Expired`]. Has no reply.
    LimitTtl {
        /// Channel to limit.
        channel: Arc<str>,
        /// Lifetime in milliseconds.
        ttl_ms: u64,
    },
    /// Reads the age and the remaining TTL of a temporary channel.
    ChannelTtl {
        /// Repeated in the reply.
        id: RequestId<Option<ChannelTtl>>,
        /// Channel whose TTL to read.
        channel: Arc<str>,
    },
}

impl PublicationsRequest {
    /// Returns the channel of the request.
    #[must_use]
    pub fn channel(&self) -> &Arc<str> {
        match self {
            PublicationsRequest::Subscribe { channel, .. }
            | PublicationsRequest::Unsubscribe { channel }
            | PublicationsRequest::Publish { channel, .. }
            | PublicationsRequest::Announce { channel, .. }
            | PublicationsRequest::History { channel, .. }
            | PublicationsRequest::RemoveHistory { channel, .. }
            | PublicationsRequest::LimitTtl { channel, .. }
            | PublicationsRequest::ChannelTtl { channel, .. } => channel,
        }
    }

    pub(super) fn refuse(&self, error: BrokerError) -> Option<BrokerReply> {
        match self {
            PublicationsRequest::Subscribe { id, .. } => Some(id.answer(Err(error))),
            PublicationsRequest::Publish { id, .. } => Some(id.answer(Err(error))),
            PublicationsRequest::History { id, .. } => Some(id.answer(Err(error))),
            PublicationsRequest::RemoveHistory { id, .. } => Some(id.answer(Err(error))),
            PublicationsRequest::ChannelTtl { id, .. } => Some(id.answer(Err(error))),
            PublicationsRequest::Unsubscribe { .. }
            | PublicationsRequest::Announce { .. }
            | PublicationsRequest::LimitTtl { .. } => None,
        }
    }
}

impl From<PublicationsRequest> for BrokerRequest {
    fn from(request: PublicationsRequest) -> BrokerRequest {
        BrokerRequest::Publications(request)
    }
}

/// The part of a stream that a joining subscriber needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinRead {
    /// No part: the subscription has no position.
    Nothing,
    /// The stream's top position.
    Position {
        /// See [`PublicationsRequest::History`].
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
        /// See [`PublicationsRequest::History`].
        meta_ttl_ms: u64,
    },
    /// The newest publication.
    Newest {
        /// See [`PublicationsRequest::History`].
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

/// Age and remaining TTL of a temporary channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelTtl {
    /// Milliseconds since the channel was made temporary.
    pub age_ms: u64,
    /// Milliseconds until the channel expires.
    pub left_ms: u64,
}

/// The stream as a joining subscriber reads it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JoinedStream {
    /// Top position of the stream.
    pub top: StreamPosition,
    /// Publications requested by [`JoinRead`], oldest first.
    pub publications: Vec<Arc<Publication>>,
}

/// The retained publications were removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryRemoved;
