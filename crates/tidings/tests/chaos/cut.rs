//! The network between one node and Redis is cut: that node is not ready, and its clients stay, and
//! catch up.

use std::time::Instant;

use crate::proxy::{NetworkState, Proxy};
use crate::scenes::redis_at;
use crate::server::{RedisServer, wait_until};
use crate::world::{Cost, World};

#[test]
fn a_network_that_drops_everything_costs_nothing() {
    a_cut_costs_nothing(NetworkState::Silent, "network of one node drops everything");
}

#[test]
fn a_network_that_resets_connections_costs_nothing() {
    a_cut_costs_nothing(NetworkState::Reset, "network of one node resets connections");
}

fn a_cut_costs_nothing(state: NetworkState, name: &'static str) {
    let redis = RedisServer::start(&[]);
    let proxy = Proxy::start(redis.port);
    let mut world = World::start(name, |number| {
        let port = if number == CUT { proxy.port } else { redis.port };
        redis_at(&format!("redis://127.0.0.1:{port}"))
    });
    proxy.turn(state);
    let began = Instant::now();
    wait_until("the node that is cut off is not ready", || !world.nodes[CUT].api.is_ready());
    world.load(world.scale.cut.saturating_sub(began.elapsed()));
    assert!(!world.nodes[CUT].api.is_ready(), "it is cut off still");
    proxy.turn(NetworkState::Fair);
    world.mark(Instant::now());
    world.wait_settled();
    world.finish(Cost::Nothing);
}

const CUT: usize = 0;
