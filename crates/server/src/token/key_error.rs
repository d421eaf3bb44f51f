//! What is wrong with the keys and rules of a configuration. Says which setting and why, and
//! never what the setting holds.

use thiserror::Error;

use super::limits::{ENDPOINTS_MAX, RSA_BITS_MAX, RSA_BITS_MIN};

/// A setting that no verifier can be built from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{setting}: {fault}")]
pub struct KeyError {
    /// Name of the setting in [`TokenSettings`](super::TokenSettings).
    pub setting: &'static str,
    /// What is wrong with it.
    pub fault: KeyFault,
}

/// What is wrong with a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeyFault {
    /// A secret that is a PEM document: a public key is known to everybody.
    #[error("a PEM document can not be a secret")]
    PemAsSecret,
    /// No PEM document, or a damaged one.
    #[error("not a PEM document with a public key")]
    NotPem,
    /// A PEM document with a private key.
    #[error("a private key, where its public key is wanted")]
    PrivateKey,
    /// A PEM document with a certificate.
    #[error("a certificate, where its public key is wanted (openssl x509 -pubkey)")]
    Certificate,
    /// The document holds no RSA public key.
    #[error("not an RSA public key; one on a curve is set as ecdsa_public_key")]
    NotRsa,
    /// An RSA key out of bounds.
    #[error("an RSA key of {bits} bits; {RSA_BITS_MIN} to {RSA_BITS_MAX} are accepted")]
    RsaSize {
        /// Length of the modulus.
        bits: u32,
    },
    /// The document holds no point on a curve that a token can use.
    #[error("not a public key on curve P-256, P-384 or P-521; one of RSA is set as rsa_public_key")]
    NotEcdsa,
    /// A regular expression that does not parse.
    #[error("not a regular expression")]
    Pattern,
    /// A name that no claim for user ids may have.
    #[error("only letters and underscores can name a claim")]
    ClaimName,
    /// An endpoint that is neither http nor https.
    #[error("not an address that begins with http:// or https://")]
    NotHttp,
    /// A placeholder that is opened and not closed, or has no name.
    #[error("a placeholder is written {{{{name}}}}")]
    Placeholder,
    /// A placeholder that no expression fills, or that both fill.
    #[error("a placeholder needs one named group in issuer_regex or audience_regex")]
    PlaceholderGroup,
    /// A placeholder whose group accepts more than listed values: tokens could name any address.
    #[error("the group of a placeholder must list its values, like (?P<name>one|two)")]
    PlaceholderOpen,
    /// More combinations of values than allowed.
    #[error("placeholders stand for more than {ENDPOINTS_MAX} addresses")]
    TooManyEndpoints,
}
