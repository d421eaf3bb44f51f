//! How members of commands are decoded: absent, null, repeated, of other types, and numbers in all
//! notations.

use super::decode_commands;
use crate::protocol::{Command, DecodeError};

fn one(text: &str) -> Result<Command, DecodeError> {
    decode_commands(text.as_bytes()).map(|mut commands| commands.remove(0))
}

/// Every command with each optional member. Published data is not included, because null is a value
/// there.
const MEMBERS: &[(&str, &[&str])] = &[
    ("connect", &["token", "data", "subs", "name", "version", "headers", "flag"]),
    (
        "subscribe",
        &[
            "channel",
            "token",
            "recover",
            "epoch",
            "offset",
            "data",
            "positioned",
            "recoverable",
            "join_leave",
            "delta",
            "tf",
            "flag",
            "type",
        ],
    ),
    ("unsubscribe", &["channel"]),
    ("publish", &["channel", "type"]),
    ("presence", &["channel"]),
    ("presence_stats", &["channel"]),
    ("history", &["channel", "limit", "since", "reverse"]),
    ("rpc", &["data", "method"]),
    ("send", &["data"]),
    ("refresh", &["token"]),
    ("sub_refresh", &["channel", "token", "type"]),
];

#[test]
fn null_is_absence_for_every_optional_member_of_every_command() {
    for (name, members) in MEMBERS {
        let absent = one(&format!(r#"{{"id":1,"{name}":{{}}}}"#)).unwrap();
        for member in *members {
            let null = one(&format!(r#"{{"id":1,"{name}":{{"{member}":null}}}}"#));
            assert_eq!(null.as_ref(), Ok(&absent), "{name}.{member}");
        }
        let all = members.iter().map(|member| format!(r#""{member}": null"#)).collect::<Vec<_>>();
        let all = one(&format!(r#"{{"id":1,"{name}":{{{}}}}}"#, all.join(",")));
        assert_eq!(all, Ok(absent), "{name}");
        let none = one(&format!(r#"{{"id":1,"{name}":null,"ping":{{}}}}"#));
        assert_eq!(none, one(r#"{"id":1,"ping":{}}"#), "{name}");
    }
    let position = r#"{"id":1,"history":{"since":{"offset":null,"epoch":null}}}"#;
    assert_eq!(one(position), one(r#"{"id":1,"history":{"since":{}}}"#));
    let header = r#"{"id":1,"connect":{"headers":{"a":"b","c":null}}}"#;
    assert_eq!(one(header), one(r#"{"id":1,"connect":{"headers":{"a":"b"}}}"#));
    let sub = r#"{"id":1,"connect":{"subs":{"news":{"offset":null,"epoch":null}}}}"#;
    assert_eq!(one(sub), one(r#"{"id":1,"connect":{"subs":{"news":{}}}}"#));
    assert_eq!(one(r#"{"id":null,"ping":{}}"#), one(r#"{"ping":{}}"#));
    // The subscriptions of a connect command are not optional members; null has no meaning there.
    assert_eq!(one(r#"{"id":1,"connect":{"subs":{"news":null}}}"#), Err(DecodeError::Json));
}

#[test]
fn numbers_are_what_their_values_are() {
    let offset = |text: &str| one(&format!(r#"{{"id":1,"subscribe":{{"offset":{text}}}}}"#));
    for (text, plain) in [("1.0", "1"), ("1e2", "100"), ("12.50e1", "125"), ("-0.0", "0")] {
        assert_eq!(offset(text), offset(plain), "{text}");
    }
    assert!(offset("18446744073709551615").is_ok());
    for text in ["1.5", "-1", "1e300", "18446744073709551616", "9.1e15", "\"1\"", "true", "[]"] {
        assert_eq!(offset(text), Err(DecodeError::Json), "{text}");
    }
    let limit = |text: &str| one(&format!(r#"{{"id":1,"history":{{"limit":{text}}}}}"#));
    assert_eq!(limit("-1.0"), limit("-1"));
    for text in ["2147483648", "-2147483649", "3e9"] {
        assert_eq!(limit(text), Err(DecodeError::Json), "{text}");
    }
    assert_eq!(one(r#"{"id":2.0,"ping":{}}"#), one(r#"{"id":2,"ping":{}}"#));
    assert_eq!(one(r#"{"id":4294967296.0,"ping":{}}"#), Err(DecodeError::Json));
}

#[test]
fn unknown_members_are_skipped_and_known_ones_stand_once() {
    let plain = one(r#"{"id":1,"history":{"channel":"x"}}"#);
    let more =
        r#"{"future":[{"a":null}],"id":1,"history":{"x":{"y":[1.5]},"channel":"x"},"z":"\u00ff"}"#;
    assert_eq!(one(more), plain);
    for text in [
        r#"{"id":1,"id":2,"ping":{}}"#,
        r#"{"id":1,"ping":{},"ping":{}}"#,
        r#"{"id":1,"history":{"channel":"x","channel":"y"}}"#,
        r#"{"id":1,"history":{"channel":null,"channel":"y"}}"#,
        r#"{"id":1,"connect":{"subs":{"a":{},"a":{}}}}"#,
        r#"{"id":1,"connect":{"headers":{"a":"b","a":null}}}"#,
    ] {
        assert_eq!(one(text), Err(DecodeError::Json), "{text}");
    }
}

#[test]
fn values_of_other_kinds_are_refused() {
    for text in [
        r#"{"id":1,"subscribe":{"channel":{}}}"#,
        r#"{"id":1,"subscribe":{"channel":1}}"#,
        r#"{"id":1,"subscribe":{"recover":1}}"#,
        r#"{"id":1,"subscribe":{"recover":"true"}}"#,
        r#"{"id":1,"connect":{"subs":[]}}"#,
        r#"{"id":1,"connect":{"headers":{"a":1}}}"#,
        r#"{"id":1,"connect":{"headers":"a"}}"#,
        r#"{"id":1,"history":{"since":1}}"#,
        r#"{"id":1,"history":[]}"#,
        // RFC 8259 §8.1: a byte order mark must not be sent.
        "\u{feff}{\"id\":1,\"ping\":{}}",
    ] {
        assert_eq!(one(text), Err(DecodeError::Json), "{text}");
    }
}
