//! One NATS restarts, or stands still.

use std::time::Instant;

use crate::nats_server::NatsServer;
use crate::world::{Cost, World};

fn world_on(nats: &NatsServer, name: &'static str) -> World {
    World::start(name, |_| {
        format!(
            "[broker]\nenabled = true\ntype = \"nats\"\n[broker.nats]\nurl = \"nats://127.0.0.1:{}\"\n",
            nats.port
        )
    })
}

#[test]
fn a_nats_that_restarts_with_its_data_costs_nothing() {
    let mut nats = NatsServer::start();
    let mut world = world_on(&nats, "NATS restarts with its data");
    nats.kill();
    world.load(world.scale.pause / 2);
    nats.restart();
    world.mark(Instant::now());
    world.wait_settled();
    world.finish(Cost::Nothing);
}

#[test]
fn a_nats_that_restarts_without_its_data_begins_new_lives() {
    let mut nats = NatsServer::start();
    let mut world = world_on(&nats, "NATS restarts without its data");
    nats.kill();
    world.load(world.scale.pause / 2);
    nats.restart_empty();
    world.mark(Instant::now());
    world.wait_settled();
    world.finish(Cost::NoticesToAll);
}

#[test]
fn a_nats_that_stands_still_costs_nothing() {
    let nats = NatsServer::start();
    let mut world = world_on(&nats, "SIGSTOP of NATS");
    nats.signal("-STOP");
    world.load(world.scale.pause);
    nats.signal("-CONT");
    world.mark(Instant::now());
    world.wait_settled();
    world.finish(Cost::Nothing);
}

#[test]
fn a_node_on_nats_that_is_killed_costs_nothing() {
    let nats = NatsServer::start();
    let mut world = world_on(&nats, "NATS, kill -9 of a node");
    let killed = Instant::now();
    world.nodes[2].kill();
    world.mark(killed);
    world.nodes[2].restart();
    world.wait_settled();
    world.finish(Cost::Nothing);
}
