//! Requests and replies as backends see and write them.

use bytes::Bytes;
use expect_test::{Expect, expect};

use super::*;
use crate::failure::FailureKind;
use crate::reply::{ProxyReply, ProxyResult};
use crate::request::{ProxyMethod, ProxyQuestion, ProxyRequest};
use crate::settings::BinaryData;

fn request(question: ProxyQuestion) -> ProxyRequest {
    ProxyRequest {
        client: "c1".to_owned(),
        transport: "websocket",
        protocol: "json",
        user: "42".to_owned(),
        meta: Bytes::from_static(b"{\"tenant\":7}"),
        question,
    }
}

fn written(question: ProxyQuestion, binary: BinaryData, expected: &Expect) {
    let json = write_request(&request(question), binary).unwrap();
    expected.assert_eq(&String::from_utf8(json).unwrap());
}

fn data(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

#[test]
fn requests_have_the_members_of_the_compatible_server() {
    written(
        ProxyQuestion::Subscribe {
            channel: "chat:1".to_owned(),
            token: String::new(),
            data: data("{ \"a\": 1.0 }"),
        },
        BinaryData::Json,
        &expect![[
            r#"{"client":"c1","transport":"websocket","protocol":"json","encoding":"json","user":"42","channel":"chat:1","meta":{"tenant":7},"data":{ "a": 1.0 }}"#
        ]],
    );
    written(
        ProxyQuestion::Rpc { method: "sum".to_owned(), data: Bytes::from_static(&[0, 255]) },
        BinaryData::Base64,
        &expect![[
            r#"{"client":"c1","transport":"websocket","protocol":"json","encoding":"binary","user":"42","method":"sum","meta":{"tenant":7},"b64data":"AP8="}"#
        ]],
    );
    let connect = ProxyRequest {
        user: String::new(),
        meta: Bytes::new(),
        ..request(ProxyQuestion::Connect {
            data: Bytes::new(),
            name: "js".to_owned(),
            version: "5".to_owned(),
            channels: vec!["a".to_owned()],
        })
    };
    expect![[
        r#"{"client":"c1","transport":"websocket","protocol":"json","encoding":"json","name":"js","version":"5","channels":["a"]}"#
    ]]
    .assert_eq(&String::from_utf8(write_request(&connect, BinaryData::Json).unwrap()).unwrap());
}

#[test]
fn data_that_is_not_json_is_not_sent_as_json() {
    for data in ["{", "a", "1 2", "\u{0}"] {
        let data = Bytes::from_static(data.as_bytes());
        let question = ProxyQuestion::Publish { channel: "c".to_owned(), data };
        let written = write_request(&request(question), BinaryData::Json);
        assert_eq!(written, Err(NotJsonData));
    }
}

fn reply(method: ProxyMethod, json: &str, expected: &Expect) {
    expected.assert_debug_eq(&read_reply(method, json.as_bytes()));
}

#[test]
fn connect_replies_are_read() {
    reply(
        ProxyMethod::Connect,
        r#"{"result": {"user": "42", "expire_at": 9, "info": {"n": 1}, "b64data": "YWI=", "x": [],
            "channels": ["a"], "subs": {"b": {"data": null, "expire_at": 7,
            "override": {"presence": {"value": true}, "join_leave": {}, "force_recovery": null}}},
            "meta": {"t": 7}}, "error": null}"#,
        &expect![[r#"
            Ok(
                Result(
                    Connect(
                        Some(
                            BackendConnect {
                                user: "42",
                                expire_at: 9,
                                info: b"{\"n\": 1}",
                                data: b"ab",
                                channels: [
                                    "a",
                                ],
                                subs: [
                                    (
                                        "b",
                                        BackendSubscribe {
                                            expire_at: 7,
                                            info: b"",
                                            data: b"",
                                            overrides: SubscribeOverrides {
                                                presence: Some(
                                                    true,
                                                ),
                                                join_leave: Some(
                                                    false,
                                                ),
                                                force_recovery: None,
                                                force_positioning: None,
                                                force_push_join_leave: None,
                                            },
                                        },
                                    ),
                                ],
                                meta: b"{\"t\": 7}",
                            },
                        ),
                    ),
                ),
            )
        "#]],
    );
}

#[test]
fn publish_replies_are_read() {
    reply(
        ProxyMethod::Publish,
        r#"{"result":{"data":[1],"skip_history":true,"tags":{"a":"b"},"version":18446744073709551615}}"#,
        &expect![[r#"
            Ok(
                Result(
                    Publish(
                        Some(
                            BackendPublish {
                                data: Some(
                                    b"[1]",
                                ),
                                skip_history: true,
                                tags: [
                                    (
                                        "a",
                                        "b",
                                    ),
                                ],
                                idempotency_key: "",
                                delta: false,
                                version: 18446744073709551615,
                                version_epoch: "",
                            },
                        ),
                    ),
                ),
            )
        "#]],
    );
}

#[test]
fn an_answer_without_a_result_has_its_meaning() {
    let read = |method| read_reply(method, b"{}").unwrap();
    let result = |result| ProxyReply::Result(result);
    assert_eq!(read(ProxyMethod::Connect), result(ProxyResult::Connect(None)));
    assert_eq!(read(ProxyMethod::Refresh), result(ProxyResult::Refresh(None)));
    assert_eq!(read(ProxyMethod::Subscribe), result(ProxyResult::Subscribe(None)));
    assert_eq!(read(ProxyMethod::Publish), result(ProxyResult::Publish(None)));
    assert_eq!(read(ProxyMethod::SubRefresh), result(ProxyResult::SubRefresh(None)));
    assert_eq!(read(ProxyMethod::Rpc), result(ProxyResult::Rpc(Bytes::new())));
}

#[test]
fn the_first_of_disconnect_error_and_result_holds() {
    let all = br#"{"result": {}, "error": {"code": 1000, "message": "no"},
        "disconnect": {"code": 4500, "reason": "go"}}"#;
    let disconnect = ProxyReply::Disconnect { code: 4500, reason: "go".to_owned() };
    assert_eq!(read_reply(ProxyMethod::Rpc, all), Ok(disconnect));
    let two = br#"{"result": {}, "error": {"code": 1000, "message": "no", "temporary": true}}"#;
    let error = ProxyReply::Error { code: 1000, message: "no".to_owned(), temporary: true };
    assert_eq!(read_reply(ProxyMethod::Subscribe, two), Ok(error));
}

#[test]
fn what_cannot_be_understood_is_a_typed_error_without_content() {
    for json in [
        "",
        "<html>secret</html>",
        "[]",
        "{\"result\": {\"user\": 7}}",
        "{\"result\": {\"user\": \"secret\"}",
        "{\"result\": {\"b64data\": \"secret!\"}}",
        "{} {}",
        "{\"error\": {\"code\": -1}}",
        "{\"result\": {\"subs\": [\"secret\"]}}",
    ] {
        let error = read_reply(ProxyMethod::Connect, json.as_bytes()).unwrap_err();
        assert_eq!(error.kind, FailureKind::Malformed, "{json}");
        assert!(!error.detail.contains("secret"), "{error}");
    }
}
