//! Each algorithm verifies with its own key only.

use serde_json::json;

use super::super::{
    ConnectionTokenRequest, Cost, HmacAlgorithm, TokenRequest, TokenSettings, sign_connection,
};
use super::signing::{RSA, TestKey, encode, hmac_sign, hs256, p256, p384, p521, rsa};
use super::{INVALID, NOW, SECRET, ann, settings, verifier};

fn rsa_settings() -> TokenSettings {
    TokenSettings { rsa_public_key: Some(RSA.pem()), ..TokenSettings::default() }
}

fn ecdsa_settings(key: &TestKey) -> TokenSettings {
    TokenSettings { ecdsa_public_key: Some(key.pem()), ..TokenSettings::default() }
}

#[test]
fn every_hmac_algorithm_verifies_with_the_secret_and_no_other() {
    for algorithm in [HmacAlgorithm::Hs256, HmacAlgorithm::Hs384, HmacAlgorithm::Hs512] {
        let request = ConnectionTokenRequest {
            token: TokenRequest { algorithm, user: "ann".to_owned(), ..TokenRequest::default() },
            channels: Vec::new(),
        };
        let verifier = verifier(&settings());
        let token = sign_connection(SECRET, &request, NOW).unwrap();
        assert_eq!(verifier.verify_connection(&token, NOW).unwrap().user, "ann");
        assert_eq!(verifier.cost(&token), Cost::Inline);
        let foreign = sign_connection("another secret", &request, NOW).unwrap();
        assert_eq!(verifier.verify_connection(&foreign, NOW), Err(INVALID));
    }
}

#[test]
fn every_rsa_algorithm_verifies_with_its_key_and_no_other() {
    let (verifier, stranger) = (verifier(&rsa_settings()), rsa());
    for algorithm in ["RS256", "RS384", "RS512"] {
        let token = RSA.token(algorithm, None, &ann());
        assert_eq!(verifier.verify_connection(&token, NOW).unwrap().user, "ann", "{algorithm}");
        assert_eq!(verifier.cost(&token), Cost::Offload);
        let foreign = stranger.token(algorithm, None, &ann());
        assert_eq!(verifier.verify_connection(&foreign, NOW), Err(INVALID));
    }
}

#[test]
fn every_curve_verifies_with_its_algorithm_and_no_other() {
    for (key, stranger, own) in
        [(p256(), p256(), "ES256"), (p384(), p384(), "ES384"), (p521(), p521(), "ES512")]
    {
        let verifier = verifier(&ecdsa_settings(&key));
        for algorithm in ["ES256", "ES384", "ES512"] {
            let token = key.token(algorithm, None, &ann());
            let user = verifier.verify_connection(&token, NOW).map(|claims| claims.user);
            let expected = if algorithm == own { Ok("ann".to_owned()) } else { Err(INVALID) };
            assert_eq!(user, expected, "{algorithm} with the key of {own}");
        }
        let foreign = stranger.token(own, None, &ann());
        assert_eq!(verifier.verify_connection(&foreign, NOW), Err(INVALID));
    }
}

#[test]
fn an_rsa_key_may_be_in_its_older_form() {
    let TestKey::Rsa(key) = &*RSA else { unreachable!("made as RSA") };
    use aws_lc_rs::signature::KeyPair as _;
    let older = super::signing::pem("RSA PUBLIC KEY", key.public_key().as_ref());
    let settings = TokenSettings { rsa_public_key: Some(older), ..TokenSettings::default() };
    let token = RSA.token("RS256", None, &ann());
    assert!(verifier(&settings).verify_connection(&token, NOW).is_ok());
}

/// Algorithm confusion: an attacker signs with the public key as the HMAC secret.
#[test]
fn a_public_key_is_never_taken_for_a_secret() {
    let both = TokenSettings { hmac_secret_key: Some(SECRET.to_owned()), ..rsa_settings() };
    for settings in [rsa_settings(), both] {
        let token = hs256(&RSA.pem(), &ann());
        assert_eq!(verifier(&settings).verify_connection(&token, NOW), Err(INVALID));
    }
}

#[test]
fn a_signature_of_one_family_does_not_pass_under_another_name() {
    let settings = TokenSettings { hmac_secret_key: Some(SECRET.to_owned()), ..rsa_settings() };
    let verifier = verifier(&settings);
    for name in ["RS256", "HS384", "HS512", "PS256", "ES256", "EdDSA"] {
        let header = json!({"alg": name}).to_string();
        let signed = format!("{}.{}", encode(header), encode(ann().to_string()));
        let token = hmac_sign(SECRET, signed);
        assert_eq!(verifier.verify_connection(&token, NOW), Err(INVALID), "{name}");
    }
}

#[test]
fn no_algorithm_is_no_signature() {
    let verifier = verifier(&settings());
    for name in ["none", "None", "NONE", "", "hs256"] {
        let header = json!({"alg": name}).to_string();
        let signed = format!("{}.{}", encode(header), encode(ann().to_string()));
        let unsigned = format!("{signed}.");
        assert_eq!(verifier.verify_connection(&unsigned, NOW), Err(INVALID), "{name}");
        let signed = hmac_sign(SECRET, signed);
        assert_eq!(verifier.verify_connection(&signed, NOW), Err(INVALID), "{name}, signed");
    }
}

#[test]
fn without_keys_every_token_is_refused() {
    let verifier = verifier(&TokenSettings::default());
    for token in [hs256("", &ann()), RSA.token("RS256", None, &ann())] {
        assert_eq!(verifier.verify_connection(&token, NOW), Err(INVALID));
        assert_eq!(verifier.cost(&token), Cost::Inline, "refused without arithmetic");
    }
}

#[test]
fn an_empty_key_is_no_key() {
    let empty = || Some(String::new());
    let settings = TokenSettings {
        hmac_secret_key: empty(),
        hmac_previous_secret_key: empty(),
        rsa_public_key: empty(),
        ecdsa_public_key: empty(),
        jwks_public_endpoint: empty(),
        ..TokenSettings::default()
    };
    assert_eq!(verifier(&settings).verify_connection(&hs256("", &ann()), NOW), Err(INVALID));
}

#[test]
fn the_previous_secret_holds_until_its_time() {
    let previous = |until| TokenSettings {
        hmac_previous_secret_key: Some("old".to_owned()),
        hmac_previous_secret_key_valid_until: until,
        ..settings()
    };
    let (old, new) = (hs256("old", &ann()), hs256(SECRET, &ann()));
    for (until, holds) in [(0, true), (NOW + 1, true), (NOW, false), (NOW - 1, false)] {
        let verifier = verifier(&previous(until));
        assert_eq!(verifier.verify_connection(&old, NOW).is_ok(), holds, "until {until}");
        assert!(verifier.verify_connection(&new, NOW).is_ok());
    }
}

#[test]
fn a_skipped_signature_leaves_the_claims_to_be_checked() {
    let settings =
        TokenSettings { insecure_skip_signature_verify: true, ..TokenSettings::default() };
    let verifier = verifier(&settings);
    let unsigned = |claims: serde_json::Value| {
        format!("{}.{}.", encode(r#"{"alg":"none"}"#), encode(claims.to_string()))
    };
    assert_eq!(verifier.verify_connection(&unsigned(ann()), NOW).unwrap().user, "ann");
    let late = unsigned(json!({"sub": "ann", "exp": NOW - 1}));
    assert_eq!(verifier.verify_connection(&late, NOW), Err(super::EXPIRED));
    assert_eq!(verifier.verify_connection(&unsigned(json!({"sub": [1]})), NOW), Err(INVALID));
}
