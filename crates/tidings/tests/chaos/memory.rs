//! What costs Redis memory: answers that wait for a node, and data for which there is no room.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::api::Api;
use crate::redis::connections;
use crate::scenes::world_on;
use crate::server::RedisServer;
use crate::world::Cost;

/// Bytes of each publication in the channel that is read, and how many there are.
const SIZE: usize = 60_000;
const COUNT: usize = 300;

#[test]
fn large_reads_cost_no_node_its_connection() {
    let redis = RedisServer::start(&[]);
    let mut world = world_on(&redis, "long histories are read on all nodes");
    let mut filler = Api::new(world.nodes[0].address);
    let data = "x".repeat(SIZE);
    let body = format!(r#"{{"channel":"chaos:long","data":"{data}"}}"#);
    for _ in 0..COUNT {
        filler.call("publish", &body).unwrap();
    }
    let before = connections(&redis);
    let is_over = AtomicBool::new(false);
    let addresses: Vec<_> = world.nodes.iter().map(|node| node.address).collect();
    std::thread::scope(|scope| {
        // Two on each node, each as fast as it is answered.
        for address in addresses.iter().chain(&addresses) {
            let is_over = &is_over;
            scope.spawn(move || read_again_and_again(Api::new(*address), is_over));
        }
        world.load(world.scale.pause);
        is_over.store(true, Ordering::SeqCst);
    });
    assert_eq!(connections(&redis), before, "every node has its connection still");
    world.mark(Instant::now());
    world.wait_settled();
    world.finish(Cost::Nothing);
}

/// Pages of the channel, from the beginning on.
fn read_again_and_again(mut api: Api, is_over: &AtomicBool) {
    while !is_over.load(Ordering::SeqCst) {
        let answer = api.ask("history", r#"{"channel":"chaos:long","limit":300}"#);
        assert!(answer.position().is_some_and(|top| top.offset == COUNT as u64), "{answer:?}");
    }
}

#[test]
fn a_redis_that_evicts_keys_loses_nothing_unreported() {
    let redis = RedisServer::start(&["--maxmemory-policy", "allkeys-random"]);
    let mut world = world_on(&redis, "Redis is full and drops keys");
    let info = redis.ask(&["INFO", "memory"]);
    let used = info.text().lines().find_map(|line| line.strip_prefix("used_memory:"));
    redis.ask(&["CONFIG", "SET", "maxmemory", used.expect("it says so").trim()]);
    world.load(world.scale.pause);
    redis.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    let stats = redis.ask(&["INFO", "stats"]);
    let dropped = stats.text().lines().find_map(|line| line.strip_prefix("evicted_keys:"));
    assert_ne!(dropped, Some("0"), "keys were dropped");
    world.mark(Instant::now());
    world.wait_settled();
    world.finish(Cost::Notices);
}
