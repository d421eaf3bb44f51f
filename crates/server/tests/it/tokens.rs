//! Tokens with public keys: a slow key server must not delay other tokens.

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::support::{Fixture, Peer};

/// Shortest delay of a token whose key server does not answer: two requests of a second each.
const ONE_FETCH: Duration = Duration::from_secs(2);

fn signed(pair: &EcdsaKeyPair, claims: &str) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let begun = format!("{}.{}", part(r#"{"alg":"ES256","kid":"k"}"#), part(claims));
    let signature = pair.sign(&SystemRandom::new(), begun.as_bytes()).unwrap();
    format!("{begun}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn connect(address: SocketAddr, token: &str) -> Peer {
    let mut peer = Peer::dial(address);
    assert_eq!(peer.ask(&crate::support::upgrade("")).0, 101);
    peer.say(&format!(r#"{{"id":1,"connect":{{"token":"{token}"}}}}"#));
    peer
}

#[test]
fn silent_key_servers_delay_only_tokens_that_need_them() {
    let made = rcgen::KeyPair::generate().unwrap();
    let pair =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, made.serialized_der()).unwrap();
    let servers: Vec<_> = (0..6).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let ports: Vec<_> =
        servers.iter().map(|server| server.local_addr().unwrap().port().to_string()).collect();
    let fixture = Fixture::with(&[
        ("client.token.hmac_secret_key", ""),
        ("client.token.ecdsa_public_key", &made.public_key_pem()),
        ("client.subscription_token.enabled", "true"),
        ("client.subscription_token.issuer_regex", &format!("^(?P<port>{})$", ports.join("|"))),
        ("client.subscription_token.jwks_public_endpoint", "http://127.0.0.1:{{port}}/keys"),
        ("server.workers", "1"),
    ]);
    let ann = signed(&pair, r#"{"sub":"ann"}"#);
    let admitted = || {
        let mut peer = connect(fixture.address, &ann);
        let reply = peer.receive();
        assert!(reply.contains(r#""connect":{"#), "{reply}");
        peer
    };
    let mut waiting: Vec<Peer> = ports.iter().map(|_| admitted()).collect();
    let subscribe = |peer: &mut Peer, port: &str| {
        let claims = format!(r#"{{"sub":"ann","channel":"closed:x","iss":"{port}"}}"#);
        let token = signed(&pair, &claims);
        peer.say(&format!(r#"{{"id":2,"subscribe":{{"channel":"closed:x","token":"{token}"}}}}"#));
    };
    let began = Instant::now();
    subscribe(&mut waiting[0], &ports[0]);
    // The first fetch is under way and is never answered.
    let _held = servers[0].accept().unwrap();
    for (peer, port) in waiting.iter_mut().zip(&ports).skip(1) {
        subscribe(peer, port);
    }
    admitted();
    let passed = began.elapsed();
    assert!(passed < ONE_FETCH, "held up for {passed:?}");
    let reply = waiting[0].receive();
    assert!(reply.contains("temporary"), "{reply}");
}
