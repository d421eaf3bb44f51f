//! Splits a token in the compact form of RFC 7515 into header, payload and signature, and decodes
//! them.
//!
//! Invariant: nothing is verified here. The payload is not parsed before a key has verified it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::algorithm::Algorithm;
use super::cause::Cause;
use super::limits::TOKEN_BYTES_MAX;
use crate::json::Object;

/// The decoded parts of a token.
pub(super) struct Jws<'t> {
    /// The algorithm of the header; `None` if it is not supported.
    pub(super) algorithm: Option<Algorithm>,
    /// Id of the key in a key set (`kid`).
    pub(super) key_id: Option<String>,
    /// The signed bytes: header and payload as encoded.
    pub(super) signed: &'t [u8],
    /// The claims as JSON.
    pub(super) payload: Vec<u8>,
    /// The decoded signature.
    pub(super) signature: Vec<u8>,
}

impl<'t> Jws<'t> {
    /// Splits and decodes a token.
    pub(super) fn parse(token: &'t str) -> Result<Self, Cause> {
        let header = Header::parse(token)?;
        let (signed, signature) = token.rsplit_once('.').ok_or(Cause::Malformed)?;
        let (_, payload) = signed.split_once('.').ok_or(Cause::Malformed)?;
        Ok(Self {
            algorithm: header.algorithm(),
            key_id: header.kid,
            signed: signed.as_bytes(),
            payload: decode(payload)?,
            signature: decode(signature)?,
        })
    }

    /// The algorithm in the header of a token. Does not decode the other parts.
    pub(super) fn peek_algorithm(token: &str) -> Result<Option<Algorithm>, Cause> {
        Header::parse(token).map(|header| header.algorithm())
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<IgnoredAny>,
}

impl Header {
    fn parse(token: &str) -> Result<Self, Cause> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Cause::TooLong);
        }
        let (header, _) = token.split_once('.').ok_or(Cause::Malformed)?;
        let Object(header) =
            serde_json::from_slice::<Object<Self>>(&decode(header)?).map_err(|_| Cause::Header)?;
        // RFC 7515, 4.1.11: "If any of the listed extension Header Parameters are not understood
        // and supported by the recipient, then the JWS is invalid." We support none.
        if header.crit.is_some() {
            return Err(Cause::Header);
        }
        Ok(header)
    }

    fn algorithm(&self) -> Option<Algorithm> {
        Algorithm::named(&self.alg)
    }
}

/// Decodes one part. A token with a fourth part fails here, because a dot is not base64url.
fn decode(part: &str) -> Result<Vec<u8>, Cause> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Cause::Malformed)
}
