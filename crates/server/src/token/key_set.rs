//! A JSON Web Key Set (RFC 7517) as published by an identity provider.
//!
//! A key that we can not use (another purpose, a foreign curve, a secret) is left out and does not
//! spoil the others.

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

/// The usable keys of a set, by key id. Ids may repeat: RFC 7517 allows keys of different types
/// to share one.
#[derive(Default)]
pub(super) struct KeySet {
    keys: Vec<(String, Arc<PublicKey>)>,
}

impl KeySet {
    /// Reads a document.
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
            let left_out = published - keys.len();
            tracing::info!(
                used = keys.len(),
                left_out,
                "keys of a token key set are left out: each needs kty, kid, and a use (sig) and alg for signatures where it names them"
            );
        }
        Ok(Self { keys })
    }

    /// Usable keys.
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// The key with this id for this algorithm; `None` when no key has the id.
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

/// One key. Names are those of RFC 7517 and RFC 7518.
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
    /// Whether the key may be used for signatures: both members are optional, and those that are
    /// there limit it (RFC 7517 §4.2, §4.3).
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
