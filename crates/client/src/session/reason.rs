//! Why a state changed: the number and text of the server, or one of this client's own (0 to 99).

use std::borrow::Cow;
use std::fmt;

use wire::protocol::ErrorReply;

/// Why a connection or a subscription changed its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// Number: below 100 one of the client's own ([`Reason`]'s constants), else of the server
    /// (§1.17 to 1.19).
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

/// Whether a client reconnects after a connection was closed with this code (§1.18, §1.20).
#[must_use]
pub fn is_reconnect(code: u32) -> bool {
    !matches!(code, CLOSE_TOO_BIG | 3500..=3999 | 4500..=4999)
}

/// Whether a client subscribes again after the server ended a subscription with this code (§1.19).
#[must_use]
pub fn is_resubscribe(code: u32) -> bool {
    code >= 2500
}

/// The WebSocket code for a message that is too big (RFC 6455 §7.4.1).
pub(super) const CLOSE_TOO_BIG: u32 = 1009;

/// Whether a refused connect, subscribe or refresh command is tried again (§1.20).
pub(super) fn is_retried(error: &ErrorReply) -> bool {
    error.code < 100 || error.temporary || error.code == TOKEN_EXPIRED
}

/// The error code that asks for another token (§1.17).
pub(super) const TOKEN_EXPIRED: u32 = 109;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_give_the_advice_of_the_tables() {
        for code in [0, 1000, 1006, 2999, 3000, 3014, 3499, 4000, 4499, 5000, u32::MAX] {
            assert!(is_reconnect(code), "{code}");
        }
        for code in [1009, 3500, 3509, 3999, 4500, 4999] {
            assert!(!is_reconnect(code), "{code}");
        }
        assert!(!is_resubscribe(2000) && !is_resubscribe(2499) && is_resubscribe(2500));
    }
}
