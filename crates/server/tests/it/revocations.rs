//! Revoked users and tokens: connections are closed, tokens refused, and revocations can be lifted.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Instant;

use serde_json::{Value, json};

use crate::redis::{Redis, free_port, node as redis_node};
use crate::support::{Fixture, PATIENCE, Peer, Received, signed, upgrade};

const NOW: i64 = 1_700_000_000;

fn call(fixture: &Fixture, method: &str, body: &Value) {
    let answer = fixture.api(method, &body.to_string());
    assert_eq!(answer, (200, r#"{"result":{}}"#.to_owned()), "{method} {body}");
}

fn code(fixture: &Fixture, method: &str, body: &Value) -> Value {
    let (_, answer) = fixture.api(method, &body.to_string());
    serde_json::from_str::<Value>(&answer).unwrap()["error"]["code"].clone()
}

/// Connects with a token of these claims: the peer, or the code of the close frame.
fn connect(fixture: &Fixture, claims: &Value) -> Result<Peer, u16> {
    let mut peer = fixture.connect();
    peer.say(&format!(r#"{{"id":1,"connect":{{"token":"{}"}}}}"#, signed(claims)));
    match peer.next() {
        Received::Text(reply) => {
            assert!(reply.contains(r#""connect":{"#), "{reply}");
            Ok(peer)
        }
        Received::Closed(code) => Err(code),
        other => panic!("{other:?}"),
    }
}

/// Whether a connection still answers commands.
fn is_alive(peer: &mut Peer) -> bool {
    peer.say(r#"{"id":9,"rpc":{"method":"x"}}"#);
    matches!(peer.next(), Received::Text(reply) if reply.contains(r#""id":9"#))
}

#[test]
fn a_revoked_user_is_closed_and_refused_until_the_revocation_is_lifted() {
    let fixture = Fixture::with(&[("server.workers", "2")]);
    for (revoke, lift) in [("revoke", "unrevoke"), ("block_user", "unblock_user")] {
        let mut own: Vec<Peer> =
            (0..4).map(|_| connect(&fixture, &json!({"sub": "ann"})).unwrap()).collect();
        let mut other = connect(&fixture, &json!({"sub": "bob"})).unwrap();
        call(&fixture, revoke, &json!({"user": "ann"}));
        own.iter_mut().for_each(|peer| assert_eq!(peer.close_code(), 3500));
        assert!(is_alive(&mut other));
        assert_eq!(connect(&fixture, &json!({"sub": "ann"})).err(), Some(3500));
        call(&fixture, lift, &json!({"user": "ann"}));
        assert!(connect(&fixture, &json!({"sub": "ann"})).is_ok());
    }
}

#[test]
fn a_revoked_token_is_the_only_one_that_is_refused() {
    let fixture = Fixture::start();
    let of = |id: &str| json!({"sub": "ann", "jti": id});
    let (mut stolen, mut other) =
        (connect(&fixture, &of("t1")).unwrap(), connect(&fixture, &of("t2")).unwrap());
    call(&fixture, "revoke", &json!({"token_id": "t1"}));
    assert_eq!(stolen.close_code(), 3500);
    assert!(is_alive(&mut other));
    assert_eq!(connect(&fixture, &of("t1")).err(), Some(3500));
    // A revoked token neither refreshes a connection nor authorizes a subscription.
    let refresh = format!(r#"{{"id":2,"refresh":{{"token":"{}"}}}}"#, signed(&of("t1")));
    other.say(&refresh);
    assert_eq!(other.close_code(), 3500);
    let mut subscriber = connect(&fixture, &of("t3")).unwrap();
    call(&fixture, "revoke_token", &json!({"uid": "s1"}));
    let token = signed(&json!({"sub": "ann", "channel": "closed:a", "jti": "s1"}));
    subscriber
        .say(&format!(r#"{{"id":2,"subscribe":{{"channel":"closed:a","token":"{token}"}}}}"#));
    assert!(subscriber.receive().contains(r#""code":103"#));
    call(&fixture, "unrevoke", &json!({"token_id": "t1"}));
    assert!(connect(&fixture, &of("t1")).is_ok());
}

#[test]
fn tokens_issued_before_a_time_are_refused_and_later_ones_are_not() {
    let fixture = Fixture::start();
    let of = |user: &str, issued_at: Value| json!({"sub": user, "iat": issued_at});
    let at = |seconds: i64| json!(NOW + seconds);
    let mut old = connect(&fixture, &of("ann", at(-1))).unwrap();
    let mut new = connect(&fixture, &of("ann", at(0))).unwrap();
    let mut unsaid = connect(&fixture, &of("ann", json!(null))).unwrap();
    let mut other = connect(&fixture, &of("bob", at(-1))).unwrap();
    call(&fixture, "revoke", &json!({"user": "ann", "issued_before": NOW}));
    assert_eq!((old.close_code(), unsaid.close_code()), (3500, 3500));
    assert!(is_alive(&mut new) && is_alive(&mut other));
    assert_eq!(connect(&fixture, &of("ann", at(-1))).err(), Some(3500));
    assert_eq!(connect(&fixture, &of("ann", json!(null))).err(), Some(3500));
    assert!(connect(&fixture, &of("ann", json!((NOW).to_string()))).is_ok());
    // A call with an earlier time does not shorten the revocation.
    call(&fixture, "invalidate_user_tokens", &json!({"user": "ann", "issued_before": NOW - 50}));
    assert_eq!(connect(&fixture, &of("ann", at(-1))).err(), Some(3500));
    call(&fixture, "revoke", &json!({"all_users": true, "issued_before": NOW}));
    assert_eq!(other.close_code(), 3500);
    assert!(is_alive(&mut new));
    assert_eq!(connect(&fixture, &of("eve", at(-1))).err(), Some(3500));
    assert!(connect(&fixture, &of("eve", at(1))).is_ok());
}

#[test]
fn a_user_whom_a_proxy_authenticates_can_be_revoked() {
    let fixture = Fixture::with(&[("client.user_id_http_header", "x-user")]);
    let dial = || {
        let mut peer = Peer::dial(fixture.address);
        assert_eq!(peer.ask(&upgrade("X-User: ann\r\n")).0, 101);
        peer
    };
    let (mut connected, mut silent) = (dial(), dial());
    connected.say(r#"{"id":1,"connect":{}}"#);
    assert!(connected.receive().contains(r#""connect":{"#));
    call(&fixture, "block_user", &json!({"user": "ann"}));
    assert_eq!(connected.close_code(), 3500);
    assert_eq!(silent.close_code(), 3500, "also before it has connected");
    assert_eq!(dial().close_code(), 3500);
}

#[test]
fn revocations_are_listed_in_pages_whose_entries_can_be_lifted() {
    let fixture = Fixture::start();
    let ends = 2_050_000_000i64;
    let bodies = [
        json!({"user": "ann", "expire_at": ends}),
        json!({"user": "bob:\u{e9}", "expire_at": ends}),
        json!({"token_id": "t1", "expire_at": ends}),
        json!({"user": "ann", "issued_before": 7, "expire_at": ends}),
        json!({"all_users": true, "issued_before": 7, "expire_at": ends}),
    ];
    let page = |body: &Value| {
        let (status, answer) = fixture.api("revocations", &body.to_string());
        assert_eq!(status, 200, "{answer}");
        serde_json::from_str::<Value>(&answer).unwrap()["result"].clone()
    };
    assert_eq!(fixture.api("revocations", ""), (200, r#"{"result":{"revocations":[]}}"#.into()));
    for body in bodies.iter().rev() {
        call(&fixture, "revoke", body);
    }
    call(&fixture, "revoke", &json!({"user": "lifted"}));
    call(&fixture, "unrevoke", &json!({"user": "lifted"}));
    assert_eq!(page(&json!({})), json!({"revocations": bodies}));
    for limit in [1, 2, 5] {
        let (mut listed, mut cursor) = (Vec::new(), json!(""));
        while !cursor.is_null() {
            let found = page(&json!({"limit": limit, "cursor": cursor}));
            listed.extend(found["revocations"].as_array().unwrap().clone());
            cursor = found["cursor"].clone();
        }
        assert_eq!(listed, bodies, "by {limit}");
    }
    for body in &bodies {
        call(&fixture, "unrevoke", body);
    }
    assert_eq!(page(&json!({})), json!({"revocations": []}));
    for body in [json!({"limit": -1}), json!({"cursor": "x"}), json!({"cursor": "all:x"})] {
        assert_eq!(code(&fixture, "revocations", &body), 107, "{body}");
    }
}

#[test]
fn every_user_that_can_connect_can_be_revoked() {
    let fixture = Fixture::with(&[("client.user_id_http_header", "x-user")]);
    let longest = |letter: &str| letter.repeat(1024);
    let mut by_user = connect(&fixture, &json!({"sub": longest("u")})).unwrap();
    let mut by_token = connect(&fixture, &json!({"sub": "ann", "jti": longest("t")})).unwrap();
    let mut peer = Peer::dial(fixture.address);
    assert_eq!(peer.ask(&upgrade(&format!("X-User: {}\r\n", longest("p")))).0, 101);
    call(&fixture, "revoke", &json!({"user": longest("u")}));
    call(&fixture, "revoke", &json!({"token_id": longest("t")}));
    call(&fixture, "block_user", &json!({"user": longest("p")}));
    assert_eq!((by_user.close_code(), by_token.close_code()), (3500, 3500));
    assert_eq!(peer.close_code(), 3500);
    let too_long = "x".repeat(1025);
    for claim in ["sub", "jti"] {
        assert_eq!(connect(&fixture, &json!({ claim: too_long })).err(), Some(3500), "{claim}");
    }
    let (status, _, reason) = fixture.request(&upgrade(&format!("X-User: {too_long}\r\n")));
    assert_eq!((status, reason.contains("1024")), (400, true), "{reason}");
}

/// Reply of Redis to a command; of an array, its first string.
fn ask(redis: &Redis, words: &[&[u8]]) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", redis.port)).unwrap();
    let mut command = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        command.extend(format!("${}\r\n", word.len()).bytes());
        command.extend_from_slice(word);
        command.extend(b"\r\n");
    }
    stream.write_all(&command).unwrap();
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        match line.trim_end().split_at(1) {
            ("*", count) if count != "0" => {}
            ("$", length) if length != "-1" => {
                let mut text = vec![0; length.parse().unwrap()];
                reader.read_exact(&mut text).unwrap();
                return text;
            }
            _ => return Vec::new(),
        }
    }
}

#[test]
fn a_later_call_wins_over_an_unseen_change_of_another_node() {
    let redis = Redis::start(free_port());
    let node = redis_node(&redis);
    let stored = |name: &[u8]| ask(&redis, &[b"HGET", name, b"user:ann"]);
    call(&node, "revoke", &json!({"user": "ann"}));
    let name = ask(&redis, &[b"KEYS", b"*revocations"]);
    let revoked = stored(&name);
    call(&node, "unrevoke", &json!({"user": "ann"}));
    let lifted = stored(&name);
    for (change, hours_ahead, method, is_admitted) in
        [(revoked, 1, "unrevoke", true), (lifted, 2, "revoke", false)]
    {
        // As stored concurrently by a node whose clock is ahead.
        let (rest, at) = change.split_last_chunk::<8>().unwrap();
        let at = i64::from_be_bytes(*at) + hours_ahead * 3_600_000;
        let change = [rest, &at.to_be_bytes()].concat();
        ask(&redis, &[b"HSET", &name, b"user:ann", &change]);
        call(&node, method, &json!({"user": "ann"}));
        // A node that starts reads what is stored.
        for node in [&node, &redis_node(&redis)] {
            let admitted = connect(node, &json!({"sub": "ann"}));
            assert_eq!(admitted.is_ok(), is_admitted, "{method}: {:?}", admitted.err());
        }
    }
}

#[test]
fn revocations_that_the_broker_has_lost_are_stored_again() {
    let redis = Redis::start(free_port());
    let node = redis_node(&redis);
    call(&node, "block_user", &json!({"user": "ann"}));
    let name = ask(&redis, &[b"KEYS", b"*revocations"]);
    assert!(!name.is_empty());
    ask(&redis, &[b"DEL", &name]);
    let until = Instant::now() + 2 * PATIENCE;
    while ask(&redis, &[b"HGET", &name, b"user:ann"]).is_empty() {
        assert!(Instant::now() < until);
        std::thread::yield_now();
    }
    assert_eq!(connect(&redis_node(&redis), &json!({"sub": "ann"})).err(), Some(3500));
}

#[test]
fn a_revocation_needs_a_subject_and_an_end() {
    let fixture = Fixture::start();
    for body in [
        json!({}),
        json!({"user": ""}),
        json!({"token_id": ""}),
        json!({"user": "x".repeat(1025)}),
        json!({"token_id": "x".repeat(1025)}),
        json!({"user": "ann", "token_id": "t"}),
        json!({"all_users": true}),
        json!({"issued_before": NOW}),
    ] {
        assert_eq!(code(&fixture, "revoke", &body), 107, "{body}");
    }
    assert_eq!(code(&fixture, "revoke", &json!({"user": "ann", "expire_at": 1})), 110);
    assert_eq!(code(&fixture, "block_user", &json!({})), 107);
    let of_channel = json!({"user": "ann", "channel": "a"});
    assert_eq!(code(&fixture, "invalidate_user_tokens", &of_channel), 108);
    call(&fixture, "unrevoke", &json!({"user": "nobody"}));
    // A future time counts as now.
    call(&fixture, "revoke", &json!({"user": "eve", "issued_before": 1_795_804_711_000i64}));
    assert_eq!(connect(&fixture, &json!({"sub": "eve", "iat": NOW})).err(), Some(3500));
    assert!(connect(&fixture, &json!({"sub": "eve", "iat": 4_000_000_000i64})).is_ok());
    assert!(connect(&fixture, &json!({"sub": "ann"})).is_ok());
}
