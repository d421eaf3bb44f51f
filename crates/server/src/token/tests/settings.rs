//! Invalid options and their errors.

use super::super::{KeyError, KeyFault, TokenSettings, Verifier};
use super::settings;
use super::signing::{RSA, ed25519, p256, p256k1, pem, rsa_der};

fn fault(settings: &TokenSettings) -> KeyError {
    Verifier::new(settings).expect_err("settings with a mistake")
}

fn rsa_fault(text: &str) -> KeyFault {
    let error = fault(&TokenSettings { rsa_public_key: Some(text.to_owned()), ..settings() });
    assert_eq!(error.setting, "rsa_public_key");
    error.fault
}

fn ecdsa_fault(text: &str) -> KeyFault {
    let error = fault(&TokenSettings { ecdsa_public_key: Some(text.to_owned()), ..settings() });
    assert_eq!(error.setting, "ecdsa_public_key");
    error.fault
}

#[test]
fn a_key_must_be_a_pem_document() {
    let whole = RSA.pem();
    for text in [
        "secret",
        "-----BEGIN",
        "-----BEGIN PUBLIC KEY-----",
        &whole[..whole.len() / 2],
        &whole.replace("-----END", "----- "),
        "-----BEGIN PUBLIC KEY-----\n%%%\n-----END PUBLIC KEY-----",
        "-----BEGIN SOMETHING-----\ne30=\n-----END SOMETHING-----",
    ] {
        assert_eq!(rsa_fault(text), KeyFault::NotPem, "{text}");
        assert_eq!(ecdsa_fault(text), KeyFault::NotPem, "{text}");
    }
}

#[test]
fn a_key_must_be_public_and_bare() {
    for label in ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY"] {
        assert_eq!(rsa_fault(&pem(label, b"x")), KeyFault::PrivateKey);
        assert_eq!(ecdsa_fault(&pem(label, b"x")), KeyFault::PrivateKey);
    }
    assert_eq!(rsa_fault(&pem("CERTIFICATE", b"x")), KeyFault::Certificate);
}

#[test]
fn a_key_must_be_of_its_family() {
    assert_eq!(rsa_fault(&p256().pem()), KeyFault::NotRsa);
    assert_eq!(rsa_fault(&ed25519().pem()), KeyFault::NotRsa);
    assert_eq!(rsa_fault(&pem("PUBLIC KEY", b"no DER")), KeyFault::NotRsa);
    assert_eq!(ecdsa_fault(&RSA.pem()), KeyFault::NotEcdsa);
    assert_eq!(ecdsa_fault(&ed25519().pem()), KeyFault::NotEcdsa);
    assert_eq!(ecdsa_fault(&p256k1().pem()), KeyFault::NotEcdsa, "no curve for tokens");
}

#[test]
fn an_rsa_key_must_be_neither_short_nor_huge() {
    for (bytes, bits) in [(64, 512), (128, 1024), (255, 2040), (1025, 8200)] {
        let text = pem("RSA PUBLIC KEY", &rsa_der(bytes));
        assert_eq!(rsa_fault(&text), KeyFault::RsaSize { bits });
    }
    let fitting = pem("RSA PUBLIC KEY", &rsa_der(256));
    let settings = TokenSettings { rsa_public_key: Some(fitting), ..settings() };
    assert!(Verifier::new(&settings).is_ok());
}

#[test]
fn a_public_key_is_no_secret() {
    let secret = || Some(RSA.pem());
    let current = TokenSettings { hmac_secret_key: secret(), ..settings() };
    let previous = TokenSettings { hmac_previous_secret_key: secret(), ..settings() };
    for (settings, setting) in
        [(current, "hmac_secret_key"), (previous, "hmac_previous_secret_key")]
    {
        assert_eq!(fault(&settings), KeyError { setting, fault: KeyFault::PemAsSecret });
    }
}

#[test]
fn expressions_and_claim_names_are_checked() {
    let text = |text: &str| Some(text.to_owned());
    let issuer = TokenSettings { issuer_regex: text("("), ..settings() };
    let audience = TokenSettings { audience_regex: text("[a"), ..settings() };
    assert_eq!(fault(&issuer), KeyError { setting: "issuer_regex", fault: KeyFault::Pattern });
    assert_eq!(fault(&audience), KeyError { setting: "audience_regex", fault: KeyFault::Pattern });
    for name in ["user id", "user-id", "user1", "usér", "a.b"] {
        let settings = TokenSettings { user_id_claim: text(name), ..settings() };
        let expected = KeyError { setting: "user_id_claim", fault: KeyFault::ClaimName };
        assert_eq!(fault(&settings), expected, "{name}");
    }
}

#[test]
fn an_error_names_the_setting_and_the_mistake() {
    let settings = TokenSettings { rsa_public_key: Some(p256().pem()), ..settings() };
    assert_eq!(
        fault(&settings).to_string(),
        "rsa_public_key: not an RSA public key; set an ECDSA key as ecdsa_public_key"
    );
}
