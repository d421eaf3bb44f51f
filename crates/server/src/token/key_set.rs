//! Parses a JSON Web Key Set (RFC 7517) of an identity provider.
//!
//! Invariant: an unsupported key (another purpose, another curve, a secret) is skipped and does not
//! affect the others.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::algorithm::Algorithm;
use super::cause::Cause;
use super::fetch::FetchFailure;
use super::limits::KEY_SET_KEYS_MAX;
use super::public_key::PublicKey;
use crate::json::Object;

/// The supported keys of a set by key id. RFC 7517 §4.5 allows keys of different types to have the
/// same id.
#[derive(Default)]
pub(super) struct KeySet {
    keys: Vec<(String, Arc<PublicKey>)>,
}

impl KeySet {
    /// Parses a document.
    pub(super) fn parse(document: &[u8]) -> Result<Self, FetchFailure> {
        let Object(Document { keys }) = serde_json::from_slice::<Object<Document<'_>>>(document)
            .map_err(|_| FetchFailure::NotAKeySet)?;
        if keys.len() > KEY_SET_KEYS_MAX {
            return Err(FetchFailure::TooManyKeys);
        }
        let published = keys.len();
        let keys = keys.into_iter().filter_map(|key| {
            let Object(key) = serde_json::from_str::<Object<Jwk>>(key.get()).ok()?;
            key.read()
        });
        let keys: Vec<_> = keys.collect();
        if keys.len() < published {
            let skipped = published - keys.len();
            tracing::info!(
                used = keys.len(),
                skipped,
                "keys of a token key set are skipped: each needs kty and kid; use, if present, must be sig, and alg a signature algorithm"
            );
        }
        Ok(Self { keys })
    }

    /// Number of supported keys.
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// The key with this id for this algorithm; `None` if no key has the id.
    pub(super) fn find(
        &self,
        key_id: &str,
        algorithm: Algorithm,
    ) -> Option<Result<Arc<PublicKey>, Cause>> {
        let mut named = self.keys.iter().filter(|(id, _)| id == key_id).peekable();
        named.peek()?;
        let fitting = named.find(|(_, key)| key.supports(algorithm));
        Some(fitting.map(|(_, key)| Arc::clone(key)).ok_or(Cause::Algorithm))
    }
}

#[derive(Deserialize)]
struct Document<'d> {
    #[serde(borrow)]
    keys: Vec<&'d RawValue>,
}

/// One key with the members of RFC 7517 §4 and RFC 7518 §6.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: String,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    n: Option<String>,
    e: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Jwk {
    /// Whether the key may verify signatures. `use` and `key_ops` are optional and restrict the key
    /// if present (RFC 7517 §4.2, §4.3).
    fn verifies(&self) -> bool {
        self.purpose.as_ref().is_none_or(|purpose| purpose == "sig")
            && self
                .key_ops
                .as_ref()
                .is_none_or(|operations| operations.iter().any(|one| one == "verify"))
    }

    fn read(&self) -> Option<(String, Arc<PublicKey>)> {
        if !self.verifies() {
            return None;
        }
        let key = match self.kty.as_str() {
            "RSA" => PublicKey::rsa_from_components(&decode(&self.n)?, &decode(&self.e)?)?,
            "EC" => PublicKey::ecdsa_from_point(
                self.crv.as_deref()?,
                &decode(&self.x)?,
                &decode(&self.y)?,
            )?,
            "OKP" if self.crv.as_deref() == Some("Ed25519") => {
                PublicKey::ed25519(&decode(&self.x)?)?
            }
            _ => return None,
        };
        let key = match &self.alg {
            Some(name) => key.restricted_to(Algorithm::named(name)?)?,
            None => key,
        };
        Some((self.kid.clone(), Arc::new(key)))
    }
}

fn decode(part: &Option<String>) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(part.as_deref()?).ok()
}
