//! Bounds of channel names and payloads are the same for clients and backends, and a backend can
//! use the name of every server-side subscription.

use crate::support::{Fixture, token};

fn with_personal() -> Fixture {
    Fixture::with(&[
        ("client.subscribe_to_user_personal_channel.enabled", "true"),
        ("client.subscribe_to_user_personal_channel.personal_channel_namespace", "kept"),
        ("channel.without_namespace.allow_user_limited_channels", "true"),
    ])
}

fn code(body: &str) -> Option<u64> {
    serde_json::from_str::<serde_json::Value>(body).unwrap()["error"]["code"].as_u64()
}

#[test]
fn a_backend_publishes_to_personal_channels_by_the_name_in_the_connect_reply() {
    let fixture = with_personal();
    for user in ["ann", "J\u{fc}rgen", "smith,john", "org#42", "did:key:z"] {
        let mut peer = fixture.connect();
        peer.say(&format!(r#"{{"id":1,"connect":{{"token":"{}"}}}}"#, token(user)));
        let reply: serde_json::Value = serde_json::from_str(&peer.receive()).unwrap();
        let name = reply["connect"]["subs"].as_object().unwrap().keys().next().unwrap();
        let channel = serde_json::json!({ "channel": name, "data": user });
        let (_, published) = fixture.api("publish", &channel.to_string());
        assert_eq!(code(&published), None, "{published}");
        let push = peer.receive();
        assert!(push.contains(&format!(r#""data":"{user}""#)), "{push}");
        for method in ["history", "presence", "presence_stats", "history_remove", "channel"] {
            let (_, answer) = fixture.api(method, &channel.to_string());
            assert_eq!(code(&answer), None, "{method}: {answer}");
        }
    }
}

#[test]
fn names_that_are_too_long_or_have_control_characters_are_refused_everywhere() {
    let fixture = with_personal();
    let connect = |user: &str| {
        let mut peer = fixture.connect();
        peer.say(&format!(r#"{{"id":1,"connect":{{"token":"{}"}}}}"#, token(user)));
        peer
    };
    let reply = connect(&".".repeat(1_000)).receive();
    assert!(reply.starts_with(r#"{"id":1,"error":{"code":107,"#), "{reply}");
    // The same holds for a user id.
    assert_eq!(connect(&".".repeat(1_400)).close_code(), 3500);
    let long = "x".repeat(256);
    for name in [long.as_str(), "a\nb", "a\u{85}b", ""] {
        let params = serde_json::json!({ "channel": name, "user": "ann", "data": 1 }).to_string();
        let methods = ["publish", "subscribe", "presence", "presence_stats", "history"];
        for method in methods.into_iter().chain(["history_remove", "channel"]) {
            assert_eq!(code(&fixture.api(method, &params).1), Some(107), "{method} {name:?}");
        }
        // An empty name stands for all channels.
        let expected = (!name.is_empty()).then_some(107);
        assert_eq!(code(&fixture.api("unsubscribe", &params).1), expected, "{name:?}");
    }
}

#[test]
fn payloads_that_are_nested_too_deeply_are_refused_everywhere() {
    let fixture = Fixture::start();
    let nested = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
    let deep = nested(30_000);
    let base64 = {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(&deep)
    };
    for (method, params) in [
        ("publish", format!(r#"{{"channel":"open:a","data":{deep}}}"#)),
        ("publish", format!(r#"{{"channel":"open:a","b64data":"{base64}"}}"#)),
        ("broadcast", format!(r#"{{"channels":["open:a"],"data":{deep}}}"#)),
        ("subscribe", format!(r#"{{"user":"ann","channel":"open:a","info":{deep}}}"#)),
        ("subscribe", format!(r#"{{"user":"ann","channel":"open:a","data":{deep}}}"#)),
        ("refresh", format!(r#"{{"user":"ann","info":{deep}}}"#)),
    ] {
        assert_eq!(code(&fixture.api(method, &params).1), Some(107), "{method}");
    }
    let mut peer = fixture.admitted();
    peer.say(&format!(r#"{{"id":2,"publish":{{"channel":"open:a","data":{}}}}}"#, nested(129)));
    let reply = peer.receive();
    assert!(reply.contains(r#""error":{"code":107,"#), "{reply}");
    peer.say(&format!(r#"{{"id":3,"publish":{{"channel":"open:a","data":{}}}}}"#, nested(128)));
    let reply = peer.receive();
    assert!(reply.contains(r#"{"id":3,"publish":{}}"#), "{reply}");
}
