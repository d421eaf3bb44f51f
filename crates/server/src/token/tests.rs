//! Tests of the verifier through its public interface: options and tokens in, results out.

mod algorithms;
mod claims;
mod endpoints;
mod key_server;
mod key_sets;
mod refusals;
mod secrecy;
mod settings;
mod sign;
mod signing;
mod times;

use engine::claims::{ConnectionClaims, SubscriptionClaims, TokenRefusal};
use serde_json::{Value, json};

use super::{TokenSettings, Verified, Verifier};
use signing::{encode, hs256};

/// The time of all tests.
const NOW: i64 = 1_700_000_000;

/// The secret of all tests that are not about keys.
const SECRET: &str = "a secret for tests";

fn settings() -> TokenSettings {
    TokenSettings { hmac_secret_key: Some(SECRET.to_owned()), ..TokenSettings::default() }
}

fn verifier(settings: &TokenSettings) -> Verifier {
    Verifier::new(settings).expect("settings of a test")
}

/// The result of a connection token with these claims, signed with the secret.
fn connect(claims: &Value) -> Verified<ConnectionClaims> {
    connect_with(&settings(), claims)
}

fn connect_with(settings: &TokenSettings, claims: &Value) -> Verified<ConnectionClaims> {
    verifier(settings).verify_connection(&hs256(SECRET, claims), NOW)
}

/// The result of a subscription token with these claims, signed with the secret.
fn subscribe(claims: &Value) -> Verified<SubscriptionClaims> {
    verifier(&settings()).verify_subscription(&hs256(SECRET, claims), NOW)
}

/// The result of a connection token with exactly this payload.
fn connect_raw(payload: &str) -> Verified<ConnectionClaims> {
    let signed = format!("{}.{}", encode(r#"{"alg":"HS256"}"#), encode(payload));
    let token = signing::hmac_sign(SECRET, signed);
    verifier(&settings()).verify_connection(&token, NOW)
}

fn ann() -> Value {
    json!({"sub": "ann", "exp": NOW + 60})
}

const INVALID: TokenRefusal = TokenRefusal::Invalid;
const EXPIRED: TokenRefusal = TokenRefusal::Expired;
const UNAVAILABLE: TokenRefusal = TokenRefusal::Unavailable;
