//! Why a state changed: the number and text of the server, or one of this client's own (0 to 99).

use std::borrow::Cow;
use std::fmt;

use wire::protocol::{ErrorCode, ErrorReply, codes};

/// Why a connection or a subscription changed its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// Number: below 100 one of the client's own ([`Reason`]'s constants), else of the server.
    pub code: u32,
    /// Text for people.
    pub text: Cow<'static, str>,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)+) => {
        impl Reason {
            $($(#[$doc])* pub const $name: Reason =
                Reason { code: $code, text: Cow::Borrowed($text) };)+
        }
    };
}

// The numbers are those of the official SDKs; each kind of change has a table of its own.
reasons! {
    /// Connecting: `connect` was called.
    CONNECT_CALLED = 0, "connect called";
    /// Connecting or subscribing: the connection was lost.
    TRANSPORT_CLOSED = 1, "transport closed";
    /// Connecting: the server sent no ping in time.
    NO_PING = 2, "no ping";
    /// Connecting: a subscribe command got no reply in time.
    SUBSCRIBE_TIMEOUT = 3, "subscribe timeout";
    /// Connecting: an unsubscribe command failed, or got no reply in time.
    UNSUBSCRIBE_ERROR = 4, "unsubscribe error";
    /// Disconnected: `disconnect` was called.
    DISCONNECT_CALLED = 0, "disconnect called";
    /// Disconnected or unsubscribed: there is no valid token.
    UNAUTHORIZED = 1, "unauthorized";
    /// Disconnected: the server broke the protocol.
    BAD_PROTOCOL = 2, "bad protocol";
    /// Disconnected: the server does not accept messages of this size (close code 1009).
    MESSAGE_SIZE_LIMIT = 3, "message size limit exceeded";
    /// Subscribing: `subscribe` was called.
    SUBSCRIBE_CALLED = 0, "subscribe called";
    /// Unsubscribed: `unsubscribe` was called, or the server no longer has the server-side
    /// subscription.
    UNSUBSCRIBE_CALLED = 0, "unsubscribe called";
}

impl Reason {
    /// What the server said.
    #[must_use]
    pub fn of_server(code: u32, text: &str) -> Reason {
        Reason { code, text: Cow::Owned(text.to_owned()) }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.text, self.code)
    }
}

/// Whether a client reconnects after a connection was closed with this code: not after a final code
/// of the server, nor after the WebSocket code for a message that is too big.
#[must_use]
pub fn is_reconnect(code: u32) -> bool {
    code != CLOSE_TOO_BIG && codes::is_reconnect(code)
}

/// The WebSocket code for a message that is too big (RFC 6455 §7.4.1).
pub(super) const CLOSE_TOO_BIG: u32 = 1009;

/// Whether a refused connect, subscribe or refresh command is tried again.
pub(super) fn is_retried(error: &ErrorReply) -> bool {
    error.code < 100 || error.temporary || is_token_expired(error)
}

/// Whether the server asks for another token.
pub(super) fn is_token_expired(error: &ErrorReply) -> bool {
    error.code == ErrorCode::TokenExpired.number()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_is_too_big_is_final_as_are_final_codes() {
        assert!(is_reconnect(1000) && is_reconnect(3014) && is_reconnect(5000));
        assert!(!is_reconnect(1009) && !is_reconnect(3500) && !is_reconnect(4500));
    }
}
