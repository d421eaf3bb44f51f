//! Users and tokens that are not accepted any more: who is closed, who is refused, and that it can be lifted.

use serde_json::{Value, json};

use crate::support::{Fixture, Heard, Peer, signed, upgrade};

const NOW: i64 = 1_700_000_000;

fn call(fixture: &Fixture, method: &str, body: &Value) {
    let answer = fixture.api(method, &body.to_string());
    assert_eq!(answer, (200, r#"{"result":{}}"#.to_owned()), "{method} {body}");
}

fn code(fixture: &Fixture, method: &str, body: &Value) -> Value {
    let (_, answer) = fixture.api(method, &body.to_string());
    serde_json::from_str::<Value>(&answer).unwrap()["error"]["code"].clone()
}

/// What comes of a connect command with a token of these claims: the peer, or the code of the close frame.
fn connect(fixture: &Fixture, claims: &Value) -> Result<Peer, u16> {
    let mut peer = fixture.connect();
    peer.say(&format!(r#"{{"id":1,"connect":{{"token":"{}"}}}}"#, signed(claims)));
    match peer.next() {
        Heard::Text(reply) => {
            assert!(reply.contains(r#""connect":{"#), "{reply}");
            Ok(peer)
        }
        Heard::Closed(code) => Err(code),
        other => panic!("{other:?}"),
    }
}

/// Whether a connection still answers.
fn is_alive(peer: &mut Peer) -> bool {
    peer.say(r#"{"id":9,"rpc":{"method":"x"}}"#);
    matches!(peer.next(), Heard::Text(reply) if reply.contains(r#""id":9"#))
}

#[test]
fn a_revoked_user_is_closed_and_stays_outside_until_that_is_lifted() {
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
    // Neither does it prolong a connection, nor does it subscribe.
    let refresh = format!(r#"{{"id":2,"refresh":{{"token":"{}"}}}}"#, signed(&of("t1")));
    other.say(&refresh);
    assert_eq!(other.close_code(), 3500);
    let mut subscriber = connect(&fixture, &of("t3")).unwrap();
    call(&fixture, "revoke_token", &json!({"uid": "s1"}));
    let token = signed(&json!({"sub": "ann", "channel": "closed:a", "jti": "s1"}));
    subscriber
        .say(&format!(r#"{{"id":2,"subscribe":{{"channel":"closed:a","token":"{token}"}}}}"#));
    assert!(subscriber.hear().contains(r#""code":103"#));
    call(&fixture, "unrevoke", &json!({"token_id": "t1"}));
    assert!(connect(&fixture, &of("t1")).is_ok());
}

#[test]
fn tokens_that_were_issued_before_are_refused_and_later_ones_are_not() {
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
    // A call that reaches less far takes nothing back.
    call(&fixture, "invalidate_user_tokens", &json!({"user": "ann", "issued_before": NOW - 50}));
    assert_eq!(connect(&fixture, &of("ann", at(-1))).err(), Some(3500));
    call(&fixture, "revoke", &json!({"all_users": true, "issued_before": NOW}));
    assert_eq!(other.close_code(), 3500);
    assert!(is_alive(&mut new));
    assert_eq!(connect(&fixture, &of("eve", at(-1))).err(), Some(3500));
    assert!(connect(&fixture, &of("eve", at(1))).is_ok());
}

#[test]
fn a_user_for_whom_a_proxy_vouches_can_be_revoked_too() {
    let fixture = Fixture::with(&[("client.user_id_http_header", "x-user")]);
    let dial = || {
        let mut peer = Peer::dial(fixture.address);
        assert_eq!(peer.ask(&upgrade("X-User: ann\r\n")).0, 101);
        peer
    };
    let (mut connected, mut silent) = (dial(), dial());
    connected.say(r#"{"id":1,"connect":{}}"#);
    assert!(connected.hear().contains(r#""connect":{"#));
    call(&fixture, "block_user", &json!({"user": "ann"}));
    assert_eq!(connected.close_code(), 3500);
    assert_eq!(silent.close_code(), 3500, "also before it has connected");
    assert_eq!(dial().close_code(), 3500);
}

#[test]
fn what_is_revoked_must_be_named_and_must_end() {
    let fixture = Fixture::start();
    for body in [
        json!({}),
        json!({"user": ""}),
        json!({"token_id": ""}),
        json!({"user": "x".repeat(256)}),
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
    // A time to come counts as now.
    call(&fixture, "revoke", &json!({"user": "eve", "issued_before": 1_795_804_711_000i64}));
    assert_eq!(connect(&fixture, &json!({"sub": "eve", "iat": NOW})).err(), Some(3500));
    assert!(connect(&fixture, &json!({"sub": "eve", "iat": 4_000_000_000i64})).is_ok());
    assert!(connect(&fixture, &json!({"sub": "ann"})).is_ok());
}
