//! Several keys of the server API, each with its methods and channels, and their rotation without a
//! restart.

use serde_json::{Value, json};

use crate::support::{API_KEY, Fixture, config, post};

const KEYS: &str = r#"[
    {"name": "news-desk", "key": "desk", "methods": ["publish", "broadcast", "channels", "clients", "history"], "channels": ["kept:*", "$kept:*"]},
    {"name": "reader", "key": "reads", "methods": ["presence", "info"]},
    {"name": "all.of-it", "key": "everything"}
]"#;

/// The error code of a response; 0 for success.
fn code(fixture: &Fixture, key: &str, method: &str, body: &str) -> u64 {
    let headers = format!("X-API-Key: {key}\r\n");
    let (status, _, answer) = fixture.request(&post(&format!("/api/{method}"), &headers, body));
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert!(status == 200 || status == 401, "{answer}");
    answer["error"]["code"].as_u64().unwrap_or(0)
}

#[test]
fn a_key_permits_its_methods_and_channels() {
    let fixture = Fixture::with(&[("http_api.keys", KEYS)]);
    for (key, method, body, expected) in [
        ("desk", "publish", r#"{"channel":"kept:x","data":1}"#, 0),
        ("desk", "publish", r#"{"channel":"$kept:x","data":1}"#, 0),
        ("desk", "publish", r#"{"channel":"open:x","data":1}"#, 103),
        ("desk", "publish", r#"{"channel":"sys:config","data":{}}"#, 103),
        ("desk", "history", r#"{"channel":"open:x"}"#, 103),
        ("desk", "presence", r#"{"channel":"kept:x"}"#, 103),
        ("desk", "disconnect", r#"{"user":"ann"}"#, 103),
        ("desk", "history_remove", r#"{"channel":"kept:x"}"#, 103),
        ("desk", "revoke", r#"{"user":"ann"}"#, 103),
        ("desk", "revocations", "", 103),
        ("reads", "presence", r#"{"channel":"kept:x"}"#, 0),
        ("reads", "publish", r#"{"channel":"kept:x","data":1}"#, 103),
        ("reads", "info", "", 0),
        ("everything", "publish", r#"{"channel":"open:x","data":1}"#, 0),
        ("everything", "unsubscribe", r#"{"user":"ann"}"#, 0),
        (API_KEY, "publish", r#"{"channel":"open:x","data":1}"#, 0),
        ("nobody's", "publish", r#"{"channel":"open:x","data":1}"#, 101),
    ] {
        assert_eq!(code(&fixture, key, method, body), expected, "{key} {method} {body}");
    }
    let headers = "X-API-Key: desk\r\nX-Centrifugo-Error-Mode: transport\r\n";
    let refused =
        fixture.request(&post("/api/publish", headers, r#"{"channel":"open:x","data":1}"#));
    assert_eq!(refused.0, 403);
    assert!(refused.2.contains("news-desk") && refused.2.contains("open:x"), "{}", refused.2);
    assert!(!refused.2.contains(r#"desk""#), "the name, not the key");
}

#[test]
fn every_way_to_call_a_method_needs_the_same_permissions() {
    let fixture = Fixture::with(&[("http_api.keys", KEYS)]);
    let call = |path: &str, body: &str| {
        let (_, _, answer) = fixture.request(&post(path, "X-API-Key: desk\r\n", body));
        answer.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
    };
    let commands = json!({"commands": [
        {"publish": {"channel": "kept:x", "data": 1}},
        {"publish": {"channel": "open:x", "data": 1}},
        {"disconnect": {"user": "ann"}},
        {"broadcast": {"channels": ["kept:x", "open:x"], "data": 1}},
    ]});
    let replies = call("/api/batch", &commands.to_string())[0]["replies"].clone();
    assert!(replies[0]["publish"]["offset"].is_u64());
    assert_eq!(
        (&replies[1]["error"]["code"], &replies[2]["error"]["code"]),
        (&json!(103), &json!(103))
    );
    let responses = &replies[3]["broadcast"]["responses"];
    assert!(responses[0]["result"]["offset"].is_u64() && responses[1]["error"]["code"] == 103);
    let lines = r#"{"method":"publish","params":{"channel":"kept:x","data":1}}
{"method":"info"}"#;
    let old = call("/api", lines);
    assert!(old[0]["result"]["offset"].is_u64() && old[1]["error"]["code"] == 103);
}

#[test]
fn a_caller_sees_only_the_channels_of_its_key() {
    let fixture = Fixture::with(&[("http_api.keys", KEYS)]);
    let mut peer = fixture.admitted();
    for (id, channel) in [(2, "kept:x"), (3, "open:x")] {
        peer.say(&format!(r#"{{"id":{id},"subscribe":{{"channel":"{channel}"}}}}"#));
        assert!(peer.receive().contains("subscribe"));
    }
    for (method, body) in [("channels", "{}"), ("clients", r#"{"user":"ann"}"#)] {
        let request = post(&format!("/api/{method}"), "X-API-Key: desk\r\n", body);
        let (_, _, answer) = fixture.request(&request);
        assert!(answer.contains("kept:x") && !answer.contains("open:x"), "{answer}");
        let (_, answer) = fixture.api(method, body);
        assert!(answer.contains("kept:x") && answer.contains("open:x"), "{answer}");
    }
    let (_, _, page) = fixture.request("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    for (key, method) in [("news-desk", "channels"), ("default", "clients")] {
        let line = format!("tidings_api_key_calls_total{{key=\"{key}\",method=\"{method}\"}} 1");
        assert!(page.contains(&line), "{page}");
    }
}

#[test]
fn keys_are_rotated_at_run_time() {
    let publish = r#"{"channel":"open:x","data":1}"#;
    let fixture = Fixture::with(&[("http_api.keys", r#"[{"name":"a","key":"old"}]"#)]);
    assert_eq!(code(&fixture, "old", "publish", publish), 0);
    let both = r#"[{"name":"a","key":"old"},{"name":"a2","key":"new"}]"#;
    for (keys, old, new) in
        [(both, 0, 0), (r#"[{"name":"a2","key":"new"}]"#, 101, 0), ("[]", 101, 101)]
    {
        let server = fixture.server.as_ref().unwrap();
        server.reload(&config(&[("http_api.keys", keys)]));
        assert_eq!(code(&fixture, "old", "publish", publish), old, "{keys}");
        assert_eq!(code(&fixture, "new", "publish", publish), new, "{keys}");
        assert_eq!(code(&fixture, API_KEY, "publish", publish), 0, "that of http_api.key");
    }
}
