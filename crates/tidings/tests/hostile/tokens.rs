//! Forged and malformed tokens.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use crate::case::Case;
use crate::peer::{Peer, Received};

const CLAIMS: &str = r#"{"sub":"eve"}"#;
const SECRET: &str = "a secret of the tests";

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A token with this header and these claims, and whatever `sign` makes of both.
fn token(header: &str, claims: &str, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let signed = format!("{}.{}", encode(header), encode(claims));
    let signature = encode(sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

fn hs256(secret: &[u8], signed: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed).as_ref().to_vec()
}

fn nothing(_signed: &[u8]) -> Vec<u8> {
    Vec::new()
}

fn pem(der: &[u8]) -> String {
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
}

/// What the server answers to a connection with this token.
fn end(case: &Case, token: &str) -> Received {
    let mut peer = Peer::upgraded(case.server.address);
    peer.say(&format!(r#"{{"id":1,"connect":{{"token":"{token}"}}}}"#));
    peer.next()
}

#[test]
fn tokens_made_up_are_refused() {
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let curve = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let other_curve = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
    let rsa_der = rsa.public_key().as_der().unwrap();
    let rsa_pem = pem(rsa_der.as_ref());
    let curve_pem = pem(curve.public_key().as_der().unwrap().as_ref());
    let case = Case::busy(
        "tokens made up",
        &[
            ("log.level", "debug"),
            ("client.token.hmac_secret_key", SECRET),
            ("client.token.rsa_public_key", &rsa_pem),
            ("client.token.ecdsa_public_key", &curve_pem),
        ],
    );
    let random = SystemRandom::new();
    let right = |signed: &[u8]| hs256(SECRET.as_bytes(), signed);
    let by =
        |key: &EcdsaKeyPair, signed: &[u8]| key.sign(&random, signed).unwrap().as_ref().to_vec();
    let hs = r#"{"alg":"HS256"}"#;
    let by_curve = token(r#"{"alg":"ES256"}"#, CLAIMS, |signed| by(&curve, signed));
    for good in [token(hs, CLAIMS, right), by_curve] {
        assert!(matches!(end(&case, &good), Received::Text(_)), "the right key opens");
    }
    let megabyte = format!(r#"{{"sub":"eve","x":"{}"}}"#, "x".repeat(1 << 20));
    assert_eq!(end(&case, &token(hs, &megabyte, right)), Received::Closed(1009));
    let zeros = |count: usize| move |_: &[u8]| vec![0; count];
    let deep = format!(r#"{{"sub":"eve","info":{}1{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
    let cases = [
        ("no algorithm", token(r#"{"alg":"none"}"#, CLAIMS, nothing)),
        ("no algorithm, disguised", token(r#"{"alg":"nOnE"}"#, CLAIMS, nothing)),
        ("an empty algorithm", token(r#"{"alg":""}"#, CLAIMS, nothing)),
        ("two algorithms", token(r#"{"alg":"none","alg":"HS256"}"#, CLAIMS, nothing)),
        ("no signature", token(hs, CLAIMS, nothing)),
        ("the public key's text as a secret", token(hs, CLAIMS, |s| hs256(rsa_pem.as_bytes(), s))),
        (
            "the public key's text, trimmed",
            token(hs, CLAIMS, |s| hs256(rsa_pem.trim().as_bytes(), s)),
        ),
        ("the public key's bytes as a secret", token(hs, CLAIMS, |s| hs256(rsa_der.as_ref(), s))),
        ("another curve", token(r#"{"alg":"ES256"}"#, CLAIMS, |s| by(&other_curve, s))),
        ("another curve, named", token(r#"{"alg":"ES384"}"#, CLAIMS, |s| by(&other_curve, s))),
        ("a signature of zeros", token(r#"{"alg":"ES256"}"#, CLAIMS, zeros(64))),
        ("an RSA signature of zeros", token(r#"{"alg":"RS256"}"#, CLAIMS, zeros(256))),
        ("a curve's signature as RSA's", token(r#"{"alg":"RS256"}"#, CLAIMS, |s| by(&curve, s))),
        ("critical extensions", token(r#"{"alg":"HS256","crit":["x"]}"#, CLAIMS, right)),
        (
            "a key id that is a path",
            token(r#"{"alg":"HS256","kid":"/dev/null"}"#, CLAIMS, |s| hs256(b"", s)),
        ),
        (
            "a key of its own",
            token(r#"{"alg":"HS256","jwk":{"kty":"oct","k":"AAAA"}}"#, CLAIMS, |s| {
                hs256(&[0; 3], s)
            }),
        ),
        ("claims that are no object", token(hs, "[1]", right)),
        ("deep claims", token(hs, &deep, |s| hs256(b"wrong", s))),
        ("dots", ".".repeat(1000)),
        ("60 kB of nothing", "A".repeat(60_000)),
    ];
    for (name, token) in &cases {
        assert_eq!(end(&case, token), Received::Closed(3500), "{name}");
    }
    let said = case.finish(format!("{} kinds refused with 3500", cases.len()));
    for (name, token) in &cases {
        let claims = token.split('.').nth(1).filter(|claims| !claims.is_empty());
        assert!(!claims.is_some_and(|claims| said.contains(claims)), "{name} is in the log");
    }
    assert!(!said.contains(SECRET), "the secret is in the log");
}

#[test]
fn many_forgeries_at_once_keep_nobody_waiting() {
    const FORGERIES: usize = 500;
    let pem = pem(RsaKeyPair::generate(KeySize::Rsa2048)
        .unwrap()
        .public_key()
        .as_der()
        .unwrap()
        .as_ref());
    let case = Case::busy("forged RSA signatures", &[("client.token.rsa_public_key", &pem)]);
    let forged = token(r#"{"alg":"RS256"}"#, CLAIMS, |_| vec![0; 256]);
    let peers: Vec<Peer> = (0..FORGERIES)
        .map(|_| {
            let mut peer = Peer::upgraded(case.server.address);
            peer.say(&format!(r#"{{"id":1,"connect":{{"token":"{forged}"}}}}"#));
            peer
        })
        .collect();
    peers.into_iter().for_each(|mut peer| assert_eq!(peer.end(), Received::Closed(3500)));
    case.finish(format!("{FORGERIES} at once refused with 3500"));
}

#[test]
fn forged_key_ids_do_not_become_requests() {
    const TOKENS: usize = 200;
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let (x, y) = key.public_key().as_ref()[1..].split_at(32);
    let set = format!(
        r#"{{"keys":[{{"kty":"EC","crv":"P-256","kid":"real","use":"sig","x":"{}","y":"{}"}}]}}"#,
        encode(x),
        encode(y)
    );
    let (endpoint, fetches) = key_server(set);
    let case = Case::busy("forged key ids", &[("client.token.jwks_public_endpoint", &endpoint)]);
    let random = SystemRandom::new();
    let signed_with = |kid: &str| {
        let header = format!(r#"{{"alg":"ES256","kid":"{kid}"}}"#);
        token(&header, r#"{"sub":"eve"}"#, |s| key.sign(&random, s).unwrap().as_ref().to_vec())
    };
    assert!(matches!(end(&case, &signed_with("real")), Received::Text(_)), "the real key opens");
    let mut later = 0;
    for number in 0..TOKENS {
        let kid = if number == 0 { "../../etc/passwd".to_owned() } else { format!("key{number}") };
        match end(&case, &signed_with(&kid)) {
            Received::Closed(3500) => {}
            // Whether such a key was published since is not asked again so soon.
            Received::Text(text) if text.contains(r#""error":{"code":100"#) => later += 1,
            other => panic!("{kid}: {other:?}"),
        }
    }
    let fetched = fetches.load(Ordering::Relaxed);
    assert!(fetched <= 4, "{fetched} fetches");
    case.finish(format!(
        "{TOKENS} refused, {later} of them for now; {fetched} fetches of the key set"
    ));
}

/// Serves a key set; gives its address and how often it was asked.
fn key_server(set: String) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}/keys", listener.local_addr().unwrap());
    let fetches = Arc::new(AtomicUsize::new(0));
    let counted = fetches.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            counted.fetch_add(1, Ordering::Relaxed);
            let mut request = [0; 4096];
            let _asked = stream.read(&mut request);
            let length = set.len();
            let _sent = stream.write_all(
                format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{set}"
                )
                .as_bytes(),
            );
        }
    });
    (endpoint, fetches)
}
