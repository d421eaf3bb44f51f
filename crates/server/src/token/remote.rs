//! The keys that an identity provider publishes: one key set, or one for each listed issuer or
//! audience.

use std::collections::HashMap;
use std::sync::Arc;

use super::algorithm::{Algorithm, Family};
use super::cause::Cause;
use super::endpoint::EndpointTemplate;
use super::expectations::Expectations;
use super::fetch::Fetch;
use super::jwks::Jwks;
use super::jws::Jws;
use super::key_error::KeyError;
use super::payload::read_claims;
use super::registered::Registered;

/// The key sets of one endpoint.
pub(super) enum RemoteKeys {
    /// The endpoint is an address.
    One(Jwks),
    /// The endpoint has placeholders; `sets` holds every address that it can become.
    Listed { endpoint: EndpointTemplate, sets: HashMap<String, Jwks> },
}

impl RemoteKeys {
    /// Prepares the caches. Nothing is fetched before the first token.
    pub(super) fn new(
        endpoint: &str,
        expectations: &Expectations,
        fetch: &Arc<dyn Fetch>,
    ) -> Result<Self, KeyError> {
        let endpoint = EndpointTemplate::new(endpoint, expectations)?;
        let addresses = endpoint.addresses()?;
        let set = |address: String| Jwks::new(address, Arc::clone(fetch));
        if !endpoint.depends_on_claims() {
            return Ok(Self::One(set(addresses.concat())));
        }
        let sets = addresses.into_iter().map(|address| (address.clone(), set(address))).collect();
        Ok(Self::Listed { endpoint, sets })
    }

    /// Checks the signature of a token with the key that it names.
    pub(super) fn verify(
        &self,
        jws: &Jws<'_>,
        expectations: &Expectations,
        now_unix: i64,
    ) -> Result<(), Cause> {
        let Named { set, key_id, algorithm } = self.named(jws, expectations)?;
        set.find(key_id, algorithm, now_unix)?.verify(algorithm, jws)
    }

    /// Whether [`RemoteKeys::verify`] would wait for a fetch.
    pub(super) fn needs_fetch(
        &self,
        jws: &Jws<'_>,
        expectations: &Expectations,
        now_unix: i64,
    ) -> bool {
        self.named(jws, expectations)
            .is_ok_and(|named| named.set.needs_fetch(named.key_id, named.algorithm, now_unix))
    }

    /// Which key a token names. Secrets have no place in a published set, so HMAC is refused before
    /// anything is fetched.
    fn named<'n>(
        &'n self,
        jws: &'n Jws<'_>,
        expectations: &Expectations,
    ) -> Result<Named<'n>, Cause> {
        let algorithm = jws.algorithm.ok_or(Cause::Algorithm)?;
        if algorithm.family() == Family::Hmac {
            return Err(Cause::Algorithm);
        }
        let key_id = jws.key_id.as_deref().ok_or(Cause::NoKeyId)?;
        let set = match self {
            Self::One(set) => set,
            Self::Listed { endpoint, sets } => {
                // Read before the signature is checked, to choose among listed addresses only.
                let claims: Registered = read_claims(&jws.payload)?;
                expectations.check(&claims)?;
                let address = endpoint.address(expectations, &claims).ok_or(Cause::Issuer)?;
                sets.get(&address).ok_or(Cause::Issuer)?
            }
        };
        Ok(Named { set, key_id, algorithm })
    }
}

/// A key that a token names, and the set that it must be in.
struct Named<'n> {
    set: &'n Jwks,
    key_id: &'n str,
    algorithm: Algorithm,
}
