//! A history that NATS stores but does not return: the node is unready meanwhile, even if
//! publications succeed.

use std::time::Instant;

use engine::broker::{BrokerError, HistoryQuery, PublicationsRequest};
use serde_json::json;

use crate::comeback::RawClient;
use crate::pair::{LONG, Pair};
use crate::server::Server;

const HISTORY: &str = "tidings_history";

fn read(pair: &mut Pair) -> Result<usize, BrokerError> {
    let query = HistoryQuery { limit: None, ..HistoryQuery::default() };
    let ask =
        |id, channel| PublicationsRequest::History { id, channel, query, meta_ttl_ms: 600_000 };
    Ok(pair.answer(pair.publisher, ask)?.publications.len())
}

#[test]
fn a_history_that_cannot_be_read_keeps_the_node_unready() {
    let server = Server::start();
    drop(Pair::new(&server));
    // The stream allows one consumer.
    let raw = RawClient::new(&server);
    let mut config = raw.ask(&format!("$JS.API.STREAM.INFO.{HISTORY}"), "")["config"].clone();
    config["max_consumers"] = 1.into();
    raw.ask(&format!("$JS.API.STREAM.DELETE.{HISTORY}"), "");
    raw.ask(&format!("$JS.API.STREAM.CREATE.{HISTORY}"), config.to_string());
    let mut pair = Pair::new(&server);
    pair.publish_at_last(10);
    pair.publish_at_last(10);
    assert_eq!(read(&mut pair), Ok(2));
    let reader = json!({ "durable_name": "other", "ack_policy": "explicit" });
    let body = json!({ "stream_name": HISTORY, "config": reader }).to_string();
    let create = format!("$JS.API.CONSUMER.DURABLE.CREATE.{HISTORY}.other");
    // The node's own consumer may exist for a moment.
    while raw.ask_raw(&create, body.clone()).get("error").is_some() {}
    assert_eq!(read(&mut pair), Err(BrokerError::Unavailable));
    pair.world.wait_health(1, "max_consumers");
    for _ in 0..100 {
        pair.publish(10).expect("an accepted publication");
        assert!(pair.world.health(1).contains("cannot be read"), "a publication clears the cause");
    }
    raw.ask(&format!("$JS.API.CONSUMER.DELETE.{HISTORY}.other"), "");
    // Each consumer exists for a moment after the read, also that of the node's probe.
    let until = Instant::now() + LONG;
    while read(&mut pair) != Ok(10) {
        assert!(Instant::now() < until, "the history cannot be read in time");
    }
    pair.world.wait_health(1, "ready");
}
