//! Key sets of an identity provider: caching, rotation, and the rate of requests.

use std::net::TcpListener;
use std::sync::Arc;
use std::thread;

use aws_lc_rs::signature::KeyPair as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::super::limits::{KEY_SET_BYTES_MAX, KEY_SET_KEYS_MAX, KEY_SET_PAUSE_S, KEY_SET_TTL_S};
use super::super::{Cost, TokenSettings, Verifier};
use super::key_server::KeyServer;
use super::signing::{RSA, TestKey, ed25519, encode, hs256, p256, p384, p521};
use super::{INVALID, NOW, SECRET, UNAVAILABLE, ann, verifier};

fn published(server: &KeyServer) -> Verifier {
    verifier(&published_at(server.url("/keys")))
}

fn published_at(url: String) -> TokenSettings {
    TokenSettings { jwks_public_endpoint: Some(url), ..TokenSettings::default() }
}

#[test]
fn every_published_kind_of_key_verifies_its_algorithms() {
    let keys = [
        (p256(), "ES256", "a"),
        (p384(), "ES384", "b"),
        (p521(), "ES512", "c"),
        (ed25519(), "EdDSA", "d"),
    ];
    let mut set: Vec<Value> = keys.iter().map(|(key, _, id)| key.jwk(id)).collect();
    set.push(RSA.jwk("e"));
    let server = KeyServer::start(&set);
    let verifier = published(&server);
    let rsa = ["RS256", "RS384", "RS512"].map(|algorithm| (&*RSA, algorithm, "e"));
    for (key, algorithm, id) in keys.iter().map(|(key, name, id)| (key, *name, *id)).chain(rsa) {
        let token = key.token(algorithm, Some(id), &ann());
        assert_eq!(verifier.verify_connection(&token, NOW).unwrap().user, "ann", "{algorithm}");
        assert_eq!(verifier.cost(&token), Cost::Offload);
    }
    assert_eq!(server.requests(), 1);
}

#[test]
fn a_set_is_fetched_once_and_again_when_its_time_is_over() {
    let key = p256();
    let server = KeyServer::start(&[key.jwk("a")]);
    let verifier = published(&server);
    let token = key.token("ES256", Some("a"), &json!({"sub": "ann"}));
    for seconds in [0, 1, KEY_SET_PAUSE_S, KEY_SET_TTL_S - 1] {
        assert!(verifier.verify_connection(&token, NOW + seconds).is_ok());
    }
    assert_eq!(server.requests(), 1);
    assert!(verifier.verify_connection(&token, NOW - 10).is_ok());
    assert_eq!(server.requests(), 1, "a clock set back changes nothing");
    assert!(verifier.verify_connection(&token, NOW + KEY_SET_TTL_S).is_ok());
    assert_eq!(server.requests(), 2);
}

#[test]
fn many_threads_share_one_fetch() {
    let key = p256();
    let server = Arc::new(KeyServer::start(&[key.jwk("a")]));
    server.await_callers(8);
    let verifier = Arc::new(published(&server));
    let token = key.token("ES256", Some("a"), &ann());
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let (server, verifier, token) =
                (Arc::clone(&server), Arc::clone(&verifier), token.clone());
            thread::spawn(move || {
                server.announce_caller();
                verifier.verify_connection(&token, NOW).map(|claims| claims.user)
            })
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), Ok("ann".to_owned()));
    }
    assert_eq!(server.requests(), 1);
}

#[test]
fn a_rotated_key_is_found_and_the_withdrawn_one_forgotten() {
    let (old, new) = (p256(), p256());
    let server = KeyServer::start(&[old.jwk("old")]);
    let verifier = published(&server);
    let old_token = old.token("ES256", Some("old"), &ann());
    let new_token = new.token("ES256", Some("new"), &ann());
    assert!(verifier.verify_connection(&old_token, NOW).is_ok());
    server.publish(&[new.jwk("new")]);
    assert!(verifier.verify_connection(&new_token, NOW + KEY_SET_PAUSE_S).is_ok());
    assert_eq!(server.requests(), 2);
    assert_eq!(verifier.verify_connection(&old_token, NOW + KEY_SET_PAUSE_S), Err(UNAVAILABLE));
    assert_eq!(verifier.verify_connection(&old_token, NOW + 2 * KEY_SET_PAUSE_S), Err(INVALID));
}

#[test]
fn forged_key_ids_do_not_flood_the_endpoint() {
    let key = p256();
    let server = KeyServer::start(&[key.jwk("a")]);
    let verifier = published(&server);
    let forged = |number: i64| key.token("ES256", Some(&format!("forged {number}")), &ann());
    assert_eq!(verifier.verify_connection(&forged(0), NOW), Err(INVALID), "just looked");
    for number in 1..1000 {
        assert_eq!(verifier.verify_connection(&forged(number), NOW), Err(UNAVAILABLE));
    }
    assert_eq!(server.requests(), 1);
    let known = key.token("ES256", Some("a"), &ann());
    assert!(verifier.verify_connection(&known, NOW).is_ok(), "others are not held up");
    assert_eq!(verifier.verify_connection(&forged(0), NOW + KEY_SET_PAUSE_S), Err(INVALID));
    assert_eq!(server.requests(), 2);
}

#[test]
fn an_endpoint_that_is_down_is_asked_twice_and_then_left_alone() {
    let key = p256();
    let server = KeyServer::start(&[]);
    server.respond("503 Service Unavailable", "");
    let verifier = published(&server);
    let token = key.token("ES256", Some("a"), &ann());
    for _ in 0..100 {
        assert_eq!(verifier.verify_connection(&token, NOW), Err(UNAVAILABLE));
    }
    assert_eq!(server.requests(), 2);
    server.publish(&[key.jwk("a")]);
    assert!(verifier.verify_connection(&token, NOW + KEY_SET_PAUSE_S).is_ok());
}

#[test]
fn a_failed_fetch_leaves_fresh_keys_in_use() {
    let key = p256();
    let server = KeyServer::start(&[key.jwk("a")]);
    let verifier = published(&server);
    let known = key.token("ES256", Some("a"), &json!({}));
    assert!(verifier.verify_connection(&known, NOW).is_ok());
    server.respond("500 Internal Server Error", "");
    let forged = key.token("ES256", Some("forged"), &json!({}));
    let later = NOW + KEY_SET_PAUSE_S;
    assert_eq!(verifier.verify_connection(&forged, later), Err(UNAVAILABLE));
    assert!(verifier.verify_connection(&known, later).is_ok());
    let stale = NOW + KEY_SET_TTL_S;
    assert_eq!(verifier.verify_connection(&known, stale), Err(UNAVAILABLE), "stale keys go");
}

#[test]
fn an_endpoint_without_a_listener_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let token = p256().token("ES256", Some("a"), &ann());
    let verdict = verifier(&published_at(url)).verify_connection(&token, NOW);
    assert_eq!(verdict, Err(UNAVAILABLE));
}

#[test]
fn an_endpoint_that_never_answers_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let token = p256().token("ES256", Some("a"), &ann());
    let verdict = verifier(&published_at(url)).verify_connection(&token, NOW);
    assert_eq!(verdict, Err(UNAVAILABLE));
    drop(listener);
}

#[test]
fn a_tls_endpoint_that_closes_the_connection_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    let server = thread::spawn(move || listener.incoming().take(2).map(drop).count());
    let token = p256().token("ES256", Some("a"), &ann());
    let verdict = verifier(&published_at(url)).verify_connection(&token, NOW);
    assert_eq!(verdict, Err(UNAVAILABLE));
    assert_eq!(server.join().unwrap(), 2);
}

#[test]
fn answers_that_are_no_key_set_are_unavailable() {
    let key = p256();
    let many = vec![key.jwk("a"); KEY_SET_KEYS_MAX + 1];
    let long =
        json!({"keys": [key.jwk("a")]}).to_string() + &" ".repeat(KEY_SET_BYTES_MAX as usize);
    let token = key.token("ES256", Some("a"), &ann());
    for body in
        ["", "null", "[]", "{}", r#"{"keys":{}}"#, &json!({"keys": many}).to_string(), &long]
    {
        let server = KeyServer::start(&[]);
        server.respond("200 OK", body);
        let verdict = published(&server).verify_connection(&token, NOW);
        assert_eq!(verdict, Err(UNAVAILABLE), "{body:.40}");
    }
}

#[test]
fn redirections_are_not_followed() {
    let server = KeyServer::start(&[]);
    server.respond("302 Found\r\nlocation: /elsewhere", "");
    let token = p256().token("ES256", Some("a"), &ann());
    assert_eq!(published(&server).verify_connection(&token, NOW), Err(UNAVAILABLE));
    assert_eq!(server.paths(), ["/keys", "/keys"]);
}

fn with(mut key: Value, field: &str, value: Value) -> Value {
    key[field] = value;
    key
}

#[test]
fn keys_that_can_not_be_used_do_not_spoil_the_others() {
    let key = p256();
    let jwk = || key.jwk("a");
    let unusable = [
        json!(1),
        json!({}),
        with(jwk(), "key_ops", json!(["sign"])),
        with(jwk(), "use", json!("enc")),
        with(jwk(), "kty", json!("RSA")),
        with(jwk(), "kty", json!("oct")),
        with(jwk(), "crv", json!("P-384")),
        with(jwk(), "crv", json!("secp256k1")),
        with(jwk(), "x", json!("AAAA")),
        with(jwk(), "x", json!("%")),
        with(jwk(), "y", jwk()["x"].clone()),
        with(jwk(), "alg", json!("ES384")),
        with(jwk(), "alg", json!("RS256")),
        with(RSA.jwk("a"), "n", json!(encode([0xc5; 128]))),
        with(RSA.jwk("a"), "n", json!("")),
        with(RSA.jwk("a"), "e", json!("")),
    ];
    let token = key.token("ES256", Some("a"), &ann());
    for unusable in &unusable {
        let alone = KeyServer::start(std::slice::from_ref(unusable));
        let verdict = published(&alone).verify_connection(&token, NOW);
        assert_eq!(verdict, Err(INVALID), "{unusable}");
    }
    let mut set = unusable.to_vec();
    set.push(with(jwk(), "alg", json!("ES256")));
    let among = KeyServer::start(&set);
    assert!(published(&among).verify_connection(&token, NOW).is_ok());
}

#[test]
fn the_purpose_of_a_key_is_optional() {
    let key = p256();
    let mut without_use = key.jwk("a");
    without_use.as_object_mut().unwrap().remove("use");
    let mut with_operations = without_use.clone();
    with_operations["key_ops"] = json!(["verify"]);
    for published_key in [without_use, with_operations] {
        let server = KeyServer::start(std::slice::from_ref(&published_key));
        let token = key.token("ES256", Some("a"), &ann());
        let verdict = published(&server).verify_connection(&token, NOW);
        assert!(verdict.is_ok(), "{published_key}: RFC 7517 §4.2 and §4.3: optional");
    }
}

#[test]
fn a_key_of_another_shape_is_not_bent_into_one() {
    let (edwards, point) = (ed25519(), p256());
    let TestKey::Ecdsa(pair) = &point else { unreachable!("made as ECDSA") };
    let bytes = &pair.public_key().as_ref()[1..];
    let uneven = with(point.jwk("a"), "x", json!(encode(&bytes[..31])));
    let uneven = with(uneven, "y", json!(encode(&bytes[31..])));
    for (unusable, token) in [
        (uneven, point.token("ES256", Some("a"), &ann())),
        (with(edwards.jwk("a"), "crv", json!("X25519")), edwards.token("EdDSA", Some("a"), &ann())),
        (with(edwards.jwk("a"), "x", json!("AAAA")), edwards.token("EdDSA", Some("a"), &ann())),
    ] {
        let server = KeyServer::start(&[unusable]);
        assert_eq!(published(&server).verify_connection(&token, NOW), Err(INVALID));
    }
}

#[test]
fn an_rsa_modulus_may_have_a_leading_zero() {
    let plain = RSA.jwk("a");
    let modulus = URL_SAFE_NO_PAD.decode(plain["n"].as_str().unwrap()).unwrap();
    let padded = with(plain, "n", json!(encode([&[0], &modulus[..]].concat())));
    let server = KeyServer::start(&[padded]);
    let token = RSA.token("RS256", Some("a"), &ann());
    assert!(published(&server).verify_connection(&token, NOW).is_ok());
}

#[test]
fn a_key_checks_only_its_own_algorithms_and_signatures() {
    let (key, stranger) = (p256(), p256());
    let restricted = with(RSA.jwk("r"), "alg", json!("RS256"));
    let server = KeyServer::start(&[key.jwk("a"), restricted]);
    let verifier = published(&server);
    let refused = [
        stranger.token("ES256", Some("a"), &ann()),
        key.token("ES384", Some("a"), &ann()),
        key.token("EdDSA", Some("a"), &ann()),
        key.token("ES256", Some("r"), &ann()),
        RSA.token("RS256", Some("a"), &ann()),
        RSA.token("RS384", Some("r"), &ann()),
    ];
    for token in &refused {
        assert_eq!(verifier.verify_connection(token, NOW), Err(INVALID));
    }
    assert!(verifier.verify_connection(&RSA.token("RS256", Some("r"), &ann()), NOW).is_ok());
    assert_eq!(server.requests(), 1, "a known key id is never looked for again");
}

#[test]
fn tokens_that_no_set_can_verify_fetch_nothing() {
    let key = p256();
    let server = KeyServer::start(&[key.jwk("a")]);
    let settings = TokenSettings {
        hmac_secret_key: Some(SECRET.to_owned()),
        ecdsa_public_key: Some(key.pem()),
        ..published_at(server.url("/keys"))
    };
    let verifier = verifier(&settings);
    let refused = [
        hs256(SECRET, &ann()),
        key.token("ES256", None, &ann()),
        key.token("none", Some("a"), &ann()),
        "a.b.c".to_owned(),
    ];
    for token in &refused {
        assert_eq!(verifier.verify_connection(token, NOW), Err(INVALID));
    }
    assert_eq!(server.requests(), 0);
    assert!(super::verifier(&super::settings()).verify_connection(&refused[0], NOW).is_ok());
    let _ = settings;
}
