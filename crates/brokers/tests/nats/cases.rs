//! The NATS broker against the conformance cases.

use crate::conformance;
use crate::server::Server;
use crate::world::NatsWorld;

#[test]
fn one_node_passes_every_case() {
    let server = Server::start();
    conformance::run(&mut NatsWorld::new(&server.options(), 1));
}

#[test]
fn endpoints_on_two_nodes_pass_every_case_that_allows_several_nodes() {
    let server = Server::start();
    conformance::run(&mut NatsWorld::new(&server.options(), 2));
}
