//! What an application chooses for a connection and for each subscription.

use std::time::Duration;

use bytes::Bytes;
use wire::protocol::{Codec, StreamPosition};

use super::backoff::Backoff;

/// How a connection behaves. Everything has a default.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// JSON, or Protobuf for payloads of any bytes.
    pub codec: Codec,
    /// Where connection tokens come from.
    pub token: TokenSource,
    /// Application data of the connect command.
    pub data: Bytes,
    /// Name of the client, for the server's metrics.
    pub name: String,
    /// Version of the client.
    pub version: String,
    /// Further headers of the WebSocket handshake.
    pub http_headers: Vec<(String, String)>,
    /// Headers within the connect command, which servers pass on to backends where their
    /// configuration allows it.
    pub emulated_headers: Vec<(String, String)>,
    /// Delays before reconnecting.
    pub reconnect: Backoff,
    /// Delays before subscribing again after a temporary error.
    pub resubscribe: Backoff,
    /// Time for each step of connecting, and for the reply to a command.
    pub timeout: Duration,
    /// Time beyond the server's ping interval after which a silent connection counts as lost.
    pub ping_delay_max: Duration,
    /// Bytes of commands that may wait for the connection or for a reply.
    pub outgoing_bytes_max: usize,
    /// Bytes of one received message.
    pub message_size_max: u32,
}

impl Default for SessionOptions {
    fn default() -> SessionOptions {
        SessionOptions {
            codec: Codec::Json,
            token: TokenSource::None,
            data: Bytes::new(),
            name: "rust".to_owned(),
            version: String::new(),
            http_headers: Vec::new(),
            emulated_headers: Vec::new(),
            reconnect: Backoff::default(),
            resubscribe: Backoff::default(),
            timeout: Duration::from_secs(5),
            ping_delay_max: Duration::from_secs(10),
            outgoing_bytes_max: crate::limits::OUTGOING_BYTES_MAX,
            message_size_max: crate::limits::MESSAGE_SIZE_MAX,
        }
    }
}

/// Where tokens come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TokenSource {
    /// No token.
    #[default]
    None,
    /// This token, which is not renewed.
    Fixed(String),
    /// The application is asked whenever a token is needed, and before one expires.
    Asked {
        /// The first token, when there is one already; empty for none.
        first: String,
    },
}

/// How a subscription behaves.
#[derive(Clone, Debug, Default)]
pub struct SubscriptionOptions {
    /// Where subscription tokens come from.
    pub token: TokenSource,
    /// Application data of the subscribe command.
    pub data: Bytes,
    /// Start behind this position. Without one, an earlier subscription to the channel is resumed
    /// where it was.
    pub since: Option<StreamPosition>,
    /// Ask for gap detection.
    pub positioned: bool,
    /// Ask for recovery after a lost connection. A server may impose it.
    pub recoverable: bool,
    /// Ask for join and leave events.
    pub join_leave: bool,
}
