//! A history that NATS stores and does not give back: the node is not ready for as long as that
//! lasts, however much is published meanwhile.

use std::time::Instant;

use engine::broker::{BrokerError, BrokerReply, BrokerRequest, HistoryQuery, RequestId};
use serde_json::json;

use crate::comeback::Hand;
use crate::pair::{LONG, Pair};
use crate::server::Server;

const HISTORY: &str = "tidings_history";

fn read(pair: &mut Pair) -> Result<usize, BrokerError> {
    let (id, query) = (RequestId(9), HistoryQuery { limit: None, ..HistoryQuery::default() });
    let ask = |channel| BrokerRequest::History { id, channel, query, meta_ttl_ms: 600_000 };
    match pair.answer(pair.publisher, ask)? {
        BrokerReply::History(history) => Ok(history.publications.len()),
        other => panic!("history answered {other:?}"),
    }
}

#[test]
fn a_history_that_is_stored_and_cannot_be_read_keeps_the_node_unready() {
    let server = Server::start();
    drop(Pair::new(&server));
    // One reader is all that the stream allows.
    let hand = Hand::new(&server);
    let mut config = hand.ask(&format!("$JS.API.STREAM.INFO.{HISTORY}"), "")["config"].clone();
    config["max_consumers"] = 1.into();
    hand.ask(&format!("$JS.API.STREAM.DELETE.{HISTORY}"), "");
    hand.ask(&format!("$JS.API.STREAM.CREATE.{HISTORY}"), config.to_string());
    let mut pair = Pair::new(&server);
    pair.publish_at_last(10);
    pair.publish_at_last(10);
    assert_eq!(read(&mut pair), Ok(2));
    let reader = json!({ "durable_name": "other", "ack_policy": "explicit" });
    let body = json!({ "stream_name": HISTORY, "config": reader }).to_string();
    let create = format!("$JS.API.CONSUMER.DURABLE.CREATE.{HISTORY}.other");
    // The node's own reader may not have gone yet.
    while hand.asked(&create, body.clone()).get("error").is_some() {}
    assert_eq!(read(&mut pair), Err(BrokerError::Unavailable));
    pair.world.wait_health(1, "max_consumers");
    for _ in 0..100 {
        pair.publish(10).expect("it is stored");
        assert!(pair.world.health(1).contains("cannot be read"), "a publication hides it");
    }
    hand.ask(&format!("$JS.API.CONSUMER.DELETE.{HISTORY}.other"), "");
    // Each reader is there for a moment after it was read, also the one by which the node tries it.
    let until = Instant::now() + LONG;
    while read(&mut pair) != Ok(10) {
        assert!(Instant::now() < until, "it is never read");
    }
    pair.world.wait_health(1, "ready");
}
