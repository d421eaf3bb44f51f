//! Overload: queued publications are bounded in bytes, every request gets a reply in time, and
//! requests whose deadline has passed are not sent.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::conformance::World as _;
use brokers::limits::{IDLE_TASKS_MAX, REQUESTS_MAX};
use engine::broker::{
    BrokerError, BrokerEvent, BrokerReply, JoinRead, PresenceRequest, PublicationsRequest,
    PublishOptions, RequestId,
};
use wire::protocol::{ClientInfo, Publication};

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

#[test]
fn joins_and_leaves_without_end_wait_as_state() {
    let server = Server::start();
    let mut pair = Pair::new(&server);
    let info = || Arc::new(ClientInfo { client: "client".into(), ..ClientInfo::default() });
    let (listener, channel) = (pair.listener, pair.channel.clone());
    let mut most = 0;
    for number in 0..100_000 {
        // What a worker submits when a client subscribes in a temporary channel.
        let (id, read) = (RequestId::new(number), JoinRead::Nothing);
        let limit = PublicationsRequest::LimitTtl { channel: channel.clone(), ttl_ms: 600_000 };
        let subscribe = PublicationsRequest::Subscribe { id, channel: channel.clone(), read };
        let add = PresenceRequest::Add { channel: channel.clone(), info: info(), announces: false };
        pair.world.submit(listener, limit.clone());
        pair.world.submit(listener, subscribe);
        pair.world.submit(listener, limit);
        pair.world.submit(listener, add.clone());
        // And when it unsubscribes.
        let unsubscribe = PublicationsRequest::Unsubscribe { channel: channel.clone() };
        let remove = PresenceRequest::Remove { channel: channel.clone(), client: info() };
        pair.world.submit(listener, unsubscribe);
        pair.world.submit(listener, remove);
        most = most.max(pair.world.nodes[0].queued_requests());
        if number == 99_999 {
            pair.world.submit(listener, add);
        }
    }
    assert!(most < REQUESTS_MAX + 16, "{most} requests wait");
    // The last state is that of the last request.
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let read =
            pair.answer(pair.publisher, |id, channel| PresenceRequest::Clients { id, channel });
        if pair.world.nodes[0].queued_requests() == 0
            && read.as_ref().is_ok_and(|read| read.len() == 1)
        {
            return;
        }
        assert!(Instant::now() < until, "{read:?}");
    }
}

#[test]
fn channels_that_are_used_once_keep_a_bounded_number_of_tasks() {
    let server = Server::start();
    let mut pair = Pair::new(&server);
    let publisher = pair.publisher;
    let count = 2 * IDLE_TASKS_MAX as u64;
    for first in (0..count).step_by(2_048) {
        for number in first..first + 2_048 {
            let (id, channel) = (RequestId::new(number), format!("room {number}").into());
            let publication =
                Publication { data: bytes::Bytes::from_static(b"{}"), ..Publication::default() };
            let options = PublishOptions::default();
            pair.world.submit(
                publisher,
                PublicationsRequest::Publish { id, channel, publication, options },
            );
        }
        for _ in 0..2_048 {
            let event = pair.world.next_due(publisher);
            let BrokerEvent::Reply(BrokerReply::Published(_, Ok(_))) = event else {
                panic!("{event:?}")
            };
        }
    }
    // The node counts the tasks that have ended once a second.
    let until = Instant::now() + Duration::from_secs(5);
    while pair.world.nodes[1].channel_tasks() > IDLE_TASKS_MAX + 1 {
        assert!(Instant::now() < until, "{} tasks", pair.world.nodes[1].channel_tasks());
    }
    assert_eq!(pair.publish(0).unwrap().offset, 0);
}
