//! The secrets and public keys of the configuration.
//!
//! Invariant: a key is selected by the family of the algorithm, and by nothing else in the token.

use aws_lc_rs::hmac;

use super::algorithm::{Algorithm, Family};
use super::cause::Cause;
use super::jws::Jws;
use super::key_error::{KeyError, KeyFault};
use super::pem;
use super::public_key::PublicKey;
use super::settings::TokenSettings;

/// All keys of one configuration.
pub(super) struct StaticKeys {
    current: Option<Secret>,
    previous: Option<(Secret, ValidUntil)>,
    rsa: Option<PublicKey>,
    ecdsa: Option<PublicKey>,
}

impl StaticKeys {
    /// Parses all configured keys.
    pub(super) fn new(settings: &TokenSettings) -> Result<Self, KeyError> {
        let until = ValidUntil(settings.hmac_previous_secret_key_valid_until);
        let previous = &settings.hmac_previous_secret_key;
        Ok(Self {
            current: read("hmac_secret_key", &settings.hmac_secret_key, Secret::new)?,
            previous: read("hmac_previous_secret_key", previous, Secret::new)?
                .map(|secret| (secret, until)),
            rsa: read("rsa_public_key", &settings.rsa_public_key, PublicKey::rsa_from_pem)?,
            ecdsa: read("ecdsa_public_key", &settings.ecdsa_public_key, PublicKey::ecdsa_from_pem)?,
        })
    }

    /// Checks the signature of a token with the key of its algorithm's family.
    pub(super) fn verify(&self, jws: &Jws<'_>, now_unix: i64) -> Result<(), Cause> {
        let algorithm = jws.algorithm.ok_or(Cause::Algorithm)?;
        match algorithm.family() {
            Family::Hmac => self.verify_hmac(algorithm, jws, now_unix),
            Family::Rsa => self.rsa.as_ref().ok_or(Cause::NoKey)?.verify(algorithm, jws),
            Family::Ecdsa => self.ecdsa.as_ref().ok_or(Cause::NoKey)?.verify(algorithm, jws),
            Family::EdDsa => Err(Cause::NoKey),
        }
    }

    /// Whether a public key for any algorithm is configured.
    pub(super) fn has_public_keys(&self) -> bool {
        self.rsa.is_some() || self.ecdsa.is_some()
    }

    /// Whether a public key for this algorithm is configured.
    pub(super) fn has_public_key(&self, algorithm: Algorithm) -> bool {
        [&self.rsa, &self.ecdsa].into_iter().flatten().any(|key| key.supports(algorithm))
    }

    fn verify_hmac(&self, algorithm: Algorithm, jws: &Jws<'_>, now_unix: i64) -> Result<(), Cause> {
        let previous = self.previous.as_ref().filter(|(_, until)| until.holds_at(now_unix));
        let mut secrets = self.current.iter().chain(previous.map(|(secret, _)| secret)).peekable();
        if secrets.peek().is_none() {
            return Err(Cause::NoKey);
        }
        if secrets.any(|secret| secret.signed(algorithm, jws)) {
            Ok(())
        } else {
            Err(Cause::Signature)
        }
    }
}

/// Parses a key if it is configured. An error contains the name of the option.
fn read<T>(
    setting: &'static str,
    value: &Option<String>,
    parse: impl FnOnce(&str) -> Result<T, KeyFault>,
) -> Result<Option<T>, KeyError> {
    match value.as_deref() {
        None | Some("") => Ok(None),
        Some(text) => parse(text).map(Some).map_err(|fault| KeyError { setting, fault }),
    }
}

/// Unix time in seconds until which the previous secret is accepted; 0 means forever.
struct ValidUntil(i64);

impl ValidUntil {
    fn holds_at(&self, now_unix: i64) -> bool {
        self.0 == 0 || now_unix < self.0
    }
}

/// A shared secret as a key of each HMAC algorithm.
struct Secret {
    sha256: hmac::Key,
    sha384: hmac::Key,
    sha512: hmac::Key,
}

impl Secret {
    fn new(secret: &str) -> Result<Self, KeyFault> {
        if pem::is_pem(secret) {
            return Err(KeyFault::PemAsSecret);
        }
        let key = |algorithm| hmac::Key::new(algorithm, secret.as_bytes());
        Ok(Self {
            sha256: key(hmac::HMAC_SHA256),
            sha384: key(hmac::HMAC_SHA384),
            sha512: key(hmac::HMAC_SHA512),
        })
    }

    /// Verifies the signature; compares in constant time.
    fn signed(&self, algorithm: Algorithm, jws: &Jws<'_>) -> bool {
        let key = match algorithm {
            Algorithm::Hs256 => &self.sha256,
            Algorithm::Hs384 => &self.sha384,
            Algorithm::Hs512 => &self.sha512,
            Algorithm::Rs256
            | Algorithm::Rs384
            | Algorithm::Rs512
            | Algorithm::Es256
            | Algorithm::Es384
            | Algorithm::Es512
            | Algorithm::EdDsa => return false,
        };
        hmac::verify(key, jws.signed, &jws.signature).is_ok()
    }
}
