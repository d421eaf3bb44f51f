//! Whether a secret can be guessed.
//!
//! Invariant: what is said about a secret does not tell it.

/// What a secret is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Tokens are signed with it: whoever has one token can try secrets without asking anybody.
    Signing,
    /// It is sent to the server, which can be asked only so often.
    Password,
}

/// RFC 7518 §3.2: a key of HS256 has at least as many bytes as its hash.
const SIGNING_BYTES_MIN: usize = 32;
const PASSWORD_BYTES_MIN: usize = 16;
/// Fewer different bytes are a pattern: an eighth of a long secret at the most.
const DISTINCT_MIN: usize = 6;

/// Words that stand in secrets which nobody has chosen yet.
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

/// Secrets that stand in documentation of the compatible server and of token libraries.
const PUBLISHED: &[&str] = &[
    "bbe7d157-a253-4094-9759-06a8236543f9",
    "d7627bb6-2292-4911-82e1-615c0ed3eebb",
    "your-256-bit-secret",
    "a-string-secret-at-least-256-bits-long",
];

/// Bytes of a secret in which a word is most of it.
const WITH_WORD_MAX: usize = 24;

/// Why it can be guessed, if it can.
pub(super) fn weakness(used: Use, secret: &str) -> Option<String> {
    let least = match used {
        Use::Signing => SIGNING_BYTES_MIN,
        Use::Password => PASSWORD_BYTES_MIN,
    };
    let lower = secret.to_lowercase();
    let mut distinct: Vec<u8> = secret.bytes().collect();
    distinct.sort_unstable();
    distinct.dedup();
    if PUBLISHED.contains(&&*lower) {
        return Some("stands in public documentation".to_owned());
    }
    if secret.len() <= WITH_WORD_MAX && WORDS.iter().any(|word| lower.contains(word)) {
        return Some("can be guessed: it holds a word that many use".to_owned());
    }
    if secret.len() < least {
        let why = match used {
            Use::Signing => "whoever has one token can try such secrets without asking the server",
            Use::Password => "it can be tried out",
        };
        return Some(format!("has less than {least} bytes: {why}"));
    }
    (distinct.len() < DISTINCT_MIN).then(|| "can be guessed: it repeats few characters".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_guessed_is_known() {
        let weak = |used, secret: &str| weakness(used, secret).is_some();
        for secret in ["a", "secret", "my_api_key", "Changeme-123", "k", &"ab".repeat(40)] {
            assert!(weak(Use::Signing, secret) && weak(Use::Password, secret), "{secret}");
        }
        let hex = "5f2b8c0e9d4a7163f0e1d2c3b4a59687";
        assert!(!weak(Use::Signing, hex) && !weak(Use::Password, hex));
        assert!(!weak(Use::Password, &hex[..16]) && weak(Use::Signing, &hex[..31]));
        assert!(weak(Use::Signing, "bbe7d157-a253-4094-9759-06a8236543f9"));
        assert!(!weak(Use::Signing, "0b6a6fb0-8a3c-4a0b-9f2b-4c1d9be2c6f7"));
    }
}
