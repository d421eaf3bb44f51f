//! A parsed public key with the algorithms that it supports.

use aws_lc_rs::rsa;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519,
    EcdsaVerificationAlgorithm, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents,
};

use super::algorithm::Algorithm;
use super::cause::Cause;
use super::jws::Jws;
use super::key_error::KeyFault;
use super::limits::{RSA_BITS_MAX, RSA_BITS_MIN};
use super::pem;

/// A public key, prepared for each algorithm that it supports.
pub(super) struct PublicKey {
    checks: Vec<(Algorithm, ParsedPublicKey)>,
}

impl PublicKey {
    /// Verifies the signature of a token. An unsupported algorithm (another family, size or curve)
    /// is refused without looking at the signature.
    pub(super) fn verify(&self, algorithm: Algorithm, jws: &Jws<'_>) -> Result<(), Cause> {
        let (_, key) =
            self.checks.iter().find(|(known, _)| *known == algorithm).ok_or(Cause::Algorithm)?;
        key.verify_sig(jws.signed, &jws.signature).map_err(|_| Cause::Signature)
    }

    /// Whether this key supports the algorithm.
    pub(super) fn supports(&self, algorithm: Algorithm) -> bool {
        self.checks.iter().any(|(known, _)| *known == algorithm)
    }

    /// Restricts this key to one algorithm; `None` if it does not support it.
    pub(super) fn restricted_to(mut self, algorithm: Algorithm) -> Option<Self> {
        self.checks.retain(|(known, _)| *known == algorithm);
        (!self.checks.is_empty()).then_some(self)
    }

    /// An RSA key from PEM, in SPKI or PKCS #1 form.
    pub(super) fn rsa_from_pem(text: &str) -> Result<Self, KeyFault> {
        let der = pem::decode_public_key(text, &["PUBLIC KEY", "RSA PUBLIC KEY"])?;
        let key = rsa::PublicKey::from_der(&der).map_err(|_| KeyFault::NotRsa)?;
        let bits = RsaParameters::public_modulus_len(key.as_ref()).map_err(|_| KeyFault::NotRsa)?;
        if !(RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits) {
            return Err(KeyFault::RsaSize { bits });
        }
        let checks = RSA_CHECKS
            .iter()
            .map(|(name, check)| Ok((*name, ParsedPublicKey::new(*check, &key)?)))
            .collect::<Result<_, aws_lc_rs::error::KeyRejected>>()
            .map_err(|_| KeyFault::NotRsa)?;
        Ok(Self { checks })
    }

    /// An ECDSA key from PEM. Its curve decides the algorithm.
    pub(super) fn ecdsa_from_pem(text: &str) -> Result<Self, KeyFault> {
        let der = pem::decode_public_key(text, &["PUBLIC KEY"])?;
        CURVES.iter().find_map(|curve| curve.key(&der)).ok_or(KeyFault::NotEcdsa)
    }

    /// An RSA key from the modulus and exponent in a key set.
    pub(super) fn rsa_from_components(modulus: &[u8], exponent: &[u8]) -> Option<Self> {
        let n = without_leading_zeros(modulus);
        let bits = u32::try_from(n.len()).ok()?.checked_mul(8)? - n.first()?.leading_zeros();
        if !(RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits) {
            return None;
        }
        let components = RsaPublicKeyComponents { n, e: without_leading_zeros(exponent) };
        let checks = RSA_CHECKS
            .iter()
            .map(|(name, check)| Some((*name, components.to_parsed_public_key(check).ok()?)))
            .collect::<Option<_>>()?;
        Some(Self { checks })
    }

    /// An ECDSA key from the point in a key set.
    pub(super) fn ecdsa_from_point(curve: &str, x: &[u8], y: &[u8]) -> Option<Self> {
        let curve = CURVES.iter().find(|known| known.name == curve)?;
        if x.len() != curve.coordinate_bytes || y.len() != curve.coordinate_bytes {
            return None;
        }
        curve.key(&[&[UNCOMPRESSED_POINT], x, y].concat())
    }

    /// An Ed25519 key from the 32 bytes in a key set.
    pub(super) fn ed25519(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != ED25519_BYTES {
            return None;
        }
        let key = ParsedPublicKey::new(&ED25519, bytes).ok()?;
        Some(Self { checks: vec![(Algorithm::EdDsa, key)] })
    }
}

fn without_leading_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

const RSA_CHECKS: [(Algorithm, &RsaParameters); 3] = [
    (Algorithm::Rs256, &RSA_PKCS1_2048_8192_SHA256),
    (Algorithm::Rs384, &RSA_PKCS1_2048_8192_SHA384),
    (Algorithm::Rs512, &RSA_PKCS1_2048_8192_SHA512),
];

/// An elliptic curve with its name in a key set and its algorithm.
struct Curve {
    name: &'static str,
    coordinate_bytes: usize,
    algorithm: Algorithm,
    check: &'static EcdsaVerificationAlgorithm,
}

impl Curve {
    fn key(&self, encoded: &[u8]) -> Option<PublicKey> {
        let key = ParsedPublicKey::new(self.check, encoded).ok()?;
        Some(PublicKey { checks: vec![(self.algorithm, key)] })
    }
}

const CURVES: [Curve; 3] = [
    Curve {
        name: "P-256",
        coordinate_bytes: 32,
        algorithm: Algorithm::Es256,
        check: &ECDSA_P256_SHA256_FIXED,
    },
    Curve {
        name: "P-384",
        coordinate_bytes: 48,
        algorithm: Algorithm::Es384,
        check: &ECDSA_P384_SHA384_FIXED,
    },
    Curve {
        name: "P-521",
        coordinate_bytes: 66,
        algorithm: Algorithm::Es512,
        check: &ECDSA_P521_SHA512_FIXED,
    },
];

/// First byte of a point that is written with both coordinates (SEC 1 §2.3.3).
const UNCOMPRESSED_POINT: u8 = 4;

const ED25519_BYTES: usize = 32;
