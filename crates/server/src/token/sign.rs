//! Signs tokens with a shared secret, for `tidings token` and for tests. A
//! [`Verifier`](super::Verifier) with the same secret accepts them.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;
use thiserror::Error;

/// Claims of both kinds of token.
#[derive(Clone, Default)]
pub struct TokenRequest {
    /// Algorithm of the signature.
    pub algorithm: HmacAlgorithm,
    /// User id; empty for an anonymous user.
    pub user: String,
    /// Seconds until the token expires; `None` never expires.
    pub expires_in: Option<u32>,
    /// Info of the connection in JSON, which other clients can see in presence.
    pub info: Option<String>,
    /// Claim `iss`; `None` omits it.
    pub issuer: Option<String>,
    /// Claim `aud`; `None` omits it.
    pub audience: Option<String>,
    /// Name of the claim that contains the user id; `None` means `sub`.
    pub user_id_claim: Option<String>,
}

/// Claims of a connection token.
#[derive(Clone, Default)]
pub struct ConnectionTokenRequest {
    /// Claims of both kinds of token.
    pub token: TokenRequest,
    /// Channels that the server subscribes the client to.
    pub channels: Vec<String>,
}

/// Claims of a subscription token.
#[derive(Clone, Default)]
pub struct SubscriptionTokenRequest {
    /// Claims of both kinds of token.
    pub token: TokenRequest,
    /// Channel that the token allows to subscribe to.
    pub channel: String,
    /// Data in JSON that the client receives with the subscription.
    pub data: Option<String>,
}

/// HMAC algorithm of a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HmacAlgorithm {
    /// HMAC with SHA-256.
    #[default]
    Hs256,
    /// HMAC with SHA-384.
    Hs384,
    /// HMAC with SHA-512.
    Hs512,
}

/// Why a token could not be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SignError {
    /// The secret is empty, so that everyone could sign tokens.
    #[error("the secret is empty")]
    NoSecret,
    /// The channel of a subscription token is empty.
    #[error("the channel is empty")]
    NoChannel,
    /// Info or data is not valid JSON.
    #[error("{claim} is not JSON")]
    NotJson {
        /// Name of the claim.
        claim: &'static str,
    },
}

/// Signs a connection token. `now_unix` is its time of issue in Unix seconds.
pub fn sign_connection(
    secret: &str,
    request: &ConnectionTokenRequest,
    now_unix: i64,
) -> Result<String, SignError> {
    let claims = Claims { channels: &request.channels, ..Claims::new(&request.token, now_unix)? };
    sign(secret, request.token.algorithm, &claims)
}

/// Signs a subscription token. `now_unix` is its time of issue in Unix seconds.
pub fn sign_subscription(
    secret: &str,
    request: &SubscriptionTokenRequest,
    now_unix: i64,
) -> Result<String, SignError> {
    if request.channel.is_empty() {
        return Err(SignError::NoChannel);
    }
    let claims = Claims {
        channel: Some(&request.channel),
        data: json("data", &request.data)?,
        ..Claims::new(&request.token, now_unix)?
    };
    sign(secret, request.token.algorithm, &claims)
}

/// The claims of a token in the order of the payload. Those that are `None` or empty are omitted.
struct Claims<'r> {
    user_claim: &'r str,
    user: &'r str,
    issued_at: i64,
    expires_at: Option<i64>,
    issuer: Option<&'r str>,
    audience: Option<&'r str>,
    channel: Option<&'r str>,
    channels: &'r [String],
    info: Option<&'r RawValue>,
    data: Option<&'r RawValue>,
}

impl<'r> Claims<'r> {
    fn new(request: &'r TokenRequest, now_unix: i64) -> Result<Self, SignError> {
        Ok(Self {
            user_claim: request.user_id_claim.as_deref().unwrap_or("sub"),
            user: &request.user,
            issued_at: now_unix,
            expires_at: request.expires_in.map(|seconds| now_unix.saturating_add(seconds.into())),
            issuer: request.issuer.as_deref(),
            audience: request.audience.as_deref(),
            channel: None,
            channels: &[],
            info: json("info", &request.info)?,
            data: None,
        })
    }
}

impl Serialize for Claims<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry(self.user_claim, self.user)?;
        map.serialize_entry("iat", &self.issued_at)?;
        write_some(&mut map, "exp", self.expires_at)?;
        write_some(&mut map, "iss", self.issuer)?;
        write_some(&mut map, "aud", self.audience)?;
        write_some(&mut map, "channel", self.channel)?;
        write_some(&mut map, "channels", Some(self.channels).filter(|list| !list.is_empty()))?;
        write_some(&mut map, "info", self.info)?;
        write_some(&mut map, "data", self.data)?;
        map.end()
    }
}

fn write_some<M: SerializeMap>(
    map: &mut M,
    claim: &'static str,
    value: Option<impl Serialize>,
) -> Result<(), M::Error> {
    value.map_or(Ok(()), |value| map.serialize_entry(claim, &value))
}

fn json<'r>(
    claim: &'static str,
    text: &'r Option<String>,
) -> Result<Option<&'r RawValue>, SignError> {
    text.as_deref().map(serde_json::from_str).transpose().map_err(|_| SignError::NotJson { claim })
}

fn sign(secret: &str, algorithm: HmacAlgorithm, claims: &Claims<'_>) -> Result<String, SignError> {
    if secret.is_empty() {
        return Err(SignError::NoSecret);
    }
    let (hash, header) = match algorithm {
        HmacAlgorithm::Hs256 => (hmac::HMAC_SHA256, r#"{"alg":"HS256","typ":"JWT"}"#),
        HmacAlgorithm::Hs384 => (hmac::HMAC_SHA384, r#"{"alg":"HS384","typ":"JWT"}"#),
        HmacAlgorithm::Hs512 => (hmac::HMAC_SHA512, r#"{"alg":"HS512","typ":"JWT"}"#),
    };
    let payload = serde_json::to_vec(claims).expect("texts, numbers and JSON become JSON");
    let mut token = URL_SAFE_NO_PAD.encode(header);
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(payload, &mut token);
    let signature = hmac::sign(&hmac::Key::new(hash, secret.as_bytes()), token.as_bytes());
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    Ok(token)
}
