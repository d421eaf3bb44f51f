//! Options of one kind of token, as plain data. [`Verifier::new`](super::Verifier::new) checks
//! them.

use std::fmt;

/// Keys and expected claims of one kind of token (connection or subscription). `None` and an empty
/// text both mean "not configured".
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TokenSettings {
    /// Secret of HS256, HS384 and HS512 tokens.
    pub hmac_secret_key: Option<String>,
    /// Previous secret, which is accepted during a rotation.
    pub hmac_previous_secret_key: Option<String>,
    /// Unix time in seconds until which the previous secret is accepted; 0 means forever.
    pub hmac_previous_secret_key_valid_until: i64,
    /// Public key of RS256, RS384 and RS512 tokens, in PEM.
    pub rsa_public_key: Option<String>,
    /// Public key of ES256, ES384 or ES512 tokens, in PEM. Its curve decides the algorithm.
    pub ecdsa_public_key: Option<String>,
    /// URL of a JSON Web Key Set. If set, the keys above are ignored.
    pub jwks_public_endpoint: Option<String>,
    /// Text that claim `aud` must contain.
    pub audience: Option<String>,
    /// Regular expression that a value of claim `aud` must match.
    pub audience_regex: Option<String>,
    /// Text that claim `iss` must equal.
    pub issuer: Option<String>,
    /// Regular expression that claim `iss` must match.
    pub issuer_regex: Option<String>,
    /// Claim that contains the user id; `sub` if not configured.
    pub user_id_claim: Option<String>,
    /// Claim that contains the roles, as a text or a list of texts.
    pub role_claim: Option<String>,
    /// Accepts tokens without verifying their signatures. For development only.
    pub insecure_skip_signature_verify: bool,
}

/// Prints the names of the configured options, and never their values.
impl fmt::Debug for TokenSettings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let present = [
            ("hmac_secret_key", &self.hmac_secret_key),
            ("hmac_previous_secret_key", &self.hmac_previous_secret_key),
            ("rsa_public_key", &self.rsa_public_key),
            ("ecdsa_public_key", &self.ecdsa_public_key),
            ("jwks_public_endpoint", &self.jwks_public_endpoint),
            ("audience", &self.audience),
            ("audience_regex", &self.audience_regex),
            ("issuer", &self.issuer),
            ("issuer_regex", &self.issuer_regex),
            ("user_id_claim", &self.user_id_claim),
        ];
        let mut names = formatter.debug_set();
        names.entries(present.iter().filter(|(_, value)| value.is_some()).map(|(name, _)| name));
        if self.insecure_skip_signature_verify {
            names.entry(&"insecure_skip_signature_verify");
        }
        names.finish()
    }
}
