//! What a verified token or a backend grants. The engine receives claims only, never interprets a
//! token.

use bytes::Bytes;

/// Claims of a verified connection token, or what the connect proxy grants.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConnectionClaims {
    /// User id; empty for anonymous.
    pub user: String,
    /// Unix time in seconds at which the connection expires; `None` never expires.
    pub expire_at: Option<i64>,
    /// Information that other clients see as `conn_info`.
    pub info: Bytes,
    /// Server-side subscriptions, by channel.
    pub subscriptions: Vec<(String, SubscriptionGrant)>,
    /// Roles, to which rules of namespaces grant permissions.
    pub roles: Vec<String>,
    /// Claim `jti`; empty when absent.
    pub token_id: String,
    /// Unix seconds of claim `iat`.
    pub issued_at: Option<i64>,
    /// Data of the connect reply. Tokens have none.
    pub data: Bytes,
    /// See [`crate::call::CallContext::meta`].
    pub meta: Bytes,
}

/// Claims of a verified subscription token.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SubscriptionClaims {
    /// User id; must equal the session's user.
    pub user: String,
    /// Channel; must equal the requested channel.
    pub channel: String,
    /// Client id; if not empty, must equal the session's client id (deprecated claim).
    pub client: String,
    /// The subscription that it allows.
    pub grant: SubscriptionGrant,
    /// Claim `jti`; empty when absent.
    pub token_id: String,
    /// Unix seconds of claim `iat`.
    pub issued_at: Option<i64>,
}

/// A subscription that a token, a backend or the server API allows: its expiry and differences from
/// the namespace's options.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SubscriptionGrant {
    /// Unix time in seconds at which the subscription expires; `None` never expires.
    pub expire_at: Option<i64>,
    /// Information that other clients see as `chan_info`.
    pub info: Bytes,
    /// Data sent to the client with the subscription.
    pub data: Bytes,
    /// Options that replace the namespace's.
    pub overrides: Overrides,
}

/// Options of a namespace replaced for one subscription (claim `override`). `None` keeps the
/// namespace's option.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Replaces `presence`.
    pub presence: Option<bool>,
    /// Replaces `join_leave`.
    pub join_leave: Option<bool>,
    /// Replaces `force_push_join_leave`.
    pub force_push_join_leave: Option<bool>,
    /// Replaces `force_recovery`.
    pub force_recovery: Option<bool>,
    /// Replaces `force_positioning`.
    pub force_positioning: Option<bool>,
}

/// Why a token was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenRefusal {
    /// The token has expired or is not valid yet. The client gets error 109 and fetches a new
    /// token.
    Expired,
    /// Signature, format, issuer or audience is wrong.
    Invalid,
    /// The token cannot be verified now, for example because keys are not reachable.
    Unavailable,
}
