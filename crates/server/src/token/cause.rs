//! Why exactly a token was refused: finer than what the client is told, for the operator's log.
//! Every cause maps to one [`TokenRefusal`]. None carries anything from the token.

use engine::claims::TokenRefusal;
use engine::limits::ID_BYTES_MAX;
use thiserror::Error;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Cause {
    /// Longer than allowed.
    #[error("longer than allowed")]
    TooLong,
    /// Not three parts of base64url.
    #[error("not three parts of base64url")]
    Malformed,
    /// Header not understood.
    #[error("header not understood")]
    Header,
    /// Algorithm unknown, or not one of the key.
    #[error("algorithm unknown, or not one of the key")]
    Algorithm,
    /// No key for the algorithm.
    #[error("no key for the algorithm")]
    NoKey,
    /// No key id.
    #[error("no key id")]
    NoKeyId,
    /// Key id not in the key set.
    #[error("key id not in the key set")]
    UnknownKeyId,
    /// Signature does not hold.
    #[error("signature does not hold")]
    Signature,
    /// Claims missing, repeated or of a wrong type.
    #[error("claims missing, repeated or of a wrong type")]
    Claims,
    /// User id or token id longer than what can be revoked.
    #[error("user id or token id (jti) longer than {ID_BYTES_MAX} bytes")]
    IdTooLong,
    /// Issuer not accepted.
    #[error("issuer not accepted")]
    Issuer,
    /// Audience not accepted.
    #[error("audience not accepted")]
    Audience,
    /// Subscription token used to connect.
    #[error("subscription token used to connect")]
    ForSubscription,
    /// No channel.
    #[error("no channel")]
    NoChannel,
    /// The token or its user is revoked.
    #[error("revoked")]
    Revoked,
    /// Expired.
    #[error("expired")]
    Expired,
    /// Not valid yet.
    #[error("not valid yet")]
    NotYetValid,
    /// Key set not available.
    #[error("key set not available")]
    KeysUnavailable,
    /// Too many tokens wait for verification.
    #[error("too many tokens wait for verification")]
    Overloaded,
}

impl Cause {
    /// The name used in metrics.
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
        }
    }

    /// What the client is told.
    pub(crate) fn refusal(self) -> TokenRefusal {
        match self {
            Self::Expired | Self::NotYetValid => TokenRefusal::Expired,
            Self::KeysUnavailable | Self::Overloaded => TokenRefusal::Unavailable,
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
