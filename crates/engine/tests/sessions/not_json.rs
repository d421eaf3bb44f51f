//! A publication that is not JSON costs JSON clients that publication and nothing else.

use engine::SessionKey;
use engine::claims::ConnectionClaims;
use wire::protocol::{Codec, Command, PublishRequest, Request, encode_command};

use crate::world::{World, claims};

const FOREIGN: &[u8] = b"\xFF\x00{";
const NOTICE: &str = r#""message":{"data":{"notice":"publication skipped","#;

/// A connected client of the Protobuf protocol.
fn protobuf(world: &mut World, claims: ConnectionClaims) -> SessionKey {
    let key = world.open_with(Codec::Protobuf);
    let request = Request::Connect(Box::default());
    let Request::Connect(mut connect) = request else { unreachable!() };
    connect.token = "t".to_owned();
    asks(world, key, Request::Connect(connect));
    world.verify(Ok(claims));
    world.settle();
    key
}

fn asks(world: &mut World, key: SessionKey, request: Request) {
    let mut message = Vec::new();
    encode_command(Codec::Protobuf, &Command { id: 1, request }, &mut message);
    let now = world.now();
    world.worker.handle_message(now, key, &message);
    world.take_effects();
}

fn publish(channel: &str) -> Request {
    let (channel, data) = (channel.to_owned(), FOREIGN.into());
    Request::Publish(PublishRequest { channel, data, kind: 0 })
}

#[test]
fn a_json_subscriber_misses_it_and_is_notified_once() {
    for channel in ["kept:a", "a"] {
        let mut world = World::new();
        let keys: Vec<SessionKey> = (0..5).map(|_| world.anonymous()).collect();
        for key in &keys {
            world.says(*key, &format!(r#"{{"id":2,"subscribe":{{"channel":"{channel}"}}}}"#));
            world.settle();
            world.received(*key);
        }
        let publisher = protobuf(&mut world, claims("ann"));
        for number in 0..3 {
            asks(&mut world, publisher, publish(channel));
            world.publish(channel, number);
        }
        world.settle();
        for key in keys {
            let received = world.received(key);
            assert_eq!(received.len(), 4, "one notice and what is JSON: {received:?}");
            assert!(received[0].contains(NOTICE) && received[0].contains(channel), "{received:?}");
            assert!(received[1].contains(r#""data":0"#) && received[3].contains(r#""data":2"#));
        }
        assert_eq!(world.closes, []);
    }
}

#[test]
fn a_recovery_skips_it_and_stays_complete() {
    let mut world = World::new();
    world.publish("kept:a", 1);
    world.publish_data("kept:a", FOREIGN.into());
    world.publish("kept:a", 3);
    world.publish_data("kept:a", FOREIGN.into());
    let key = world.anonymous();
    for round in 0..2 {
        let command = r#"{"id":2,"subscribe":{"channel":"kept:a","recover":true,"offset":1}}"#;
        world.says(key, command);
        world.settle();
        let received = world.received(key);
        assert_eq!(received.len(), 2, "{received:?}");
        assert!(received[0].contains(r#""recovered":true"#), "{received:?}");
        assert!(received[0].contains(r#""publications":[{"data":3,"#), "{received:?}");
        assert!(received[1].contains(NOTICE), "once for each subscription: {received:?}");
        world.publish("kept:a", 5 + round);
        world.settle();
        assert!(world.received(key)[0].contains(r#""pub":{"#), "the position went on");
        world.says(key, r#"{"id":3,"unsubscribe":{"channel":"kept:a"}}"#);
        world.received(key);
    }
    // The same in a connect reply, with the channel named beside its notification.
    let key = world.open();
    let command = r#"{"id":1,"connect":{"subs":{"kept:a":{"recover":true,"offset":1}}}}"#;
    world.says(key, command);
    world.settle();
    let received = world.received(key);
    assert!(received[0].contains(r#""recovered":true"#), "{received:?}");
    assert!(
        received[1].contains(NOTICE) && received[1].contains(r#""channel":"kept:a""#),
        "{received:?}"
    );
    assert_eq!(world.closes, []);
}

#[test]
fn history_is_read_over_it_page_by_page() {
    let mut world = World::new();
    (0..4).for_each(|_| world.publish_data("kept:a", FOREIGN.into()));
    world.publish("kept:a", 5);
    let key = world.anonymous();
    let (mut since, mut read) = (0, Vec::new());
    for _ in 0..5 {
        let command = format!(
            r#"{{"id":2,"history":{{"channel":"kept:a","limit":2,"since":{{"offset":{since}}}}}}}"#
        );
        world.says(key, &command);
        world.settle();
        let received = world.received(key);
        let Some(publication) = received[0].split(r#""publications":[{"#).nth(1) else { break };
        let offset = publication.split(r#""offset":"#).nth(1).unwrap().split('}').next().unwrap();
        since = offset.parse().unwrap();
        read.push((publication.split(',').next().unwrap().to_owned(), since));
    }
    let data = |data: &str| format!(r#""data":{data}"#);
    assert_eq!(read, [(data("null"), 2), (data("null"), 4), (data("5"), 5)]);
}

#[test]
fn information_that_is_no_json_is_left_out() {
    let mut world = World::new();
    let watching = world.anonymous();
    world.says(watching, r#"{"id":2,"subscribe":{"channel":"people:a"}}"#);
    world.settle();
    world.received(watching);
    let foreign = ConnectionClaims { info: FOREIGN.into(), ..claims("ann") };
    let key = protobuf(&mut world, foreign);
    let subscribe = wire::protocol::SubscribeRequest {
        channel: "people:a".to_owned(),
        ..wire::protocol::SubscribeRequest::default()
    };
    asks(&mut world, key, Request::Subscribe(Box::new(subscribe)));
    world.settle();
    world.says(watching, r#"{"id":3,"presence":{"channel":"people:a"}}"#);
    world.settle();
    world.cut(key);
    let received = world.received(watching);
    assert_eq!(received.len(), 3, "{received:?}");
    for (line, what) in received.iter().zip([r#""join":"#, r#""presence":"#, r#""leave":"#]) {
        let is_reported = line.contains(what) && line.contains(r#""user":"ann""#);
        assert!(is_reported && !line.contains("conn_info"), "{line}");
    }
    assert_eq!(world.closes, []);
}

#[test]
fn payloads_that_are_nested_too_deeply_are_refused_everywhere() {
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    let mut world = World::new();
    let key = world.anonymous();
    for command in [
        format!(r#""publish":{{"channel":"a","data":{deep}}}"#),
        format!(r#""rpc":{{"method":"m","data":{deep}}}"#),
        format!(r#""subscribe":{{"channel":"a","data":{deep}}}"#),
    ] {
        world.says(key, &format!(r#"{{"id":2,{command}}}"#));
        assert!(world.received(key)[0].contains(r#""error":{"code":107"#), "{command}");
    }
    let fine = format!("{}1{}", "[".repeat(128), "]".repeat(128));
    world.says(key, &format!(r#"{{"id":2,"publish":{{"channel":"a","data":{fine}}}}}"#));
    world.settle();
    assert_eq!(world.received(key), [r#"{"id":2,"publish":{}}"#]);
    let key = world.open();
    world.says(key, &format!(r#"{{"id":1,"connect":{{"data":{deep}}}}}"#));
    assert!(world.received(key)[0].contains(r#"{"id":1,"error":{"code":107"#));
    // From a Protobuf client, whatever the payload format; it reaches no subscriber.
    let publisher = protobuf(&mut world, claims("ann"));
    let listener = world.anonymous();
    world.says(listener, r#"{"id":2,"subscribe":{"channel":"a"}}"#);
    world.settle();
    world.received(listener);
    let request = PublishRequest { channel: "a".to_owned(), data: deep.into(), kind: 0 };
    asks(&mut world, publisher, Request::Publish(request));
    world.settle();
    assert_eq!(world.received(listener), [""; 0]);
}
