//! The verifier accepts the tokens that this crate signs.

use bytes::Bytes;

use super::super::{
    ConnectionTokenRequest, HmacAlgorithm, SignError, SubscriptionTokenRequest, TokenRequest,
    TokenSettings, sign_connection, sign_subscription,
};
use super::{EXPIRED, NOW, SECRET, settings, verifier};

fn ann() -> TokenRequest {
    TokenRequest {
        algorithm: HmacAlgorithm::Hs512,
        user: "ann \"the first\"".to_owned(),
        expires_in: Some(60),
        info: Some(r#"{"n": 12345678901234567890123}"#.to_owned()),
        issuer: Some("us".to_owned()),
        audience: Some("them".to_owned()),
        user_id_claim: None,
    }
}

#[test]
fn a_signed_connection_token_has_the_requested_claims() {
    let settings = TokenSettings {
        issuer: Some("us".to_owned()),
        audience: Some("them".to_owned()),
        ..settings()
    };
    let request =
        ConnectionTokenRequest { token: ann(), channels: vec!["a".to_owned(), "b".to_owned()] };
    let token = sign_connection(SECRET, &request, NOW).unwrap();
    let claims = verifier(&settings).verify_connection(&token, NOW).unwrap();
    assert_eq!(claims.user, "ann \"the first\"");
    assert_eq!(claims.expire_at, Some(NOW + 60));
    assert_eq!(claims.info, Bytes::from_static(br#"{"n":12345678901234567890123}"#));
    assert_eq!(claims.subscriptions.len(), 2);
    assert_eq!(verifier(&settings).verify_connection(&token, NOW + 60), Err(EXPIRED));
}

#[test]
fn a_signed_subscription_token_has_the_requested_claims() {
    let settings = TokenSettings { user_id_claim: Some("user".to_owned()), ..settings() };
    let request = SubscriptionTokenRequest {
        token: TokenRequest {
            user: "ann".to_owned(),
            user_id_claim: Some("user".to_owned()),
            ..TokenRequest::default()
        },
        channel: "news".to_owned(),
        data: Some("[1]".to_owned()),
    };
    let token = sign_subscription(SECRET, &request, NOW).unwrap();
    let claims = verifier(&settings).verify_subscription(&token, NOW + 1_000_000).unwrap();
    assert_eq!((claims.user.as_str(), claims.channel.as_str()), ("ann", "news"));
    assert_eq!(claims.grant.expire_at, None);
    assert_eq!(claims.grant.data, Bytes::from_static(b"[1]"));
}

#[test]
fn mistakes_are_reported_before_anything_is_signed() {
    let connection = |info: Option<&str>| ConnectionTokenRequest {
        token: TokenRequest { info: info.map(str::to_owned), ..TokenRequest::default() },
        channels: Vec::new(),
    };
    assert_eq!(sign_connection("", &connection(None), NOW), Err(SignError::NoSecret));
    for info in ["", "{", "{} {}", "ann"] {
        let verdict = sign_connection(SECRET, &connection(Some(info)), NOW);
        assert_eq!(verdict, Err(SignError::NotJson { claim: "info" }), "{info}");
    }
    let nowhere = SubscriptionTokenRequest::default();
    assert_eq!(sign_subscription(SECRET, &nowhere, NOW), Err(SignError::NoChannel));
}
