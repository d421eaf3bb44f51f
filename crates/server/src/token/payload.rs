//! Reads the claims of a token from its payload.
//!
//! Invariant: an error quotes nothing of the payload.

use serde::Deserialize;

use super::cause::Cause;
use crate::json::Object;

/// Reads claims. The error of the JSON parser is dropped, because its text could quote the token.
pub(super) fn read_claims<'de, T: Deserialize<'de>>(payload: &'de [u8]) -> Result<T, Cause> {
    serde_json::from_slice::<Object<T>>(payload)
        .map(|Object(claims)| claims)
        .map_err(|_| Cause::Claims)
}
