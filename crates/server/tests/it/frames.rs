//! Violations of RFC 6455: each has its close code and affects no other connection.

use wire::websocket::encoder::FrameKind;

use crate::support::{Fixture, Received};

#[test]
fn every_violation_has_its_close_code_and_affects_no_other_connection() {
    let fixture = Fixture::with(&[("server.workers", "1")]);
    let mut bystander = fixture.admitted();
    let masked = |first: u8, payload: &[u8]| {
        let length = 0x80 | u8::try_from(payload.len()).unwrap();
        [&[first, length, 0, 0, 0, 0], payload].concat()
    };
    let mut too_long = vec![0x81, 0xff];
    too_long.extend_from_slice(&(1_u64 << 40).to_be_bytes());
    too_long.extend_from_slice(&[0; 4]);
    let cases = [
        ("not masked", 1002, vec![0x81, 2, b'{', b'}']),
        ("a reserved bit", 1002, masked(0xc1, b"{}")),
        ("an opcode that does not exist", 1002, masked(0x83, b"{}")),
        ("a control frame in pieces", 1002, masked(0x09, b"")),
        ("a continuation of nothing", 1002, masked(0x80, b"{}")),
        ("a close code that nobody may send", 1002, masked(0x88, &1005_u16.to_be_bytes())),
        ("text that is no UTF-8", 1007, masked(0x81, &[0xff, 0xfe])),
        ("more than the message limit", 1009, too_long),
    ];
    for (name, code, bytes) in cases {
        let mut peer = fixture.admitted();
        peer.send(&bytes);
        assert_eq!(peer.close_code(), code, "{name}");
        assert_eq!(peer.next(), Received::Cut, "{name}");
    }
    bystander.say(r#"{"id":2,"publish":{"channel":"open:x","data":1}}"#);
    assert_eq!(bystander.receive(), r#"{"id":2,"publish":{}}"#);
}

#[test]
fn the_close_frame_arrives_while_the_peer_is_still_sending() {
    let fixture = Fixture::start();
    let (mut not_masked, mut no_utf8) =
        (vec![0x81, 2, b'{', b'}'], vec![0x81, 0x82, 0, 0, 0, 0, 0xff, 0xfe]);
    let mut too_long = vec![0x81, 0xff];
    too_long.extend_from_slice(&(1_u64 << 40).to_be_bytes());
    too_long.extend_from_slice(&[0; 4]);
    for (code, first) in [(1002, &mut not_masked), (1007, &mut no_utf8), (1009, &mut too_long)] {
        for _ in 0..2 {
            let mut peer = fixture.admitted();
            // All of it is written before anything is read.
            first.extend_from_slice(&[0; 1_000_000]);
            peer.send(first);
            first.truncate(first.len() - 1_000_000);
            assert_eq!(peer.close_code(), code);
            assert_eq!(peer.next(), Received::Cut);
        }
    }
}

#[test]
fn a_peer_that_keeps_sending_after_the_close_is_cut_off() {
    let fixture = Fixture::start();
    let mut peer = fixture.admitted();
    peer.send(&[0x81, 2, b'{', b'}']);
    assert_eq!(peer.close_code(), 1002);
    let sent = peer.send_until_cut(&[0; 1 << 20]);
    let most = server::limits::LINGER_BYTES_MAX as usize;
    assert!(sent > most / 2 && sent < 2 * most, "{sent} bytes");
}

#[test]
fn pings_are_answered_and_fragments_joined() {
    let fixture = Fixture::start();
    let mut peer = fixture.admitted();
    peer.frame(FrameKind::Ping, b"are you there");
    assert_eq!(peer.next(), Received::Pong(b"are you there".to_vec()));
    // One message in three frames, with a ping between them, cut at every byte.
    let text = br#"{"id":7,"rpc":{"method":"x","data":1}}"#;
    let mut bytes = Vec::new();
    let mut fragment = |first: u8, payload: &[u8]| {
        bytes.extend_from_slice(&[first, 0x80 | payload.len() as u8, 0, 0, 0, 0]);
        bytes.extend_from_slice(payload);
    };
    fragment(0x01, &text[..5]);
    fragment(0x00, &text[5..9]);
    fragment(0x89, b"between");
    fragment(0x80, &text[9..]);
    for byte in bytes {
        peer.send(&[byte]);
    }
    assert_eq!(peer.next(), Received::Pong(b"between".to_vec()));
    assert!(peer.receive().contains(r#""code":108"#));
}

#[test]
fn a_close_is_answered_with_its_own_code() {
    let fixture = Fixture::start();
    let mut peer = fixture.admitted();
    peer.close(1000);
    assert_eq!(peer.next(), Received::Closed(1000));
    assert_eq!(peer.next(), Received::Cut);
}

#[test]
fn a_message_behind_the_handshake_is_not_lost() {
    let fixture = Fixture::start();
    let mut peer = crate::support::Peer::dial(fixture.address);
    let command = br#"{"id":1,"connect":{"token":"bad"}}"#;
    let mut request = crate::support::upgrade("").into_bytes();
    request.extend_from_slice(&[0x81, 0x80 | command.len() as u8, 0, 0, 0, 0]);
    request.extend_from_slice(command);
    peer.send(&request);
    assert_eq!(peer.ask("").0, 101);
    assert_eq!(peer.close_code(), 3500);
}
