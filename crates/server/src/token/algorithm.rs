//! Signature algorithms of tokens (RFC 7518 §3.1) and the family of keys that each needs.

/// A signature algorithm by its JOSE name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Es256,
    Es384,
    Es512,
    EdDsa,
}

/// Type of the key of an algorithm. A key is selected by this type only, so that a public key is
/// never used as an HMAC secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Hmac,
    Rsa,
    Ecdsa,
    EdDsa,
}

impl Algorithm {
    /// The algorithm with this exact name; `none` is not supported.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "HS256" => Self::Hs256,
            "HS384" => Self::Hs384,
            "HS512" => Self::Hs512,
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "ES512" => Self::Es512,
            "EdDSA" => Self::EdDsa,
            _ => return None,
        })
    }

    pub(super) fn family(self) -> Family {
        match self {
            Self::Hs256 | Self::Hs384 | Self::Hs512 => Family::Hmac,
            Self::Rs256 | Self::Rs384 | Self::Rs512 => Family::Rsa,
            Self::Es256 | Self::Es384 | Self::Es512 => Family::Ecdsa,
            Self::EdDsa => Family::EdDsa,
        }
    }
}
