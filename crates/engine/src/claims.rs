//! What a verified token allows: the only thing the engine ever learns about a token.

use bytes::Bytes;

/// What a verified connection token says (§4.1).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConnectionClaims {
    /// User id; empty for anonymous.
    pub user: String,
    /// Unix seconds at which the connection's lifetime ends; `None` when it never does.
    pub expire_at: Option<i64>,
    /// Shown to others as `conn_info`.
    pub info: Bytes,
    /// Server-side subscriptions.
    pub subscriptions: Vec<(String, SubscriptionGrant)>,
    /// What rules of namespaces allow to roles.
    pub roles: Vec<String>,
    /// Claim `jti`; empty when absent.
    pub token_id: String,
    /// Unix seconds of claim `iat`.
    pub issued_at: Option<i64>,
}

/// What a verified subscription token says (§4.2).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SubscriptionClaims {
    /// Must equal the session's user.
    pub user: String,
    /// Must equal the channel asked for.
    pub channel: String,
    /// Must equal the session's client id, when not empty (deprecated claim).
    pub client: String,
    /// Unix seconds at which the subscription's lifetime ends; `None` when it never does.
    pub expire_at: Option<i64>,
    /// What is granted.
    pub grant: SubscriptionGrant,
    /// Claim `jti`; empty when absent.
    pub token_id: String,
    /// Unix seconds of claim `iat`.
    pub issued_at: Option<i64>,
}

/// How a subscription that was granted from outside differs from the namespace's options.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SubscriptionGrant {
    /// Shown to others as `chan_info`.
    pub info: Bytes,
    /// Sent to the client with the subscription.
    pub data: Bytes,
    /// Options that replace the namespace's; `None` leaves them.
    pub overrides: Overrides,
}

/// Options of a namespace replaced for one subscription (claim `override`).
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
    /// Its time is over or has not come: the client gets error 109 and fetches a new one.
    Expired,
    /// Signature, form, issuer or audience do not hold.
    Invalid,
    /// It could not be verified now (keys unreachable).
    Unavailable,
}
