//! Nothing fails, or a node does: clients move to other nodes without a loss.

use std::time::Instant;

use crate::lifecycle::wait_reported;
use crate::scenes::world_on;
use crate::server::RedisServer;
use crate::world::{Cost, NODES};

#[test]
fn without_a_fault_everybody_has_everything() {
    let redis = RedisServer::start(&[]);
    let world = world_on(&redis, "none");
    world.load(world.scale.calm);
    wait_reported(&world, &redis);
    world.finish(Cost::Nothing);
}

#[test]
fn a_node_that_is_killed_costs_nothing() {
    let redis = RedisServer::start(&[]);
    let mut world = world_on(&redis, "kill -9 of a node, and its restart");
    let killed = Instant::now();
    world.nodes[0].kill();
    world.mark(killed);
    world.load(world.scale.around);
    world.nodes[0].restart();
    world.wait_settled();
    wait_reported(&world, &redis);
    world.finish(Cost::Nothing);
}

#[test]
fn a_node_that_stops_hands_its_clients_over() {
    let redis = RedisServer::start(&[]);
    let mut world = world_on(&redis, "SIGTERM of a node, and its restart");
    world.mark(Instant::now());
    world.nodes[1].stop();
    world.nodes[1].restart();
    world.wait_settled();
    wait_reported(&world, &redis);
    world.finish(Cost::Nothing);
}

#[test]
fn a_rolling_restart_costs_nothing() {
    let redis = RedisServer::start(&[]);
    let mut world = world_on(&redis, "rolling restart of all nodes");
    world.mark(Instant::now());
    for number in 0..NODES {
        world.nodes[number].stop();
        world.nodes[number].restart();
        world.wait_settled();
    }
    wait_reported(&world, &redis);
    world.finish(Cost::Nothing);
}
