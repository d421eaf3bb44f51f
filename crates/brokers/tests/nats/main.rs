//! The NATS broker against real NATS servers: the conformance cases of all brokers on one and two
//! nodes, faults, and errors at start.
//!
//! Every test starts its own `nats-server` on a free port and stops it.

mod cases;
mod cluster;
mod comeback;
#[path = "../conformance/mod.rs"]
mod conformance;
mod crowd;
mod entrance;
mod expirations;
mod failed_node;
mod failures;
mod faults;
mod full;
mod generations;
mod lifecycle;
mod load;
mod names;
mod options;
mod pair;
mod parts;
#[path = "../redis/proxy.rs"]
mod proxy;
mod reading;
#[path = "../redis/server.rs"]
#[expect(dead_code, reason = "only some of its functions are used here")]
mod redis_server;
mod revocations;
mod rights;
mod server;
mod sizes;
mod start;
mod unavailable;
mod world;
