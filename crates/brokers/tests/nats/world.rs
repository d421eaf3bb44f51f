//! Endpoints on one or more nodes of one NATS server, for the conformance cases.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::conformance::World;
use brokers::nats::{NatsBroker, NatsOptions};
use brokers::{Broker, Clock, Endpoint, Health, Inbox};
use engine::broker::{BrokerEvent, BrokerRequest};

/// Real time plus an offset.
pub(crate) struct TestClock {
    start: Instant,
    added_ms: AtomicU64,
}

impl TestClock {
    pub(crate) fn start() -> Arc<TestClock> {
        Arc::new(TestClock { start: Instant::now(), added_ms: AtomicU64::new(0) })
    }

    pub(crate) fn pass_ms(&self, ms: u64) {
        self.added_ms.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn monotonic_ms(&self) -> u64 {
        let elapsed = u64::try_from(self.start.elapsed().as_millis()).unwrap();
        elapsed + self.added_ms.load(Ordering::SeqCst)
    }
}

#[derive(Default)]
pub(crate) struct TestInbox {
    events: Mutex<VecDeque<BrokerEvent>>,
    has_come: Condvar,
    pub(crate) is_full: AtomicBool,
}

impl Inbox for TestInbox {
    fn deliver(&self, event: BrokerEvent) {
        self.events.lock().unwrap().push_back(event);
        self.has_come.notify_all();
    }

    fn is_full(&self) -> bool {
        self.is_full.load(Ordering::SeqCst)
    }
}

impl TestInbox {
    pub(crate) fn next(&self, wait: Duration) -> Option<BrokerEvent> {
        let events = self.events.lock().unwrap();
        let waited = self.has_come.wait_timeout_while(events, wait, |events| events.is_empty());
        waited.unwrap().0.pop_front()
    }
}

pub(crate) struct NatsWorld {
    pub(crate) nodes: Vec<NatsBroker>,
    clock: Arc<TestClock>,
    endpoints: HashMap<Endpoint, (usize, Endpoint, Arc<TestInbox>)>,
    next_endpoint: u32,
    next_channel: u32,
}

impl NatsWorld {
    pub(crate) fn submit(&mut self, endpoint: Endpoint, request: impl Into<BrokerRequest>) {
        World::submit(self, endpoint, request.into());
    }

    pub(crate) fn new(options: &NatsOptions, nodes: usize) -> NatsWorld {
        NatsWorld::named(options, nodes, "n")
    }

    /// Nodes with this name, which must be unique among the nodes of a store.
    pub(crate) fn named(options: &NatsOptions, nodes: usize, name: &str) -> NatsWorld {
        let clock = TestClock::start();
        let start = |index| {
            NatsBroker::start(options.clone(), clock.clone(), &format!("{name}{index}-")).unwrap()
        };
        let nodes = (0..nodes).map(start).collect();
        NatsWorld { nodes, clock, endpoints: HashMap::new(), next_endpoint: 0, next_channel: 0 }
    }

    /// `ready`, or the reason why a node is unready.
    pub(crate) fn health(&self, node: usize) -> String {
        match self.nodes[node].health() {
            Health::Ready => "ready".to_owned(),
            Health::Unready { reason, .. } => reason,
        }
    }

    /// Waits until the health of a node contains `expected`.
    pub(crate) fn wait_health(&self, node: usize, expected: &str) {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let health = self.health(node);
            if health.contains(expected) {
                return;
            }
            assert!(Instant::now() < until, "expected {expected:?}, but the health is {health:?}");
            std::thread::yield_now();
        }
    }

    pub(crate) fn next_within(
        &mut self,
        endpoint: Endpoint,
        wait: Duration,
    ) -> Option<BrokerEvent> {
        self.endpoints[&endpoint].2.next(wait)
    }
}

impl World for NatsWorld {
    fn node_count(&self) -> usize {
        self.nodes.len()
    }

    fn attach(&mut self) -> Endpoint {
        let named = Endpoint(self.next_endpoint);
        let node = self.next_endpoint as usize % self.nodes.len();
        self.next_endpoint += 1;
        let inbox = Arc::new(TestInbox::default());
        let endpoint = self.nodes[node].attach(inbox.clone());
        self.endpoints.insert(named, (node, endpoint, inbox));
        named
    }

    fn submit(&mut self, endpoint: Endpoint, request: BrokerRequest) {
        let (node, endpoint, _) = &self.endpoints[&endpoint];
        self.nodes[*node].submit(*endpoint, request);
    }

    fn next_due(&mut self, endpoint: Endpoint) -> BrokerEvent {
        self.next_within(endpoint, Duration::from_secs(20)).expect("an event comes")
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
        self.next_channel += 1;
        format!("room.{} > *", self.next_channel).into()
    }
}
