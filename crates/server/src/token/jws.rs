//! Takes a token apart: three base64url parts (RFC 7515 compact form) and a header. Nothing is
//! believed here; the payload stays bytes until a key has verified it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::algorithm::Algorithm;
use super::cause::Cause;
use super::limits::TOKEN_BYTES_MAX;
use crate::json::Object;

/// A token in its parts.
pub(super) struct Jws<'t> {
    /// As named by the header; `None` when it is none that we know.
    pub(super) algorithm: Option<Algorithm>,
    /// Id of the key in a key set.
    pub(super) key_id: Option<String>,
    /// What the signature was made over.
    pub(super) signed: &'t [u8],
    /// The claims, as bytes.
    pub(super) payload: Vec<u8>,
    /// The signature.
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

    /// The algorithm that the header of a token names, without looking at the rest of it.
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

/// Decodes one part. A fourth part fails here too, as a dot is no base64url.
fn decode(part: &str) -> Result<Vec<u8>, Cause> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Cause::Malformed)
}
