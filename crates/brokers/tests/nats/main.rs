//! The NATS broker against real NATS servers: the cases that every broker must pass, on one node
//! and over two, what faults show, and why it refuses to start.
//!
//! Every test starts its own `nats-server` on a free port and ends it.

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
#[path = "../redis/proxy.rs"]
mod proxy;
mod reading;
mod revocations;
mod rights;
mod server;
mod sizes;
mod start;
mod unavailable;
mod world;
