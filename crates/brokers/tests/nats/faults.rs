//! Faults of NATS: nothing is lost without notice, and nodes recover without a restart.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::conformance::World;
use engine::broker::{BrokerError, BrokerEvent, BrokerReply, PresenceRequest, RequestId};
use wire::protocol::ClientInfo;

use crate::pair::{LONG, Pair};
use crate::server::Server;
use crate::world::NatsWorld;

#[test]
fn a_restart_with_its_store_keeps_streams_and_verifies_them() {
    let mut server = Server::start();
    let mut pair = Pair::new(&server);
    let epoch = pair.subscribe().unwrap().top.epoch;
    assert_eq!(pair.publish(10).unwrap().offset, 1);
    assert_eq!(pair.received_offset(), 1);
    server.kill();
    let asked = Instant::now();
    assert_eq!(pair.publish(10), Err(BrokerError::Unavailable));
    assert!(asked.elapsed() < Duration::from_secs(4));
    server.run();
    let back = Instant::now();
    let reported = pair.next_position();
    assert!(back.elapsed() < Duration::from_secs(2), "{:?}", back.elapsed());
    // A publication that failed with the connection may have been stored: then it counts.
    assert_eq!(reported.epoch, epoch);
    assert!((1..=2).contains(&reported.offset), "{reported:?}");
    let position = pair.publish_at_last(10);
    assert_eq!(position.epoch, epoch);
    assert!((2..=3).contains(&position.offset), "{position:?}");
    while pair.received_offset() != position.offset {}
}

#[test]
fn a_restart_without_its_store_begins_new_epochs() {
    let mut server = Server::start();
    let mut pair = Pair::new(&server);
    let before = pair.subscribe().unwrap().top.epoch;
    pair.publish(10).unwrap();
    server.kill();
    server.lose_store();
    server.run();
    let reported = pair.next_position();
    assert_ne!(reported.epoch, before);
    let after = pair.publish_at_last(10);
    assert_eq!(after.offset, 1);
    assert_ne!(after.epoch, before);
}

#[test]
fn present_clients_are_present_again_after_a_restart() {
    let mut server = Server::start();
    let mut pair = Pair::new(&server);
    let client = |name: &str| Arc::new(ClientInfo { client: name.into(), ..ClientInfo::default() });
    let count = |pair: &mut Pair| {
        let ask = |id, channel| PresenceRequest::Stats { id, channel };
        pair.answer(pair.publisher, ask).ok().map(|stats| stats.num_clients)
    };
    pair.subscribe().unwrap();
    for name in ["1", "2"] {
        let info = client(name);
        let channel = pair.channel.clone();
        pair.world.submit(pair.listener, PresenceRequest::Add { channel, info, announces: true });
    }
    pair.subscribe().unwrap();
    assert_eq!(count(&mut pair), Some(2));
    server.kill();
    let channel = pair.channel.clone();
    let remove = PresenceRequest::Remove { channel, client: client("1") };
    pair.world.submit(pair.listener, remove);
    server.run();
    pair.next_position();
    assert_eq!(count(&mut pair), Some(1));
}

#[test]
fn a_frozen_server_fails_requests_in_time_and_every_loss_shows() {
    let server = Server::start();
    let mut pair = Pair::new(&server);
    let epoch = pair.subscribe().unwrap().top.epoch;
    server.signal("-STOP");
    for _ in 0..2 {
        let asked = Instant::now();
        assert_eq!(pair.publish(10), Err(BrokerError::Unavailable));
        assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
    }
    server.signal("-CONT");
    // A publication that failed may have been accepted late: then it counts.
    let position = pair.publish_at_last(10);
    assert_eq!(position.epoch, epoch);
    assert!((1..=3).contains(&position.offset), "{position:?}");
    loop {
        let event = pair.world.next_within(pair.listener, LONG).expect("a position in time");
        let shown = match event {
            BrokerEvent::Publication { publication, .. } => publication.offset,
            BrokerEvent::Position { top, .. } => top.offset,
            _ => continue,
        };
        if shown == position.offset {
            break;
        }
    }
}

#[test]
fn a_node_that_ends_removes_its_clients() {
    let server = Server::start();
    let mut pair = Pair::new(&server);
    let info = Arc::new(ClientInfo { client: "1".into(), ..ClientInfo::default() });
    let channel = pair.channel.clone();
    pair.world.submit(pair.listener, PresenceRequest::Add { channel, info, announces: true });
    pair.subscribe().unwrap();
    let last = pair.world.nodes.remove(0);
    drop(last);
    let mut other = NatsWorld::new(&server.options(), 1);
    let endpoint = other.attach();
    let channel = pair.channel.clone();
    other.submit(endpoint, PresenceRequest::Stats { id: RequestId::new(9), channel });
    let answer = other.next_within(endpoint, LONG);
    let Some(BrokerEvent::Reply(BrokerReply::PresenceStats(_, Ok(stats)))) = answer else {
        panic!("{answer:?}");
    };
    assert_eq!(stats.num_clients, 0);
}
