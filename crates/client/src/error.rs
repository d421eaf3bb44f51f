//! What can fail: the transport, a call, a subscription, a token.

use thiserror::Error;
use wire::protocol::{DecodeError, ErrorReply};
use wire::websocket::handshake::ClientRefused;
use wire::websocket::protocol_error::ProtocolError;

/// Why a connection could not be opened, or ended without a close frame.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TransportError {
    /// The host's name has no address.
    #[error("{host} has no address: {reason}")]
    NoAddress {
        /// Host of the URL.
        host: String,
        /// What the resolver said.
        reason: String,
    },
    /// The socket failed.
    #[error("{0}")]
    Io(String),
    /// TLS failed: a certificate that is not trusted, or a peer that does not speak TLS.
    #[error("{0}")]
    Tls(String),
    /// No connection, handshake or connect reply in time.
    #[error("the server gave no answer in time")]
    Timeout,
    /// The server closed its side.
    #[error("the server closed the connection without a close frame")]
    Closed,
    /// The answer to the handshake is not one of a WebSocket server.
    #[error("{0}")]
    Handshake(ClientRefused),
    /// The server refused the handshake with an HTTP status.
    #[error("{}", refusal(*.status, .reason))]
    Refused {
        /// HTTP status.
        status: u16,
        /// First line of the answer's body, unless that is a page.
        reason: String,
    },
    /// The server's answer to the handshake has no end.
    #[error("the server's answer to the handshake is too long")]
    ResponseTooLong,
    /// The server broke RFC 6455.
    #[error("the server broke the WebSocket protocol: {0}")]
    WebSocket(ProtocolError),
    /// The server sent an invalid reply.
    #[error("invalid reply from the server: {0}")]
    Codec(DecodeError),
}

fn refusal(status: u16, reason: &str) -> String {
    match (status, reason) {
        (200..=399, _) => format!(
            "there is no WebSocket at this address (status {status}); by default it is at /connection/websocket"
        ),
        (_, "") => format!("the server refused the WebSocket ({status})"),
        (_, reason) => format!("the server refused the WebSocket: {reason} ({status})"),
    }
}

/// Why a call has no result.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CallError {
    /// The server answered with an error.
    #[error("the server refused: {} ({})", .0.message, .0.code)]
    Refused(ErrorReply),
    /// No answer in time; the server may have done it.
    #[error("the server gave no answer in time")]
    Timeout,
    /// The connection was lost after the command had been sent; the server may have done it.
    #[error("the connection was lost before the answer")]
    ConnectionLost,
    /// The client is disconnected, or was while the call waited.
    #[error("the client is disconnected")]
    Disconnected,
    /// The bound for waiting commands is reached
    /// ([`OUTGOING_BYTES_MAX`](crate::limits::OUTGOING_BYTES_MAX)).
    #[error("too many commands wait for the connection")]
    QueueFull,
    /// The JSON codec carries JSON only.
    #[error("the payload is not JSON: use the Protobuf codec for binary data")]
    NotJson,
    /// The server answered with a result of another command.
    #[error("the server answered with a result of another kind")]
    WrongResult,
}

/// Why a subscription was not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SubscribeError {
    /// The client has a subscription to this channel.
    #[error("there is a subscription to this channel already: unsubscribe it first")]
    AlreadySubscribed,
    /// The client has ended.
    #[error("the client has ended")]
    Ended,
}

/// Why the application gives no token.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TokenError {
    /// The user may not connect or subscribe: the state ends without another attempt.
    #[error("not authorized")]
    Unauthorized,
    /// It could not be had now; another attempt follows.
    #[error("{0}")]
    Unavailable(String),
}
