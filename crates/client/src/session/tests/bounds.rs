//! Whatever a server sends, and however little it reads: what the session holds for it is bounded
//! in bytes, and what it asks of the application in pace.

use std::time::Duration;

use wire::protocol::{
    Codec, ConnectResult, PushEvent, Reply, ReplyBody, StreamPosition, SubscribeResult,
};
use wire::websocket::encoder::{FrameKind, frame};

use super::script::{Script, error, publication, recoverable};
use crate::error::{TokenError, TransportError};
use crate::limits::{OUTGOING_BYTES_MAX, SERVER_SUBSCRIPTION_BYTES_MAX, STABLE_TIME};
use crate::session::{
    Backoff, ConnectionState, Event, Failure, Reason, SessionOptions, SubscriptionOptions,
    TokenSource,
};

fn unsubscribe(code: u32) -> PushEvent {
    PushEvent::Unsubscribe { code, reason: "r".to_owned() }
}

fn subscribe() -> PushEvent {
    let position = StreamPosition::default();
    PushEvent::Subscribe { recoverable: false, positioned: false, position, data: "1".into() }
}

#[test]
fn pings_without_end_have_one_answer_of_each_kind() {
    for codec in [Codec::Json, Codec::Protobuf] {
        let mut script = Script::new(SessionOptions { codec, ..SessionOptions::default() });
        script.connect();
        script.sent();
        for number in 0..10_000 {
            script.bytes(&frame(FrameKind::Ping, format!("{number:0125}").as_bytes()));
            script.reply(0, ReplyBody::Ping);
        }
        let bytes = script.session.poll_transmit().unwrap();
        assert!(bytes.len() < 200, "{} bytes", bytes.len());
        // The newest is the one that is answered (RFC 6455 §5.5.3).
        let (pong, mask) = (&bytes[bytes.len() - 125..], &bytes[bytes.len() - 129..][..4]);
        let last: Vec<u8> = pong.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b).collect();
        assert_eq!(last, format!("{:0125}", 9_999).as_bytes());
        assert_eq!(script.session.poll_transmit(), None);
    }
}

#[test]
fn a_server_that_reads_nothing_is_not_read_from_when_answers_pile_up() {
    let mut script = Script::connected();
    let data: bytes::Bytes = format!("\"{}\"", "x".repeat(10_000)).into();
    let channels: Vec<String> = (0..200).map(|number| number.to_string()).collect();
    for channel in &channels {
        let options = SubscriptionOptions { data: data.clone(), ..SubscriptionOptions::default() };
        script.session.subscribe(script.now, channel, options).unwrap();
    }
    script.session.poll_transmit();
    // The ids of commands can be foreseen.
    let mut channels = channels.iter().zip(2..);
    while script.session.wants_bytes() {
        let (channel, id) = channels.next().expect("fewer commands are held");
        script.reply(id, ReplyBody::Subscribe(Box::new(recoverable(1))));
        script.push(channel, unsubscribe(2500));
    }
    let waiting = script.session.poll_transmit().unwrap();
    assert!(waiting.len() > OUTGOING_BYTES_MAX && waiting.len() < OUTGOING_BYTES_MAX + 20_000);
    assert!(script.session.wants_bytes());
}

#[test]
fn an_unsubscribe_push_hurries_no_subscription_that_is_being_made() {
    // While it waits before another attempt.
    let mut script = Script::connected();
    script.session.subscribe(script.now, "news", SubscriptionOptions::default()).unwrap();
    let (id, _) = script.request();
    script.error(id, 100, true);
    script.events();
    for _ in 0..100 {
        script.push("news", unsubscribe(2500));
    }
    assert_eq!((script.events(), script.commands()), (vec![], vec![]));
    assert!(script.wait() >= Duration::from_millis(500));
    // While it waits for a token.
    let token = TokenSource::Asked { first: String::new() };
    let options = SubscriptionOptions { token, ..SubscriptionOptions::default() };
    script.session.subscribe(script.now, "own", options).unwrap();
    script.asked();
    for _ in 0..100 {
        script.push("own", unsubscribe(2502));
    }
    assert_eq!(script.session.poll_action(), None, "one request is under way");
}

#[test]
fn a_subscription_that_the_server_ends_again_and_again_is_made_after_delays() {
    let mut script = Script::connected();
    script.session.subscribe(script.now, "news", SubscriptionOptions::default()).unwrap();
    for is_first in [true, false, false, false] {
        let (id, _) = script.request();
        script.reply(id, ReplyBody::Subscribe(Box::new(recoverable(1))));
        script.push("news", unsubscribe(2500));
        if !is_first {
            assert_eq!(script.commands(), []);
            let delay = script.wait();
            assert!(delay >= Duration::from_millis(500) && delay <= Duration::from_secs(1));
        }
    }
    let (id, _) = script.request();
    script.reply(id, ReplyBody::Subscribe(Box::new(recoverable(1))));
    script.now += STABLE_TIME;
    script.push("news", unsubscribe(2500));
    script.request();
}

#[test]
fn tokens_that_live_for_no_time_are_renewed_once_a_second() {
    let token = TokenSource::Asked { first: "t".to_owned() };
    let mut script = Script::new(SessionOptions { token, ..SessionOptions::default() });
    script.session.connect(script.now);
    script.upgrade();
    script.accept_with(ConnectResult { expires: true, ttl: 0, ..ConnectResult::default() });
    assert_eq!(script.wait(), Duration::from_secs(1));
    let (request, _) = script.asked();
    script.session.handle_token(script.now, request, Ok("t".to_owned()));
    script.push("", PushEvent::Refresh { expires: true, ttl: 0 });
    assert_eq!(script.wait(), Duration::from_secs(1));
}

#[test]
fn the_room_for_subscriptions_of_the_server_is_not_lost_by_what_did_not_fit() {
    let mut script = Script::connected();
    for _ in 0..10 {
        script.push(&"x".repeat(SERVER_SUBSCRIPTION_BYTES_MAX), subscribe());
        assert_eq!(script.events(), [Event::Disconnected(Reason::BAD_PROTOCOL)]);
        script.closes();
        script.connect();
    }
    script.push("news", subscribe());
    assert!(matches!(script.event(), Event::Subscribed { .. }));
}

#[test]
fn every_text_that_a_server_chooses_is_counted_in_the_weight_of_its_event() {
    const SIZE: usize = 100_000;
    let long = "x".repeat(SIZE);
    let failure = |error| Event::Failed(Failure::Connect(error));
    let ReplyBody::Error(mut refused) = error(100, true) else { panic!() };
    refused.message.clone_from(&long);
    let subject = crate::session::TokenSubject::Connection;
    let mut events = vec![
        Event::Connecting(Reason::of_server(3000, &long)),
        Event::Disconnected(Reason::of_server(3500, &long)),
        failure(refused.clone()),
        Event::Failed(Failure::Closed(Reason::of_server(3000, &long))),
        Event::Failed(Failure::Refresh { subject, error: refused.clone() }),
        Event::Failed(Failure::Subscribe { channel: "a".into(), error: refused }),
    ];
    // And what the session itself makes of pushes and results.
    let mut script = Script::new(SessionOptions::default());
    script.session.connect(script.now);
    script.upgrade();
    script.events();
    let result =
        ConnectResult { client: long.clone(), version: long.clone(), ..Default::default() };
    script.reply(1, ReplyBody::Connect(Box::new(result)));
    script.push(&long, subscribe());
    script.push(&long, PushEvent::Publication(publication(0)));
    script.push(&long, PushEvent::Join(std::sync::Arc::default()));
    let position = StreamPosition { offset: 1, epoch: long.clone() };
    let (recoverable, positioned, data) = (true, true, "1".into());
    script.push("a", PushEvent::Subscribe { recoverable, positioned, position, data });
    script.push("a", PushEvent::Unsubscribe { code: 2000, reason: long.clone() });
    let of_session = script.events();
    assert_eq!(of_session.len(), 6);
    events.extend(of_session);
    for event in events {
        assert!(event.weight() >= SIZE, "{} bytes", event.weight());
    }
}

#[test]
fn a_frame_that_is_too_large_or_compressed_is_refused_at_its_header() {
    let options = SessionOptions { message_size_max: 1_000, ..SessionOptions::default() };
    // 1,001 bytes; 2^63 - 1 bytes; compressed, which was not negotiated.
    let headers: [&[u8]; 3] = [
        &[0x81, 126, 0x03, 0xE9],
        &[0x82, 127, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
        &[0xC1, 0x05],
    ];
    for header in headers {
        let mut script = Script::new(options.clone());
        script.connect();
        script.bytes(header);
        script.closes();
        let events = script.events();
        let [Event::Failed(Failure::Transport(error)), Event::Connecting(_)] = &events[..] else {
            panic!("{events:?}")
        };
        assert!(matches!(error, TransportError::WebSocket(_)), "{error:?}");
    }
    // Fragments count together.
    let mut script = Script::new(options);
    script.connect();
    script.bytes(&[0x01, 126, 0x02, 0x58]);
    script.bytes(&[b' '; 600]);
    assert_eq!(script.session.state(), ConnectionState::Connected);
    script.bytes(&[0x80, 126, 0x02, 0x58]);
    assert_eq!(script.session.state(), ConnectionState::Connecting);
}

#[test]
fn json_that_is_nested_without_end_is_refused() {
    let mut script = Script::connected();
    let open = "[".repeat(1_000_000);
    let text = format!(r#"{{"push":{{"channel":"a","pub":{{"data":{open}"#);
    script.bytes(&frame(FrameKind::Text, text.as_bytes()));
    assert_eq!(script.events().pop(), Some(Event::Disconnected(Reason::BAD_PROTOCOL)));
}

#[test]
fn pings_do_not_replace_the_reply_to_connect() {
    let mut script = Script::new(SessionOptions::default());
    script.session.connect(script.now);
    script.upgrade();
    script.events();
    let end = script.session.poll_timeout().unwrap();
    for _ in 0..9 {
        script.now += Duration::from_millis(500);
        script.reply(0, ReplyBody::Ping);
        script.bytes(&frame(FrameKind::Ping, b""));
    }
    assert_eq!(script.session.poll_timeout(), Some(end));
    script.wait();
    assert_eq!(script.event(), Event::Failed(Failure::Transport(TransportError::Timeout)));
}

#[test]
fn replies_that_nobody_waits_for_change_nothing() {
    let mut script = Script::connected();
    let timeout = script.session.poll_timeout();
    let subscribed = ReplyBody::Subscribe(Box::new(recoverable(1)));
    let connected = ReplyBody::Connect(Box::default());
    for id in [1, 2, 77, u32::MAX] {
        for body in
            [subscribed.clone(), connected.clone(), ReplyBody::Unsubscribe, error(109, false)]
        {
            let bytes = script.frame(&[Reply { id, body }]);
            script.bytes(&bytes);
        }
    }
    assert_eq!((script.events(), script.commands()), (vec![], vec![]));
    assert_eq!(script.session.poll_timeout(), timeout);
    assert_eq!(script.session.state(), ConnectionState::Connected);
    // A push for a channel that the server does not have subscribed is counted, and nothing else.
    script.push("never", PushEvent::Publication(publication(1)));
    script.push("never", unsubscribe(2500));
    assert_eq!((script.events(), script.session.strays()), (vec![], 1));
}

#[test]
fn offsets_that_go_back_or_to_the_end_are_survived() {
    let mut script = Script::connected();
    let options = || SubscriptionOptions { recoverable: true, ..SubscriptionOptions::default() };
    script.session.subscribe(script.now, "news", options()).unwrap();
    let (id, _) = script.request();
    script.reply(id, ReplyBody::Subscribe(Box::new(recoverable(u64::MAX))));
    script.events();
    for offset in [u64::MAX, 5, 1] {
        script.push("news", PushEvent::Publication(publication(offset)));
    }
    assert_eq!((script.events(), script.session.duplicates()), (vec![], 3));
    // Without a history there are no offsets, and everything is delivered.
    script.push("news", PushEvent::Publication(publication(0)));
    assert_eq!(script.events().len(), 1);
    // The server's position counts when it could not recover.
    script.push("news", unsubscribe(2500));
    let (id, _) = script.request();
    let result = SubscribeResult { was_recovering: true, ..recoverable(2) };
    script.reply(id, ReplyBody::Subscribe(Box::new(result)));
    assert_eq!(script.session.position("news").unwrap().offset, 2);
}

#[test]
fn times_without_end_are_no_overflow() {
    let forever = Backoff { min: Duration::MAX, max: Duration::MAX };
    let options = SessionOptions {
        timeout: Duration::MAX,
        ping_delay_max: Duration::MAX,
        reconnect: forever,
        resubscribe: forever,
        token: TokenSource::Asked { first: "t".to_owned() },
        ..SessionOptions::default()
    };
    let mut script = Script::new(options);
    script.session.connect(script.now);
    script.upgrade();
    let result = ConnectResult { expires: true, ttl: u32::MAX, ..ConnectResult::default() };
    script.accept_with(ConnectResult { ping: u32::MAX, ..result });
    script.session.subscribe(script.now, "news", SubscriptionOptions::default()).unwrap();
    script.session.publish(script.now, "news", "1".into()).unwrap();
    script.error(2, 100, true);
    script.wait();
    if let Some(crate::session::Action::GetToken { request, .. }) = script.session.poll_action() {
        let error = TokenError::Unavailable(String::new());
        script.session.handle_token(script.now, request, Err(error));
    }
    script.session.handle_closed(script.now, TransportError::Closed);
    assert!(script.session.poll_timeout().is_some());
}
