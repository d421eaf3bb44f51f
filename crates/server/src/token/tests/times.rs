//! The validity of tokens, and the lifetime of what they grant.

use serde_json::json;

use super::{EXPIRED, INVALID, NOW, SECRET, connect, hs256, settings, subscribe, verifier};

#[test]
fn a_token_holds_from_nbf_until_exp() {
    for (claims, holds) in [
        (json!({"exp": NOW + 1}), true),
        (json!({"exp": NOW}), false),
        (json!({"exp": NOW - 1}), false),
        (json!({"exp": 0}), false),
        (json!({"exp": -1}), false),
        (json!({"exp": NOW as f64 + 1.5}), true),
        (json!({"exp": NOW as f64 + 0.5}), false),
        (json!({"exp": u64::MAX}), true),
        (json!({"exp": 1e300}), true),
        (json!({"nbf": NOW}), true),
        (json!({"nbf": NOW + 1}), false),
        (json!({"nbf": NOW as f64 + 0.5}), false),
        (json!({"nbf": -5, "exp": NOW + 1}), true),
        (json!({"exp": null, "nbf": null}), true),
        // As a text, as some producers write numbers.
        (
            json!({"exp": (NOW + 1).to_string(), "nbf": NOW.to_string(), "iat": NOW.to_string()}),
            true,
        ),
        (json!({"exp": NOW.to_string()}), false),
        (json!({"exp": format!("{NOW}.5")}), false),
        (json!({"exp": "1.8e9", "nbf": "-5"}), true),
        (json!({"nbf": (NOW + 1).to_string()}), false),
        (json!({}), true),
    ] {
        let verdict = connect(&claims).map(|_| ());
        assert_eq!(verdict, if holds { Ok(()) } else { Err(EXPIRED) }, "{claims}");
    }
    let late = json!({"channel": "news", "exp": NOW - 1});
    assert_eq!(subscribe(&late), Err(EXPIRED));
}

#[test]
fn an_expired_token_with_a_wrong_signature_is_invalid() {
    let token = hs256("another secret", &json!({"exp": NOW - 1}));
    assert_eq!(verifier(&settings()).verify_connection(&token, NOW), Err(INVALID));
    assert_eq!(connect(&json!({"exp": NOW - 1})), Err(EXPIRED), "with {SECRET}: expired");
}

#[test]
fn expire_at_overrides_the_expiration_of_the_token() {
    for (claims, end) in [
        (json!({"exp": NOW + 9}), Some(NOW + 9)),
        (json!({}), None),
        (json!({"exp": NOW + 9, "expire_at": null}), Some(NOW + 9)),
        (json!({"exp": NOW + 9, "expire_at": NOW + 99}), Some(NOW + 99)),
        (json!({"exp": NOW + 9, "expire_at": NOW - 5}), Some(NOW - 5)),
        (json!({"exp": NOW + 9, "expire_at": 0}), None),
        (json!({"exp": NOW + 9, "expire_at": -1}), None),
        (json!({"expire_at": NOW + 99}), Some(NOW + 99)),
        (json!({"exp": (NOW + 9).to_string()}), Some(NOW + 9)),
        (json!({"expire_at": (NOW + 99).to_string()}), Some(NOW + 99)),
        (json!({"exp": NOW + 9, "expire_at": "0"}), None),
    ] {
        assert_eq!(connect(&claims).unwrap().expire_at, end, "{claims}");
        let mut claims = claims;
        claims["channel"] = json!("news");
        assert_eq!(subscribe(&claims).unwrap().grant.expire_at, end, "{claims}");
    }
}
