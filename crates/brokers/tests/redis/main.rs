//! The Redis broker on real servers: the conformance cases, and failures of servers.
//!
//! Needs `redis-server` (Debian: `apt-get install redis-server redis-sentinel`).

mod checker;
mod cluster;
#[path = "../conformance/mod.rs"]
mod conformance;
mod crowd;
mod entrance;
mod eviction;
mod faults;
mod groups;
mod nodes;
mod options;
mod proxy;
mod reads;
mod redirect;
mod rights;
mod sentinel;
mod server;
mod supervision;
mod world;

use crate::server::RedisServer;
use crate::world::{RedisWorld, at, settings};

#[test]
fn passes_every_case_of_the_conformance_suite() {
    let server = RedisServer::start(&[]);
    let mut world = RedisWorld::new(settings(&at(&server)), vec![&server]);
    conformance::run(&mut world);
}
