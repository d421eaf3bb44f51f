//! The keys that an identity provider publishes: one key set, or one for each listed issuer or
//! audience.

use std::collections::HashMap;
use std::sync::Arc;

use super::algorithm::Family;
use super::cause::Cause;
use super::endpoint::Endpoint;
use super::expectations::Expectations;
use super::fetch::Fetch;
use super::jwks::Jwks;
use super::jws::Jws;
use super::key_error::KeyError;
use super::object::read_claims;
use super::registered::Registered;

/// The key sets of one endpoint.
pub(super) enum RemoteKeys {
    /// The endpoint is an address.
    One(Jwks),
    /// The endpoint has placeholders; `sets` holds every address that it can become.
    Listed { endpoint: Endpoint, sets: HashMap<String, Jwks> },
}

impl RemoteKeys {
    /// Prepares the caches. Nothing is fetched before the first token.
    pub(super) fn new(
        endpoint: &str,
        expectations: &Expectations,
        fetch: &Arc<dyn Fetch>,
    ) -> Result<Self, KeyError> {
        let endpoint = Endpoint::new(endpoint, expectations)?;
        let addresses = endpoint.addresses()?;
        let set = |address: String| Jwks::new(address, Arc::clone(fetch));
        if !endpoint.depends_on_claims() {
            return Ok(Self::One(set(addresses.concat())));
        }
        let sets = addresses.into_iter().map(|address| (address.clone(), set(address))).collect();
        Ok(Self::Listed { endpoint, sets })
    }

    /// Checks the signature of a token with the key that it names. Secrets have no place in a
    /// published set, so HMAC is refused before anything is fetched.
    pub(super) fn verify(
        &self,
        jws: &Jws<'_>,
        expectations: &Expectations,
        now_unix: i64,
    ) -> Result<(), Cause> {
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
        set.find(key_id, algorithm, now_unix)?.verify(algorithm, jws)
    }
}
