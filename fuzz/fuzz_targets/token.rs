//! Tokens: only a token signed with the secret is accepted, byte for byte. Any signed claims are
//! read without a panic, and expiry is enforced.
//!
//! Input: a choice, then the text of a token, edits of a valid one, or claims to be signed.

#![no_main]

use std::str;
use std::sync::LazyLock;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::hmac;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use server::token::{
    ConnectionTokenRequest, SubscriptionTokenRequest, TokenRequest, TokenSettings, Verifier,
    sign_connection, sign_subscription,
};

const NOW: i64 = 1_700_000_000;
const SECRET: &str = "a secret that the fuzzer does not know";

/// Headers of tokens that are signed with HS256 whatever they contain; the first names it.
const HEADERS: [&str; 6] = [
    r#"{"alg":"HS256","typ":"JWT"}"#,
    r#"{"alg":"none"}"#,
    r#"{"alg":"HS384"}"#,
    r#"{"alg":"ES256","kid":"1"}"#,
    r#"{"alg":"HS256","crit":["exp"]}"#,
    r#"["HS256"]"#,
];

struct World {
    /// Verifies with the secret.
    verifier: Verifier,
    /// Verifies with a public key whose private key does not exist.
    public: Verifier,
    public_key: String,
    good: [String; 2],
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let verifier = |settings| Verifier::new(&settings).expect("good settings");
    let private = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
    let der = private.public_key().as_der().expect("a public key");
    let body = STANDARD.encode::<&[u8]>(der.as_ref());
    let public_key = format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n");
    let token = TokenRequest { user: "ann".to_owned(), ..TokenRequest::default() };
    let connection = ConnectionTokenRequest { token: token.clone(), channels: vec!["a".into()] };
    let subscription =
        SubscriptionTokenRequest { token, channel: "a".to_owned(), ..Default::default() };
    World {
        verifier: verifier(TokenSettings {
            hmac_secret_key: Some(SECRET.to_owned()),
            ..TokenSettings::default()
        }),
        public: verifier(TokenSettings {
            ecdsa_public_key: Some(public_key.clone()),
            ..TokenSettings::default()
        }),
        public_key,
        good: [
            sign_connection(SECRET, &connection, NOW).expect("a token"),
            sign_subscription(SECRET, &subscription, NOW).expect("a token"),
        ],
    }
});

fuzz_target!(|input: &[u8]| {
    let Some((choice, rest)) = input.split_first() else { return };
    match choice % 4 {
        0 => strange(rest),
        1 => edited(&WORLD.good[usize::from(choice >> 2) % 2], rest),
        2 => signed(HEADERS[usize::from(choice >> 2) % HEADERS.len()], rest),
        _ => confused(rest),
    }
});

fn is_accepted(verifier: &Verifier, token: &str) -> bool {
    let _cost = verifier.cost(token);
    let connection = verifier.verify_connection(token, NOW);
    let subscription = verifier.verify_subscription(token, NOW);
    if let (Ok(_), Ok(_)) = (&connection, &subscription) {
        panic!("a token is for one thing");
    }
    connection.is_ok() || subscription.is_ok()
}

/// Any text is accepted only if its last part is the signature of the other parts.
fn strange(text: &[u8]) {
    let Ok(token) = str::from_utf8(text) else { return };
    assert!(!is_accepted(&WORLD.public, token));
    if is_accepted(&WORLD.verifier, token) {
        let (signed, _) = token.rsplit_once('.').expect("three parts");
        assert_eq!(token, sign(SECRET, signed));
    }
}

/// A valid token with some bytes replaced, each by a pair of index and byte.
fn edited(good: &str, edits: &[u8]) {
    assert!(is_accepted(&WORLD.verifier, good));
    let mut bytes = good.as_bytes().to_vec();
    for [place, byte] in edits.as_chunks().0 {
        let index = usize::from(*place) % bytes.len();
        bytes[index] = *byte;
    }
    let Ok(token) = str::from_utf8(&bytes) else { return };
    assert_eq!(is_accepted(&WORLD.verifier, token), token == good);
}

/// Any signed claims are read with the configured algorithm only.
fn signed(header: &str, claims: &[u8]) {
    let parts = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let token = sign(SECRET, &parts);
    assert!(!is_accepted(&WORLD.public, &token));
    if !is_accepted(&WORLD.verifier, &token) {
        return;
    }
    assert_eq!(header, HEADERS[0]);
    // JSON too deep for this reader may be in a claim that the verifier ignores.
    let Ok(claims) = serde_json::from_slice::<Value>(claims) else { return };
    assert!(claims.is_object());
    let time = |name: &str| claims[name].as_f64();
    assert!(time("exp").is_none_or(|exp| exp.floor() > NOW as f64), "expired: {claims}");
    assert!(time("nbf").is_none_or(|nbf| nbf <= NOW as f64), "not valid yet: {claims}");
}

/// The public key is not accepted as a secret.
fn confused(claims: &[u8]) {
    let header = URL_SAFE_NO_PAD.encode(HEADERS[0]);
    let parts = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
    assert!(!is_accepted(&WORLD.public, &sign(&WORLD.public_key, &parts)));
}

fn sign(secret: &str, signed: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes())))
}
