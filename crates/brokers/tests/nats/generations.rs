//! A NATS that has lost messages: clients see a new epoch, and never fewer publications in the same
//! epoch.

use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::broker::{BrokerError, HistoryQuery, JoinRead, JoinedStream, PublicationsRequest};
use wire::protocol::StreamPosition;

use crate::pair::{LONG, Pair};
use crate::server::Server;
use crate::world::NatsWorld;

/// Time limit until clients are notified of a loss.
const SOON: Duration = Duration::from_secs(3);

/// A listener that has received six publications, of which the store has the first three.
fn bereft() -> (Server, Pair, StreamPosition) {
    let mut server = Server::start();
    let mut pair = Pair::new(&server);
    pair.subscribe().unwrap();
    for _ in 0..3 {
        pair.publish(10).unwrap();
    }
    let store = server.copy_store();
    for _ in 0..3 {
        pair.publish(10).unwrap();
    }
    while pair.received_offset() != 6 {}
    let received = pair.publish(10).unwrap();
    assert_eq!(received.offset, 7);
    assert_eq!(pair.received_offset(), 7);
    server.kill();
    server.put_back(store);
    (server, pair, received)
}

/// Retries, since requests fail while NATS starts.
fn resume(pair: &mut Pair, since: &StreamPosition) -> JoinedStream {
    let until = Instant::now() + LONG;
    loop {
        let since = since.clone();
        let read = JoinRead::Since { since, limit: 100, bytes_max: None, meta_ttl_ms: 600_000 };
        match pair.join(pair.publisher, read) {
            Ok(stream) => return stream,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
    }
}

/// Another node without any state, at the same channel.
fn another(server: &Server, name: &str, channel: &Arc<str>) -> Pair {
    let mut pair = Pair::of(NatsWorld::named(&server.options(), 2, name));
    pair.channel = channel.clone();
    pair
}

#[test]
fn an_older_store_begins_one_new_generation_for_all_nodes() {
    let (mut server, mut pair, received) = bereft();
    server.run();
    let back = Instant::now();
    let reported = pair.next_position();
    assert!(back.elapsed() < SOON, "{:?}", back.elapsed());
    assert_ne!(reported.epoch, received.epoch);
    assert_eq!(reported.offset, 3);
    let resumed = resume(&mut pair, &received);
    assert_eq!(resumed, JoinedStream { top: reported.clone(), publications: Vec::new() });
    let query = HistoryQuery { since: Some(received.clone()), ..HistoryQuery::default() };
    let ask =
        |id, channel| PublicationsRequest::History { id, channel, query, meta_ttl_ms: 600_000 };
    let refused = pair.answer(pair.publisher, ask);
    assert_eq!(refused, Err(BrokerError::UnrecoverablePosition));
    // The stored publications are left, and the stream continues.
    let next = StreamPosition { offset: 4, ..reported.clone() };
    assert_eq!(pair.publish_at_last(10), next);
    assert_eq!(resume(&mut pair, &reported).publications.len(), 1);
    let mut late = another(&server, "late", &pair.channel);
    assert_eq!(late.subscribe().unwrap().top, next);
    // Another restart loses nothing: the generation stays.
    server.kill();
    server.run();
    while pair.next_position() != next {}
    assert_eq!(late.next_position(), next);
    assert_eq!(resume(&mut late, &reported).publications.len(), 1);
}

#[test]
fn a_loss_shows_when_the_offsets_have_caught_up() {
    let (mut server, mut pair, received) = bereft();
    let channel = pair.channel.clone();
    server.run_elsewhere(|server| {
        let mut stranger = another(server, "stranger", &channel);
        while stranger.publish(10).unwrap().offset < 20 {}
    });
    server.run();
    let reported = pair.next_position();
    assert_ne!(reported.epoch, received.epoch);
    assert_eq!(reported.offset, 20);
    assert_eq!(resume(&mut pair, &received).publications.len(), 0);
}

#[test]
fn two_losses_are_two_generations() {
    let (mut server, mut pair, received) = bereft();
    let older = server.copy_store();
    server.run();
    let first = pair.next_position();
    server.kill();
    // The message of the new generation is lost too.
    server.put_back(older);
    server.run();
    let second = loop {
        let reported = pair.next_position();
        if reported != first {
            break reported;
        }
    };
    assert!(![&received.epoch, &first.epoch].contains(&&second.epoch), "{second:?}");
    let ours = resume(&mut pair, &first);
    assert_eq!(ours.top.epoch, second.epoch);
}

#[test]
fn a_restart_of_nats_without_any_node_begins_a_generation() {
    let (mut server, pair, received) = bereft();
    let channel = pair.channel.clone();
    drop(pair);
    server.run();
    let mut next = another(&server, "next", &channel);
    let resumed = resume(&mut next, &received);
    assert_ne!(resumed.top.epoch, received.epoch);
    drop(next);
    // While NATS runs, a restart of all nodes begins none.
    let mut last = another(&server, "last", &channel);
    assert_eq!(resume(&mut last, &received).top, resumed.top);
}

#[test]
fn a_reply_waits_until_the_generation_is_verified() {
    let (mut server, mut pair, received) = bereft();
    server.run();
    let until = Instant::now() + SOON;
    loop {
        let since = received.clone();
        let read = JoinRead::Since { since, limit: 100, bytes_max: None, meta_ttl_ms: 600_000 };
        match pair.join(pair.publisher, read) {
            Ok(stream) => {
                assert_ne!(stream.top.epoch, received.epoch);
                break;
            }
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
    }
}
