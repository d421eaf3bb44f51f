//! A Redis Cluster of three masters and three replicas: the conformance cases, sharded pub/sub, a
//! master killed under load, and slots moved under load.

use std::time::Duration;

use crate::conformance;

use crate::checker::{Checker, Publisher};
use crate::groups::Cluster;
use crate::server::RedisServer;
use crate::world::{RedisWorld, settings};

#[test]
fn passes_every_case_of_the_conformance_suite_and_shards_its_channels() {
    let cluster = Cluster::start();
    let masters = cluster.masters();
    let servers = masters.iter().map(|index| &cluster.servers[*index]).collect();
    let mut world = RedisWorld::new(settings(&[cluster.address()]), servers);
    conformance::run(&mut world);
    let checker = Checker::start(settings(&[cluster.address()]), 60);
    for index in masters {
        let server = &cluster.servers[index];
        let kind = if has_shards(server) { "SHARDCHANNELS" } else { "CHANNELS" };
        assert!(server.ask(&["PUBSUB", kind, "*c:room-*"]).list().len() > 8);
        if has_shards(server) {
            assert_eq!(server.ask(&["PUBSUB", "CHANNELS", "*"]).list(), []);
        }
        // One of each of the two nodes.
        let clients = server.ask(&["CLIENT", "LIST", "TYPE", "pubsub"]);
        assert_eq!(clients.text().lines().count(), 2, "{}", clients.text());
    }
    checker.assert_complete();
}

#[test]
fn a_master_killed_under_load_loses_nothing_unreported() {
    let mut cluster = Cluster::start();
    let mut checker = Checker::start(settings(&[cluster.address()]), 200);
    let publisher = Publisher::start(settings(&[cluster.address()]), 200);
    publisher.wait_more(500);
    let killed = cluster.masters()[0];
    cluster.servers[killed].kill();
    checker.listen(Duration::from_millis(1));
    // All channels, including those of the killed master.
    cluster.wait_taken_over(killed);
    publisher.wait_more(1000);
    publisher.stop();
    checker.listen(Duration::from_millis(500));
    assert!(checker.gaps > 0, "a third of the channels has new epochs");
    assert!(checker.received > 1000);
    checker.assert_complete();
}

#[test]
fn slots_that_move_under_load_take_their_channels_with_them() {
    let cluster = Cluster::start();
    let mut checker = Checker::start(settings(&[cluster.address()]), 200);
    let publisher = Publisher::start(settings(&[cluster.address()]), 200);
    publisher.wait_more(500);
    cluster.move_slots(700);
    publisher.wait_more(1000);
    publisher.stop();
    checker.listen(Duration::from_millis(500));
    assert!(checker.received > 1000);
    checker.assert_complete();
}

/// Whether the server supports sharded pub/sub: from version 7 on.
fn has_shards(server: &RedisServer) -> bool {
    let info = server.ask(&["INFO", "server"]);
    let mut lines = info.text().lines();
    let version = lines.find_map(|line| line.strip_prefix("redis_version:")).expect("a version");
    !version.starts_with("6.")
}
