//! Keys made for a test, and tokens signed with them.

use std::sync::LazyLock;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P256K1_SHA256_FIXED_SIGNING,
    ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384,
    RSA_PKCS1_SHA512,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// A private key.
pub(super) enum TestKey {
    Rsa(Box<RsaKeyPair>),
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// Made once, as it takes long.
pub(super) static RSA: LazyLock<TestKey> = LazyLock::new(rsa);

pub(super) fn rsa() -> TestKey {
    TestKey::Rsa(Box::new(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()))
}

pub(super) fn p256() -> TestKey {
    ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING)
}

pub(super) fn p384() -> TestKey {
    ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING)
}

pub(super) fn p521() -> TestKey {
    ecdsa(&ECDSA_P521_SHA512_FIXED_SIGNING)
}

pub(super) fn p256k1() -> TestKey {
    ecdsa(&ECDSA_P256K1_SHA256_FIXED_SIGNING)
}

pub(super) fn ed25519() -> TestKey {
    TestKey::Ed25519(Ed25519KeyPair::generate().unwrap())
}

fn ecdsa(algorithm: &'static EcdsaSigningAlgorithm) -> TestKey {
    TestKey::Ecdsa(EcdsaKeyPair::generate(algorithm).unwrap())
}

impl TestKey {
    /// The public half as PEM.
    pub(super) fn pem(&self) -> String {
        let der = match self {
            Self::Rsa(key) => key.public_key().as_der().unwrap(),
            Self::Ecdsa(key) => key.public_key().as_der().unwrap(),
            Self::Ed25519(key) => key.public_key().as_der().unwrap(),
        };
        pem("PUBLIC KEY", der.as_ref())
    }

    /// The public half as an entry of a key set.
    pub(super) fn jwk(&self, key_id: &str) -> Value {
        match self {
            Self::Rsa(key) => {
                let (modulus, exponent) = rsa_components(key.public_key().as_ref());
                json!({"kty": "RSA", "kid": key_id, "use": "sig",
                    "n": encode(modulus), "e": encode(exponent)})
            }
            Self::Ecdsa(key) => {
                let point = &key.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                let curve = match x.len() {
                    32 => "P-256",
                    48 => "P-384",
                    _ => "P-521",
                };
                json!({"kty": "EC", "kid": key_id, "use": "sig", "crv": curve,
                    "x": encode(x), "y": encode(y)})
            }
            Self::Ed25519(key) => {
                json!({"kty": "OKP", "kid": key_id, "use": "sig", "crv": "Ed25519",
                    "x": encode(key.public_key())})
            }
        }
    }

    /// A token with these claims, whose header names `algorithm`, and the key if it has an id.
    pub(super) fn token(&self, algorithm: &str, key_id: Option<&str>, claims: &Value) -> String {
        let header = match key_id {
            Some(id) => json!({"alg": algorithm, "typ": "JWT", "kid": id}),
            None => json!({"alg": algorithm, "typ": "JWT"}),
        };
        let signed = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        let signature = self.sign(algorithm, signed.as_bytes());
        format!("{signed}.{}", encode(signature))
    }

    fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Rsa(key) => {
                let padding = match algorithm {
                    "RS384" => &RSA_PKCS1_SHA384,
                    "RS512" => &RSA_PKCS1_SHA512,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(padding, &random, message, &mut signature).unwrap();
                signature
            }
            Self::Ecdsa(key) => key.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Ed25519(key) => key.sign(message).as_ref().to_vec(),
        }
    }
}

/// A token signed with a secret.
pub(super) fn hs256(secret: &str, claims: &Value) -> String {
    let signed = format!("{}.{}", encode(r#"{"alg":"HS256"}"#), encode(claims.to_string()));
    hmac_sign(secret, signed)
}

/// Appends the HS256 signature to a header and payload.
pub(super) fn hmac_sign(secret: &str, signed: String) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = encode(hmac::sign(&key, signed.as_bytes()));
    signed + "." + &signature
}

pub(super) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(super) fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// An RSA public key with any odd modulus of this many bytes, as DER (RFC 8017, A.1.1).
pub(super) fn rsa_der(modulus_bytes: usize) -> Vec<u8> {
    let integer = |value: &[u8]| [der_length(2, value.len()), value.to_vec()].concat();
    let mut modulus = vec![0xc5; modulus_bytes];
    modulus.insert(0, 0);
    let body = [integer(&modulus), integer(&[1, 0, 1])].concat();
    [der_length(0x30, body.len()), body].concat()
}

fn der_length(tag: u8, length: usize) -> Vec<u8> {
    let [high, low] = u16::try_from(length).unwrap().to_be_bytes();
    match length {
        0..128 => vec![tag, low],
        128..256 => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    }
}

/// Modulus and exponent out of the DER form of a public key of 2048 bits: two integers.
fn rsa_components(der: &[u8]) -> (&[u8], &[u8]) {
    // 30 82 ll ll · 02 82 01 01 · 00 modulus · 02 03 exponent
    let modulus = &der[9..9 + 256];
    let exponent = &der[9 + 256 + 2..];
    (modulus, exponent)
}
