//! Overload: queued publications are bounded in bytes, every request gets a reply in time, and
//! requests whose deadline has passed are not sent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::conformance::World as _;
use engine::broker::{
    BrokerError, BrokerEvent, BrokerReply, PublicationsRequest, PublishOptions, RequestId,
};
use wire::protocol::Publication;

use crate::pair::Pair;
use crate::server::Server;

/// Submits `count` publications of `length` bytes, each into the channel of its number; returns the
/// numbers of late and of refused ones, and the time until the last reply.
fn flood(
    pair: &mut Pair,
    (count, length): (u64, usize),
    history_size: u32,
    channel: impl Fn(u64) -> Arc<str>,
) -> (u64, u64, Duration) {
    let data = bytes::Bytes::from(vec![b'1'; length]);
    let began = Instant::now();
    for number in 0..count {
        let options = PublishOptions {
            history_size,
            history_ttl_ms: 60_000,
            history_meta_ttl_ms: 60_000,
            ..PublishOptions::default()
        };
        let publication = Publication { data: data.clone(), ..Publication::default() };
        let (id, channel) = (RequestId::new(number), channel(number));
        pair.world.submit(
            pair.publisher,
            PublicationsRequest::Publish { id, channel, publication, options },
        );
    }
    let (mut late, mut refused) = (0, 0);
    let mut answered = vec![false; usize::try_from(count).unwrap()];
    for _ in 0..count {
        let event = pair.world.next_due(pair.publisher);
        let BrokerEvent::Reply(BrokerReply::Published(id, result)) = event else {
            panic!("{event:?}")
        };
        assert!(
            !std::mem::replace(&mut answered[usize::try_from(id.number()).unwrap()], true),
            "two replies to one request"
        );
        match result {
            Err(BrokerError::Unavailable) => late += 1,
            Err(BrokerError::Overloaded) => refused += 1,
            other => panic!("unexpected result of a frozen NATS: {other:?}"),
        }
    }
    (late, refused, began.elapsed())
}

#[test]
fn publications_to_a_frozen_nats_are_bounded_and_not_sent_late() {
    let server = Server::start();
    let mut pair = Pair::new(&server);
    pair.publish(10).unwrap();
    server.signal("-STOP");
    let channel = pair.channel.clone();
    let (late, refused, took) = flood(&mut pair, (3_000, 64 * 1024), 10, |_| channel.clone());
    // At most 64 MiB are queued.
    assert!(late < 1_100 && refused > 1_900, "{late} late, {refused} refused");
    assert!(took < Duration::from_secs(5), "{took:?}");
    server.signal("-CONT");
    // One was in flight; the others were never sent.
    let position = pair.publish_at_last(10);
    assert!(position.offset <= 4, "{position:?}");
}

#[test]
fn plain_publications_to_a_frozen_nats_are_bounded() {
    let server = Server::start();
    let mut pair = Pair::new(&server);
    pair.publish(0).unwrap();
    server.signal("-STOP");
    let channel = pair.channel.clone();
    let (late, refused, took) = flood(&mut pair, (3_000, 64 * 1024), 0, |_| channel.clone());
    assert!(late < 700 && refused > 2_300, "32 MiB in flight: {late} late, {refused} refused");
    assert!(took < Duration::from_secs(5), "{took:?}");
    server.signal("-CONT");
    let until = Instant::now() + Duration::from_secs(10);
    while pair.publish(0).is_err() {
        assert!(Instant::now() < until);
    }
}

#[test]
fn more_channels_than_the_queue_of_the_connection_takes_are_answered_in_time() {
    let server = Server::start();
    let mut pair = Pair::new(&server);
    pair.publish(0).unwrap();
    server.signal("-STOP");
    // 30 MB, which is less than may be in flight.
    let channel = pair.channel.clone();
    let channel = |number: u64| format!("{channel} {number}").into();
    let (late, refused, took) = flood(&mut pair, (1_900, 16 * 1024), 0, channel);
    assert_eq!((late, refused), (1_900, 0));
    assert!(took < Duration::from_secs(5), "{took:?}");
    server.signal("-CONT");
}
