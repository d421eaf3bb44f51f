//! Detects secrets that can be guessed.
//!
//! Invariant: a message about a secret does not contain it.

/// Purpose of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SecretUse {
    /// Signs tokens. With one token, an attacker can test secrets offline.
    Signing,
    /// Is sent to the server, which limits the rate of attempts.
    Password,
}

/// RFC 7518 §3.2: a key of HS256 must be at least as long as its hash, 32 bytes.
const SIGNING_BYTES_MIN: usize = 32;
/// Minimum length of a password in bytes: 128 bits, if it is random.
const PASSWORD_BYTES_MIN: usize = 16;
/// Minimum number of different bytes. A random secret of 16 bytes has more.
const DISTINCT_MIN: usize = 6;

/// Words that occur in default and example secrets.
const WORDS: &[&str] = &[
    "secret",
    "password",
    "passwd",
    "changeme",
    "change_me",
    "change-me",
    "example",
    "your-",
    "your_",
    "my-",
    "my_",
    "qwerty",
    "12345",
    "abcdef",
    "letmein",
    "default",
    "insecure",
    "tidings",
    "centrifugo",
    "keyboard",
    "test",
    "admin",
    "token",
    "api-key",
    "api_key",
    "apikey",
];

/// Secrets that are published in documentation of the compatible server and of token libraries.
const PUBLISHED: &[&str] = &[
    "bbe7d157-a253-4094-9759-06a8236543f9",
    "d7627bb6-2292-4911-82e1-615c0ed3eebb",
    "your-256-bit-secret",
    "a-string-secret-at-least-256-bits-long",
];

/// Maximum length in bytes of a secret of which a word is a large part.
const WITH_WORD_MAX: usize = 24;

/// Why a secret can be guessed; `None` if it is strong enough.
pub(super) fn weakness(used: SecretUse, secret: &str) -> Option<String> {
    let least = match used {
        SecretUse::Signing => SIGNING_BYTES_MIN,
        SecretUse::Password => PASSWORD_BYTES_MIN,
    };
    let lower = secret.to_lowercase();
    let mut distinct: Vec<u8> = secret.bytes().collect();
    distinct.sort_unstable();
    distinct.dedup();
    if PUBLISHED.contains(&&*lower) {
        return Some("is published in public documentation".to_owned());
    }
    if secret.len() <= WITH_WORD_MAX && WORDS.iter().any(|word| lower.contains(word)) {
        return Some("can be guessed: it contains a common word".to_owned());
    }
    if secret.len() < least {
        let why = match used {
            SecretUse::Signing => "with one token, an attacker can test such secrets offline",
            SecretUse::Password => "it can be found by trial",
        };
        return Some(format!("has less than {least} bytes: {why}"));
    }
    (distinct.len() < DISTINCT_MIN)
        .then(|| "can be guessed: it has too few different characters".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_that_can_be_guessed_are_detected() {
        let weak = |used, secret: &str| weakness(used, secret).is_some();
        for secret in ["a", "secret", "my_api_key", "Changeme-123", "k", &"ab".repeat(40)] {
            assert!(
                weak(SecretUse::Signing, secret) && weak(SecretUse::Password, secret),
                "{secret}"
            );
        }
        let hex = "5f2b8c0e9d4a7163f0e1d2c3b4a59687";
        assert!(!weak(SecretUse::Signing, hex) && !weak(SecretUse::Password, hex));
        assert!(!weak(SecretUse::Password, &hex[..16]) && weak(SecretUse::Signing, &hex[..31]));
        assert!(weak(SecretUse::Signing, "bbe7d157-a253-4094-9759-06a8236543f9"));
        assert!(!weak(SecretUse::Signing, "0b6a6fb0-8a3c-4a0b-9f2b-4c1d9be2c6f7"));
    }
}
