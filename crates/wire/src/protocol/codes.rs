//! The closed tables of codes that a peer can see: errors, disconnects, unsubscribes
//! (<https://centrifugal.dev/docs/server/codes>, and docs/api.md).
//!
//! Invariant: each reason exists once, here, with its number, its text and its reconnect advice.
//! Logs, metrics and the wire use this table.

/// Declares a closed set of codes and its table together, so that they cannot differ.
macro_rules! code_table {
    ($(#[$doc:meta])* $name:ident: $number:ty, $text:ident {
        $($(#[$variant_doc:meta])* $variant:ident = $value:literal, $message:literal;)+
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// All codes of the table, in ascending order.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// Returns the number on the wire.
            #[must_use]
            pub const fn number(self) -> $number {
                match self { $($name::$variant => $value),+ }
            }

            /// Returns the text sent with the number.
            #[must_use]
            pub fn $text(self) -> &'static str {
                match self { $($name::$variant => $message),+ }
            }
        }
    };
}

code_table! {
    /// Why a command failed.
    ErrorCode: u32, message {
        /// The server or its broker failed; a retry may succeed.
        Internal = 100, "internal server error";
        /// The user may not use the server.
        Unauthorized = 101, "unauthorized";
        /// The channel's namespace does not exist.
        UnknownChannel = 102, "unknown channel";
        /// The operation is not permitted in this channel.
        PermissionDenied = 103, "permission denied";
        /// The method does not exist.
        MethodNotFound = 104, "method not found";
        /// The session is already subscribed to the channel.
        AlreadySubscribed = 105, "already subscribed";
        /// A limit of the session was reached.
        LimitExceeded = 106, "limit exceeded";
        /// The request is malformed.
        BadRequest = 107, "bad request";
        /// The feature is not available or turned off.
        NotAvailable = 108, "not available";
        /// The token has expired; the client fetches a new one.
        TokenExpired = 109, "token expired";
        /// The granted expiry has already passed.
        Expired = 110, "expired";
        /// A rate limit was exceeded, or the broker is overloaded.
        TooManyRequests = 111, "too many requests";
        /// The position is no longer in the stream.
        UnrecoverablePosition = 112, "unrecoverable position";
        /// The same pagination is already in progress.
        ConcurrentPagination = 113, "concurrent pagination";
    }
}

impl ErrorCode {
    /// Returns whether a later retry may succeed.
    #[must_use]
    pub fn is_temporary(self) -> bool {
        matches!(
            self,
            ErrorCode::Internal | ErrorCode::TooManyRequests | ErrorCode::ConcurrentPagination
        )
    }
}

code_table! {
    /// Why the server closes a connection.
    DisconnectCode: u16, reason {
        /// The peer closed the connection. Never sent, only logged and counted.
        ConnectionClosed = 3000, "connection closed";
        /// The server shuts down; the client reconnects.
        Shutdown = 3001, "shutdown";
        /// The server failed while handling this connection.
        ServerError = 3004, "internal server error";
        /// The connection has expired.
        Expired = 3005, "connection expired";
        /// A server-side subscription has expired.
        SubscriptionExpired = 3006, "subscription expired";
        /// The client reads more slowly than its channels publish.
        Slow = 3008, "slow";
        /// Writing to the socket failed.
        WriteError = 3009, "write error";
        /// A gap that only a new connection can repair.
        InsufficientState = 3010, "insufficient state";
        /// The server API requests a reconnect.
        ForceReconnect = 3011, "force reconnect";
        /// A ping was not answered in time.
        NoPong = 3012, "no pong";
        /// The client exceeded rate limits too often.
        TooManyRequests = 3013, "too many requests";
        /// Token and positions are no longer valid.
        StateInvalidated = 3014, "state invalidated";
        /// The token is not valid.
        InvalidToken = 3500, "invalid token";
        /// The peer violated the protocol.
        BadRequest = 3501, "bad request";
        /// No connect command was accepted in time.
        Stale = 3502, "stale";
        /// The server API closed the connection.
        ForceDisconnect = 3503, "force disconnect";
        /// The user has too many connections.
        ConnectionLimit = 3504, "connection limit";
        /// The connection has too many subscriptions.
        ChannelLimit = 3505, "channel limit";
        /// The connection's codec cannot carry a payload.
        InappropriateProtocol = 3506, "inappropriate protocol";
        /// The connection is not permitted.
        PermissionDenied = 3507, "permission denied";
        /// The feature is not available or turned off.
        NotAvailable = 3508, "not available";
        /// The client caused too many errors.
        TooManyErrors = 3509, "too many errors";
    }
}

code_table! {
    /// Why the server ends a subscription.
    UnsubscribeCode: u32, reason {
        /// The server API or a hook ended the subscription; final.
        Server = 2000, "server unsubscribe";
        /// The temporary channel has expired. Not part of the Centrifuge protocol; final, as all
        /// codes below 2500.
        ChannelExpired = 2100, "channel expired";
        /// A gap; the client subscribes again and recovers.
        InsufficientState = 2500, "insufficient state";
        /// The subscription has expired.
        Expired = 2501, "subscription expired";
        /// Token and position are no longer valid.
        StateInvalidated = 2502, "state invalidated";
    }
}

/// Why a connection closes: a code of the table, or one chosen through the server API.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Disconnect {
    /// A code of the table.
    Code(DisconnectCode),
    /// A code chosen by the application.
    Custom {
        /// Number on the wire.
        code: u16,
        /// Reason in words, at most [`crate::limits::CLOSE_REASON_MAX`] bytes.
        reason: Box<str>,
    },
}

impl Disconnect {
    /// Returns the number on the wire.
    #[must_use]
    pub fn number(&self) -> u16 {
        match self {
            Disconnect::Code(code) => code.number(),
            Disconnect::Custom { code, .. } => *code,
        }
    }

    /// Returns the text sent with the number.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Disconnect::Code(code) => code.reason(),
            Disconnect::Custom { reason, .. } => reason,
        }
    }
}

/// Returns whether a client reconnects by itself after a connection was closed with this code: for
/// all codes except 3500–3999 and 4500–4999.
#[must_use]
pub fn is_reconnect(code: u32) -> bool {
    !matches!(code, 3500..=3999 | 4500..=4999)
}

/// Returns whether a client subscribes again by itself after the server ended a subscription with
/// this code: from 2500.
#[must_use]
pub fn is_resubscribe(code: u32) -> bool {
    code >= UnsubscribeCode::InsufficientState.number()
}

impl From<DisconnectCode> for Disconnect {
    fn from(code: DisconnectCode) -> Disconnect {
        Disconnect::Code(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_say_whether_to_come_back() {
        for code in [0, 1000, 1006, 2999, 3000, 3014, 3499, 4000, 4499, 5000, u32::MAX] {
            assert!(is_reconnect(code), "{code}");
        }
        for code in [3500, 3509, 3999, 4500, 4999] {
            assert!(!is_reconnect(code), "{code}");
        }
        assert!(!is_resubscribe(2000) && !is_resubscribe(2499) && is_resubscribe(2500));
        assert!(is_resubscribe(UnsubscribeCode::StateInvalidated.number()));
    }
}
