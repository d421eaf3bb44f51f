//! Limits on connections, their rate, connections of a user, the time until connect, and data
//! queued for slow clients.

use server::limits::UNAUTHENTICATED_SIZE_MAX;
use wire::websocket::encoder::FrameKind;

use crate::peer::frame;
use crate::support::{Fixture, PATIENCE, Peer, Received, token, upgrade};

#[test]
fn a_full_node_refuses_with_503_and_has_room_again() {
    let fixture = Fixture::with(&[("client.connection_limit", "2")]);
    let mut silent = fixture.connect();
    let _one = fixture.admitted();
    let mut two = fixture.admitted();
    let (status, head, _) = fixture.request(&upgrade(""));
    assert_eq!(status, 503);
    assert!(head.contains("retry-after: "), "{head}");
    // A connection that was accepted before the node was full is closed now and may reconnect.
    silent.say(&connect("bob"));
    assert_eq!(silent.next(), Received::Closed(3011));
    two.close(1000);
    // The server releases a connection before it closes its socket.
    while two.next() != Received::Cut {}
    assert_eq!(fixture.request(&upgrade("")).0, 101);
}

fn connect(user: &str) -> String {
    format!(r#"{{"id":1,"connect":{{"token":"{}"}}}}"#, token(user))
}

#[test]
fn unauthenticated_connections_do_not_count_as_connections() {
    let fixture = Fixture::with(&[
        ("client.connection_limit", "3"),
        ("client.unauthenticated_connection_limit", "4"),
    ]);
    let mut silent: Vec<Peer> = (0..9).map(|_| fixture.connect()).collect();
    let _admitted: Vec<Peer> = (0..3).map(|_| fixture.admitted()).collect();
    // The oldest was evicted: one address may have two.
    for evicted in &mut silent[..7] {
        assert_eq!(evicted.next(), Received::Closed(3011));
    }
}

#[test]
fn unfinished_messages_of_unauthenticated_connections_are_bounded_in_bytes() {
    const MIB: usize = 1024 * 1024;
    let size = (8 * MIB).to_string();
    let settings = [("websocket.message_size_limit", &*size), ("limits.connection.bytes", "off")];
    let fixture = Fixture::with(&settings);
    let mut unfinished = frame(FrameKind::Text, &vec![b'x'; 8 * MIB]);
    let last = unfinished.pop().unwrap();
    let beyond = UNAUTHENTICATED_SIZE_MAX / (8 * MIB) + 1;
    let mut silent: Vec<Peer> = (0..beyond).map(|_| fixture.connect()).collect();
    for peer in &mut silent {
        peer.send(&unfinished);
    }
    assert_eq!(silent[0].next(), Received::Closed(3011), "the oldest made room");
    // An admitted connection is neither counted nor evicted.
    let mut admitted = fixture.admitted();
    admitted.send(&unfinished);
    admitted.send(&[last]);
    assert_eq!(admitted.close_code(), 3501, "the message was read to its end");
}

#[test]
fn control_frames_of_an_unauthenticated_connection_evict_nobody() {
    let fixture = Fixture::with(&[("limits.connection.bytes", "off")]);
    let mut quiet = fixture.connect();
    let mut sender = fixture.connect();
    let pongs = frame(FrameKind::Pong, &[0; 125]).repeat(8_192);
    for _ in 0..UNAUTHENTICATED_SIZE_MAX / pongs.len() + 2 {
        sender.send(&pongs);
    }
    sender.say(&connect("ann"));
    assert!(sender.receive().contains("connect"), "all was read");
    quiet.say(&connect("bob"));
    assert!(quiet.receive().contains("connect"));
}

#[test]
fn connections_count_for_the_admitted_user_and_not_for_the_one_in_the_header() {
    let fixture = Fixture::with(&[
        ("client.user_connection_limit", "1"),
        ("client.user_id_http_header", "X-User"),
    ]);
    let with_header = |user: &str| {
        let mut peer = Peer::dial(fixture.address);
        assert_eq!(peer.ask(&upgrade(&format!("X-User: {user}\r\n"))).0, 101);
        peer
    };
    let mut first = with_header("x1");
    first.say(&connect("y"));
    assert!(first.receive().contains("connect"));
    let mut second = with_header("x2");
    second.say(&connect("y"));
    assert_eq!(second.next(), Received::Closed(3504));
    // Without a token the user in the header is admitted.
    let mut third = with_header("x1");
    third.say(r#"{"id":1,"connect":{}}"#);
    assert!(third.receive().contains("connect"), "x1 has no connection yet");
    let mut fourth = with_header("x1");
    fourth.say(r#"{"id":1,"connect":{}}"#);
    assert_eq!(fourth.next(), Received::Closed(3504));
}

#[test]
fn handshakes_per_second_are_limited() {
    let fixture = Fixture::with(&[("client.connection_rate_limit", "3")]);
    let statuses: Vec<u16> = (0..6).map(|_| fixture.request(&upgrade("")).0).collect();
    assert_eq!(statuses[..3], [101, 101, 101]);
    assert!(statuses[3..].contains(&503), "{statuses:?}");
}

#[test]
fn connections_of_a_user_are_limited() {
    let fixture = Fixture::with(&[("client.user_connection_limit", "1"), ("server.workers", "2")]);
    let first = fixture.admitted();
    let mut second = fixture.connect();
    second.say(&format!(r#"{{"id":1,"connect":{{"token":"{}"}}}}"#, token("ann")));
    assert_eq!(second.close_code(), 3504);
    let mut other = fixture.connect();
    other.say(&format!(r#"{{"id":1,"connect":{{"token":"{}"}}}}"#, token("bob")));
    assert!(other.receive().contains("connect"));
    drop(first);
}

#[test]
fn a_connection_without_a_connect_command_is_closed() {
    let fixture = Fixture::with(&[("client.stale_close_delay", "200ms")]);
    let mut peer = fixture.connect();
    assert_eq!(peer.close_code(), 3502);
}

#[test]
fn a_client_that_does_not_answer_pings_is_closed() {
    let fixture =
        Fixture::with(&[("client.ping_interval", "300ms"), ("client.pong_timeout", "100ms")]);
    let mut peer = fixture.admitted();
    assert_eq!(peer.receive(), "{}");
    assert_eq!(peer.close_code(), 3012);
    let mut peer = fixture.admitted();
    for _ in 0..3 {
        assert_eq!(peer.receive(), "{}");
        peer.say("{}");
    }
}

#[test]
fn a_slow_client_is_closed_with_3008_and_others_are_not() {
    let fixture = Fixture::with(&[("client.queue_max_size", "200000"), ("server.workers", "1")]);
    let join = |peer: &mut Peer| {
        peer.say(r#"{"id":2,"subscribe":{"channel":"open:x"}}"#);
        assert!(peer.receive().contains("subscribe"));
    };
    let mut slow = fixture.admitted();
    let mut quick = fixture.admitted();
    join(&mut slow);
    join(&mut quick);
    let data = "x".repeat(50_000);
    let body = format!(r#"{{"channel":"open:x","data":"{data}"}}"#);
    // More than the kernel's buffers of a loopback connection take.
    for _ in 0..400 {
        assert_eq!(fixture.api("publish", &body).0, 200);
        assert!(quick.receive().contains(&data));
    }
    let mut received = 0;
    let code = loop {
        match slow.next() {
            Received::Text(_) => received += 1,
            Received::Closed(code) => break code,
            other => panic!("heard {other:?} after {received} publications"),
        }
    };
    assert_eq!(code, 3008);
    assert!(received < 400, "it was not slow");
}

#[test]
fn an_http_peer_that_does_not_read_responses_is_cut_off() {
    let mut fixture = Fixture::with(&[("shutdown.timeout", "60s")]);
    let mut greedy = Peer::dial(fixture.address);
    // More responses than the kernel buffers on a loopback connection; sending stops when the
    // server stops reading.
    greedy.send_until_stuck("GET /api/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n");
    let server = fixture.server.take().unwrap();
    let began = std::time::Instant::now();
    fixture.runtime.block_on(server.stop());
    let passed = began.elapsed();
    assert!(passed < server::limits::WRITE_TIMEOUT + PATIENCE, "stopped after {passed:?}");
}
