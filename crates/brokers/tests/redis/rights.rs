//! ACL rights that are revoked while a node runs: subscribe requests fail and the node is not ready
//! until the rights are back.

use std::sync::Arc;

use brokers::redis::RedisSettings;
use brokers::{Broker as _, Endpoint, Health};
use engine::broker::{BrokerError, JoinRead, JoinedStream, PublicationsRequest};

use crate::server::{RedisServer, wait_until};
use crate::world::{Node, settings};

/// A server with a user `ann`, and settings with that user.
fn server() -> (RedisServer, RedisSettings) {
    let server = RedisServer::start(&[]);
    server.ask(&["ACL", "SETUSER", "ann", "on", ">hers", "~test*", "&test*", "+@all"]);
    let settings = settings(&[format!("redis://ann:hers@127.0.0.1:{}", server.port)]);
    (server, settings)
}

fn set_rights(server: &RedisServer, rights: &[&str]) {
    let answer = server.ask(&[&["ACL", "SETUSER", "ann"], rights].concat());
    assert_eq!(answer.text(), "OK");
}

/// The result of a subscribe request without a position.
fn subscribe_plain(
    node: &Node,
    endpoint: Endpoint,
    channel: &str,
) -> Result<JoinedStream, BrokerError> {
    let (channel, read): (Arc<str>, _) = (channel.into(), JoinRead::Nothing);
    node.ask(endpoint, |id| PublicationsRequest::Subscribe { id, channel, read })
}

/// Number of refused subscriptions.
fn refused(server: &RedisServer) -> u64 {
    let stats = server.ask(&["INFO", "commandstats"]);
    let line = stats.text().lines().find(|line| line.starts_with("cmdstat_subscribe:"));
    let rejected = line.and_then(|line| line.split("rejected_calls=").nth(1));
    rejected.and_then(|rest| rest.split(',').next()).map_or(0, |count| count.parse().unwrap())
}

#[test]
fn a_subscription_refused_by_redis_fails() {
    let (server, settings) = server();
    let mut node = Node::start(settings);
    let (endpoint, other) = (node.attach(), node.attach());
    let before = node.subscribe(endpoint, "room").unwrap().top;
    // The node may subscribe to its probes, but to no channel.
    set_rights(&server, &["resetchannels", "&test:*:probe:*", "&test:*control*"]);
    let reason = node.wait_unready("does not let engine.redis.user");
    assert!(matches!(node.broker.health(), Health::Unready { is_lasting: true, .. }), "{reason}");
    let before_retries = refused(&server);
    wait_until("the subscription is retried", || {
        assert_ne!(
            node.broker.health(),
            Health::Ready,
            "a successful probe must not hide the refusal"
        );
        refused(&server) >= before_retries + 3
    });
    for channel in ["room", "new"] {
        assert_eq!(subscribe_plain(&node, other, channel), Err(BrokerError::Unavailable));
        assert_eq!(node.subscribe(other, channel), Err(BrokerError::Unavailable));
    }
    // The refused channel has no subscribers any more, but the refusal persists.
    node.submit(other, PublicationsRequest::Unsubscribe { channel: "new".into() });
    set_rights(&server, &["&test*"]);
    node.wait_ready();
    while node.wait_position(endpoint).1.epoch != before.epoch {}
    node.subscribe(other, "new").unwrap();
    for (channel, subscriber) in [("room", endpoint), ("new", other)] {
        node.publish(channel, channel).unwrap();
        while node.wait_data(subscriber) != channel {}
    }
    wait_until("no channel without subscribers is subscribed", || {
        let received = server.ask(&["PUBSUB", "CHANNELS", "test:*:c:*"]).list().len();
        received == 2
    });
}

#[test]
fn a_refused_channel_keeps_the_node_unready_without_subscribers() {
    let (server, settings) = server();
    let mut node = Node::start(settings);
    let endpoint = node.attach();
    set_rights(&server, &["resetchannels", "&test:*:probe:*", "&test:*control*", "&test:*:c:a"]);
    assert!(subscribe_plain(&node, endpoint, "a").is_ok());
    assert_eq!(subscribe_plain(&node, endpoint, "b"), Err(BrokerError::Unavailable));
    node.submit(endpoint, PublicationsRequest::Unsubscribe { channel: "b".into() });
    let before = refused(&server);
    wait_until("the subscription is retried", || {
        assert!(refused(&server) < before + 2 || node.broker.health() != Health::Ready);
        refused(&server) >= before + 3
    });
    set_rights(&server, &["&test*"]);
    node.wait_ready();
    assert_eq!(server.ask(&["PUBSUB", "CHANNELS", "test:*:c:b"]).list().len(), 0);
}

#[test]
fn a_node_denied_its_probe_channel_keeps_its_connection_and_reports_why() {
    let (server, settings) = server();
    let mut node = Node::start(settings);
    let endpoint = node.attach();
    node.subscribe(endpoint, "room").unwrap();
    let first = server.ask(&["CLIENT", "LIST", "TYPE", "pubsub"]).text().to_owned();
    set_rights(&server, &["resetchannels", "&test:*:c:*", "&test:*control*"]);
    node.wait_unready("does not let engine.redis.user");
    let second = server.ask(&["CLIENT", "LIST", "TYPE", "pubsub"]).text().to_owned();
    let id = |list: &str| list.split(' ').next().map(str::to_owned);
    assert_ne!(id(&first), id(&second), "Redis closes connections with denied subscriptions");
    let before = refused(&server);
    // For longer than the reply timeout.
    wait_until("the subscription is retried", || refused(&server) >= before + 6);
    let third = server.ask(&["CLIENT", "LIST", "TYPE", "pubsub"]).text().to_owned();
    assert_eq!(id(&second), id(&third));
    node.publish("room", "a").unwrap();
    assert_eq!(node.wait_data(endpoint), "a");
    set_rights(&server, &["&test*"]);
    node.wait_ready();
}

#[test]
fn each_denied_command_is_named_at_start() {
    let (server, _) = server();
    for command in ["xadd", "hincrby", "zrangebyscore", "hscan", "srem", "pexpire"] {
        set_rights(&server, &["+@all", &format!("-{command}")]);
        let node =
            Node::start_anyhow(settings(&[format!("redis://ann:hers@127.0.0.1:{}", server.port)]));
        let reason = node.wait_unready("does not let engine.redis.user");
        let Health::Unready { is_lasting: true, .. } = node.broker.health() else {
            panic!("{reason} does not end the start")
        };
    }
}

#[test]
fn a_denied_command_keeps_the_node_unready_until_it_is_allowed() {
    let (server, settings) = server();
    let node = Node::start(settings);
    node.publish("room", "a").unwrap();
    set_rights(&server, &["-xadd"]);
    assert_eq!(node.publish("room", "b"), Err(BrokerError::Unavailable));
    node.wait_unready("does not let engine.redis.user");
    let probes = || {
        let stats = server.ask(&["INFO", "commandstats"]);
        let line = stats.text().lines().find(|line| line.starts_with("cmdstat_evalsha:"));
        let calls = line.and_then(|line| line.split("calls=").nth(1)?.split(',').next());
        calls.map_or(0, |calls| calls.parse::<u64>().unwrap())
    };
    let before = probes();
    wait_until("the command is retried", || {
        assert_ne!(node.broker.health(), Health::Ready);
        probes() >= before + 8
    });
    set_rights(&server, &["+xadd"]);
    node.wait_ready();
    node.publish("room", "b").unwrap();
}
