//! Verifies a token: returns its claims, or why it is refused.
//!
//! Invariant: without `insecure_skip_signature_verify`, no claim is returned before a configured
//! key has verified it.

use std::fmt;
use std::sync::Arc;

use engine::claims::{ConnectionClaims, SubscriptionClaims, TokenRefusal};

use super::algorithm::Family;
use super::cause::Cause;
use super::claims;
use super::expectations::{Expectations, configured};
use super::fetch::{Fetch, HttpFetch};
use super::jws::Jws;
use super::key_error::{KeyError, KeyFault};
use super::keys::StaticKeys;
use super::payload::read_claims;
use super::registered::{Registered, within_bound};
use super::remote::RemoteKeys;
use super::settings::TokenSettings;

/// The claims of a valid token, or the refusal for the client.
pub type Verified<T> = Result<T, TokenRefusal>;

/// Where a token must be verified, by the cost of its verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    /// On the worker: microseconds and no I/O.
    Inline,
    /// On another thread: public key arithmetic, or a fetch that blocks.
    Offload,
}

/// Verifies tokens of one kind. Contains the keys, or the cached key sets; shared by threads.
pub struct Verifier {
    keys: Keys,
    expectations: Expectations,
    user_id_claim: Option<String>,
    role_claim: Option<String>,
}

enum Keys {
    Configured(Box<StaticKeys>),
    Published(RemoteKeys),
    Unchecked,
}

impl Verifier {
    /// Parses keys and expected claims. Without a key, the verifier refuses all tokens.
    pub fn new(settings: &TokenSettings) -> Result<Self, KeyError> {
        Self::with_fetch(settings, &HttpFetch::shared())
    }

    /// Like [`Verifier::new`], with another client for key sets.
    pub fn with_fetch(settings: &TokenSettings, fetch: &Arc<dyn Fetch>) -> Result<Self, KeyError> {
        let expectations = Expectations::new(settings)?;
        let user_id_claim = configured(&settings.user_id_claim);
        let name_holds =
            |name: &String| name.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_');
        if !user_id_claim.as_ref().is_none_or(name_holds) {
            return Err(KeyError { setting: "user_id_claim", fault: KeyFault::ClaimName });
        }
        let role_claim = configured(&settings.role_claim);
        let keys = if settings.insecure_skip_signature_verify {
            Keys::Unchecked
        } else if let Some(endpoint) = configured(&settings.jwks_public_endpoint) {
            Keys::Published(RemoteKeys::new(&endpoint, &expectations, fetch)?)
        } else {
            Keys::Configured(Box::new(StaticKeys::new(settings)?))
        };
        Ok(Self { keys, expectations, user_id_claim, role_claim })
    }

    /// Where a token must be verified. Reads only its header.
    pub fn cost(&self, token: &str) -> Cost {
        match &self.keys {
            Keys::Unchecked => Cost::Inline,
            Keys::Published(_) => Cost::Offload,
            // Without a public key no token is expensive, and its header need not be read.
            Keys::Configured(keys) if !keys.has_public_keys() => Cost::Inline,
            Keys::Configured(keys) => match Jws::peek_algorithm(token) {
                Ok(Some(algorithm)) if algorithm.family() == Family::Hmac => Cost::Inline,
                Ok(Some(algorithm)) if keys.has_public_key(algorithm) => Cost::Offload,
                // Tokens without a key are refused without arithmetic.
                Ok(_) | Err(_) => Cost::Inline,
            },
        }
    }

    /// Whether verifying this token now would wait for a key set to be fetched.
    pub fn needs_fetch(&self, token: &str, now_unix: i64) -> bool {
        let Keys::Published(keys) = &self.keys else { return false };
        Jws::parse(token).is_ok_and(|jws| keys.needs_fetch(&jws, &self.expectations, now_unix))
    }

    /// Verifies a connection token.
    pub fn verify_connection(&self, token: &str, now_unix: i64) -> Verified<ConnectionClaims> {
        self.judge_connection(token, now_unix).map_err(Cause::refusal)
    }

    /// Like [`Verifier::verify_connection`], with the exact cause of a refusal for logs.
    pub fn judge_connection(&self, token: &str, now_unix: i64) -> Result<ConnectionClaims, Cause> {
        let (payload, registered) = self.trusted_payload(token, now_unix)?;
        let user = self.user(&payload, &registered)?;
        let mut claims = claims::connection(&payload, &registered, user)?;
        if let Some(name) = &self.role_claim {
            claims.roles = claims::roles(&payload, name)?;
        }
        Ok(claims)
    }

    /// Verifies a subscription token. The engine compares its user, client and channel with the
    /// session.
    pub fn verify_subscription(&self, token: &str, now_unix: i64) -> Verified<SubscriptionClaims> {
        self.judge_subscription(token, now_unix).map_err(Cause::refusal)
    }

    /// Like [`Verifier::verify_subscription`], with the exact cause of a refusal for logs.
    pub fn judge_subscription(
        &self,
        token: &str,
        now_unix: i64,
    ) -> Result<SubscriptionClaims, Cause> {
        let (payload, registered) = self.trusted_payload(token, now_unix)?;
        let user = self.user(&payload, &registered)?;
        claims::subscription(&payload, &registered, user)
    }

    /// Verifies the signature, then the time, then issuer and audience.
    fn trusted_payload(&self, token: &str, now_unix: i64) -> Result<(Vec<u8>, Registered), Cause> {
        let jws = Jws::parse(token)?;
        match &self.keys {
            Keys::Configured(keys) => keys.verify(&jws, now_unix)?,
            Keys::Published(keys) => keys.verify(&jws, &self.expectations, now_unix)?,
            Keys::Unchecked => {}
        }
        let registered: Registered = read_claims(&jws.payload)?;
        registered.check_time(now_unix)?;
        self.expectations.check(&registered)?;
        Ok((jws.payload, registered))
    }

    fn user(&self, payload: &[u8], registered: &Registered) -> Result<String, Cause> {
        within_bound(match &self.user_id_claim {
            Some(name) => claims::identifier(payload, name)?,
            None => registered.subject().to_owned(),
        })
    }
}

/// Prints no keys.
impl fmt::Debug for Verifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Verifier").finish_non_exhaustive()
    }
}
