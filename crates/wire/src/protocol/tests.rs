//! Both codecs in both directions: exact bytes for known values, round trips for any value, and
//! every error.

use std::sync::Arc;

use bytes::Bytes;
use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;

mod schema;

fn json_reply(reply: &Reply, expected: &Expect) {
    let mut out = Vec::new();
    encode_reply(Codec::Json, reply, &mut out);
    expected.assert_eq(&String::from_utf8(out).unwrap());
}

fn push(channel: &str, event: PushEvent) -> Reply {
    Reply { id: 0, body: ReplyBody::Push(Push { channel: channel.into(), event }) }
}

fn info() -> ClientInfo {
    ClientInfo {
        user: "ann".into(),
        client: "c1".into(),
        conn_info: Bytes::from_static(b"{\"n\": \n1}"),
        chan_info: Bytes::new(),
    }
}

fn publication() -> Publication {
    Publication {
        data: Bytes::from_static(b"{\"a\":1}"),
        info: Some(info()),
        offset: u64::MAX,
        tags: vec![("k".into(), "<v>".into())],
        time: 1_700_000_000_123,
    }
}

#[test]
fn replies_in_json_leave_out_what_is_empty() {
    let reply = |id, body| Reply { id, body };
    json_reply(&reply(0, ReplyBody::Ping), &expect!["{}"]);
    json_reply(&reply(3, ReplyBody::Unsubscribe), &expect![[r#"{"id":3,"unsubscribe":{}}"#]]);
    json_reply(
        &reply(4, ReplyBody::Error(ErrorCode::TooManyRequests.into())),
        &expect![[
            r#"{"id":4,"error":{"code":111,"message":"too many requests","temporary":true}}"#
        ]],
    );
    json_reply(
        &reply(5, ReplyBody::History(HistoryResult::default())),
        &expect![[r#"{"id":5,"history":{"publications":[],"epoch":"","offset":0}}"#]],
    );
    json_reply(
        &reply(6, ReplyBody::PresenceStats(PresenceStats::default())),
        &expect![[r#"{"id":6,"presence_stats":{"num_clients":0,"num_users":0}}"#]],
    );
    json_reply(
        &reply(7, ReplyBody::Presence(vec![("c\"1".into(), ClientInfo::default())])),
        &expect![[r#"{"id":7,"presence":{"presence":{"c\"1":{"user":"","client":""}}}}"#]],
    );
    json_reply(
        &push("news", PushEvent::Publication(Arc::new(publication()))),
        &expect![[
            r#"{"push":{"channel":"news","pub":{"data":{"a":1},"info":{"user":"ann","client":"c1","conn_info":{"n": 1}},"offset":18446744073709551615,"tags":{"k":"\u003cv\u003e"},"time":1700000000123}}}"#
        ]],
    );
    json_reply(
        &push("a\u{2028}b\u{1}", PushEvent::from(UnsubscribeCode::InsufficientState)),
        &expect![[
            r#"{"push":{"channel":"a\u2028b\u0001","unsubscribe":{"code":2500,"reason":"insufficient state"}}}"#
        ]],
    );
}

#[test]
fn connect_in_json() {
    let result = ConnectResult {
        client: "id".into(),
        version: "1".into(),
        subs: vec![(
            "s".into(),
            SubscribeResult {
                recoverable: true,
                epoch: "e".into(),
                offset: 5,
                positioned: true,
                ..SubscribeResult::default()
            },
        )],
        ping: 25,
        pong: true,
        ..ConnectResult::default()
    };
    json_reply(
        &Reply { id: 1, body: ReplyBody::Connect(Box::new(result)) },
        &expect![[
            r#"{"id":1,"connect":{"client":"id","version":"1","subs":{"s":{"recoverable":true,"epoch":"e","offset":5,"positioned":true}},"ping":25,"pong":true}}"#
        ]],
    );
}

#[test]
fn several_commands_in_one_json_message() {
    let message = br#"{"id":1,"connect":{"token":"t","unknown":[1,{}],"subs":{"a":{"recover":true,"epoch":"e","offset":3}}}}
{"id":2,"subscribe":{"channel":"x","data":{"k" : null},"tf":{"key":"a"}}}
{}
{"send":{"data":"hi"}}
"#;
    let commands = decode_commands(Codec::Json, message).unwrap();
    let [connect, subscribe, pong, send] = &commands[..] else { panic!("{commands:?}") };
    assert!(matches!(&connect.request, Request::Connect(request)
        if request.token == "t" && request.subs[0].0 == "a" && request.subs[0].1.offset == 3));
    assert!(matches!(&subscribe.request, Request::Subscribe(request)
        if request.tags_filter && &request.data[..] == b"{\"k\" : null}"));
    assert_eq!(pong.request, Request::Pong);
    assert!(matches!(&send.request, Request::Send { data } if &data[..] == b"\"hi\""));
}

#[test]
fn ids_and_members_decide_what_a_command_is() {
    let one =
        |text: &str| decode_commands(Codec::Json, text.as_bytes()).map(|mut all| all.remove(0));
    assert_eq!(one(r#"{"subscribe":{"channel":"x"}}"#).unwrap().request, Request::Pong);
    assert_eq!(one(r#"{"id":1}"#).unwrap().request, Request::Missing);
    assert_eq!(one(r#"{"id":1,"future":{}}"#).unwrap().request, Request::Missing);
    let both = one(r#"{"id":1,"publish":{"channel":"p"},"unsubscribe":{"channel":"u"}}"#).unwrap();
    assert_eq!(both.request, Request::Unsubscribe { channel: "u".into() });
    let null = one(r#"{"id":1,"connect":null,"publish":{"channel":"p","data":null}}"#).unwrap();
    assert!(matches!(null.request, Request::Publish(request) if request.data == "null"));
}

#[test]
fn invalid_json_commands_are_refused() {
    let deep = |depth: usize| {
        format!(r#"{{"id":1,"rpc":{{"data":{}{}}}}}"#, "[".repeat(depth), "]".repeat(depth))
    };
    for text in [
        "[]",
        "1",
        "nonsense",
        "{\"id\":1}\n\n",
        "\n{}",
        r#"{"id":-1}"#,
        r#"{"id":4294967296}"#,
        r#"{"id":1,"subscribe":{"offset":18446744073709551616}}"#,
        r#"{"id":1,"subscribe":{"channel":5}}"#,
        "{\"id\":1,\"subscribe\":{\"channel\":\"\u{0}\"}}",
        r#"{"id":1,"subscribe":["x"]}"#,
        r#"{"id":1,"ping":[]}"#,
        r#"{"id":1,"connect":{"subs":{"x":["x"]}}}"#,
        r#"{"id":1,"history":{"channel":"x","since":[1,"e"]}}"#,
    ] {
        let short: String = text.chars().take(40).collect();
        assert_eq!(
            decode_commands(Codec::Json, text.as_bytes()),
            Err(DecodeError::Json),
            "{short}"
        );
    }
    assert!(is_json("\"\u{ff}\"".as_bytes()) && !is_json(b"\"\xff\""), "JSON text is UTF-8");
    // A payload passes at any depth, without recursion in this crate.
    for depth in [10_000, 1_000_000] {
        assert!(decode_commands(Codec::Json, deep(depth).as_bytes()).is_ok());
        assert!(!is_json("[".repeat(depth).as_bytes()));
    }
    assert_eq!(decode_commands(Codec::Json, b""), Err(DecodeError::Empty));
    assert_eq!(decode_commands(Codec::Json, b"\n"), Err(DecodeError::Empty));
    assert_eq!(decode_commands(Codec::Json, &b"{}\n".repeat(20_000)), Err(DecodeError::TooMany));
}

#[test]
fn known_protobuf_bytes() {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut out = Vec::new();
    encode_reply(Codec::Protobuf, &Reply { id: 0, body: ReplyBody::Ping }, &mut out);
    assert_eq!(hex(&out), "00");
    out.clear();
    let result = SubscribeResult { epoch: "e".into(), offset: 300, ..SubscribeResult::default() };
    encode_reply(
        Codec::Protobuf,
        &Reply { id: 2, body: ReplyBody::Subscribe(Box::new(result)) },
        &mut out,
    );
    assert_eq!(hex(&out), "0a0802320632016548ac02");
    out.clear();
    let request = PublishRequest { channel: "c".into(), data: "d".into(), kind: 0 };
    encode_command(
        Codec::Protobuf,
        &Command { id: 1, request: Request::Publish(request) },
        &mut out,
    );
    assert_eq!(hex(&out), "0a08013a060a0163120164");
}

#[test]
fn invalid_protobuf_commands_are_refused() {
    let refused = |bytes: &[u8]| decode_commands(Codec::Protobuf, bytes).unwrap_err();
    assert_eq!(refused(b""), DecodeError::Empty);
    assert_eq!(refused(b"\x05\x08\x01"), DecodeError::Truncated);
    assert_eq!(refused(b"\xff\xff\xff\xff\x0f"), DecodeError::Truncated);
    assert_eq!(refused(b"\x80"), DecodeError::Truncated);
    assert_eq!(refused(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), DecodeError::Protobuf);
    assert_eq!(refused(b"\x01\x0b"), DecodeError::Protobuf, "a group");
    assert_eq!(refused(b"\x02\x00\x01"), DecodeError::Protobuf, "field number zero");
    assert_eq!(refused(b"\x05\x08\x01\x32\x7f\x0a"), DecodeError::Truncated, "an inner length");
    assert_eq!(refused(b"\x07\x08\x01\x32\x03\x0a\x01\xff"), DecodeError::Protobuf, "not UTF-8");
    assert_eq!(refused(&[0; 20_000]), DecodeError::TooMany);
    // Unknown fields of every wire type are skipped; two pongs follow.
    let unknown = b"\x11\xa8\x06\x01\xa9\x06\0\0\0\0\0\0\0\0\xaa\x06\x01\x78\x00\x00";
    let commands = decode_commands(Codec::Protobuf, unknown).unwrap();
    assert!(commands.iter().all(|command| command.request == Request::Pong), "{commands:?}");
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[a-z:#$]{1,8}", any::<String>()]
}

fn json() -> impl Strategy<Value = Bytes> {
    let value = prop_oneof![
        Just(String::new()),
        Just("{\"a\":[1,2.5,true]}".to_owned()),
        Just("\"text\"".to_owned()),
        Just("0".to_owned()),
    ];
    value.prop_map(Bytes::from)
}

fn client_info() -> impl Strategy<Value = ClientInfo> {
    (text(), text(), json(), json()).prop_map(|(user, client, conn_info, chan_info)| ClientInfo {
        user,
        client,
        conn_info,
        chan_info,
    })
}

fn any_publication() -> impl Strategy<Value = Arc<Publication>> {
    let tags = proptest::collection::btree_map(text(), text(), 0..3);
    (json(), proptest::option::of(client_info()), any::<u64>(), tags, any::<i64>()).prop_map(
        |(data, info, offset, tags, time)| {
            let tags = tags.into_iter().collect();
            Arc::new(Publication { data, info, offset, tags, time })
        },
    )
}

fn subscribe_result() -> impl Strategy<Value = SubscribeResult> {
    let flags = any::<[bool; 5]>();
    let publications = proptest::collection::vec(any_publication(), 0..3);
    (flags, any::<u32>(), text(), publications, any::<u64>(), json()).prop_map(
        |(flags, ttl, epoch, publications, offset, data)| SubscribeResult {
            expires: flags[0],
            ttl,
            recoverable: flags[1],
            epoch,
            publications,
            recovered: flags[2],
            offset,
            positioned: flags[3],
            data,
            was_recovering: flags[4],
        },
    )
}

#[test]
fn a_push_of_an_unknown_kind_is_not_a_ping() {
    let json: &[u8] = br#"{"push":{"channel":"","later":{"a":1}}}"#;
    for (codec, message) in [(Codec::Json, json), (Codec::Protobuf, b"\x04\x22\x02\x6a\x00")] {
        let replies = decode_replies(codec, message).unwrap();
        assert_eq!(replies, [push("", PushEvent::Unknown)]);
    }
}

fn event() -> impl Strategy<Value = PushEvent> {
    prop_oneof![
        any_publication().prop_map(PushEvent::Publication),
        client_info().prop_map(|info| PushEvent::Join(Arc::new(info))),
        client_info().prop_map(|info| PushEvent::Leave(Arc::new(info))),
        (any::<u32>(), text()).prop_map(|(code, reason)| PushEvent::Unsubscribe { code, reason }),
        json().prop_map(|data| PushEvent::Message { data }),
        (any::<[bool; 2]>(), any::<u64>(), text(), json()).prop_map(
            |(flags, offset, epoch, data)| {
                PushEvent::Subscribe {
                    recoverable: flags[0],
                    positioned: flags[1],
                    position: StreamPosition { offset, epoch },
                    data,
                }
            }
        ),
        (any::<u32>(), text(), any::<bool>()).prop_map(|(code, reason, reconnect)| {
            PushEvent::Disconnect { code, reason, reconnect }
        }),
        (any::<bool>(), any::<u32>())
            .prop_map(|(expires, ttl)| PushEvent::Refresh { expires, ttl }),
        Just(PushEvent::Unknown),
    ]
}

fn body() -> impl Strategy<Value = ReplyBody> {
    let subs = proptest::collection::btree_map(text(), subscribe_result(), 0..3);
    let connect =
        (text(), text(), any::<[bool; 2]>(), any::<[u32; 2]>(), json(), subs, any::<i64>());
    prop_oneof![
        Just(ReplyBody::Unsubscribe),
        Just(ReplyBody::Publish),
        (any::<u32>(), text(), any::<bool>()).prop_map(|(code, message, temporary)| {
            ReplyBody::Error(ErrorReply { code, message, temporary })
        }),
        (text(), event()).prop_map(|(channel, event)| ReplyBody::Push(Push {
            channel: (&*channel).into(),
            event
        })),
        connect.prop_map(|(client, version, flags, numbers, data, subs, time)| {
            ReplyBody::Connect(Box::new(ConnectResult {
                client,
                version: version.clone(),
                expires: flags[0],
                ttl: numbers[0],
                data,
                subs: subs.into_iter().collect(),
                ping: numbers[1],
                pong: flags[1],
                session: version,
                node: "n".into(),
                time,
            }))
        }),
        subscribe_result().prop_map(|result| ReplyBody::Subscribe(Box::new(result))),
        proptest::collection::btree_map(text(), client_info(), 0..3)
            .prop_map(|clients| ReplyBody::Presence(clients.into_iter().collect())),
        any::<[u32; 2]>().prop_map(|[num_clients, num_users]| {
            ReplyBody::PresenceStats(PresenceStats { num_clients, num_users })
        }),
        (proptest::collection::vec(any_publication(), 0..3), text(), any::<u64>()).prop_map(
            |(publications, epoch, offset)| {
                ReplyBody::History(HistoryResult { publications, epoch, offset })
            }
        ),
        json().prop_map(|data| ReplyBody::Rpc { data }),
        (text(), text(), any::<bool>(), any::<u32>()).prop_map(
            |(client, version, expires, ttl)| {
                ReplyBody::Refresh(RefreshResult { client, version, expires, ttl })
            }
        ),
        (any::<bool>(), any::<u32>())
            .prop_map(|(expires, ttl)| ReplyBody::SubRefresh { expires, ttl }),
    ]
}

fn subscribe_request() -> impl Strategy<Value = SubscribeRequest> {
    (text(), text(), any::<[bool; 5]>(), any::<u64>(), json(), any::<i64>(), any::<i32>()).prop_map(
        |(channel, token, flags, offset, data, flag, kind)| SubscribeRequest {
            channel: channel.clone(),
            token,
            recover: flags[0],
            epoch: channel,
            offset,
            data,
            positioned: flags[1],
            recoverable: flags[2],
            join_leave: flags[3],
            delta: "fossil".into(),
            tags_filter: flags[4],
            flag,
            kind,
        },
    )
}

fn request() -> impl Strategy<Value = Request> {
    let pairs = || proptest::collection::btree_map(text(), text(), 0..3);
    let subs = proptest::collection::btree_map(text(), subscribe_request(), 0..3);
    prop_oneof![
        (text(), json(), subs, text(), pairs(), any::<i64>()).prop_map(
            |(token, data, subs, name, headers, flag)| {
                Request::Connect(Box::new(ConnectRequest {
                    token,
                    data,
                    subs: subs.into_iter().collect(),
                    name,
                    version: "5".into(),
                    headers: headers.into_iter().collect(),
                    flag,
                }))
            }
        ),
        Just(Request::Ping),
        subscribe_request().prop_map(|request| Request::Subscribe(Box::new(request))),
        text().prop_map(|channel| Request::Unsubscribe { channel }),
        (text(), json(), any::<i32>()).prop_map(|(channel, data, kind)| Request::Publish(
            PublishRequest { channel, data, kind }
        )),
        text().prop_map(|channel| Request::Presence { channel }),
        text().prop_map(|channel| Request::PresenceStats { channel }),
        (text(), any::<i32>(), proptest::option::of((any::<u64>(), text())), any::<bool>())
            .prop_map(|(channel, limit, since, reverse)| {
                let since = since.map(|(offset, epoch)| StreamPosition { offset, epoch });
                Request::History(HistoryRequest { channel, limit, since, reverse })
            }),
        (text(), json()).prop_map(|(method, data)| Request::Rpc { method, data }),
        json().prop_map(|data| Request::Send { data }),
        text().prop_map(|token| Request::Refresh { token }),
        (text(), text(), any::<i32>()).prop_map(|(channel, token, kind)| {
            Request::SubRefresh(SubRefreshRequest { channel, token, kind })
        }),
    ]
}

proptest! {
    #[test]
    fn replies_round_trip(bodies in proptest::collection::vec((1u32.., body()), 1..4)) {
        let replies: Vec<Reply> = bodies.into_iter().map(|(id, body)| Reply { id, body }).collect();
        for codec in [Codec::Json, Codec::Protobuf] {
            let mut out = Vec::new();
            replies.iter().for_each(|reply| encode_reply(codec, reply, &mut out));
            prop_assert_eq!(decode_replies(codec, &out), Ok(replies.clone()));
        }
    }

    #[test]
    fn commands_round_trip(requests in proptest::collection::vec((1u32.., request()), 1..4)) {
        let commands: Vec<Command> =
            requests.into_iter().map(|(id, request)| Command { id, request }).collect();
        for codec in [Codec::Json, Codec::Protobuf] {
            let mut out = Vec::new();
            commands.iter().for_each(|command| encode_command(codec, command, &mut out));
            prop_assert_eq!(decode_commands(codec, &out), Ok(commands.clone()));
        }
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        for codec in [Codec::Json, Codec::Protobuf] {
            let _either = (decode_commands(codec, &bytes), decode_replies(codec, &bytes));
        }
    }
}
