//! What fails in the simulated world.
//!
//! Invariant: every fault ends by itself or in [`heal`].

use super::server::Kept;
use super::simulation::World;
use super::workload::Workload;
use crate::redis::tests::model::store::Writes;

/// Errors that a server may reply with instead of executing a command.
const ERRORS: [&str; 5] = [
    "TRYAGAIN Multiple keys request during rehashing of slot",
    "CLUSTERDOWN The cluster is down",
    "LOADING Redis is loading the dataset in memory",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "ERR something else",
];

/// One fault. Returns whether data may be lost with it.
pub(super) fn fail(world: &mut World, workload: &mut Workload) -> bool {
    let server = world.random.below(world.servers.len() as u64) as usize;
    let node = world.random.below(world.nodes.len() as u64) as usize;
    let wire = world.random.below(world.wires.len().max(1) as u64) as usize;
    let until_ms = world.now_ms + world.random.below(4_000);
    match world.random.below(18) {
        0..=2 if wire < world.wires.len() => world.cut(wire),
        3 if wire < world.wires.len() => world.wires[wire].to_node.stall(until_ms),
        4 if wire < world.wires.len() => world.wires[wire].to_server.stall(until_ms),
        5 => world.frozen_until_ms[server] = until_ms,
        6 => world.servers[server].model.flush_scripts(),
        7 | 8 => {
            let error = ERRORS[world.random.below(ERRORS.len() as u64) as usize];
            world.servers[server].model.next_error = Some(error);
        }
        9 => world.servers[server].model.store.writes = Writes::OutOfMemory,
        10 => world.servers[server].model.store.writes = Writes::Accepted,
        11 => {
            world.kill_node(node);
            workload.forget_node(node);
        }
        12 if world.nodes[node].is_none() => {
            let new = world.start_node();
            world.nodes[node] = Some(new);
        }
        13 => {
            if let Some(node) = &mut world.nodes[node] {
                node.frozen_until_ms = until_ms + 2_000;
            }
        }
        // All clocks jump forward.
        14 => world.now_ms += world.random.below(8_000),
        15 => world.servers[server].save(),
        16 if world.random.below(3) == 0 => {
            world.kill_server(server);
            if world.random.below(2) == 0 {
                let kept = [Kept::Nothing, Kept::Saved][world.random.below(2) as usize];
                world.restart_server(server, kept);
            }
            return true;
        }
        17 if world.has_sentinels() && world.random.below(2) == 0 => {
            world.fail_over();
            return true;
        }
        _ => {}
    }
    false
}

/// Ends every fault.
pub(super) fn heal(world: &mut World) {
    world.frozen_until_ms.fill(0);
    for index in 0..world.servers.len() {
        if !world.servers[index].is_running {
            world.restart_server(index, Kept::Saved);
        }
        world.servers[index].model.store.writes = Writes::Accepted;
        world.servers[index].model.next_error = None;
    }
    for wire in &mut world.wires {
        wire.to_node.stall(0);
        wire.to_server.stall(0);
    }
    for index in 0..world.nodes.len() {
        if world.nodes[index].is_none() {
            let node = world.start_node();
            world.nodes[index] = Some(node);
        }
        if let Some(node) = &mut world.nodes[index] {
            node.frozen_until_ms = 0;
            node.endpoints.0.values_mut().for_each(|endpoint| endpoint.is_full = false);
        }
    }
}
