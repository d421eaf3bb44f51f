//! The key sets of an identity provider: one, or one per issuer or audience.

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
    /// The endpoint is one URL.
    One(Jwks),
    /// The endpoint has placeholders; `sets` contains all its possible URLs.
    Listed { endpoint: EndpointTemplate, sets: HashMap<String, Jwks> },
}

impl RemoteKeys {
    /// Creates empty caches. The first token causes the first fetch.
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

    /// Verifies the signature of a token with the key of its key id.
    pub(super) fn verify(
        &self,
        jws: &Jws<'_>,
        expectations: &Expectations,
        now_unix: i64,
    ) -> Result<(), Cause> {
        let KeyReference { set, key_id, algorithm } = self.named(jws, expectations)?;
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

    /// Resolves the key of a token. HMAC is refused before any fetch, because a published set
    /// contains no secrets.
    fn named<'n>(
        &'n self,
        jws: &'n Jws<'_>,
        expectations: &Expectations,
    ) -> Result<KeyReference<'n>, Cause> {
        let algorithm = jws.algorithm.ok_or(Cause::Algorithm)?;
        if algorithm.family() == Family::Hmac {
            return Err(Cause::Algorithm);
        }
        let key_id = jws.key_id.as_deref().ok_or(Cause::NoKeyId)?;
        let set = match self {
            Self::One(set) => set,
            Self::Listed { endpoint, sets } => {
                // Parsed before the signature is verified, only to select one of the possible URLs.
                let claims: Registered = read_claims(&jws.payload)?;
                expectations.check(&claims)?;
                let address = endpoint.address(expectations, &claims).ok_or(Cause::Issuer)?;
                sets.get(&address).ok_or(Cause::Issuer)?
            }
        };
        Ok(KeyReference { set, key_id, algorithm })
    }
}

/// The key of a token, and the set that must contain it.
struct KeyReference<'n> {
    set: &'n Jwks,
    key_id: &'n str,
    algorithm: Algorithm,
}
