//! Printed values contain no key, token or claim.

use super::super::cause::Cause;
use super::super::{KeyFault, TokenSettings, Verifier};
use super::{SECRET, settings, verifier};

#[test]
fn printed_settings_and_verifiers_hold_no_secrets() {
    let settings = TokenSettings {
        hmac_previous_secret_key: Some(SECRET.to_owned()),
        jwks_public_endpoint: Some("https://user:pass@example.org/".to_owned()),
        insecure_skip_signature_verify: true,
        ..settings()
    };
    let printed = format!("{settings:?} {:?}", verifier(&settings));
    assert!(!printed.contains(SECRET) && !printed.contains("pass@"), "{printed}");
    assert!(printed.contains("hmac_previous_secret_key"), "names are shown: {printed}");
    assert!(printed.contains("insecure_skip_signature_verify"));
}

#[test]
fn an_error_does_not_quote_the_value() {
    let pasted = "-----BEGIN PRIVATE KEY-----\nvery secret\n-----END PRIVATE KEY-----";
    let settings = TokenSettings { rsa_public_key: Some(pasted.to_owned()), ..settings() };
    let error = Verifier::new(&settings).expect_err("a private key");
    assert_eq!(error.fault, KeyFault::PrivateKey);
    let printed = format!("{error} {error:?}");
    assert!(!printed.contains("very secret"), "{printed}");
}

#[test]
fn causes_are_of_fixed_size_and_can_quote_nothing() {
    assert_eq!(size_of::<Cause>(), 1);
}
