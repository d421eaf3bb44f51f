//! Claims that the engine receives from a valid token.

use bytes::Bytes;
use engine::claims::{ConnectionClaims, Overrides, SubscriptionClaims, SubscriptionGrant};
use engine::limits::ID_BYTES_MAX;
use serde_json::json;

use super::super::TokenSettings;
use super::{INVALID, NOW, connect, connect_raw, connect_with, settings, subscribe};

#[test]
fn an_empty_token_is_an_anonymous_user_without_anything() {
    assert_eq!(connect(&json!({})), Ok(ConnectionClaims::default()));
    assert_eq!(connect(&json!({"sub": null, "info": null, "subs": null})), connect(&json!({})));
}

#[test]
fn null_is_the_same_as_absent_at_every_level() {
    let members = [
        "sub",
        "exp",
        "nbf",
        "iat",
        "jti",
        "aud",
        "iss",
        "expire_at",
        "info",
        "b64info",
        "channels",
        "subs",
        "channel",
        "role",
        "meta",
    ];
    for member in members {
        assert_eq!(connect(&json!({ (member): null })), connect(&json!({})), "{member}");
    }
    let grants = [
        "null",
        r#"{"info":null,"b64info":null,"data":null,"b64data":null,"override":null}"#,
        r#"{"override":{"presence":null,"join_leave":null,"force_push_join_leave":null,"force_recovery":null,
            "force_positioning":null}}"#,
    ];
    for grant in grants {
        let claims = connect_raw(&format!(r#"{{"subs":{{"a":{grant}}}}}"#)).unwrap();
        let plain = [("a".to_owned(), SubscriptionGrant::default())];
        assert_eq!(claims.subscriptions, plain, "{grant}");
    }
    let off = json!({"channel": "a", "override": {"presence": {"value": null}}});
    assert_eq!(subscribe(&off).unwrap().grant.overrides.presence, Some(false), "as {{}} is");
}

#[test]
fn a_connection_token_has_a_user_and_subscriptions() {
    let claims = json!({
        "sub": "ann",
        "exp": NOW + 60,
        "info": {"name": "Ann"},
        "channels": ["news", "chat", "news"],
        "meta": {"plan": "b"},
        "caps": [{"channels": ["x"]}],
    });
    let plain = |name: &str| (name.to_owned(), SubscriptionGrant::default());
    assert_eq!(
        connect(&claims),
        Ok(ConnectionClaims {
            user: "ann".to_owned(),
            expire_at: Some(NOW + 60),
            info: Bytes::from_static(br#"{"name":"Ann"}"#),
            subscriptions: vec![plain("news"), plain("chat")],
            meta: Bytes::from_static(br#"{"plan":"b"}"#),
            ..ConnectionClaims::default()
        })
    );
}

#[test]
fn subs_win_over_channels_and_keep_their_order() {
    let verdict = connect_raw(
        r#"{"channels":["c"],"subs":{"z":{"info":1,"b64data":"AP8="},"a":{"override":{}}}}"#,
    );
    let z = SubscriptionGrant {
        info: Bytes::from_static(b"1"),
        data: Bytes::from_static(&[0, 255]),
        overrides: Overrides::default(),
        expire_at: None,
    };
    assert_eq!(
        verdict.unwrap().subscriptions,
        [("z".to_owned(), z), ("a".to_owned(), SubscriptionGrant::default())]
    );
    let none = connect(&json!({"channels": ["c"], "subs": {}})).unwrap();
    assert_eq!(none.subscriptions.len(), 1, "empty subs leave the channels");
}

#[test]
fn a_subscription_token_has_a_user_a_channel_and_options() {
    let claims = json!({
        "sub": "ann",
        "channel": "news",
        "client": "c1",
        "jti": "t1",
        "iat": NOW - 5,
        "info": [1, 2],
        "data": "hello",
        "override": {
            "presence": {"value": true},
            "join_leave": {"value": false},
            "force_push_join_leave": {},
            "force_recovery": null,
        },
    });
    assert_eq!(
        subscribe(&claims),
        Ok(SubscriptionClaims {
            user: "ann".to_owned(),
            channel: "news".to_owned(),
            client: "c1".to_owned(),
            grant: SubscriptionGrant {
                expire_at: None,
                info: Bytes::from_static(b"[1,2]"),
                data: Bytes::from_static(br#""hello""#),
                overrides: Overrides {
                    presence: Some(true),
                    join_leave: Some(false),
                    force_push_join_leave: Some(false),
                    force_recovery: None,
                    force_positioning: None,
                },
            },
            token_id: "t1".to_owned(),
            issued_at: Some(NOW - 5),
        })
    );
    let last = json!({"channel": "a", "override": {"force_recovery": {"value": true},
        "force_positioning": {"value": true}}});
    let overrides = subscribe(&last).unwrap().grant.overrides;
    assert_eq!((overrides.force_recovery, overrides.force_positioning), (Some(true), Some(true)));
}

#[test]
fn base64_info_wins_over_json_info_unless_empty() {
    let info = |claims| connect(&claims).unwrap().info;
    assert_eq!(info(json!({"info": 1, "b64info": "AP8="})), Bytes::from_static(&[0, 255]));
    assert_eq!(info(json!({"info": 1, "b64info": ""})), Bytes::from_static(b"1"));
    assert_eq!(connect(&json!({"b64info": "AP8"})), Err(INVALID), "padding is part of it");
}

/// A line break inside a reply would split it for a JSON client.
#[test]
fn info_is_passed_on_without_white_space_between_its_tokens() {
    let verdict = connect_raw("{\"info\": {\n\t\"a b\" : [1,\r\n 2.50, \" \\\" \\\\\" ]\n}}");
    assert_eq!(verdict.unwrap().info, Bytes::from_static(br#"{"a b":[1,2.50," \" \\"]}"#));
}

#[test]
fn roles_are_a_text_or_a_list_in_a_claim_of_any_name() {
    let roles = |claim: &str, claims| {
        let settings = TokenSettings { role_claim: Some(claim.to_owned()), ..settings() };
        connect_with(&settings, &claims).map(|claims| claims.roles)
    };
    let names = |names: &[&str]| Ok(names.iter().map(|name| (*name).to_owned()).collect());
    assert_eq!(roles("role", json!({"sub": "ann"})), names(&[]));
    assert_eq!(roles("role", json!({"role": null})), names(&[]));
    assert_eq!(roles("role", json!({"role": "staff"})), names(&["staff"]));
    assert_eq!(roles("role", json!({"role": ["a", "b"]})), names(&["a", "b"]));
    let foreign = "https://example.org/roles";
    assert_eq!(roles(foreign, json!({"role": "x", foreign: ["a"]})), names(&["a"]));
    assert_eq!(roles("", json!({"role": "staff"})), names(&[]), "roles are off");
    // Other uses of the claim refuse no token and grant no role.
    for (other, of_it) in [
        (json!(1), names(&[])),
        (json!({"a": "b"}), names(&[])),
        (json!([1, "a", ["b"]]), names(&["a"])),
    ] {
        assert_eq!(roles("role", json!({ "role": other })), of_it, "{other}");
    }
    for (count, length, kept) in [(33, 1, 32), (3, 500, 2), (1, 1025, 0)] {
        let many: Vec<String> = (0..count).map(|_| "r".repeat(length)).collect();
        let roles = roles("role", json!({ "role": many })).unwrap();
        assert_eq!(roles.len(), kept, "{count} of {length}");
    }
}

#[test]
fn ids_that_are_too_long_to_be_revoked_are_refused() {
    let of_length = |length: usize| "i".repeat(length);
    for claim in ["sub", "jti"] {
        let longest = of_length(ID_BYTES_MAX);
        let claims = connect(&json!({ claim: &longest })).unwrap();
        assert!([claims.user, claims.token_id].contains(&longest), "{claim}");
        let too_long = json!({ claim: of_length(ID_BYTES_MAX + 1), "channel": "a" });
        assert_eq!(connect(&too_long).unwrap_err(), INVALID, "{claim}");
        assert_eq!(subscribe(&too_long).unwrap_err(), INVALID, "{claim}");
    }
}

#[test]
fn the_user_can_be_in_another_claim() {
    let settings = TokenSettings { user_id_claim: Some("user_name".to_owned()), ..settings() };
    let user = |claims| connect_with(&settings, &claims).map(|claims| claims.user);
    assert_eq!(user(json!({"sub": "1", "user_name": "ann"})), Ok("ann".to_owned()));
    assert_eq!(user(json!({"sub": "1", "nested": {"user_name": "eve"}})), Ok(String::new()));
    assert_eq!(user(json!({"user_name": null})), Ok(String::new()));
    // A number, as many databases have it, but no two of them may become one user.
    for (number, expected) in [
        ("1001", Some("1001")),
        ("-7", Some("-7")),
        ("18446744073709551615", Some("18446744073709551615")),
        ("1001.0", Some("1001")),
        ("1e3", Some("1000")),
        ("1001.5", None),
        ("18446744073709551616", None),
        ("true", None),
        ("[1]", None),
        ("{}", None),
    ] {
        let claims: serde_json::Value =
            serde_json::from_str(&format!("{{\"user_name\":{number}}}")).unwrap();
        let expected = expected.map(str::to_owned).ok_or(INVALID);
        assert_eq!(user(claims), expected, "{number}");
        let usual = connect_raw(&format!("{{\"sub\":{number}}}")).map(|claims| claims.user);
        assert_eq!(usual, expected, "sub {number}");
    }
}
