//! Nodes whose channel options differ: they add a warning, and a publication of a node without
//! history is not missing in the history of another.

use std::sync::Arc;
use std::time::Instant;

use brokers::Broker as _;
use engine::broker::JoinRead;
use engine::rules::Rules;

use crate::pair::{LONG, Pair};
use crate::server::Server;

fn rules(history_size: u32) -> Arc<Rules> {
    let mut rules = Rules::default();
    rules.channels.without_namespace.history_size = history_size;
    rules.channels.without_namespace.history_ttl_ms = 60_000;
    rules.channels.without_namespace.history_meta_ttl_ms = 600_000;
    Arc::new(rules)
}

#[test]
fn publications_of_a_node_without_history_are_recovered_on_a_node_with_history() {
    let server = Server::start();
    let mut pair = Pair::new(&server);
    let joined = pair.subscribe().unwrap();
    // The listener is on the first node, the publisher on the second.
    pair.world.nodes[0].set_rules(&rules(10));
    pair.world.nodes[1].set_rules(&rules(0));
    let until = Instant::now() + LONG;
    while pair.publish(0).unwrap().offset == 0 {
        assert!(Instant::now() < until, "the options of the other node are missing");
    }
    let last = pair.publish(0).unwrap().offset;
    assert_eq!(last, 2, "and keeps what it publishes from then on");
    let read =
        JoinRead::Since { since: joined.top, limit: 10, bytes_max: None, meta_ttl_ms: 600_000 };
    let stream = pair.join(pair.listener, read).unwrap();
    assert_eq!(stream.publications.len() as u64, last, "nothing is missing");
    for node in &pair.world.nodes {
        let until = Instant::now() + LONG;
        while !node.take_warning().is_some_and(|text| text.contains("other options")) {
            assert!(Instant::now() < until, "no warning of different options");
            std::thread::yield_now();
        }
    }
}
