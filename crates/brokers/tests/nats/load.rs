//! More than NATS takes: what waits is bounded in bytes, everything is answered in time, and what
//! nobody waits for any more is not done.

use std::time::{Duration, Instant};

use crate::conformance::World as _;
use engine::broker::{BrokerError, BrokerEvent, BrokerRequest, PublishOptions, RequestId};
use wire::protocol::Publication;

use crate::pair::Pair;
use crate::server::Server;

/// Submits publications of so many bytes, and returns what came of them and how long the last
/// answer took.
fn flood(pair: &mut Pair, count: u64, length: usize, history_size: u32) -> (u64, u64, Duration) {
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
        let (id, channel) = (RequestId(number), pair.channel.clone());
        pair.world
            .submit(pair.publisher, BrokerRequest::Publish { id, channel, publication, options });
    }
    let (mut late, mut refused) = (0, 0);
    let mut answered = vec![false; usize::try_from(count).unwrap()];
    for _ in 0..count {
        let event = pair.world.next_due(pair.publisher);
        let BrokerEvent::Reply { id, result } = event else { panic!("{event:?}") };
        assert!(!std::mem::replace(&mut answered[usize::try_from(id.0).unwrap()], true), "twice");
        match result {
            Err(BrokerError::Unavailable) => late += 1,
            Err(BrokerError::Overloaded) => refused += 1,
            other => panic!("NATS stands still: {other:?}"),
        }
    }
    (late, refused, began.elapsed())
}

#[test]
fn what_waits_for_a_frozen_nats_is_bounded_and_not_done_later() {
    let server = Server::start();
    let mut pair = Pair::new(&server);
    pair.publish(10).unwrap();
    server.signal("-STOP");
    let (late, refused, took) = flood(&mut pair, 3_000, 64 * 1024, 10);
    // 64 MiB wait, and no more.
    assert!(late < 1_100 && refused > 1_900, "{late} late, {refused} refused");
    assert!(took < Duration::from_secs(5), "{took:?}");
    server.signal("-CONT");
    // One was on its way; the others have never been sent.
    let position = pair.publish_at_last(10);
    assert!(position.offset <= 4, "{position:?}");
}

#[test]
fn plain_publications_to_a_frozen_nats_are_bounded() {
    let server = Server::start();
    let mut pair = Pair::new(&server);
    pair.publish(0).unwrap();
    server.signal("-STOP");
    let (late, refused, took) = flood(&mut pair, 3_000, 64 * 1024, 0);
    assert!(late < 700 && refused > 2_300, "32 MiB on their way: {late} late, {refused} refused");
    assert!(took < Duration::from_secs(5), "{took:?}");
    server.signal("-CONT");
    let until = Instant::now() + Duration::from_secs(10);
    while pair.publish(0).is_err() {
        assert!(Instant::now() < until);
    }
}
