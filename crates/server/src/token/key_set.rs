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
use super::object::Object;
use super::public_key::PublicKey;

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
        let keys = keys.into_iter().filter_map(|key| {
            let Object(key) = serde_json::from_str::<Object<Jwk>>(key.get()).ok()?;
            key.read()
        });
        Ok(Self { keys: keys.collect() })
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
    purpose: String,
    alg: Option<String>,
    n: Option<String>,
    e: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Jwk {
    fn read(&self) -> Option<(String, Arc<PublicKey>)> {
        if self.purpose != "sig" {
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
