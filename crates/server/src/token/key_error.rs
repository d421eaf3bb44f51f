//! Errors in the keys and expected claims of a configuration.
//!
//! Invariant: an error contains the name of the option, and never its value.

use thiserror::Error;

use super::limits::{ENDPOINTS_MAX, RSA_BITS_MAX, RSA_BITS_MIN};

/// An invalid option of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{setting}: {fault}")]
pub struct KeyError {
    /// Name of the option in [`TokenSettings`](super::TokenSettings).
    pub setting: &'static str,
    /// Why its value is invalid.
    pub fault: KeyFault,
}

/// Why the value of an option is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeyFault {
    /// The secret is a PEM document. A public key is not secret.
    #[error("a PEM document cannot be a secret: set a random text")]
    PemAsSecret,
    /// Not a valid PEM document.
    #[error("not a PEM document with a public key")]
    NotPem,
    /// The PEM document contains a private key.
    #[error("a private key: set its public key (openssl pkey -pubout)")]
    PrivateKey,
    /// The PEM document contains a certificate.
    #[error("a certificate: set its public key (openssl x509 -pubkey)")]
    Certificate,
    /// The PEM document contains no RSA public key.
    #[error("not an RSA public key; set an ECDSA key as ecdsa_public_key")]
    NotRsa,
    /// The RSA key is too short or too long.
    #[error("an RSA key of {bits} bits; use one of {RSA_BITS_MIN} to {RSA_BITS_MAX} bits")]
    RsaSize {
        /// Length of the modulus in bits.
        bits: u32,
    },
    /// The PEM document contains no public key on a supported curve.
    #[error("not a public key on curve P-256, P-384 or P-521; set an RSA key as rsa_public_key")]
    NotEcdsa,
    /// The regular expression is not valid.
    #[error("not a valid regular expression")]
    Pattern,
    /// The name of the claim for user ids has other characters than letters and underscores.
    #[error("the name of a claim must consist of letters and underscores")]
    ClaimName,
    /// The endpoint is not a URL of HTTP or HTTPS.
    #[error("not a URL that begins with http:// or https://")]
    NotHttp,
    /// A placeholder is not closed, or has no name.
    #[error("a placeholder must have the form {{{{name}}}}")]
    Placeholder,
    /// A placeholder is a group of no pattern, or of both.
    #[error("a placeholder needs one named group in issuer_regex or audience_regex")]
    PlaceholderGroup,
    /// The group of a placeholder is not a list of values, so that tokens could choose any URL.
    #[error("the group of a placeholder must list its values, like (?P<name>one|two)")]
    PlaceholderOpen,
    /// The placeholders have too many combinations of values.
    #[error("placeholders have more than {ENDPOINTS_MAX} combinations of values")]
    TooManyEndpoints,
}
