//! Payloads of the server API.

use base64::Engine as _;
use base64::alphabet::STANDARD as STANDARD_ALPHABET;
use base64::engine::general_purpose::{GeneralPurpose, PAD};
use bytes::Bytes;
use wire::protocol::is_nested_too_deep;

use super::error::ApiError;

/// A payload from its plain field or its base64 field, which has precedence.
pub(crate) fn payload(plain: Bytes, base64: &str) -> Result<Bytes, ApiError> {
    let payload: Bytes = if base64.is_empty() {
        plain
    } else {
        let bytes = BASE64.decode(base64);
        bytes.map_err(|_| ApiError::bad("b64data is not valid base64"))?.into()
    };
    if is_nested_too_deep(&payload) {
        return Err(ApiError::bad("a payload is nested more than 128 levels deep; flatten it"));
    }
    Ok(payload)
}

/// Accepts non-zero trailing bits in the last character, which some encoders write.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&STANDARD_ALPHABET, PAD.with_decode_allow_trailing_bits(true));
