//! Decodes public keys in PEM (RFC 7468).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::key_error::KeyFault;

/// Decodes the first document in `text`, which must have one of these labels.
pub(super) fn decode_public_key(text: &str, labels: &[&str]) -> Result<Vec<u8>, KeyFault> {
    let (_, begun) = text.split_once("-----BEGIN ").ok_or(KeyFault::NotPem)?;
    let (label, rest) = begun.split_once("-----").ok_or(KeyFault::NotPem)?;
    if label.ends_with("PRIVATE KEY") {
        return Err(KeyFault::PrivateKey);
    }
    if label.ends_with("CERTIFICATE") {
        return Err(KeyFault::Certificate);
    }
    if !labels.contains(&label) {
        return Err(KeyFault::NotPem);
    }
    let (body, _) = rest.split_once("-----END ").ok_or(KeyFault::NotPem)?;
    let body: String = body.split_ascii_whitespace().collect();
    STANDARD.decode(body).map_err(|_| KeyFault::NotPem)
}

/// Whether a text looks like PEM, which is not a secret.
pub(super) fn is_pem(text: &str) -> bool {
    text.trim_start().starts_with("-----BEGIN ")
}
