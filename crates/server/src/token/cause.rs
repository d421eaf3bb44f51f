//! The exact cause of the refusal of a token, for logs and metrics.
//!
//! Invariant: every cause maps to one [`TokenRefusal`], which is sent to the client. A cause
//! contains nothing of the token.

use engine::claims::TokenRefusal;
use engine::limits::ID_BYTES_MAX;
use thiserror::Error;

/// The exact cause of the refusal of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Cause {
    /// The token is longer than [`TOKEN_BYTES_MAX`](super::TOKEN_BYTES_MAX).
    #[error("longer than allowed")]
    TooLong,
    /// The token is not three parts of base64url.
    #[error("not three parts of base64url")]
    Malformed,
    /// The header is not valid, or has critical extensions (`crit`).
    #[error("header not valid")]
    Header,
    /// The algorithm is unknown, or does not fit the key.
    #[error("algorithm unknown, or not supported by the key")]
    Algorithm,
    /// No key for the algorithm is configured.
    #[error("no key for the algorithm")]
    NoKey,
    /// The header has no key id, which a key set requires.
    #[error("no key id")]
    NoKeyId,
    /// The key id is not in the key set.
    #[error("key id not in the key set")]
    UnknownKeyId,
    /// The signature does not match.
    #[error("signature does not match")]
    Signature,
    /// A claim is missing, repeated or of a wrong type.
    #[error("claims missing, repeated or of a wrong type")]
    Claims,
    /// The user id or token id is too long to be revoked.
    #[error("user id or token id (jti) longer than {ID_BYTES_MAX} bytes")]
    IdTooLong,
    /// Claim `iss` is not the expected one.
    #[error("issuer not accepted")]
    Issuer,
    /// Claim `aud` has no expected value.
    #[error("audience not accepted")]
    Audience,
    /// A subscription token was used to connect.
    #[error("subscription token used to connect")]
    ForSubscription,
    /// A subscription token has no channel.
    #[error("no channel")]
    NoChannel,
    /// The token or its user is revoked.
    #[error("revoked")]
    Revoked,
    /// The token has expired (`exp`).
    #[error("expired")]
    Expired,
    /// The token is not valid yet (`nbf`).
    #[error("not valid yet")]
    NotYetValid,
    /// The key set could not be fetched.
    #[error("key set not available")]
    KeysUnavailable,
    /// The queue of tokens to verify is full.
    #[error("too many tokens wait for verification")]
    Overloaded,
    /// The verification panicked, which is a bug.
    #[error("internal error")]
    Panicked,
}

impl Cause {
    /// The value of the label in metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::Malformed => "malformed",
            Self::Header => "header",
            Self::Algorithm => "algorithm",
            Self::NoKey => "no_key",
            Self::NoKeyId => "no_key_id",
            Self::UnknownKeyId => "unknown_key_id",
            Self::Signature => "signature",
            Self::Claims => "claims",
            Self::IdTooLong => "id_too_long",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::ForSubscription => "for_subscription",
            Self::NoChannel => "no_channel",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::KeysUnavailable => "keys_unavailable",
            Self::Overloaded => "overloaded",
            Self::Panicked => "panicked",
        }
    }

    /// The refusal that is sent to the client.
    pub(crate) fn refusal(self) -> TokenRefusal {
        match self {
            Self::Expired | Self::NotYetValid => TokenRefusal::Expired,
            Self::KeysUnavailable | Self::Overloaded | Self::Panicked => TokenRefusal::Unavailable,
            Self::TooLong
            | Self::Malformed
            | Self::Header
            | Self::Algorithm
            | Self::NoKey
            | Self::NoKeyId
            | Self::UnknownKeyId
            | Self::Signature
            | Self::Claims
            | Self::IdTooLong
            | Self::Issuer
            | Self::Audience
            | Self::ForSubscription
            | Self::NoChannel
            | Self::Revoked => TokenRefusal::Invalid,
        }
    }
}
