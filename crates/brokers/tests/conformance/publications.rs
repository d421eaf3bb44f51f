//! Cases of publications: one order for all endpoints, and what is refused or not published again.

use bytes::Bytes;
use engine::broker::{BrokerError, JoinRead, PublicationsRequest, PublishOptions, RequestId};
use wire::protocol::Publication;

use super::{META, World, begin, kept, payload};

pub(super) fn one_order(world: &mut dyn World) {
    let (mut actor, one, two, channel) = begin(world);
    actor.subscribe(one, &channel, JoinRead::Nothing);
    actor.subscribe(two, &channel, JoinRead::Nothing);
    // Submitted without waiting for replies, by both endpoints in turn.
    for (index, data) in ["a", "b", "c", "d"].into_iter().enumerate() {
        let endpoint = if index % 2 == 0 { one } else { two };
        actor.submit(
            endpoint,
            PublicationsRequest::Publish {
                id: RequestId::new(1000 + index as u64),
                channel: channel.clone(),
                publication: Publication {
                    data: Bytes::from_static(data.as_bytes()),
                    ..Publication::default()
                },
                options: kept(10),
            },
        );
    }
    let mut received = [one, two].map(|endpoint| {
        let last = if endpoint == one { 1002 } else { 1003 };
        let events = actor.events_to_reply(endpoint, last);
        events.iter().filter_map(payload).collect::<Vec<String>>()
    });
    // A duplicate would arrive before this publication.
    let three = actor.world.attach();
    actor.publish(three, &channel, "end", kept(10)).unwrap();
    for (endpoint, received) in [one, two].into_iter().zip(&mut received) {
        received.extend(actor.payloads_to(endpoint, "end"));
    }
    let [by_one, by_two] = received;
    assert_eq!(by_one, by_two);
    let mut sorted = by_one;
    sorted.sort();
    assert_eq!(sorted, ["a", "b", "c", "d", "end"]);
}

pub(super) fn no_subscriber_no_event(world: &mut dyn World) {
    let (mut actor, one, two, channel) = begin(world);
    actor.subscribe(two, &channel, JoinRead::Nothing);
    actor.submit(two, PublicationsRequest::Unsubscribe { channel: channel.clone() });
    actor.publish(one, &channel, "a", PublishOptions::default()).unwrap();
    for (number, endpoint) in [(1001, one), (1002, two)] {
        let id = RequestId::new(number);
        let (channel, read) = (channel.clone(), JoinRead::Nothing);
        actor.submit(endpoint, PublicationsRequest::Subscribe { id, channel, read });
        let events = actor.events_to_reply(endpoint, number);
        assert!(events.iter().all(|event| payload(event).is_none()), "{events:?}");
    }
    let three = actor.world.attach();
    actor.publish(three, &channel, "end", PublishOptions::default()).unwrap();
    assert_eq!(actor.payloads_to(one, "end"), ["end"]);
    assert_eq!(actor.payloads_to(two, "end"), ["end"]);
}

pub(super) fn reply_after_events(world: &mut dyn World) {
    let (mut actor, one, _, channel) = begin(world);
    actor.subscribe(one, &channel, META);
    actor.submit(
        one,
        PublicationsRequest::Publish {
            id: RequestId::new(7),
            channel: channel.clone(),
            publication: Publication::default(),
            options: kept(10),
        },
    );
    let read = META;
    let id = RequestId::new(8);
    actor.submit(one, PublicationsRequest::Subscribe { id, channel: channel.clone(), read });
    let events = actor.events_to_reply(one, id.number());
    assert!(events.iter().any(|event| payload(event).is_some()), "{events:?}");
}

pub(super) fn subscribe_twice(world: &mut dyn World) {
    let (mut actor, one, two, channel) = begin(world);
    actor.subscribe(one, &channel, JoinRead::Nothing);
    actor.subscribe(one, &channel, META);
    for data in ["a", "end"] {
        actor.publish(two, &channel, data, PublishOptions::default()).unwrap();
    }
    assert_eq!(actor.payloads_to(one, "end"), ["a", "end"]);
}

pub(super) fn idempotency(world: &mut dyn World) {
    let (mut actor, one, two, channel) = begin(world);
    actor.subscribe(two, &channel, JoinRead::Nothing);
    let options = |key: &str| PublishOptions { idempotency_key: key.into(), ..kept(10) };
    let first = actor.publish(one, &channel, "a", options("k")).unwrap();
    assert_eq!(actor.publish(one, &channel, "b", options("k")), Ok(first.clone()));
    let other = actor.publish(one, &channel, "c", options("l")).unwrap();
    assert_eq!(other.offset, first.offset + 1);
    assert_eq!(actor.payloads_to(two, "c"), ["a", "c"]);
    actor.world.pass_ms(301_000);
    actor.publish(one, &channel, "d", options("k")).unwrap();
    assert_eq!(actor.payloads_to(two, "d"), ["d"]);
}

pub(super) fn versions(world: &mut dyn World) {
    let (mut actor, one, two, channel) = begin(world);
    actor.subscribe(two, &channel, JoinRead::Nothing);
    // Above 2^53, where floating point cannot distinguish neighbours.
    let big = 1u64 << 53;
    let options = |version: u64, epoch: &str| PublishOptions {
        version,
        version_epoch: epoch.into(),
        ..kept(10)
    };
    for (data, version, epoch) in [
        ("a", big, "e"),
        ("stale", big, "e"),
        ("b", big + 1, "e"),
        ("stale", big, "e"),
        ("stale", big, ""),
        ("c", 1, "f"),
        ("unversioned", 0, ""),
    ] {
        actor.publish(one, &channel, data, options(version, epoch)).unwrap();
    }
    assert_eq!(actor.payloads_to(two, "unversioned"), ["a", "b", "c", "unversioned"]);
}

pub(super) fn overload(world: &mut dyn World) {
    let (mut actor, one, two, channel) = begin(world);
    actor.subscribe(two, &channel, JoinRead::Nothing);
    actor.world.fill_inbox(two);
    let refused = actor.publish(one, &channel, "a", kept(10));
    assert_eq!(refused, Err(BrokerError::Overloaded));
    actor.world.drain_inbox(two);
    assert_eq!(actor.publish(one, &channel, "b", kept(10)).map(|p| p.offset), Ok(1));
    assert_eq!(actor.payloads_to(two, "b"), ["b"]);
}
