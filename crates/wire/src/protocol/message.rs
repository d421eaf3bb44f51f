//! The messages of the client protocol as plain values, the same for both codecs.
//!
//! An absent field has its zero value, as in proto3; `Option` is used only where presence has a
//! meaning. Payloads ([`Bytes`]) belong to the application: raw JSON text in the JSON codec, opaque
//! bytes in Protobuf.

use std::sync::Arc;

use bytes::Bytes;

use super::codes::{ErrorCode, UnsubscribeCode};

/// A command of a client.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    /// Id chosen by the client and repeated in the reply; zero for `send` and for a pong.
    pub id: u32,
    /// The request to execute.
    pub request: Request,
}

/// The request of a [`Command`]. If a peer sets several, the first in the order of precedence
/// counts, which [`super::protobuf`] lists by field number.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Authenticate and open the session.
    Connect(Box<ConnectRequest>),
    /// A ping by the client, which is answered with an error.
    Ping,
    /// Subscribe to a channel.
    Subscribe(Box<SubscribeRequest>),
    /// End a subscription.
    Unsubscribe {
        /// Channel of the subscription.
        channel: String,
    },
    /// Publish to a channel.
    Publish(PublishRequest),
    /// Read the clients present in a channel.
    Presence {
        /// Channel whose presence to read.
        channel: String,
    },
    /// Count the clients and users present in a channel.
    PresenceStats {
        /// Channel whose presence to count.
        channel: String,
    },
    /// Read retained publications.
    History(HistoryRequest),
    /// Call a method of a backend.
    Rpc {
        /// Name of the method.
        method: String,
        /// Argument of the method.
        data: Bytes,
    },
    /// Send a message that has no reply.
    Send {
        /// Payload of the message.
        data: Bytes,
    },
    /// Extend the connection with a new token.
    Refresh {
        /// New connection token.
        token: String,
    },
    /// Extend a subscription with a new token.
    SubRefresh(SubRefreshRequest),
    /// The empty command, which answers a ping of the server.
    Pong,
    /// A positive id without a known request; a malformed command.
    Missing,
}

impl Request {
    /// The application's payloads in the request.
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

/// Request to open a session.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConnectRequest {
    /// Connection token (JWT); empty for none.
    pub token: String,
    /// Data of the application.
    pub data: Bytes,
    /// Server-side subscriptions with the positions that the client holds, or channels that it
    /// requests.
    pub subs: Vec<(String, SubscribeRequest)>,
    /// Name of the client library.
    pub name: String,
    /// Version of the client library.
    pub version: String,
    /// Headers of the application, in place of HTTP headers that browsers cannot set.
    pub headers: Vec<(String, String)>,
    /// Bits of requested features.
    pub flag: i64,
}

/// Request to subscribe to a channel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SubscribeRequest {
    /// Channel to subscribe to.
    pub channel: String,
    /// Subscription token (JWT); empty for none.
    pub token: String,
    /// Whether to recover from `offset` and `epoch`.
    pub recover: bool,
    /// Epoch of the client's position.
    pub epoch: String,
    /// Offset of the client's position.
    pub offset: u64,
    /// Data of the application.
    pub data: Bytes,
    /// Whether gaps are to be detected.
    pub positioned: bool,
    /// Whether the client may recover later.
    pub recoverable: bool,
    /// Whether the client wants joins and leaves.
    pub join_leave: bool,
    /// Requested delta algorithm; empty for none.
    pub delta: String,
    /// Whether a tags filter was sent. Its content is dropped, because filters are not available.
    pub tags_filter: bool,
    /// Bits of requested features: 1 channel compaction, 2 an error instead of an incomplete
    /// recovery.
    pub flag: i64,
    /// Type of subscription; 0 is a stream, other types are not available.
    pub kind: i32,
}

/// Request to publish to a channel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PublishRequest {
    /// Channel to publish to.
    pub channel: String,
    /// Payload of the publication.
    pub data: Bytes,
    /// Type of publication; 0 is a stream, 1 (map) is not available.
    pub kind: i32,
}

/// Request to read retained publications.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HistoryRequest {
    /// Channel whose stream to read.
    pub channel: String,
    /// Maximum number of publications; 0 reads the position only, a negative number reads all.
    pub limit: i32,
    /// Read the publications after this position, or before it if `reverse` is set.
    pub since: Option<StreamPosition>,
    /// Whether to read the newest publication first.
    pub reverse: bool,
}

/// Request to extend a subscription.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SubRefreshRequest {
    /// Channel of the subscription.
    pub channel: String,
    /// New subscription token.
    pub token: String,
    /// Type of refresh; 0 extends, 1 (track) and 2 (untrack) are not available.
    pub kind: i32,
}

/// A position in a channel's stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct StreamPosition {
    /// Offset of the last known publication; 0 before the first.
    pub offset: u64,
    /// Epoch of the stream; it changes when the stream was lost.
    pub epoch: String,
}

/// A reply or a push: a message of the server.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// Id of the command; zero for pushes and pings.
    pub id: u32,
    /// Content of the message.
    pub body: ReplyBody,
}

/// The content of a [`Reply`].
#[derive(Clone, Debug, PartialEq)]
pub enum ReplyBody {
    /// A ping of the server: the empty reply.
    Ping,
    /// The command failed.
    Error(ErrorReply),
    /// A push, which no command requested.
    Push(Push),
    /// The session is open.
    Connect(Box<ConnectResult>),
    /// The subscription is active.
    Subscribe(Box<SubscribeResult>),
    /// The subscription has ended.
    Unsubscribe,
    /// The publication was accepted.
    Publish,
    /// The clients present in the channel, by client id.
    Presence(Vec<(String, ClientInfo)>),
    /// The numbers of clients and users present in the channel.
    PresenceStats(PresenceStats),
    /// Retained publications.
    History(HistoryResult),
    /// Result of a backend's method.
    Rpc {
        /// Result of the method.
        data: Bytes,
    },
    /// The connection was extended.
    Refresh(RefreshResult),
    /// The subscription was extended.
    SubRefresh {
        /// Whether the subscription expires.
        expires: bool,
        /// Seconds until it expires.
        ttl: u32,
    },
}

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorReply {
    /// Number of the error on the wire.
    pub code: u32,
    /// Error in words.
    pub message: String,
    /// Whether a later retry may succeed.
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

/// The result of a connect command.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConnectResult {
    /// Client id (UUID v4).
    pub client: String,
    /// Version of the server.
    pub version: String,
    /// Whether the connection expires and the client must refresh its token.
    pub expires: bool,
    /// Seconds until the connection expires.
    pub ttl: u32,
    /// Data of the application.
    pub data: Bytes,
    /// Server-side subscriptions, by channel.
    pub subs: Vec<(String, SubscribeResult)>,
    /// Seconds between pings; 0 if the server sends no pings in the protocol.
    pub ping: u32,
    /// Whether the client must answer pings.
    pub pong: bool,
    /// Id of the session, for transports that need one.
    pub session: String,
    /// Id of the node, for transports that need one.
    pub node: String,
    /// Server time as Unix time in milliseconds; 0 if not included.
    pub time: i64,
}

/// The result of a subscribe command.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SubscribeResult {
    /// Whether the subscription expires.
    pub expires: bool,
    /// Seconds until it expires.
    pub ttl: u32,
    /// Whether the client may recover later.
    pub recoverable: bool,
    /// Epoch of the position.
    pub epoch: String,
    /// Publications that the client missed.
    pub publications: Vec<Arc<Publication>>,
    /// Whether `publications` are all that the client missed.
    pub recovered: bool,
    /// Offset of the position.
    pub offset: u64,
    /// Whether gaps are detected.
    pub positioned: bool,
    /// Data of the application.
    pub data: Bytes,
    /// Whether a recovery was requested.
    pub was_recovering: bool,
}

/// An item published to a channel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Publication {
    /// Payload of the publication.
    pub data: Bytes,
    /// The client that published it; `None` for the server API.
    pub info: Option<ClientInfo>,
    /// Offset in the channel's stream; 0 without history.
    pub offset: u64,
    /// Tags as key and value.
    pub tags: Vec<(String, String)>,
    /// Unix time in milliseconds at which it was accepted; 0 if unknown.
    pub time: i64,
}

/// A client as other clients see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientInfo {
    /// User id; empty for anonymous.
    pub user: String,
    /// Client id (UUID v4).
    pub client: String,
    /// Information of the connection, set by its token or a backend.
    pub conn_info: Bytes,
    /// Information of the subscription, set by its token or a backend.
    pub chan_info: Bytes,
}

/// Bytes of a publication or a client in a message, beside texts and payloads: names of members,
/// numbers, quotes.
const ITEM_OVERHEAD: usize = 96;

impl Publication {
    /// Approximate bytes in a message of either codec, computed from the parts without encoding
    /// them.
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

/// The numbers of clients and users present in a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PresenceStats {
    /// Number of clients, that is, of connections.
    pub num_clients: u32,
    /// Number of distinct users.
    pub num_users: u32,
}

/// Retained publications and the stream's top position.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HistoryResult {
    /// The publications, in the requested order.
    pub publications: Vec<Arc<Publication>>,
    /// Epoch of the stream.
    pub epoch: String,
    /// Offset of the newest publication.
    pub offset: u64,
}

/// The result of a refresh command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RefreshResult {
    /// Client id (UUID v4).
    pub client: String,
    /// Version of the server.
    pub version: String,
    /// Whether the connection expires.
    pub expires: bool,
    /// Seconds until it expires.
    pub ttl: u32,
}

/// A message of the server that no command requested.
#[derive(Clone, Debug, PartialEq)]
pub struct Push {
    /// Channel concerned; empty for pushes about the connection.
    pub channel: Arc<str>,
    /// Content of the push.
    pub event: PushEvent,
}

/// The content of a [`Push`].
#[derive(Clone, Debug, PartialEq)]
pub enum PushEvent {
    /// A publication.
    Publication(Arc<Publication>),
    /// A client joined.
    Join(Arc<ClientInfo>),
    /// A client left.
    Leave(Arc<ClientInfo>),
    /// The server ended a subscription.
    Unsubscribe {
        /// Number of the unsubscribe code.
        code: u32,
        /// Reason in words.
        reason: String,
    },
    /// A message to this connection.
    Message {
        /// Payload of the message.
        data: Bytes,
    },
    /// The server started a subscription.
    Subscribe {
        /// Whether the client may recover later.
        recoverable: bool,
        /// Whether gaps are detected.
        positioned: bool,
        /// Position at which the subscription starts.
        position: StreamPosition,
        /// Data of the application.
        data: Bytes,
    },
    /// The connection closes, on transports without a close frame.
    Disconnect {
        /// Number of the disconnect code.
        code: u32,
        /// Reason in words.
        reason: String,
        /// Whether the client is to reconnect.
        reconnect: bool,
    },
    /// The connection's expiry changed.
    Refresh {
        /// Whether the connection expires.
        expires: bool,
        /// Seconds until it expires.
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
