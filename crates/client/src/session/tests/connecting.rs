//! Connecting, losing the connection, and what each code says about coming back.

use std::time::Duration;

use wire::protocol::{Codec, PushEvent, Reply, ReplyBody, Request};

use super::script::{Script, Sent, error};
use crate::error::TransportError;
use crate::limits::STABLE_TIME;
use crate::session::{
    Action, ConnectionState, Event, Failure, Reason, SessionOptions, SubscriptionOptions,
};

#[test]
fn connect_and_subscribe_share_a_frame_in_both_codecs() {
    for codec in [Codec::Json, Codec::Protobuf] {
        let options = SessionOptions { codec, name: "n".to_owned(), ..SessionOptions::default() };
        let mut script = Script::new(options);
        for channel in ["a", "b"] {
            let options = SubscriptionOptions::default();
            script.session.subscribe(script.now, channel, options).unwrap();
        }
        script.session.connect(script.now);
        let commands = script.upgrade();
        let ids: Vec<u32> = commands.iter().map(|command| command.id).collect();
        assert_eq!(ids, [1, 2, 3]);
        let Request::Connect(connect) = &commands[0].request else { panic!("{commands:?}") };
        assert_eq!(connect.name, "n");
        for (command, channel) in commands[1..].iter().zip(["a", "b"]) {
            let Request::Subscribe(subscribe) = &command.request else { panic!("{commands:?}") };
            assert_eq!((&*subscribe.channel, subscribe.recover), (channel, false));
        }
        assert_eq!(script.session.state(), ConnectionState::Connecting);
        script.accept();
        assert_eq!(script.session.state(), ConnectionState::Connected);
        let events = script.events();
        assert!(
            matches!(&events[2], Event::Connecting(reason) if *reason == Reason::CONNECT_CALLED)
        );
        assert!(matches!(&events[3], Event::Connected(connected) if connected.client == "c"));
    }
}

#[test]
fn many_commands_are_spread_over_frames_that_servers_accept() {
    let mut script = Script::new(SessionOptions::default());
    for number in 0..1_000 {
        let channel = format!("{number}:{}", "x".repeat(100));
        script.session.subscribe(script.now, &channel, SubscriptionOptions::default()).unwrap();
    }
    script.session.connect(script.now);
    script.session.poll_action();
    script.session.handle_opened(script.now);
    let request = String::from_utf8(script.session.poll_transmit().unwrap()).unwrap();
    assert!(request.len() < 1_000, "only the handshake");
    let key = request.split("Sec-WebSocket-Key: ").nth(1).unwrap().lines().next().unwrap();
    let headers = [
        ("upgrade", "websocket"),
        ("connection", "upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", key),
    ];
    let head = wire::websocket::handshake::RequestHead {
        method: "GET",
        is_http_1_1: true,
        headers: headers.map(|(name, value)| (name, value.as_bytes())).to_vec(),
    };
    let accept = wire::websocket::handshake::accept(&head).unwrap().accept;
    script.bytes(format!("HTTP/1.1 101 -\r\nSec-WebSocket-Accept: {accept}\r\n\r\n").as_bytes());
    let sent = script.sent();
    assert!(sent.len() > 3, "{} frames", sent.len());
    let count = |sent: &Sent| match sent {
        Sent::Commands(commands) => commands.len(),
        Sent::Close(_) => 0,
    };
    assert_eq!(sent.iter().map(count).sum::<usize>(), 1_001);
}

#[test]
fn delays_grow_until_a_connection_has_lived_for_a_while() {
    let mut script = Script::new(SessionOptions::default());
    script.session.connect(script.now);
    let mut delays = Vec::new();
    for _ in 0..8 {
        assert_eq!(script.session.poll_action(), Some(Action::Open));
        script.session.handle_closed(script.now, TransportError::Io("refused".to_owned()));
        delays.push(script.wait());
    }
    // Half of the range of each attempt, and the least delay.
    let millis: Vec<u128> = delays.iter().map(Duration::as_millis).collect();
    let expected = [750, 1_000, 1_500, 2_500, 4_500, 8_500, 10_500, 10_500];
    for (delay, least) in millis.iter().zip(expected) {
        assert!((least..=least * 2).contains(delay), "{millis:?}");
    }
    let failures = script.events();
    assert_eq!(failures.iter().filter(|event| matches!(event, Event::Failed(_))).count(), 8);
    script.upgrade();
    script.accept();
    script.session.handle_closed(script.now, TransportError::Closed);
    assert!(script.wait() > Duration::from_secs(10), "a server that ends at once is none yet");
    script.upgrade();
    script.accept();
    script.now += STABLE_TIME;
    script.session.handle_closed(script.now, TransportError::Closed);
    assert!(script.wait() <= Duration::from_secs(1), "the first delay again");
}

#[test]
fn a_server_that_is_silent_on_the_way_is_left() {
    let mut script = Script::new(SessionOptions::default());
    script.session.connect(script.now);
    script.events();
    // The byte stream does not open.
    assert_eq!(script.session.poll_action(), Some(Action::Open));
    assert_eq!(script.wait(), Duration::from_secs(5));
    assert_eq!(script.session.poll_action(), Some(Action::Close));
    assert_eq!(script.event(), Event::Failed(Failure::Transport(TransportError::Timeout)));
    script.wait();
    // The handshake is not answered.
    assert_eq!(script.session.poll_action(), Some(Action::Open));
    script.session.handle_opened(script.now);
    script.session.poll_transmit();
    assert_eq!(script.wait(), Duration::from_secs(5));
    assert_eq!(script.session.poll_action(), Some(Action::Close));
    assert_eq!(script.session.poll_transmit(), None, "no frame before the handshake");
    script.wait();
    // The connect command is not answered.
    script.upgrade();
    assert_eq!(script.wait(), Duration::from_secs(5));
    script.closes();
}

#[test]
fn errors_of_connect_are_final_or_not() {
    for (code, temporary, is_retried) in [
        (100, true, true),
        (111, true, true),
        (1_000, true, true),
        (50, false, true),
        (101, false, false),
        (103, false, false),
        (109, false, false),
        (1_000, false, false),
    ] {
        let mut script = Script::new(SessionOptions::default());
        script.session.connect(script.now);
        script.upgrade();
        script.events();
        script.error(1, code, temporary);
        script.closes();
        match script.event() {
            Event::Failed(Failure::Connect(error)) if is_retried => assert_eq!(error.code, code),
            Event::Disconnected(reason) if !is_retried => assert_eq!(reason.code, code),
            other => panic!("{code}: {other:?}"),
        }
        let state = script.session.state();
        assert_eq!(state == ConnectionState::Connecting, is_retried, "{code}");
        assert_eq!(script.session.poll_timeout().is_some(), is_retried, "{code}");
    }
}

#[test]
fn close_codes_are_final_or_not() {
    for (code, reported, is_reconnect) in [
        (1000, 1, true),
        (1001, 1, true),
        (1009, 3, false),
        (3000, 3000, true),
        (3001, 3001, true),
        (3012, 3012, true),
        (3500, 3500, false),
        (3999, 3999, false),
        (4000, 4000, true),
        (4499, 4499, true),
        (4500, 4500, false),
        (4999, 4999, false),
    ] {
        let mut script = Script::connected();
        script.close_frame(code);
        script.closes();
        match script.event() {
            Event::Connecting(reason) if is_reconnect => assert_eq!(reason.code, reported),
            Event::Disconnected(reason) if !is_reconnect => assert_eq!(reason.code, reported),
            other => panic!("{code}: {other:?}"),
        }
    }
    // The same before the connection was accepted.
    let mut script = Script::new(SessionOptions::default());
    script.session.connect(script.now);
    script.upgrade();
    script.events();
    script.close_frame(3001);
    let Event::Failed(Failure::Closed(reason)) = script.event() else { panic!() };
    assert_eq!((reason.code, &*reason.text), (3001, "reason"));
    assert_eq!(script.session.state(), ConnectionState::Connecting);
}

#[test]
fn pings_are_answered_and_missed() {
    let mut script = Script::connected();
    script.reply(0, ReplyBody::Ping);
    assert_eq!(script.request(), (0, Request::Pong));
    script.now += Duration::from_secs(20);
    script.reply(0, ReplyBody::Ping);
    script.request();
    assert_eq!(script.wait(), Duration::from_secs(35), "the interval of 25 s and 10 s");
    script.closes();
    assert_eq!(script.event(), Event::Connecting(Reason::NO_PING));
    // Without pings of the protocol there is nothing to wait for, and without pong nothing to
    // answer.
    let mut script = Script::new(SessionOptions::default());
    script.session.connect(script.now);
    script.upgrade();
    script.reply(1, ReplyBody::Connect(Box::default()));
    assert_eq!(script.session.poll_timeout(), None);
    script.reply(0, ReplyBody::Ping);
    assert_eq!(script.commands(), []);
}

#[test]
fn a_push_of_a_later_version_is_neither_told_nor_answered() {
    for codec in [Codec::Json, Codec::Protobuf] {
        let mut script = Script::new(SessionOptions { codec, ..SessionOptions::default() });
        script.connect();
        script.push("news", PushEvent::Unknown);
        assert_eq!((script.events(), script.commands()), (vec![], vec![]));
    }
}

#[test]
fn a_websocket_ping_is_answered() {
    let mut script = Script::connected();
    script.bytes(&wire::websocket::encoder::frame(wire::websocket::encoder::FrameKind::Ping, b"p"));
    let mut bytes = script.session.poll_transmit().unwrap();
    assert_eq!((bytes[0], bytes[1]), (0x8A, 0x81));
    assert_eq!(bytes.pop().unwrap() ^ bytes[2], b'p');
}

#[test]
fn disconnect_is_final_and_connect_begins_anew() {
    let mut script = Script::connected();
    script.session.disconnect();
    script.closes();
    assert_eq!(script.event(), Event::Disconnected(Reason::DISCONNECT_CALLED));
    assert_eq!(script.session.poll_timeout(), None);
    script.session.disconnect();
    assert_eq!(script.events(), []);
    script.session.connect(script.now);
    script.session.connect(script.now);
    assert_eq!(script.event(), Event::Connecting(Reason::CONNECT_CALLED));
    script.upgrade();
    script.accept();
    assert_eq!(script.session.state(), ConnectionState::Connected);
}

#[test]
fn what_is_no_reply_ends_the_connection() {
    let mut script = Script::connected();
    let frame =
        wire::websocket::encoder::frame(wire::websocket::encoder::FrameKind::Text, b"no JSON");
    script.bytes(&frame);
    script.closes();
    let events = script.events();
    assert!(matches!(events[0], Event::Failed(Failure::Transport(TransportError::Codec(_)))));
    assert_eq!(events[1], Event::Disconnected(Reason::BAD_PROTOCOL));
    // A result of another command is none either.
    let mut script = Script::new(SessionOptions::default());
    script.session.connect(script.now);
    script.upgrade();
    script.reply(1, ReplyBody::Publish);
    assert_eq!(script.events().pop(), Some(Event::Disconnected(Reason::BAD_PROTOCOL)));
}

#[test]
fn a_broken_frame_is_a_lost_connection() {
    let mut script = Script::connected();
    // Masked, which a server's frame must not be.
    script.bytes(&[0x81, 0x80, 0, 0, 0, 0]);
    let events = script.events();
    assert!(matches!(events[0], Event::Failed(Failure::Transport(TransportError::WebSocket(_)))));
    assert_eq!(events[1], Event::Connecting(Reason::TRANSPORT_CLOSED));
}

#[test]
fn nothing_of_an_ended_connection_is_taken() {
    let mut script = Script::connected();
    let replies = [
        Reply { id: 0, body: ReplyBody::Ping },
        Reply { id: 9, body: error(100, true) },
        Reply { id: 0, body: ReplyBody::Ping },
    ];
    let mut bytes = wire::websocket::encoder::close_frame(3500, "").to_vec();
    bytes.extend(script.frame(&replies));
    script.bytes(&bytes);
    script.closes();
    assert_eq!(script.events().len(), 1);
    script.bytes(&bytes);
    script.session.handle_closed(script.now, TransportError::Closed);
    script.session.handle_opened(script.now);
    assert_eq!((script.events(), script.sent()), (vec![], vec![]));
}

#[test]
fn a_refused_handshake_tells_its_status_and_reason_however_it_is_split() {
    let refusals = [
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 10\r\n\r\nnot here\r\n", 404, "not here"),
        ("HTTP/1.1 502 -\r\nContent-Length: 12\r\n\r\n<html></html", 502, ""),
        (
            "HTTP/1.1 503 -\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nlater\r\n0\r\n\r\n",
            503,
            "later",
        ),
        ("HTTP/1.1 403 Forbidden\r\n\r\n", 403, ""),
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", 403, ""),
    ];
    for (answer, status, reason) in refusals {
        for split in 1..answer.len() {
            let mut script = Script::new(SessionOptions::default());
            script.session.connect(script.now);
            script.session.poll_action();
            script.session.handle_opened(script.now);
            script.events();
            script.bytes(&answer.as_bytes()[..split]);
            script.bytes(&answer.as_bytes()[split..]);
            script.session.handle_closed(script.now, TransportError::Closed);
            let refused = TransportError::Refused { status, reason: reason.to_owned() };
            assert_eq!(script.event(), Event::Failed(Failure::Transport(refused)), "{split}");
        }
    }
}
