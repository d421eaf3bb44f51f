//! Ends of connections: they are detected and counted, and their state is removed.

use std::time::{Duration, Instant};

use crate::support::{Fixture, Peer, Received, token, upgrade};

#[test]
fn a_peer_that_shuts_down_writing_after_its_last_message_is_removed_at_once() {
    let fixture = Fixture::with(&[("server.workers", "1")]);
    // The last message and the end of the stream often arrive as one readiness event.
    for id in 2..52 {
        let mut peer = fixture.admitted();
        peer.say(&format!(r#"{{"id":{id},"publish":{{"channel":"open:x","data":1}}}}"#));
        peer.end();
        let began = Instant::now();
        while peer.next() != Received::Cut {}
        assert!(began.elapsed() < Duration::from_secs(5), "only the next ping noticed it");
    }
}

#[test]
fn the_connection_limit_applies_to_users_of_a_reverse_proxy() {
    let fixture = Fixture::with(&[
        ("client.user_connection_limit", "1"),
        ("client.user_id_http_header", "X-User"),
    ]);
    let connect = || {
        let mut peer = Peer::dial(fixture.address);
        let (status, head, _) = peer.ask(&upgrade("X-User: ann\r\n"));
        assert_eq!(status, 101, "{head}");
        peer.say(r#"{"id":1,"connect":{}}"#);
        peer
    };
    let mut first = connect();
    assert!(first.receive().contains(r#""connect":{"#));
    assert_eq!(connect().close_code(), 3504);
    first.close(1000);
    while first.next() != Received::Cut {}
    let mut second = connect();
    assert!(second.receive().contains(r#""connect":{"#));
}

#[test]
fn every_close_is_counted_by_code() {
    let fixture = Fixture::start();
    let mut leaving = fixture.admitted();
    leaving.close(1000);
    while leaving.next() != Received::Cut {}
    let mut breaking = fixture.admitted();
    breaking.send(&[0x81, 2, b'{', b'}']);
    assert_eq!(breaking.close_code(), 1002);
    let mut silent = fixture.admitted();
    silent.say("{}");
    assert_eq!(silent.close_code(), 3501);
    let began = Instant::now();
    let expected = ["3000", "1002", "3501"]
        .map(|code| format!("tidings_connections_closed_total{{code=\"{code}\"}} 1"));
    loop {
        let (_, _, page) = fixture.request("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        if expected.iter().all(|line| page.contains(line)) {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{expected:?} are not in\n{page}");
    }
}

#[test]
fn a_disconnect_with_code_3000_ends_the_transport_without_a_close_frame() {
    let fixture = Fixture::start();
    let mut peer = fixture.connect();
    peer.say(&format!(r#"{{"id":1,"connect":{{"token":"{}"}}}}"#, token("ann")));
    assert!(peer.receive().contains(r#""connect":{"#));
    let body = r#"{"user":"ann","disconnect":{"code":3000,"reason":"test"}}"#;
    assert_eq!(fixture.api("disconnect", body).0, 200);
    assert_eq!(peer.next(), Received::Cut);
}
