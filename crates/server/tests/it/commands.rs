//! Commands that are out of order or malformed.

use crate::support::{Fixture, token};

#[test]
fn what_is_no_command_closes_with_3501() {
    let fixture = Fixture::start();
    let twice = format!(r#"{{"id":2,"connect":{{"token":"{}"}}}}"#, token("ann"));
    let cases = [
        ("no JSON", "nonsense"),
        ("nothing", ""),
        ("no object", "[1]"),
        ("a second connect", &*twice),
        ("a pong not asked for", "{}"),
        ("no request", r#"{"id":5}"#),
        ("an empty channel", r#"{"id":2,"subscribe":{}}"#),
        ("a refresh without a token", r#"{"id":2,"refresh":{}}"#),
    ];
    for (name, command) in cases {
        let mut peer = fixture.admitted();
        peer.say(command);
        assert_eq!(peer.close_code(), 3501, "{name}");
    }
    let mut peer = fixture.connect();
    peer.say(r#"{"id":1,"subscribe":{"channel":"open:x"}}"#);
    assert_eq!(peer.close_code(), 3501, "a command before connect");
    let mut peer = fixture.admitted();
    peer.say(r#"{"send":{"data":1}}"#);
    assert_eq!(peer.close_code(), 3508, "send");
}

#[test]
fn commands_of_one_frame_are_answered_in_one_frame_in_order() {
    let fixture = Fixture::start();
    let mut peer = fixture.connect();
    let connect = format!(r#"{{"id":1,"connect":{{"token":"{}"}}}}"#, token("ann"));
    peer.say(&format!(
        "{connect}\n{}\n{}",
        r#"{"id":2,"subscribe":{"channel":"open:x"}}"#,
        r#"{"id":3,"publish":{"channel":"open:x","data":{"n":1}}}"#
    ));
    let mut lines = Vec::new();
    while lines.len() < 4 {
        lines.extend(peer.receive().lines().map(str::to_owned));
    }
    let kind = |line: &str| match line {
        line if line.starts_with(r#"{"id":1,"connect""#) => "connect",
        line if line.starts_with(r#"{"id":2,"subscribe""#) => "subscribe",
        line if line.starts_with(r#"{"id":3,"publish""#) => "publish",
        line if line.contains(r#""push":{"channel":"open:x","pub":{"data":{"n":1}"#) => "push",
        _ => "something else",
    };
    let kinds: Vec<&str> = lines.iter().map(|line| kind(line)).collect();
    assert_eq!(kinds, ["connect", "subscribe", "push", "publish"], "{lines:#?}");
}

#[test]
fn a_namespace_refuses_data_that_has_not_its_format() {
    let namespace = |format: &str| {
        format!(
            r#"{{"name": "{format}", "publication_data_format": "{format}",
                "allow_publish_for_client": true, "allow_subscribe_for_client": true}}"#
        )
    };
    let namespaces = ["binary", "json", "json_object"].map(namespace).join(",");
    let fixture = Fixture::with(&[("channel.namespaces", &format!("[{namespaces}]"))]);
    let mut peer = fixture.admitted();
    // Of a client: a number, an object. Of the API also bytes that are no JSON.
    for (format, number_is_taken, bytes_are_taken) in
        [("binary", true, true), ("json", true, false), ("json_object", false, false)]
    {
        let mut publish = |data: &str| {
            peer.say(&format!(r#"{{"id":2,"publish":{{"channel":"{format}:x","data":{data}}}}}"#));
            !peer.receive().contains(r#""code":107"#)
        };
        assert_eq!((publish("1"), publish("{}")), (number_is_taken, true), "{format}");
        let by_api = |data: &str| {
            let body = format!(r#"{{"channel":"{format}:x",{data}}}"#);
            let (_, answer) = fixture.api("publish", &body);
            match answer.contains(r#""code":107"#) {
                true => false,
                false => answer.contains(r#""result":"#) || panic!("{answer}"),
            }
        };
        assert_eq!(by_api(r#""data":1"#), number_is_taken, "{format}");
        assert_eq!(by_api(r#""b64data":"/w==""#), bytes_are_taken, "{format}");
        assert!(by_api(r#""data":{}"#), "{format}");
    }
}

#[test]
fn errors_have_the_codes_of_the_table() {
    let fixture = Fixture::start();
    let mut peer = fixture.admitted();
    let long = "open:".to_owned() + &"x".repeat(251);
    let mut id = 1;
    let mut code = |command: &str| {
        id += 1;
        peer.say(&format!(r#"{{"id":{id},{command}}}"#));
        let reply: serde_json::Value = serde_json::from_str(&peer.receive()).unwrap();
        assert_eq!(reply["id"], id);
        reply["error"]["code"].as_u64().unwrap_or(0)
    };
    assert_eq!(code(r#""subscribe":{"channel":"open:a"}"#), 0);
    assert_eq!(code(r#""subscribe":{"channel":"open:a"}"#), 105);
    assert_eq!(code(r#""subscribe":{"channel":"nowhere:a"}"#), 102);
    assert_eq!(code(r#""subscribe":{"channel":"closed:a"}"#), 103);
    assert_eq!(code(r#""publish":{"channel":"closed:a","data":1}"#), 103);
    assert_eq!(code(r#""history":{"channel":"open:a"}"#), 108);
    assert_eq!(code(r#""presence":{"channel":"open:a"}"#), 108);
    assert_eq!(code(r#""ping":{}"#), 108);
    assert_eq!(code(r#""rpc":{"method":"x"}"#), 108);
    assert_eq!(code(&format!(r#""subscribe":{{"channel":"{long}"}}"#)), 107);
    assert_eq!(code(r#""publish":{"channel":"open:a"}"#), 107);
    // Map and shared-poll subscriptions are not supported.
    assert_eq!(code(r#""subscribe":{"channel":"open:map","type":1}"#), 108);
    assert_eq!(code(r#""publish":{"channel":"open:a","data":1,"type":1}"#), 108);
    assert_eq!(code(r#""subscribe":{"channel":"open:b"}"#), 0);
    assert_eq!(code(r#""subscribe":{"channel":"open:c"}"#), 0);
    assert_eq!(code(r#""subscribe":{"channel":"open:d"}"#), 106);
    assert_eq!(code(r#""unsubscribe":{"channel":"open:c"}"#), 0);
    assert_eq!(code(r#""subscribe":{"channel":"open:d"}"#), 0);
}

#[test]
fn tokens_are_refused_by_kind() {
    let fixture = Fixture::start();
    let mut peer = fixture.connect();
    peer.say(r#"{"id":1,"connect":{}}"#);
    assert_eq!(peer.close_code(), 3501, "none at all");
    let mut peer = fixture.connect();
    peer.say(r#"{"id":1,"connect":{"token":"bad"}}"#);
    assert_eq!(peer.close_code(), 3500, "bad");
    let mut peer = fixture.admitted();
    let of_connection = token("ann");
    peer.say(&format!(
        r#"{{"id":2,"subscribe":{{"channel":"closed:a","token":"{of_connection}"}}}}"#
    ));
    assert!(peer.receive().contains(r#""code":103"#), "a connection token to subscribe");
}
