//! Why exactly a token was refused: finer than what the client is told, for the operator's log.
//! Every cause maps to one [`TokenRefusal`]. None carries anything from the token.

use engine::claims::TokenRefusal;
use thiserror::Error;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(super) enum Cause {
    #[error("longer than allowed")]
    TooLong,
    #[error("not three parts of base64url")]
    Malformed,
    #[error("header not understood")]
    Header,
    #[error("algorithm unknown, or not one of the key")]
    Algorithm,
    #[error("no key for the algorithm")]
    NoKey,
    #[error("no key id")]
    NoKeyId,
    #[error("key id not in the key set")]
    UnknownKeyId,
    #[error("signature does not hold")]
    Signature,
    #[error("claims missing, repeated or of a wrong type")]
    Claims,
    #[error("issuer not accepted")]
    Issuer,
    #[error("audience not accepted")]
    Audience,
    #[error("subscription token used to connect")]
    ForSubscription,
    #[error("no channel")]
    NoChannel,
    #[error("expired")]
    Expired,
    #[error("not valid yet")]
    NotYetValid,
    #[error("key set not available")]
    KeysUnavailable,
}

impl Cause {
    /// What the client is told.
    pub(super) fn refusal(self) -> TokenRefusal {
        match self {
            Self::Expired | Self::NotYetValid => TokenRefusal::Expired,
            Self::KeysUnavailable => TokenRefusal::Unavailable,
            Self::TooLong
            | Self::Malformed
            | Self::Header
            | Self::Algorithm
            | Self::NoKey
            | Self::NoKeyId
            | Self::UnknownKeyId
            | Self::Signature
            | Self::Claims
            | Self::Issuer
            | Self::Audience
            | Self::ForSubscription
            | Self::NoChannel => TokenRefusal::Invalid,
        }
    }
}
