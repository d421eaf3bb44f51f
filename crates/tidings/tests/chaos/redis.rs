//! One Redis restarts, stands still, or ends connections.

use std::time::Instant;

use crate::scenes::world_on;
use crate::server::{Answer, RedisServer, wait_until};
use crate::world::{Cost, NODES};

#[test]
fn a_redis_that_restarts_with_its_data_begins_new_epochs() {
    a_redis_that_restarts_begins_new_epochs(
        &["--appendonly", "yes"],
        "Redis restarts with its data",
    );
}

#[test]
fn a_redis_that_restarts_without_its_data_begins_new_epochs() {
    a_redis_that_restarts_begins_new_epochs(&[], "Redis restarts without its data");
}

fn a_redis_that_restarts_begins_new_epochs(arguments: &[&str], name: &'static str) {
    let mut redis = RedisServer::start(arguments);
    let mut world = world_on(&redis, name);
    redis.kill();
    world.load(world.scale.pause / 2);
    redis.restart();
    world.mark(Instant::now());
    world.wait_settled();
    world.finish(Cost::NoticesToAll);
}

#[test]
fn a_redis_that_stands_still_costs_nothing() {
    let redis = RedisServer::start(&[]);
    let mut world = world_on(&redis, "SIGSTOP of Redis");
    redis.signal("STOP");
    world.load(world.scale.pause);
    redis.signal("CONT");
    world.mark(Instant::now());
    world.wait_settled();
    world.finish(Cost::Nothing);
}

#[test]
fn connections_that_redis_ends_are_replaced() {
    let redis = RedisServer::start(&[]);
    let mut world = world_on(&redis, "CLIENT KILL TYPE pubsub, and normal");
    for kind in ["pubsub", "normal"] {
        let before = connections(&redis);
        let killed = redis.ask(&["CLIENT", "KILL", "TYPE", kind]).number();
        world.mark(Instant::now());
        if kind == "pubsub" {
            assert_eq!(killed, NODES as i64);
            wait_replaced(&redis, &before);
        }
        world.wait_settled();
        world.load(world.scale.around);
    }
    world.finish(Cost::Nothing);
}

#[test]
fn a_node_that_reads_too_slowly_for_redis_misses_nothing() {
    let redis = RedisServer::start(&["--client-output-buffer-limit", "pubsub 1mb 1mb 1"]);
    let mut world = world_on(&redis, "output buffers of the nodes overflow");
    let before = connections(&redis);
    // A flood of what is no publication of ours, where all nodes listen.
    let names = redis.ask(&["PUBSUB", "CHANNELS", "*c:chaos:*"]);
    let script = "for i = 1, 100 do redis.call('PUBLISH', ARGV[1], string.rep('x', 100000)) end";
    redis.ask(&["EVAL", script, "0", names.list()[0].text()]);
    world.mark(Instant::now());
    wait_replaced(&redis, &before);
    world.wait_settled();
    world.finish(Cost::Nothing);
}

/// Ids of the connections over which nodes listen.
pub(crate) fn connections(redis: &RedisServer) -> Vec<String> {
    let list: Answer = redis.ask(&["CLIENT", "LIST", "TYPE", "pubsub"]);
    let ids = list.text().lines().filter_map(|line| line.split(' ').next());
    ids.map(str::to_owned).collect()
}

fn wait_replaced(redis: &RedisServer, before: &[String]) {
    assert_eq!(before.len(), NODES, "each node listens over one connection");
    wait_until("all connections are replaced", || {
        let now = connections(redis);
        now.len() == NODES && now.iter().all(|id| !before.contains(id))
    });
}
