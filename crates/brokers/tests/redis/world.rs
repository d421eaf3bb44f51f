//! A node under test: a broker on real servers, and endpoints whose inboxes can be awaited.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::conformance::World;
use brokers::redis::settings::{Deployment, Login, ParsedAddress};
use brokers::redis::{RedisParts, RedisSettings};
use brokers::{Broker, Endpoint, Health, Inbox, RedisBroker};
use engine::broker::{
    BrokerError, BrokerEvent, BrokerRequest, JoinRead, JoinedStream, PublicationsRequest,
    PublishOptions, ReplyValue, RequestId,
};
use engine::rules::Rules;
use wire::protocol::{Publication, StreamPosition};

use crate::server::{PATIENCE, RedisServer, wait_until};

#[derive(Default)]
pub(crate) struct TestInbox {
    events: Mutex<VecDeque<(Instant, BrokerEvent)>>,
    has_more: Condvar,
    is_full: AtomicBool,
}

impl Inbox for TestInbox {
    fn deliver(&self, event: BrokerEvent) {
        self.events.lock().unwrap().push_back((Instant::now(), event));
        self.has_more.notify_all();
    }

    fn is_full(&self) -> bool {
        self.is_full.load(Ordering::SeqCst)
    }
}

impl TestInbox {
    /// The next event and its time of arrival.
    pub(crate) fn wait(&self, limit: Duration) -> Option<(Instant, BrokerEvent)> {
        let events = self.events.lock().unwrap();
        let is_empty = |events: &mut VecDeque<(Instant, BrokerEvent)>| events.is_empty();
        let (mut events, _) = self.has_more.wait_timeout_while(events, limit, is_empty).unwrap();
        events.pop_front()
    }
}

/// A broker with endpoints.
pub(crate) struct Node {
    pub(crate) broker: RedisBroker,
    inboxes: HashMap<Endpoint, Arc<TestInbox>>,
    fence: Endpoint,
    next_id: AtomicU64,
}

static NODES: AtomicU64 = AtomicU64::new(0);

/// Settings with short timeouts; `address` as in a configuration.
pub(crate) fn settings(addresses: &[String]) -> RedisSettings {
    let parsed = ParsedAddress::parse(addresses).expect("valid addresses");
    let node = NODES.fetch_add(1, Ordering::SeqCst);
    RedisSettings {
        deployment: parsed.deployment,
        login: parsed.login.unwrap_or_default(),
        database: parsed.database.unwrap_or(0),
        tls: None,
        prefix: "test".to_owned(),
        node: format!("n{}-{node}", std::process::id()),
        name: format!("node-{node}"),
        lease: Duration::from_secs(2),
        events_max: 100_000,
        seed: u64::from(std::process::id()) << 32 | node,
        connect_timeout: Duration::from_secs(1),
        io_timeout: Duration::from_secs(1),
        presence_ttl: Duration::from_secs(60),
        parts: RedisParts::All,
    }
}

pub(crate) fn at(server: &RedisServer) -> Vec<String> {
    vec![format!("redis://127.0.0.1:{}", server.port)]
}

impl Node {
    /// Starts a node and waits until it is ready.
    pub(crate) fn start(settings: RedisSettings) -> Node {
        let node = Node::start_anyhow(settings);
        node.wait_ready();
        node
    }

    /// Starts a node with channel options, which are stored when it is ready.
    pub(crate) fn start_with_rules(settings: RedisSettings, rules: &Arc<Rules>) -> Node {
        let node = Node::start_anyhow(settings);
        node.broker.set_rules(rules);
        node.wait_ready();
        node
    }

    pub(crate) fn start_anyhow(settings: RedisSettings) -> Node {
        let broker = RedisBroker::start(settings).expect("a thread");
        let inbox = Arc::new(TestInbox::default());
        let fence = broker.attach(inbox.clone());
        let inboxes = HashMap::from([(fence, inbox)]);
        Node { broker, inboxes, fence, next_id: AtomicU64::new(1 << 40) }
    }

    pub(crate) fn wait_ready(&self) {
        let mut last = Health::Ready;
        wait_until("the broker is ready", || {
            last = self.broker.health();
            last == Health::Ready
        });
    }

    /// Waits until the node is not ready for a reason that contains `has`; returns the reason.
    pub(crate) fn wait_unready(&self, has: &str) -> String {
        let mut found = String::new();
        wait_until(has, || match self.broker.health() {
            Health::Unready { reason, .. } if reason.contains(has) => {
                found = reason;
                true
            }
            _ => false,
        });
        found
    }

    pub(crate) fn attach(&mut self) -> Endpoint {
        let inbox = Arc::new(TestInbox::default());
        let endpoint = self.broker.attach(inbox.clone());
        self.inboxes.insert(endpoint, inbox);
        endpoint
    }

    pub(crate) fn inbox(&self, endpoint: Endpoint) -> &TestInbox {
        &self.inboxes[&endpoint]
    }

    /// Submits a request and waits for its reply; other events of the endpoint are dropped.
    pub(crate) fn ask<T: ReplyValue, R: Into<BrokerRequest>>(
        &self,
        endpoint: Endpoint,
        request: impl FnOnce(RequestId<T>) -> R,
    ) -> Result<T, BrokerError> {
        let id = RequestId::new(self.next_id.fetch_add(1, Ordering::SeqCst));
        self.submit(endpoint, request(id));
        loop {
            let (_, event) =
                self.inbox(endpoint).wait(PATIENCE).expect("every request gets a reply");
            if let BrokerEvent::Reply(reply) = event
                && let Some((answered, result)) = T::of(reply)
                && answered == id
            {
                return result;
            }
        }
    }

    pub(crate) fn submit(&self, endpoint: Endpoint, request: impl Into<BrokerRequest>) {
        self.broker.submit(endpoint, request.into());
    }

    pub(crate) fn subscribe(
        &self,
        endpoint: Endpoint,
        channel: &str,
    ) -> Result<JoinedStream, BrokerError> {
        let channel: Arc<str> = channel.into();
        let read = JoinRead::Position { meta_ttl_ms: 600_000 };
        self.ask(endpoint, |id| PublicationsRequest::Subscribe { id, channel, read })
    }

    /// Publishes from an endpoint without subscriptions.
    pub(crate) fn publish(&self, channel: &str, data: &str) -> Result<StreamPosition, BrokerError> {
        self.ask(self.fence, |id| publish(id, channel, data))
    }

    /// The next unsolicited position, and its time of arrival.
    pub(crate) fn wait_position(&self, endpoint: Endpoint) -> (Instant, StreamPosition) {
        loop {
            let (at, event) = self.inbox(endpoint).wait(PATIENCE).expect("a position arrives");
            if let BrokerEvent::Position { top, .. } = event {
                return (at, top);
            }
        }
    }

    /// The next publication.
    pub(crate) fn wait_data(&self, endpoint: Endpoint) -> String {
        loop {
            let (_, event) = self.inbox(endpoint).wait(PATIENCE).expect("a publication arrives");
            if let BrokerEvent::Publication { publication, .. } = event {
                return String::from_utf8_lossy(&publication.data).into_owned();
            }
        }
    }

    /// Waits until all submitted requests are executed and all earlier publications are delivered.
    fn settle(&self) {
        for index in 0..64 {
            let channel: Arc<str> = format!("fence-{index}").into();
            let read = JoinRead::Nothing;
            let ask = |id| PublicationsRequest::Subscribe { id, channel, read };
            self.ask(self.fence, ask).expect("the fence gets a reply");
        }
    }
}

pub(crate) fn publish(
    id: RequestId<StreamPosition>,
    channel: &str,
    data: &str,
) -> PublicationsRequest {
    PublicationsRequest::Publish {
        id,
        channel: channel.into(),
        publication: Publication { data: data.to_owned().into(), ..Publication::default() },
        options: PublishOptions {
            history_size: 1000,
            history_ttl_ms: 60_000,
            history_meta_ttl_ms: 600_000,
            ..PublishOptions::default()
        },
    }
}

/// The world of the conformance suite: one node on these servers.
pub(crate) struct RedisWorld<'s> {
    node: Node,
    servers: Vec<&'s RedisServer>,
    channels: u32,
}

impl<'s> RedisWorld<'s> {
    pub(crate) fn new(settings: RedisSettings, servers: Vec<&'s RedisServer>) -> RedisWorld<'s> {
        assert_ne!(settings.deployment, Deployment::Servers(Vec::new()));
        assert_eq!(Login::default().user, "");
        RedisWorld { node: Node::start(settings), servers, channels: 0 }
    }
}

impl World for RedisWorld<'_> {
    fn node_count(&self) -> usize {
        1
    }

    fn attach(&mut self) -> Endpoint {
        self.node.attach()
    }

    fn submit(&mut self, endpoint: Endpoint, request: BrokerRequest) {
        self.node.submit(endpoint, request);
    }

    fn next_due(&mut self, endpoint: Endpoint) -> BrokerEvent {
        self.node.inbox(endpoint).wait(PATIENCE).expect("an event arrives").1
    }

    fn detach(&mut self, endpoint: Endpoint) {
        self.node.broker.detach(endpoint);
    }

    fn fill_inbox(&mut self, endpoint: Endpoint) {
        self.node.inbox(endpoint).is_full.store(true, Ordering::SeqCst);
    }

    fn drain_inbox(&mut self, endpoint: Endpoint) {
        self.node.inbox(endpoint).is_full.store(false, Ordering::SeqCst);
    }

    /// Advances the age of every key.
    fn pass_ms(&mut self, ms: u64) {
        self.node.settle();
        for server in &self.servers {
            for key in server.ask(&["KEYS", "*"]).list() {
                let key = key.text();
                let left = server.ask(&["PTTL", key]).number();
                assert!(left > 0, "{key} has no end");
                let left = left - i64::try_from(ms).unwrap();
                server.ask(&["PEXPIRE", key, &left.to_string()]);
            }
        }
    }

    fn fresh_channel(&mut self) -> Arc<str> {
        self.channels += 1;
        format!("channel-{}", self.channels).into()
    }
}
