//! JetStream that stores no messages, and streams that are removed while nodes run: the nodes
//! become unready with a reason, and recover without a restart.

use crate::conformance::World as _;
use engine::broker::{BrokerError, PresenceRequest, PublicationsRequest};
use serde_json::json;

use crate::comeback::{ROOM, RawClient, enter, join, present};
use crate::lifecycle::{reported, tell};
use crate::pair::{LONG, Pair};
use crate::server::Server;
use crate::world::NatsWorld;

/// Bytes for some hundred messages of nodes.
const SMALL: &str =
    "jetstream { store_dir: STORE, max_file_store: 400000, max_memory_store: 400000 }";

/// Fills the storage with a stream of another application.
fn fill(raw: &RawClient, storage: &str) {
    let stream = json!({ "name": "other", "subjects": ["other.>"], "storage": storage });
    raw.ask("$JS.API.STREAM.CREATE.other", stream.to_string());
    for length in [50_000, 1_000, 10] {
        while raw.ask_raw("other.x", vec![b'x'; length]).get("error").is_none() {}
    }
}

#[test]
fn a_full_disk_makes_the_node_unready_even_without_publications() {
    let server = Server::configured(SMALL);
    let mut pair = Pair::of(NatsWorld::new(&server.with_short_lease(), 2));
    pair.subscribe().unwrap();
    assert_eq!(pair.publish(10).unwrap().offset, 1);
    let raw = RawClient::new(&server);
    fill(&raw, "file");
    // Without a publication.
    pair.world.wait_health(0, "\"tidings_history\" takes no messages: insufficient resources");
    assert_eq!(pair.publish(10), Err(BrokerError::Unavailable));
    pair.world.wait_health(1, "max_file_store");
    // Plain publications need no stream.
    pair.publish(0).unwrap();
    raw.ask("$JS.API.STREAM.DELETE.other", "");
    pair.world.wait_health(0, "ready");
    pair.world.wait_health(1, "ready");
    assert_eq!(pair.publish(10).unwrap().offset, 2);
    while pair.received_offset() != 2 {}
}

#[test]
fn a_full_memory_makes_the_node_unready_and_entries_are_stored_later() {
    let server = Server::configured(SMALL);
    let mut world = NatsWorld::new(&server.options(), 1);
    let endpoint = world.attach();
    let raw = RawClient::new(&server);
    fill(&raw, "memory");
    enter(&mut world, endpoint, "comes");
    world.wait_health(0, "\"tidings_presence\" takes no messages: insufficient resources");
    world.wait_health(0, "max_memory_store");
    raw.ask("$JS.API.STREAM.DELETE.other", "");
    world.wait_health(0, "ready");
    assert_eq!(present(&mut world, endpoint), 1);
}

#[test]
fn a_full_stream_makes_the_node_unready() {
    let server = Server::start();
    let mut pair = Pair::of(NatsWorld::new(&server.with_short_lease(), 2));
    pair.publish(10).unwrap();
    let raw = RawClient::new(&server);
    let config = raw.ask("$JS.API.STREAM.INFO.tidings_history", "")["config"].clone();
    let mut limited = config.clone();
    (limited["max_msgs"], limited["discard"]) = (1.into(), "new".into());
    raw.ask("$JS.API.STREAM.UPDATE.tidings_history", limited.to_string());
    pair.world.wait_health(0, "\"tidings_history\" takes no messages: maximum messages exceeded");
    raw.ask("$JS.API.STREAM.UPDATE.tidings_history", config.to_string());
    pair.world.wait_health(0, "ready");
    pair.publish(10).unwrap();
}

#[test]
fn a_deleted_history_is_created_again_with_new_epochs() {
    let server = Server::start();
    let mut pair = Pair::new(&server);
    let before = pair.subscribe().unwrap().top.epoch;
    pair.publish(10).unwrap();
    let raw = RawClient::new(&server);
    raw.ask("$JS.API.STREAM.DELETE.tidings_history", "");
    // Without any request.
    let reported = pair.next_position();
    assert_ne!(reported.epoch, before);
    let after = pair.publish_at_last(10);
    assert_eq!(after.offset, 1);
    assert_ne!(after.epoch, before);
    while pair.received_offset() != 1 {}
    for node in 0..2 {
        pair.world.wait_health(node, "ready");
    }
    // The loss shows for both channels.
    raw.ask("$JS.API.STREAM.DELETE.tidings_era", "");
    raw.ask("$JS.API.STREAM.DELETE.tidings_history", "");
    let reported = pair.next_position();
    assert!(reported.epoch != before && reported.epoch != after.epoch, "{reported:?}");
    pair.publish_at_last(10);
}

#[test]
fn a_generation_that_another_node_stores_delays_no_request() {
    let server = Server::start();
    let mut pair = Pair::new(&server);
    let before = pair.publish(10).unwrap();
    let raw = RawClient::new(&server);
    let config = raw.ask("$JS.API.STREAM.INFO.tidings_era", "")["config"].clone();
    let mut limited = config.clone();
    (limited["max_bytes"], limited["discard"]) = (1.into(), "new".into());
    raw.ask("$JS.API.STREAM.UPDATE.tidings_era", limited.to_string());
    raw.ask("$JS.API.STREAM.DELETE.tidings_history", "");
    for node in 0..2 {
        pair.world.wait_health(node, "\"tidings_era\" takes no messages");
    }
    raw.ask("$JS.API.STREAM.UPDATE.tidings_era", config.to_string());
    for node in 0..2 {
        pair.world.wait_health(node, "ready");
    }
    assert_ne!(pair.publish_at_last(10).epoch, before.epoch);
}

#[test]
fn a_deleted_presence_is_created_again_with_all_entries() {
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
    RawClient::new(&server).ask("$JS.API.STREAM.DELETE.tidings_presence", "");
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
    let raw = RawClient::new(&server);
    raw.ask("$JS.API.STREAM.DELETE.tidings_events", "");
    assert_eq!(reported(&mut world, listener), ("online".into(), "stays".into()));
    assert_eq!(server.messages("tidings_events"), 1);
}

#[test]
fn a_foreign_stream_is_named_in_the_reason() {
    let server = Server::start();
    let mut pair = Pair::of(NatsWorld::new(&server.with_short_lease(), 2));
    pair.subscribe().unwrap();
    let raw = RawClient::new(&server);
    raw.ask("$JS.API.STREAM.DELETE.tidings_events", "");
    let other = json!({ "name": "tidings_events", "subjects": ["x"], "storage": "memory" });
    // The nodes may have created it before.
    while raw
        .ask_raw("$JS.API.STREAM.CREATE.tidings_events", other.to_string())
        .get("error")
        .is_some()
    {
        raw.ask_raw("$JS.API.STREAM.DELETE.tidings_events", "");
    }
    pair.world.wait_health(0, "\"tidings_events\" exists and is not one of ours");
    raw.ask("$JS.API.STREAM.DELETE.tidings_events", "");
    pair.world.wait_health(0, "ready");
    let ask = |id, _| PresenceRequest::Stats { id, channel: ROOM.into() };
    assert!(pair.answer(pair.listener, ask).is_ok());
    let ask = |id, channel| PublicationsRequest::ChannelTtl { id, channel };
    assert!(pair.answer(pair.listener, ask).is_ok());
}

#[test]
fn a_disabled_jetstream_makes_the_node_unready() {
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
