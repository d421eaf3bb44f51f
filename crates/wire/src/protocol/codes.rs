//! The closed tables of codes that a peer can see: errors, disconnects, unsubscribes (§1.17 –
//! 1.19).
//!
//! A reason for failure exists once, here, with its number, its text and its advice; log, metric
//! and wire all take it from this table.

/// Declares a closed set of codes and its table in one place, so that neither can drift from the
/// other.
macro_rules! code_table {
    ($(#[$doc:meta])* $name:ident: $number:ty, $text:ident {
        $($(#[$variant_doc:meta])* $variant:ident = $value:literal, $message:literal;)+
    }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// Every code of the table, in ascending order.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The number on the wire.
            #[must_use]
            pub fn number(self) -> $number {
                match self { $($name::$variant => $value),+ }
            }

            /// The text that goes with it.
            #[must_use]
            pub fn $text(self) -> &'static str {
                match self { $($name::$variant => $message),+ }
            }
        }
    };
}

code_table! {
    /// Why a command failed (§1.17).
    ErrorCode: u32, message {
        /// The server or its broker could not do it now.
        Internal = 100, "internal server error";
        /// Not allowed to use the server.
        Unauthorized = 101, "unauthorized";
        /// The channel's namespace does not exist.
        UnknownChannel = 102, "unknown channel";
        /// Not allowed on this channel.
        PermissionDenied = 103, "permission denied";
        /// No such method.
        MethodNotFound = 104, "method not found";
        /// This session already has the subscription.
        AlreadySubscribed = 105, "already subscribed";
        /// A bound of the session was reached.
        LimitExceeded = 106, "limit exceeded";
        /// The request makes no sense.
        BadRequest = 107, "bad request";
        /// The feature is off or absent.
        NotAvailable = 108, "not available";
        /// The token's time is over: get a new one.
        TokenExpired = 109, "token expired";
        /// The lifetime granted is already over.
        Expired = 110, "expired";
        /// Slow down.
        TooManyRequests = 111, "too many requests";
        /// The position is not in the stream any more.
        UnrecoverablePosition = 112, "unrecoverable position";
        /// The same pagination runs already.
        ConcurrentPagination = 113, "concurrent pagination";
    }
}

impl ErrorCode {
    /// Whether trying again later may help.
    #[must_use]
    pub fn is_temporary(self) -> bool {
        matches!(
            self,
            ErrorCode::Internal | ErrorCode::TooManyRequests | ErrorCode::ConcurrentPagination
        )
    }
}

code_table! {
    /// Why the server ends a connection (§1.18).
    DisconnectCode: u16, reason {
        /// The peer went away; never sent, only logged and counted.
        ConnectionClosed = 3000, "connection closed";
        /// This server stops; another one, or this one later, will serve.
        Shutdown = 3001, "shutdown";
        /// The server could not go on with this connection.
        ServerError = 3004, "internal server error";
        /// The connection's lifetime is over.
        Expired = 3005, "connection expired";
        /// A server-side subscription's lifetime is over.
        SubscriptionExpired = 3006, "subscription expired";
        /// The peer reads more slowly than its channels speak.
        Slow = 3008, "slow";
        /// The socket failed while writing.
        WriteError = 3009, "write error";
        /// A gap that only a new connection can mend.
        InsufficientState = 3010, "insufficient state";
        /// Asked to come back.
        ForceReconnect = 3011, "force reconnect";
        /// A ping was not answered in time.
        NoPong = 3012, "no pong";
        /// Too many requests.
        TooManyRequests = 3013, "too many requests";
        /// Token and positions are void.
        StateInvalidated = 3014, "state invalidated";
        /// The token is not valid.
        InvalidToken = 3500, "invalid token";
        /// The peer broke the protocol.
        BadRequest = 3501, "bad request";
        /// No connect command in time.
        Stale = 3502, "stale";
        /// Ended by the server API.
        ForceDisconnect = 3503, "force disconnect";
        /// Too many connections of one user.
        ConnectionLimit = 3504, "connection limit";
        /// Too many channels.
        ChannelLimit = 3505, "channel limit";
        /// A payload that this codec cannot carry.
        InappropriateProtocol = 3506, "inappropriate protocol";
        /// Not allowed.
        PermissionDenied = 3507, "permission denied";
        /// The feature is off or absent.
        NotAvailable = 3508, "not available";
        /// Too many errors.
        TooManyErrors = 3509, "too many errors";
    }
}

code_table! {
    /// Why the server ends a subscription (§1.19).
    UnsubscribeCode: u32, reason {
        /// Ended by the server API; the client does not come back by itself.
        Server = 2000, "server unsubscribe";
        /// The channel was a temporary one and is over; our own code, final as all below 2500.
        ChannelExpired = 2100, "channel expired";
        /// A gap: the client subscribes again and recovers.
        InsufficientState = 2500, "insufficient state";
        /// The subscription's lifetime is over.
        Expired = 2501, "subscription expired";
        /// Token and position are void.
        StateInvalidated = 2502, "state invalidated";
    }
}

/// Why a connection ends: one of ours, or the application's own through the server API.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Disconnect {
    /// One of the table.
    Code(DisconnectCode),
    /// Given by the application.
    Custom {
        /// Number on the wire.
        code: u16,
        /// Text for people, at most [`crate::limits::CLOSE_REASON_MAX`] bytes.
        reason: Box<str>,
    },
}

impl Disconnect {
    /// The number on the wire.
    #[must_use]
    pub fn number(&self) -> u16 {
        match self {
            Disconnect::Code(code) => code.number(),
            Disconnect::Custom { code, .. } => *code,
        }
    }

    /// The text that goes with it.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Disconnect::Code(code) => code.reason(),
            Disconnect::Custom { reason, .. } => reason,
        }
    }

    /// Whether a client comes back by itself: every number does but 3500–3999 and 4500–4999
    /// (§1.18).
    #[must_use]
    pub fn is_reconnect(&self) -> bool {
        !matches!(self.number(), 3500..=3999 | 4500..=4999)
    }
}

impl From<DisconnectCode> for Disconnect {
    fn from(code: DisconnectCode) -> Disconnect {
        Disconnect::Code(code)
    }
}
