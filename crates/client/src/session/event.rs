//! What a session reports, and what it asks its driver to do.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;
use wire::protocol::{ClientInfo, ErrorReply, Publication, ReplyBody, StreamPosition};

use super::reason::Reason;
use crate::error::{CallError, TokenError, TransportError};
use crate::limits::REFUSAL_BODY_MAX;

/// Something that happened, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The connection is being opened: for the first time, or again.
    Connecting(Reason),
    /// The server accepted the connection.
    Connected(Box<Connected>),
    /// The connection has ended, and is not opened again by itself.
    Disconnected(Reason),
    /// A subscription is being made: for the first time, or again.
    Subscribing {
        /// Channel of the subscription.
        channel: Arc<str>,
        /// Why it is made: `subscribe` was called, the connection was lost, or the server ended it
        /// with a code of 2500 or above.
        reason: Reason,
    },
    /// The server accepted a subscription. Missed publications follow as events of their own.
    Subscribed {
        /// Channel of the subscription.
        channel: Arc<str>,
        /// What the server said.
        subscribed: Box<Subscribed>,
    },
    /// A subscription has ended, and is not made again by itself.
    Unsubscribed {
        /// Channel of the subscription.
        channel: Arc<str>,
        /// Why it has ended: `unsubscribe` was called, there is no valid token, or a code of the
        /// server.
        reason: Reason,
    },
    /// Something was published: live, or recovered.
    Publication {
        /// Channel into which it was published.
        channel: Arc<str>,
        /// Payload, offset in the channel's stream, and who published it where that is known.
        publication: Arc<Publication>,
    },
    /// A client joined a channel.
    Join {
        /// Channel that the client has subscribed to.
        channel: Arc<str>,
        /// User, connection and application data of the client.
        info: Arc<ClientInfo>,
    },
    /// A client left a channel.
    Leave {
        /// Channel that the client has left.
        channel: Arc<str>,
        /// User, connection and application data of the client.
        info: Arc<ClientInfo>,
    },
    /// The server sent a message to this connection.
    Message(Bytes),
    /// Something failed, and is tried again.
    Failed(Failure),
    /// A call has ended.
    Reply {
        /// Id that the session gave for the call.
        call: CallId,
        /// Reply of the server, its refusal, or why there is none.
        result: Result<ReplyBody, CallError>,
    },
}

/// What failed and is tried again.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Failure {
    /// The connection could not be opened, or was lost.
    #[error("{0}")]
    Transport(TransportError),
    /// The server closed before it had accepted the connection.
    #[error("the server closed: {0}")]
    Closed(Reason),
    /// The server refused the connect command for now.
    #[error("the server refused: {} ({})", .0.message, .0.code)]
    Connect(ErrorReply),
    /// The server refused a subscribe command for now.
    #[error("the server refused a subscription: {} ({})", .error.message, .error.code)]
    Subscribe {
        /// Channel of the subscription.
        channel: Arc<str>,
        /// What the server said.
        error: ErrorReply,
    },
    /// There is no token at the moment.
    #[error("there is no token for {subject}: {error}")]
    Token {
        /// What the token is for.
        subject: TokenSubject,
        /// What the application said.
        error: TokenError,
    },
    /// The server refused a new token for now.
    #[error("the server refused a new token for {subject}: {} ({})", .error.message, .error.code)]
    Refresh {
        /// What the token is for.
        subject: TokenSubject,
        /// What the server said.
        error: ErrorReply,
    },
}

/// What the server said when it accepted the connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Connected {
    /// Id of this connection.
    pub client: String,
    /// Version of the server.
    pub version: String,
    /// Data that the application's backend has attached to the connection; empty for none.
    pub data: Bytes,
    /// Server time in Unix milliseconds; 0 when the server does not send it.
    pub time: i64,
}

/// What the server said when it accepted a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribed {
    /// Whose wish the subscription was.
    pub origin: SubscriptionOrigin,
    /// Whether the server recovers missed publications after a lost connection.
    pub recoverable: bool,
    /// Whether the server notices gaps.
    pub positioned: bool,
    /// Whether a recovery was tried.
    pub was_recovering: bool,
    /// Whether it succeeded: then nothing is missing.
    pub recovered: bool,
    /// Number of publications that were recovered.
    pub missed: usize,
    /// Position as the server sent it; of a recovery, the position from which it began.
    pub position: StreamPosition,
    /// Data that the application's backend has attached to the subscription; empty for none.
    pub data: Bytes,
}

/// Whose wish a subscription was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscriptionOrigin {
    /// `subscribe` was called.
    Client,
    /// The server subscribed the connection, by its token or through the server API.
    Server,
}

/// What the driver has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Open a byte stream to the server (TCP, and TLS where the URL says so), and report it with
    /// [`handle_opened`](crate::ClientSession::handle_opened) or
    /// [`handle_closed`](crate::ClientSession::handle_closed).
    Open,
    /// Close the byte stream, or stop opening it, once the bytes of
    /// [`poll_transmit`](crate::ClientSession::poll_transmit) are sent. Nothing of it may be
    /// reported afterwards.
    Close,
    /// Get a token, and give it to [`handle_token`](crate::ClientSession::handle_token).
    GetToken {
        /// Names the request.
        request: TokenRequestId,
        /// What the token is for.
        subject: TokenSubject,
    },
}

/// What a token is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TokenSubject {
    /// The connection: the token of the connect and refresh commands.
    Connection,
    /// The subscription to this channel.
    Subscription(Arc<str>),
}

impl fmt::Display for TokenSubject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TokenSubject::Connection => formatter.write_str("the connection"),
            TokenSubject::Subscription(channel) => write!(formatter, "the channel {channel}"),
        }
    }
}

/// Names a request for a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenRequestId(pub(super) u64);

/// Names a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub(super) u64);

impl Event {
    /// About how many bytes it holds: everything that the server chose is counted, texts and names
    /// too. The result of a call is not, since only a caller makes room for one.
    #[must_use]
    pub fn weight(&self) -> usize {
        let held = match self {
            Event::Publication { channel, publication } => channel.len() + publication.weight(),
            Event::Join { channel, info } | Event::Leave { channel, info } => {
                channel.len() + info.weight()
            }
            Event::Message(data) => data.len(),
            Event::Connected(connected) => connected.weight(),
            Event::Subscribed { channel, subscribed } => channel.len() + subscribed.weight(),
            Event::Subscribing { channel, reason } | Event::Unsubscribed { channel, reason } => {
                channel.len() + reason.text.len()
            }
            Event::Connecting(reason) | Event::Disconnected(reason) => reason.text.len(),
            Event::Failed(failure) => failure.weight(),
            Event::Reply { .. } => 0,
        };
        held + EVENT_OVERHEAD
    }
}

impl Connected {
    fn weight(&self) -> usize {
        size_of::<Connected>() + self.client.len() + self.version.len() + self.data.len()
    }
}

impl Subscribed {
    fn weight(&self) -> usize {
        size_of::<Subscribed>() + self.position.epoch.len() + self.data.len()
    }
}

impl Failure {
    fn weight(&self) -> usize {
        match self {
            // Texts of this crate, and an excerpt of a refused handshake.
            Failure::Transport(_) => REFUSAL_BODY_MAX,
            Failure::Closed(reason) => reason.text.len(),
            Failure::Connect(error) | Failure::Refresh { error, .. } => error.message.len(),
            Failure::Subscribe { channel, error } => channel.len() + error.message.len(),
            // A text of the application.
            Failure::Token { .. } => 0,
        }
    }
}

/// Bytes of an event beside its payload: names, numbers, pointers.
const EVENT_OVERHEAD: usize = 128;
