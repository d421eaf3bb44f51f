//! Nodes with different channel options: they warn, and publications of a node without history are
//! retained for a node with history.

use std::sync::Arc;

use brokers::Broker as _;
use engine::broker::{JoinRead, PublicationsRequest, PublishOptions};
use engine::rules::{Namespace, Rules};
use wire::protocol::{Publication, StreamPosition};

use crate::server::{RedisServer, wait_until};
use crate::world::{Node, at, settings};

fn rules(history_size: u32) -> Arc<Rules> {
    let namespace = Namespace {
        history_size,
        history_ttl_ms: 60_000,
        history_meta_ttl_ms: 600_000,
        ..Namespace::default()
    };
    let mut rules = Rules::default();
    rules.channels.namespaces.insert("chat".to_owned(), namespace);
    Arc::new(rules)
}

/// Publishes as an engine whose options have no history.
fn publish_plainly(node: &mut Node, data: &'static str) -> StreamPosition {
    let endpoint = node.attach();
    let publication = Publication { data: data.into(), ..Publication::default() };
    let (channel, options) = ("chat:a".into(), PublishOptions::default());
    match node.ask(endpoint, |id| PublicationsRequest::Publish {
        id,
        channel,
        publication,
        options,
    }) {
        Ok(position) => position,
        other => panic!("{other:?}"),
    }
}

#[test]
fn publications_of_a_node_without_history_are_recovered_on_a_node_with_history() {
    let server = RedisServer::start(&[]);
    let mut off = Node::start_with_rules(settings(&at(&server)), &rules(0));
    assert_eq!(publish_plainly(&mut off, "nobody retains it"), StreamPosition::default());
    let on_settings = settings(&at(&server));
    let on_name = on_settings.name.clone();
    let mut on = Node::start_with_rules(on_settings, &rules(10));
    let endpoint = on.attach();
    let joined = on.subscribe(endpoint, "chat:a").unwrap();
    // From the time at which a node with history is ready.
    for number in 1..=3 {
        assert_eq!(publish_plainly(&mut off, "x").offset, joined.top.offset + number);
    }
    let read = JoinRead::Since {
        since: joined.top.clone(),
        limit: 10,
        bytes_max: None,
        meta_ttl_ms: 600_000,
    };
    let returning = on.attach();
    let channel: Arc<str> = "chat:a".into();
    let answer = on.ask(returning, |id| PublicationsRequest::Subscribe { id, channel, read });
    let Ok(stream) = answer else { panic!("{answer:?}") };
    assert_eq!(stream.publications.len(), 3, "nothing is missing");
    wait_until("the difference is a warning", || {
        off.broker.take_warning().is_some_and(|text| {
            text.contains(&format!("{on_name:?}")) && text.contains("namespace \"chat\"")
        })
    });
    wait_until("on both nodes", || on.broker.take_warning().is_some());
    // The change has reached all nodes.
    off.broker.set_rules(&rules(10));
    on.broker.set_rules(&rules(10));
    let reported = || server.ask(&["HVALS", server.ask(&["KEYS", "*:options"]).list()[0].text()]);
    wait_until("both have the same options", || {
        let reported = reported();
        reported.list().len() == 2 && reported.list()[0] == reported.list()[1]
    });
}

#[test]
fn without_its_meta_key_a_stream_gets_a_new_epoch_after_history_was_off() {
    let server = RedisServer::start(&[]);
    let mut node = Node::start_with_rules(settings(&at(&server)), &rules(10));
    let endpoint = node.attach();
    let before = node.subscribe(endpoint, "chat:a").unwrap().top;
    let before = StreamPosition { offset: node.publish("chat:a", "x").unwrap().offset, ..before };
    node.broker.set_rules(&rules(0));
    assert_eq!(publish_plainly(&mut node, "missed"), StreamPosition::default());
    // The steps in docs/clustering.md.
    let found = server.ask(&["SCAN", "0", "MATCH", "test:{*}:meta:chat:*", "COUNT", "1000"]);
    let keys: Vec<&str> = found.list()[1].list().iter().map(|key| key.text()).collect();
    assert_eq!(keys.len(), 1);
    server.ask(&["UNLINK", keys[0]]);
    node.broker.set_rules(&rules(10));
    let read =
        JoinRead::Since { since: before.clone(), limit: 10, bytes_max: None, meta_ttl_ms: 600_000 };
    let returning = node.attach();
    let channel: Arc<str> = "chat:a".into();
    let answer = node.ask(returning, |id| PublicationsRequest::Subscribe { id, channel, read });
    let Ok(stream) = answer else { panic!("{answer:?}") };
    assert_ne!(stream.top.epoch, before.epoch);
}
