//! The messages of the client protocol as plain values (§1.1 – 1.3), the same for both codecs.
//!
//! An absent field is its zero value, as in proto3; an `Option` stands only where presence itself
//! means something. Payloads ([`Bytes`]) are the application's: raw JSON text in the JSON codec,
//! opaque bytes in Protobuf.

use std::sync::Arc;

use bytes::Bytes;

use super::codes::{ErrorCode, UnsubscribeCode};

/// What a client asks.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    /// Chosen by the client, echoed in the reply; zero for `send` and for a pong.
    pub id: u32,
    /// The one request that is executed.
    pub request: Request,
}

/// The request of a [`Command`]; when a peer sets several, the first in the order of §1.1 counts.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Authenticate and open the session.
    Connect(Box<ConnectRequest>),
    /// An explicit ping by the client, which is answered with an error (§1.3).
    Ping,
    /// Join a channel.
    Subscribe(Box<SubscribeRequest>),
    /// Leave a channel.
    Unsubscribe {
        /// The channel to leave.
        channel: String,
    },
    /// Publish into a channel.
    Publish(PublishRequest),
    /// Who is in a channel.
    Presence {
        /// The channel asked about.
        channel: String,
    },
    /// How many are in a channel.
    PresenceStats {
        /// The channel asked about.
        channel: String,
    },
    /// Read retained publications.
    History(HistoryRequest),
    /// Call a backend method.
    Rpc {
        /// Method name.
        method: String,
        /// Argument.
        data: Bytes,
    },
    /// A message without a reply.
    Send {
        /// The message.
        data: Bytes,
    },
    /// Prolong the connection with a new token.
    Refresh {
        /// The new connection token.
        token: String,
    },
    /// Prolong a subscription with a new token.
    SubRefresh(SubRefreshRequest),
    /// The empty command: an answer to the server's ping.
    Pong,
    /// A positive id and no request that we know: a bad request.
    Missing,
}

impl Request {
    /// The application's payloads in it.
    pub fn payloads(&self) -> impl Iterator<Item = &Bytes> {
        let (one, subs) = match self {
            Request::Connect(request) => (Some(&request.data), &request.subs[..]),
            Request::Subscribe(request) => (Some(&request.data), &[][..]),
            Request::Publish(request) => (Some(&request.data), &[][..]),
            Request::Rpc { data, .. } | Request::Send { data } => (Some(data), &[][..]),
            _ => (None, &[][..]),
        };
        one.into_iter().chain(subs.iter().map(|(_, request)| &request.data))
    }
}

/// Opens a session (§1.9).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConnectRequest {
    /// Connection token (JWT) or empty.
    pub token: String,
    /// Application data.
    pub data: Bytes,
    /// Server-side subscriptions that the client knows, with their positions, or a wish-list.
    pub subs: Vec<(String, SubscribeRequest)>,
    /// Client library name.
    pub name: String,
    /// Client library version.
    pub version: String,
    /// Emulated headers.
    pub headers: Vec<(String, String)>,
    /// Feature bits.
    pub flag: i64,
}

/// Joins a channel (§1.10).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SubscribeRequest {
    /// Channel name.
    pub channel: String,
    /// Subscription token (JWT) or empty.
    pub token: String,
    /// Whether to recover from `offset` and `epoch`.
    pub recover: bool,
    /// Epoch of the client's position.
    pub epoch: String,
    /// Offset of the client's position.
    pub offset: u64,
    /// Application data.
    pub data: Bytes,
    /// Ask for gap detection.
    pub positioned: bool,
    /// Ask for recovery.
    pub recoverable: bool,
    /// Ask for join and leave pushes.
    pub join_leave: bool,
    /// Delta algorithm wanted, or empty.
    pub delta: String,
    /// Whether a tags filter was sent (its content is not kept: filters are not available).
    pub tags_filter: bool,
    /// Feature bits: 1 channel compaction, 2 reject when not recovered.
    pub flag: i64,
    /// Subscription type; 0 is a stream, all others are not available.
    pub kind: i32,
}

/// Publishes into a channel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PublishRequest {
    /// Channel name.
    pub channel: String,
    /// Payload.
    pub data: Bytes,
    /// 0 stream, 1 map (not available).
    pub kind: i32,
}

/// Reads retained publications.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HistoryRequest {
    /// Channel name.
    pub channel: String,
    /// 0: position only; negative: all; else at most so many.
    pub limit: i32,
    /// Start behind this position (or before it, in reverse).
    pub since: Option<StreamPosition>,
    /// Newest first.
    pub reverse: bool,
}

/// Prolongs a subscription.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SubRefreshRequest {
    /// Channel name.
    pub channel: String,
    /// The new subscription token.
    pub token: String,
    /// 0 refresh; 1 track and 2 untrack are not available.
    pub kind: i32,
}

/// A point in a channel's stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct StreamPosition {
    /// Number of the last publication known; 0 before the first.
    pub offset: u64,
    /// Epoch of the stream; it changes when the stream was lost.
    pub epoch: String,
}

/// An answer or a push: everything that the server sends (§1.1).
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// The command's id; zero for pushes and pings.
    pub id: u32,
    /// What is said.
    pub body: ReplyBody,
}

/// The content of a [`Reply`].
#[derive(Clone, Debug, PartialEq)]
pub enum ReplyBody {
    /// The server's ping: the empty reply (§1.7).
    Ping,
    /// The command failed.
    Error(ErrorReply),
    /// Said by the server itself.
    Push(Push),
    /// The session is open.
    Connect(Box<ConnectResult>),
    /// The subscription is live.
    Subscribe(Box<SubscribeResult>),
    /// The subscription is gone.
    Unsubscribe,
    /// The publication was accepted.
    Publish,
    /// Who is in the channel: client id → information.
    Presence(Vec<(String, ClientInfo)>),
    /// How many are in the channel.
    PresenceStats(PresenceStats),
    /// Retained publications.
    History(HistoryResult),
    /// Answer of a backend method.
    Rpc {
        /// Result.
        data: Bytes,
    },
    /// The connection was prolonged.
    Refresh(RefreshResult),
    /// The subscription was prolonged.
    SubRefresh {
        /// Whether it ends.
        expires: bool,
        /// Seconds until then.
        ttl: u32,
    },
}

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorReply {
    /// Number on the wire (§1.17).
    pub code: u32,
    /// Text for people.
    pub message: String,
    /// Whether trying again later may help.
    pub temporary: bool,
}

impl From<ErrorCode> for ErrorReply {
    fn from(code: ErrorCode) -> ErrorReply {
        ErrorReply {
            code: code.number(),
            message: code.message().to_owned(),
            temporary: code.is_temporary(),
        }
    }
}

/// The session is open (§1.9).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConnectResult {
    /// Client id (UUID v4).
    pub client: String,
    /// Server version.
    pub version: String,
    /// Whether the client must refresh.
    pub expires: bool,
    /// Seconds until the connection expires.
    pub ttl: u32,
    /// Application data.
    pub data: Bytes,
    /// Server-side subscriptions.
    pub subs: Vec<(String, SubscribeResult)>,
    /// Seconds between pings; 0 when the server does not ping in the protocol.
    pub ping: u32,
    /// Whether pings must be answered.
    pub pong: bool,
    /// Session id, for transports that need one.
    pub session: String,
    /// Node id, for transports that need one.
    pub node: String,
    /// Server time, Unix milliseconds; 0 when not included.
    pub time: i64,
}

/// The subscription is live (§1.10).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SubscribeResult {
    /// Whether the subscription expires.
    pub expires: bool,
    /// Seconds until then.
    pub ttl: u32,
    /// Whether the client may recover later.
    pub recoverable: bool,
    /// Epoch of the position.
    pub epoch: String,
    /// What was missed, when recovered.
    pub publications: Vec<Arc<Publication>>,
    /// Whether nothing is missing.
    pub recovered: bool,
    /// Offset of the position.
    pub offset: u64,
    /// Whether gaps are noticed.
    pub positioned: bool,
    /// Application data.
    pub data: Bytes,
    /// Whether recovery was tried.
    pub was_recovering: bool,
}

/// One item accepted for a channel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Publication {
    /// Payload.
    pub data: Bytes,
    /// The publishing client; absent when published by the server API.
    pub info: Option<ClientInfo>,
    /// Number within the channel's stream; 0 without history.
    pub offset: u64,
    /// Key-value labels.
    pub tags: Vec<(String, String)>,
    /// When it was accepted, Unix milliseconds; 0 when unknown.
    pub time: i64,
}

/// Who a client is, for others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientInfo {
    /// User id; empty for anonymous.
    pub user: String,
    /// Client id.
    pub client: String,
    /// Information from the connection token.
    pub conn_info: Bytes,
    /// Information from the subscription.
    pub chan_info: Bytes,
}

/// Bytes of a publication or a client's information beside their texts and payloads: names of
/// members, numbers, quotes.
const ITEM_OVERHEAD: usize = 96;

impl Publication {
    /// About how many bytes it takes in a message of either codec, from its parts and without
    /// encoding it.
    #[must_use]
    pub fn weight(&self) -> usize {
        let tags = self.tags.iter().map(|(key, value)| key.len() + value.len() + 8);
        let info = self.info.as_ref().map_or(0, ClientInfo::weight);
        ITEM_OVERHEAD + self.data.len() + info + tags.sum::<usize>()
    }
}

impl ClientInfo {
    /// See [`Publication::weight`].
    #[must_use]
    pub fn weight(&self) -> usize {
        let ids = self.user.len() + self.client.len();
        ITEM_OVERHEAD + ids + self.conn_info.len() + self.chan_info.len()
    }
}

/// How many are in a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PresenceStats {
    /// Connections.
    pub num_clients: u32,
    /// Distinct users.
    pub num_users: u32,
}

/// Retained publications and the position of the stream's top.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HistoryResult {
    /// The publications, in the order asked for.
    pub publications: Vec<Arc<Publication>>,
    /// Epoch of the stream.
    pub epoch: String,
    /// Offset of the newest publication.
    pub offset: u64,
}

/// The connection was prolonged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RefreshResult {
    /// Client id.
    pub client: String,
    /// Server version.
    pub version: String,
    /// Whether it expires.
    pub expires: bool,
    /// Seconds until then.
    pub ttl: u32,
}

/// What the server says by itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Push {
    /// The channel concerned; empty for pushes to the connection.
    pub channel: Arc<str>,
    /// What happened.
    pub event: PushEvent,
}

/// The content of a [`Push`].
#[derive(Clone, Debug, PartialEq)]
pub enum PushEvent {
    /// A publication.
    Publication(Arc<Publication>),
    /// Somebody joined.
    Join(Arc<ClientInfo>),
    /// Somebody left.
    Leave(Arc<ClientInfo>),
    /// The server ended a subscription.
    Unsubscribe {
        /// Number on the wire (§1.19).
        code: u32,
        /// Text for people.
        reason: String,
    },
    /// A message to this connection.
    Message {
        /// The message.
        data: Bytes,
    },
    /// The server began a subscription.
    Subscribe {
        /// Whether the client may recover later.
        recoverable: bool,
        /// Whether gaps are noticed.
        positioned: bool,
        /// Where the subscription starts.
        position: StreamPosition,
        /// Application data.
        data: Bytes,
    },
    /// The connection ends, on transports without a close frame.
    Disconnect {
        /// Number on the wire (§1.18).
        code: u32,
        /// Text for people.
        reason: String,
        /// Whether to come back.
        reconnect: bool,
    },
    /// The connection's lifetime changed.
    Refresh {
        /// Whether it expires.
        expires: bool,
        /// Seconds until then.
        ttl: u32,
    },
    /// A kind that a later version of the protocol has: to be ignored.
    Unknown,
}

impl From<UnsubscribeCode> for PushEvent {
    fn from(code: UnsubscribeCode) -> PushEvent {
        PushEvent::Unsubscribe { code: code.number(), reason: code.reason().to_owned() }
    }
}
