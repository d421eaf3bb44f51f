//! Secrets of webhooks and signatures, as in Standard Webhooks
//! (<https://github.com/standard-webhooks/standard-webhooks>), so that receivers can use its
//! libraries.
//!
//! Invariant: a secret is in no log and no error.

use std::fmt;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;

use crate::limits::{SECRET_BYTES_MAX, SECRET_BYTES_MIN};

/// A key for signatures.
#[derive(Clone)]
pub struct WebhookSecret(hmac::Key);

/// Why a text is not a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WebhookSecretFault {
    /// It has another form.
    #[error(
        "expected whsec_ and base64, as `echo whsec_$(openssl rand -base64 32)` makes it, not the value given"
    )]
    Form,
    /// It is too short or too long.
    #[error("expected {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes in base64 behind whsec_")]
    Length,
}

const PREFIX: &str = "whsec_";

impl WebhookSecret {
    /// Reads a secret.
    ///
    /// # Errors
    /// [`WebhookSecretFault`].
    pub fn parse(text: &str) -> Result<WebhookSecret, WebhookSecretFault> {
        let base64 = text.strip_prefix(PREFIX).ok_or(WebhookSecretFault::Form)?;
        let bytes = STANDARD.decode(base64).map_err(|_| WebhookSecretFault::Form)?;
        if !(SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&bytes.len()) {
            return Err(WebhookSecretFault::Length);
        }
        Ok(WebhookSecret(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    /// The signature of a request: `v1,` and the base64 of the HMAC over id, Unix time and body.
    #[must_use]
    pub fn sign(&self, id: &str, unix_seconds: u64, body: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(format!("{id}.{unix_seconds}.").as_bytes());
        context.update(body);
        format!("v1,{}", STANDARD.encode(context.sign()))
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_specification_has_its_signature() {
        let secret = WebhookSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signed =
            secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(format!("{secret:?}"), "WebhookSecret");
    }

    #[test]
    fn other_texts_are_refused() {
        let fault = |text: &str| WebhookSecret::parse(text).map(drop);
        assert_eq!(fault("secret"), Err(WebhookSecretFault::Form));
        assert_eq!(fault("whsec_no base64"), Err(WebhookSecretFault::Form));
        assert_eq!(fault("whsec_c2hvcnQ="), Err(WebhookSecretFault::Length));
    }
}
