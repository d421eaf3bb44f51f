//! Chaos: three nodes as real processes on a real broker, clients and publishers on all of them,
//! and faults. A checker reads what every client saw; at the end nothing may be lost without
//! notice.
//!
//! The short forms run with the other tests; `make chaos` runs the long ones against a release
//! build and prints a table. Needs `redis-server`, `redis-sentinel`, `redis-cli` and `nats-server`.

mod api;
mod client;
mod cut;
#[path = "../support/dice.rs"]
mod dice;
mod failover;
mod fleet;
#[path = "../../../brokers/tests/redis/groups.rs"]
mod groups;
mod lifecycle;
#[path = "../support/link.rs"]
mod link;
mod memory;
mod nats;
mod nats_server;
mod node;
mod nodes;
#[path = "../support/process.rs"]
mod process;
mod proxy;
mod publisher;
mod redis;
mod scale;
mod scenes;
#[path = "../../../brokers/tests/redis/server.rs"]
mod server;
mod truth;
mod world;
