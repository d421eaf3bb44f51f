//! What an application chooses for a connection and for each subscription.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use wire::protocol::{Codec, StreamPosition};

use super::backoff::Backoff;
use crate::limits::TIMER_MAX;

/// How a connection behaves. Everything has a default.
#[derive(Clone)]
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
    /// Time for each step of connecting, for the reply to a command, and for the server to take
    /// some of the bytes that are sent to it.
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

impl SessionOptions {
    /// With times that can be added to any instant.
    pub(super) fn bounded(mut self) -> SessionOptions {
        let SessionOptions { reconnect, resubscribe, timeout, ping_delay_max, .. } = &mut self;
        for backoff in [reconnect, resubscribe] {
            backoff.max = backoff.max.min(TIMER_MAX);
        }
        for time in [timeout, ping_delay_max] {
            *time = (*time).min(TIMER_MAX);
        }
        self
    }
}

/// Without what may be secret: values of headers and the data of the connect command.
impl fmt::Debug for SessionOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionOptions")
            .field("codec", &self.codec)
            .field("token", &self.token)
            .field("name", &self.name)
            .field("version", &self.version)
            .field("reconnect", &self.reconnect)
            .field("resubscribe", &self.resubscribe)
            .field("timeout", &self.timeout)
            .field("ping_delay_max", &self.ping_delay_max)
            .field("outgoing_bytes_max", &self.outgoing_bytes_max)
            .field("message_size_max", &self.message_size_max)
            .finish_non_exhaustive()
    }
}

/// Where tokens come from.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum TokenSource {
    /// No token: the connection is anonymous, or the channel needs none.
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

/// Without the token.
impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TokenSource::None => "None",
            TokenSource::Fixed(_) => "Fixed(..)",
            TokenSource::Asked { .. } => "Asked { .. }",
        })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_printed() {
        let header = |name: &str| vec![(name.to_owned(), "a-secret".to_owned())];
        let options = SessionOptions {
            token: TokenSource::Fixed("a-secret".to_owned()),
            data: Bytes::from_static(b"a-secret"),
            http_headers: header("Authorization"),
            emulated_headers: header("Authorization"),
            ..SessionOptions::default()
        };
        let asked = TokenSource::Asked { first: "a-secret".to_owned() };
        let printed = format!("{options:?} {asked:?}");
        assert!(!printed.contains("a-secret"), "{printed}");
    }
}
