//! Publications by NATS with presence in Redis.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use brokers::nats::{NatsBroker, NatsOptions};
use brokers::redis::settings::ParsedAddress;
use brokers::redis::{RedisParts, RedisSettings};
use brokers::{BrokerParts, Endpoint, Health, PartsEndpoint, RedisBroker};
use engine::broker::{
    BrokerEvent, BrokerReply, BrokerRequest, JoinRead, Membership, PresenceRequest,
    PublicationsRequest, RequestId,
};
use wire::protocol::ClientInfo;

use crate::conformance::{self, World};
use crate::pair::LONG;
use crate::proxy::ClosableProxy;
use crate::redis_server::{RedisServer, wait_until};
use crate::server::Server;
use crate::world::{TestClock, TestInbox};

/// Endpoints on nodes that use both servers.
struct PartsWorld {
    nodes: Vec<BrokerParts>,
    clock: Arc<TestClock>,
    endpoints: HashMap<Endpoint, (usize, PartsEndpoint, Arc<TestInbox>)>,
    last_channel: u32,
}

fn redis_settings(port: u16, index: usize) -> RedisSettings {
    let address = format!("redis://127.0.0.1:{port}");
    RedisSettings {
        deployment: ParsedAddress::parse(&[address]).expect("a valid address").deployment,
        login: brokers::redis::settings::Login::default(),
        database: 0,
        tls: None,
        prefix: "test".to_owned(),
        node: format!("n{index}"),
        name: format!("node-{index}"),
        lease: Duration::from_secs(2),
        events_max: 1_000,
        seed: 7 + index as u64,
        connect_timeout: Duration::from_secs(1),
        io_timeout: Duration::from_secs(1),
        presence_ttl: Duration::from_secs(60),
        parts: RedisParts::All,
    }
}

impl PartsWorld {
    /// Starts a node for each port of Redis.
    fn start(options: &NatsOptions, redis_ports: &[u16]) -> PartsWorld {
        let clock = TestClock::start();
        let start = |(index, port): (usize, &u16)| {
            let nats = NatsBroker::start(options.clone(), clock.clone(), &format!("n{index}-"));
            let parts = BrokerParts::of(Arc::new(nats.unwrap()));
            let settings = redis_settings(*port, index);
            let redis = RedisBroker::start_for_presence(settings, parts.leave_publisher()).unwrap();
            parts.with_presence(Arc::new(redis))
        };
        let nodes: Vec<BrokerParts> = redis_ports.iter().enumerate().map(start).collect();
        for node in &nodes {
            wait_until("both servers are ready", || node.health() == Health::Ready);
        }
        PartsWorld { nodes, clock, endpoints: HashMap::new(), last_channel: 0 }
    }

    fn send(&mut self, endpoint: Endpoint, request: impl Into<BrokerRequest>) {
        World::submit(self, endpoint, request.into());
    }

    fn add(&mut self, endpoint: Endpoint, channel: &Arc<str>, client: &str) {
        let info =
            ClientInfo { client: client.into(), user: "ann".into(), ..ClientInfo::default() };
        let (channel, info) = (channel.clone(), Arc::new(info));
        self.send(endpoint, PresenceRequest::Add { channel, info, announces: true });
    }

    fn subscribe(&mut self, endpoint: Endpoint, channel: &Arc<str>) {
        let (id, channel, read) = (RequestId::new(1), channel.clone(), JoinRead::Nothing);
        self.send(endpoint, PublicationsRequest::Subscribe { id, channel, read });
        let event = self.next_due(endpoint);
        assert!(
            matches!(event, BrokerEvent::Reply(BrokerReply::Subscribed(_, Ok(_)))),
            "{event:?}"
        );
    }

    fn count(&mut self, endpoint: Endpoint, channel: &Arc<str>) -> u32 {
        let (id, channel) = (RequestId::new(2), channel.clone());
        self.send(endpoint, PresenceRequest::Stats { id, channel });
        loop {
            match self.next_due(endpoint) {
                BrokerEvent::Reply(BrokerReply::PresenceStats(_, stats)) => {
                    return stats.expect("presence is available").num_clients;
                }
                BrokerEvent::Membership { .. } => {}
                event => panic!("unexpected event: {event:?}"),
            }
        }
    }

    /// Waits for the leave of a client.
    fn wait_leave(&mut self, endpoint: Endpoint, client: &str) {
        match self.next_due(endpoint) {
            BrokerEvent::Membership { info, change: Membership::Leave, .. } => {
                assert_eq!(info.client, client);
            }
            event => panic!("unexpected event: {event:?}"),
        }
    }
}

impl World for PartsWorld {
    fn node_count(&self) -> usize {
        self.nodes.len()
    }

    fn attach(&mut self) -> Endpoint {
        let number = self.endpoints.len();
        let node = number % self.nodes.len();
        let inbox = Arc::new(TestInbox::default());
        let endpoint = self.nodes[node].attach(inbox.clone());
        let named = Endpoint(u32::try_from(number).unwrap());
        self.endpoints.insert(named, (node, endpoint, inbox));
        named
    }

    fn submit(&mut self, endpoint: Endpoint, request: BrokerRequest) {
        let (node, endpoint, _) = &self.endpoints[&endpoint];
        self.nodes[*node].submit(*endpoint, request);
    }

    fn next_due(&mut self, endpoint: Endpoint) -> BrokerEvent {
        self.endpoints[&endpoint].2.next(2 * LONG).expect("an event in time")
    }

    fn detach(&mut self, endpoint: Endpoint) {
        let (node, endpoint, _) = &self.endpoints[&endpoint];
        self.nodes[*node].detach(*endpoint);
    }

    fn fill_inbox(&mut self, endpoint: Endpoint) {
        self.endpoints[&endpoint].2.is_full.store(true, Ordering::SeqCst);
    }

    fn drain_inbox(&mut self, endpoint: Endpoint) {
        self.endpoints[&endpoint].2.is_full.store(false, Ordering::SeqCst);
    }

    fn pass_ms(&mut self, ms: u64) {
        self.clock.pass_ms(ms);
    }

    fn fresh_channel(&mut self) -> Arc<str> {
        self.last_channel += 1;
        format!("room-{}", self.last_channel).into()
    }
}

#[test]
fn one_node_passes_every_case() {
    let (nats, redis) = (Server::start(), RedisServer::start(&[]));
    conformance::run(&mut PartsWorld::start(&nats.options(), &[redis.port]));
}

#[test]
fn two_nodes_pass_every_case_that_allows_several_nodes() {
    let (nats, redis) = (Server::start(), RedisServer::start(&[]));
    conformance::run(&mut PartsWorld::start(&nats.options(), &[redis.port; 2]));
}

#[test]
fn leaves_of_detached_endpoints_and_failed_nodes_are_published_by_nats() {
    let nats = Server::start();
    leaves_are_published(&nats.options());
}

#[test]
fn leaves_are_published_without_jetstream() {
    let nats = Server::with(&[]);
    leaves_are_published(&NatsOptions { jetstream: None, ..nats.options() });
}

/// One client leaves by a detached endpoint, and one with its node, once each.
fn leaves_are_published(options: &NatsOptions) {
    let redis = RedisServer::start(&[]);
    let proxy = ClosableProxy::open(redis.port);
    let mut world = PartsWorld::start(options, &[redis.port, proxy.port]);
    let (near, far, leaving) = (world.attach(), world.attach(), world.attach());
    let channel = world.fresh_channel();
    world.subscribe(near, &channel);
    world.add(leaving, &channel, "detached");
    world.add(far, &channel, "failed");
    wait_until("both are present", || world.count(near, &channel) == 2);
    world.detach(leaving);
    world.wait_leave(near, "detached");
    // The node loses Redis for longer than its lease.
    proxy.close();
    world.wait_leave(near, "failed");
    wait_until("nobody is present", || world.count(near, &channel) == 0);
    assert_eq!(world.nodes[0].health(), Health::Ready);
}
