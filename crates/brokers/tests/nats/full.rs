//! JetStream that takes no messages, and streams that are removed while nodes run: the nodes say
//! so, and go on by themselves when that is over.

use crate::conformance::World as _;
use engine::broker::{BrokerError, BrokerReply, BrokerRequest, RequestId};
use serde_json::json;

use crate::comeback::{Hand, ROOM, enter, join, present};
use crate::lifecycle::{reported, tell};
use crate::pair::{LONG, Pair};
use crate::server::Server;
use crate::world::NatsWorld;

/// Room for some hundred messages of nodes.
const SMALL: &str =
    "jetstream { store_dir: STORE, max_file_store: 400000, max_memory_store: 400000 }";

/// A stream of another user of the same NATS, full to the last byte.
fn fill(hand: &Hand, storage: &str) {
    let stream = json!({ "name": "other", "subjects": ["other.>"], "storage": storage });
    hand.ask("$JS.API.STREAM.CREATE.other", stream.to_string());
    for length in [50_000, 1_000, 10] {
        while hand.asked("other.x", vec![b'x'; length]).get("error").is_none() {}
    }
}

#[test]
fn a_full_disk_shows_whether_or_not_anybody_publishes() {
    let server = Server::configured(SMALL);
    let mut pair = Pair::of(NatsWorld::new(&server.with_short_lease(), 2));
    pair.subscribe().unwrap();
    assert_eq!(pair.publish(10).unwrap().offset, 1);
    let hand = Hand::new(&server);
    fill(&hand, "file");
    // Nobody has tried.
    pair.world.wait_health(0, "\"tidings_history\" takes no messages: insufficient resources");
    assert_eq!(pair.publish(10), Err(BrokerError::Unavailable));
    pair.world.wait_health(1, "max_file_store");
    // What needs no place in a stream goes on.
    pair.publish(0).unwrap();
    hand.ask("$JS.API.STREAM.DELETE.other", "");
    pair.world.wait_health(0, "ready");
    pair.world.wait_health(1, "ready");
    assert_eq!(pair.publish(10).unwrap().offset, 2);
    while pair.received_offset() != 2 {}
}

#[test]
fn a_full_memory_shows_and_whoever_found_no_room_is_entered_later() {
    let server = Server::configured(SMALL);
    let mut world = NatsWorld::new(&server.options(), 1);
    let endpoint = world.attach();
    let hand = Hand::new(&server);
    fill(&hand, "memory");
    enter(&mut world, endpoint, "comes");
    world.wait_health(0, "\"tidings_presence\" takes no messages: insufficient resources");
    world.wait_health(0, "max_memory_store");
    hand.ask("$JS.API.STREAM.DELETE.other", "");
    world.wait_health(0, "ready");
    assert_eq!(present(&mut world, endpoint), 1);
}

#[test]
fn the_limit_of_a_stream_shows() {
    let server = Server::start();
    let mut pair = Pair::of(NatsWorld::new(&server.with_short_lease(), 2));
    pair.publish(10).unwrap();
    let hand = Hand::new(&server);
    let config = hand.ask("$JS.API.STREAM.INFO.tidings_history", "")["config"].clone();
    let mut limited = config.clone();
    (limited["max_msgs"], limited["discard"]) = (1.into(), "new".into());
    hand.ask("$JS.API.STREAM.UPDATE.tidings_history", limited.to_string());
    pair.world.wait_health(0, "\"tidings_history\" takes no messages: maximum messages exceeded");
    hand.ask("$JS.API.STREAM.UPDATE.tidings_history", config.to_string());
    pair.world.wait_health(0, "ready");
    pair.publish(10).unwrap();
}

#[test]
fn a_history_that_is_deleted_is_made_again_and_begins_new_epochs() {
    let server = Server::start();
    let mut pair = Pair::new(&server);
    let before = pair.subscribe().unwrap().top.epoch;
    pair.publish(10).unwrap();
    let hand = Hand::new(&server);
    hand.ask("$JS.API.STREAM.DELETE.tidings_history", "");
    // Nobody asks anything.
    let reported = pair.told_position();
    assert_ne!(reported.epoch, before);
    let after = pair.publish_at_last(10);
    assert_eq!(after.offset, 1);
    assert_ne!(after.epoch, before);
    while pair.received_offset() != 1 {}
    for node in 0..2 {
        pair.world.wait_health(node, "ready");
    }
    // With both of them what was lost is known to be lost.
    hand.ask("$JS.API.STREAM.DELETE.tidings_era", "");
    hand.ask("$JS.API.STREAM.DELETE.tidings_history", "");
    let reported = pair.told_position();
    assert!(reported.epoch != before && reported.epoch != after.epoch, "{reported:?}");
    pair.publish_at_last(10);
}

#[test]
fn a_generation_that_another_node_stores_delays_nobody() {
    let server = Server::start();
    let mut pair = Pair::new(&server);
    let before = pair.publish(10).unwrap();
    let hand = Hand::new(&server);
    let config = hand.ask("$JS.API.STREAM.INFO.tidings_era", "")["config"].clone();
    let mut limited = config.clone();
    (limited["max_bytes"], limited["discard"]) = (1.into(), "new".into());
    hand.ask("$JS.API.STREAM.UPDATE.tidings_era", limited.to_string());
    hand.ask("$JS.API.STREAM.DELETE.tidings_history", "");
    for node in 0..2 {
        pair.world.wait_health(node, "\"tidings_era\" takes no messages");
    }
    hand.ask("$JS.API.STREAM.UPDATE.tidings_era", config.to_string());
    for node in 0..2 {
        pair.world.wait_health(node, "ready");
    }
    assert_ne!(pair.publish_at_last(10).epoch, before.epoch);
}

#[test]
fn a_presence_that_is_deleted_is_made_again_with_whoever_is_there() {
    let server = Server::start();
    let mut world = NatsWorld::new(&server.options(), 2);
    let (near, far) = (world.attach(), world.attach());
    enter(&mut world, near, "a");
    enter(&mut world, far, "b");
    let both = |world: &mut NatsWorld| {
        let until = std::time::Instant::now() + LONG;
        while present(world, near) != 2 {
            assert!(std::time::Instant::now() < until);
        }
    };
    both(&mut world);
    Hand::new(&server).ask("$JS.API.STREAM.DELETE.tidings_presence", "");
    both(&mut world);
    world.wait_health(0, "ready");
    world.wait_health(1, "ready");
}

#[test]
fn deleted_events_are_sent_again_for_online_clients() {
    let server = Server::start();
    let mut world = NatsWorld::new(&server.with_short_lease(), 1);
    let (listener, endpoint) = (world.attach(), world.attach());
    join(&mut world, listener, engine::channel::LIFECYCLE);
    tell(&mut world, endpoint, "stays", true);
    assert_eq!(reported(&mut world, listener), ("online".into(), "stays".into()));
    let hand = Hand::new(&server);
    hand.ask("$JS.API.STREAM.DELETE.tidings_events", "");
    assert_eq!(reported(&mut world, listener), ("online".into(), "stays".into()));
    assert_eq!(server.messages("tidings_events"), 1);
}

#[test]
fn a_stream_in_place_of_ours_is_named() {
    let server = Server::start();
    let mut pair = Pair::of(NatsWorld::new(&server.with_short_lease(), 2));
    pair.subscribe().unwrap();
    let hand = Hand::new(&server);
    hand.ask("$JS.API.STREAM.DELETE.tidings_events", "");
    let other = json!({ "name": "tidings_events", "subjects": ["x"], "storage": "memory" });
    // The nodes may have been first.
    while hand
        .asked("$JS.API.STREAM.CREATE.tidings_events", other.to_string())
        .get("error")
        .is_some()
    {
        hand.asked("$JS.API.STREAM.DELETE.tidings_events", "");
    }
    pair.world.wait_health(0, "\"tidings_events\" exists and is not one of ours");
    hand.ask("$JS.API.STREAM.DELETE.tidings_events", "");
    pair.world.wait_health(0, "ready");
    let (id, channel) = (RequestId(5), ROOM.into());
    pair.world.submit(pair.listener, BrokerRequest::PresenceStats { id, channel });
    let answer = pair.answer(pair.listener, |channel| BrokerRequest::ChannelTtl { id, channel });
    assert!(
        matches!(answer, Ok(BrokerReply::PresenceStats(_) | BrokerReply::ChannelTtl(_))),
        "{answer:?}"
    );
}

#[test]
fn a_jetstream_that_is_switched_off_shows() {
    const ON: &str = "jetstream { store_dir: STORE }";
    let server = Server::configured(ON);
    let mut pair = Pair::of(NatsWorld::new(&server.with_short_lease(), 2));
    pair.publish(10).unwrap();
    server.configure("jetstream: disabled");
    pair.world.wait_health(0, "JetStream of this NATS");
    assert_eq!(pair.publish(10), Err(BrokerError::Unavailable));
    server.configure(ON);
    pair.world.wait_health(0, "ready");
    pair.publish_at_last(10);
}
