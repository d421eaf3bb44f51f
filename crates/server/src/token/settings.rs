//! What the configuration says about one kind of token. Plain data, checked by
//! [`Verifier::new`](super::Verifier::new).

use std::fmt;

/// Keys and rules for one kind of token (connection or subscription). `None` and an empty text
/// both mean "not configured".
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TokenSettings {
    /// Secret for HS256, HS384 and HS512.
    pub hmac_secret_key: Option<String>,
    /// Secret that still holds while producers move to the new one.
    pub hmac_previous_secret_key: Option<String>,
    /// Unix seconds until which the previous secret holds; 0: always.
    pub hmac_previous_secret_key_valid_until: i64,
    /// PEM public key for RS256, RS384 and RS512.
    pub rsa_public_key: Option<String>,
    /// PEM public key for ES256, ES384 or ES512, by its curve.
    pub ecdsa_public_key: Option<String>,
    /// Address of a JSON Web Key Set. When set, the keys above are ignored.
    pub jwks_public_endpoint: Option<String>,
    /// Claim `aud` must contain this text.
    pub audience: Option<String>,
    /// One of the values of claim `aud` must match this expression.
    pub audience_regex: Option<String>,
    /// Claim `iss` must be this text.
    pub issuer: Option<String>,
    /// Claim `iss` must match this expression.
    pub issuer_regex: Option<String>,
    /// Claim that holds the user id, instead of `sub`.
    pub user_id_claim: Option<String>,
    /// Claim that holds the roles: a text, or a list of texts.
    pub role_claim: Option<String>,
    /// Believes claims without checking signatures. Only for development.
    pub insecure_skip_signature_verify: bool,
}

/// Names which settings are present, and never what they hold.
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
