//! Another Redis takes over: under a Cluster, or named by Sentinels; or slots move. The stream
//! begins a new epoch.

use std::time::Instant;

use crate::groups::{Cluster, Watched, links};
use crate::scenes::redis_at;
use crate::world::{Cost, NODES, World};

#[test]
fn a_killed_master_of_a_cluster_loses_nothing_unreported() {
    let mut cluster = Cluster::start();
    let mut world =
        World::start("Redis Cluster, a master is killed", |_| redis_at(&cluster.address()));
    let killed = cluster.masters()[0];
    cluster.servers[killed].kill();
    cluster.wait_taken_over(killed);
    world.mark(Instant::now());
    world.wait_settled();
    world.finish(Cost::Notices);
}

#[test]
fn moved_slots_lose_nothing_unreported() {
    let cluster = Cluster::start();
    let mut world = World::start("Redis Cluster, slots move", |_| redis_at(&cluster.address()));
    cluster.move_slots(700);
    world.mark(Instant::now());
    world.wait_settled();
    world.finish(Cost::Notices);
}

#[test]
fn a_master_replaced_by_sentinels_loses_nothing_unreported() {
    let mut watched = Watched::start();
    let mut world =
        World::start("Sentinel, the master is killed", |_| redis_at(&watched.address("main")));
    watched.master.kill();
    watched.wait_taken_over();
    world.mark(Instant::now());
    world.wait_settled();
    world.finish(Cost::NoticesToAll);
}

#[test]
fn a_planned_failover_by_sentinels_loses_nothing_unreported() {
    let watched = Watched::start();
    let mut world =
        World::start("Sentinel, planned failover", |_| redis_at(&watched.address("main")));
    watched.fail_over();
    watched.wait_followed(NODES);
    world.mark(Instant::now());
    world.wait_settled();
    world.finish(Cost::NoticesToAll);
}

#[test]
fn an_old_master_that_keeps_running_loses_nothing_unreported() {
    let mut watched = Watched::start();
    let mut world = World::start("Sentinel, the old master cannot be demoted", |_| {
        redis_at(&watched.address("main"))
    });
    watched.shut_the_master(None);
    watched.wait_followed(NODES);
    world.mark(Instant::now());
    world.wait_settled();
    world.finish(Cost::NoticesToAll);
}

#[test]
fn an_old_master_that_one_node_still_reaches_loses_nothing_unreported() {
    let mut watched = Watched::start();
    let mut world = World::start("Sentinel, one node still reaches the old master", |_| {
        redis_at(&watched.address("main"))
    });
    let spared = links(&watched.master).pop();
    watched.shut_the_master(spared.as_deref());
    watched.wait_followed(NODES);
    world.mark(Instant::now());
    world.wait_settled();
    world.finish(Cost::NoticesToAll);
}
