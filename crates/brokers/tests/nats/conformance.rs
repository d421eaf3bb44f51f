//! The cases that every broker must pass.

use brokers::conformance;

use crate::server::Server;
use crate::world::NatsWorld;

#[test]
fn one_node_passes_every_case() {
    let server = Server::start();
    let mut world = NatsWorld::new(&server.options(), 1);
    for (name, case) in conformance::ALL {
        println!("{name}");
        case(&mut world);
    }
}

/// The endpoints of a case are on different nodes. Left out are the two cases that ask for what
/// only one node can know at once: that a receiver elsewhere is full, and that an endpoint
/// elsewhere has just gone.
#[test]
fn two_nodes_pass_every_case_that_is_not_about_one() {
    let server = Server::start();
    let mut world = NatsWorld::new(&server.options(), 2);
    for (name, case) in conformance::ALL {
        if name.contains("is full") || name.contains("is gone") {
            continue;
        }
        println!("{name}");
        case(&mut world);
    }
}
