//! Refused handshakes: each has a status and one line with the reason.

use crate::support::{Fixture, Peer, Received, upgrade};

#[test]
fn every_refused_handshake_has_its_status_and_one_line_of_reason() {
    let fixture = Fixture::start();
    let good = upgrade("");
    let without = |header: &str| {
        let line = good.lines().find(|line| line.starts_with(header)).unwrap();
        good.replace(&format!("{line}\r\n"), "")
    };
    let cases = [
        (404, good.replace("/connection/websocket", "/connection")),
        (404, "GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n".to_owned()),
        (405, good.replace("GET", "POST")),
        (426, good.replace("Version: 13", "Version: 8")),
        (426, without("Upgrade")),
        (400, without("Connection")),
        (400, without("Sec-WebSocket-Key")),
        (400, good.replace("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ=")),
        (400, good.replace("HTTP/1.1", "HTTP/1.0")),
        (403, upgrade("Origin: https://evil.example\r\n")),
        (403, upgrade("Origin: null\r\n")),
    ];
    for (expected, request) in cases {
        let (status, head, body) = fixture.request(&request);
        assert_eq!(status, expected, "{request}\n{head}\n{body}");
        assert_eq!(body.lines().count(), 1, "{request}\n{body}");
        assert_eq!(head.contains("sec-websocket-version: 13"), status == 426, "{head}");
    }
    let (status, ..) = fixture.request(&upgrade("Origin: https://good.example\r\n"));
    assert_eq!(status, 101);
}

#[test]
fn subprotocols_and_query_select_the_codec() {
    let fixture = Fixture::start();
    let (_, head, _) = fixture.request(&upgrade("Sec-WebSocket-Protocol: x, centrifuge-json\r\n"));
    assert!(head.contains("sec-websocket-protocol: centrifuge-json"), "{head}");
    let offer = "Sec-WebSocket-Protocol: centrifuge-json, centrifuge-protobuf\r\n";
    let (_, head, _) = fixture.request(&upgrade(offer));
    assert!(head.contains("sec-websocket-protocol: centrifuge-protobuf"), "{head}");
    let (_, head, _) = fixture.request(&upgrade(""));
    assert!(!head.contains("sec-websocket-protocol"), "{head}");
}

#[test]
fn an_unbounded_head_is_refused() {
    let fixture = Fixture::start();
    let long = upgrade(&format!("X-Long: {}\r\n", "x".repeat(600_000)));
    let (status, ..) = fixture.request(&long);
    assert_eq!(status, 431);
    assert_eq!(fixture.request("nonsense\r\n\r\n").0, 400);
    fixture.admitted();
}

#[test]
fn a_reverse_proxy_authenticates_one_user_or_none() {
    let fixture = Fixture::with(&[("client.user_id_http_header", "X-User-Id")]);
    let user = |headers: &str| {
        let mut peer = Peer::dial(fixture.address);
        assert_eq!(peer.ask(&upgrade(headers)).0, 101);
        peer.say(r#"{"id":1,"connect":{}}"#);
        match peer.next() {
            Received::Text(_) => {
                peer.say(r#"{"id":2,"subscribe":{"channel":"kept:x"}}"#);
                assert!(peer.receive().contains("subscribe"));
                let (_, presence) = fixture.api("presence", r#"{"channel":"kept:x"}"#);
                presence
            }
            received => format!("{received:?}"),
        }
    };
    assert!(user("X-User-Id: \t ann \r\n").contains(r#""user":"ann""#));
    for nobody in ["", "X-User-Id:\r\n", "X-User-Id:  \r\n"] {
        assert_eq!(user(nobody), "Closed(3501)");
    }
    let twice = upgrade("X-User-Id: eve\r\nX-User-Id: ann\r\n");
    let (status, _, body) = fixture.request(&twice);
    assert_eq!((status, body.lines().count()), (400, 1), "{body}");
}
