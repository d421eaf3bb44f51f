//! The broker within one process: channels in sharded maps, events delivered directly to the
//! endpoints' inboxes.
//!
//! Invariant: every operation on a channel (assign an offset, retain, deliver) holds the lock of
//! the channel's shard. So all endpoints receive events in one order, and a reply stands in an
//! inbox behind everything that precedes it.

mod revocations;
mod topic;
mod usage;

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use engine::broker::{
    BrokerError, BrokerEvent, BrokerRequest, HistoryRemoved, NodeBusRequest, PresenceRequest,
    PublicationsRequest, RegistryRequest, ReplyValue, RequestId, Survey,
};
use engine::capacity::{Kept, spare};
use engine::channel::{LIFECYCLE, SYSTEM, namespace_name};
use engine::lifecycle::Lifecycle;
use engine::revocation::RevokeOutcome;
use engine::rules::Rules;

use crate::channel_options::switched_retention;
use crate::limits::SHARDS;
use crate::{
    Broker, Clock, Endpoint, Health, Inbox, NodeBus, PresenceBroker, PublicationBroker,
    RegistryBroker, lifecycle,
};
use topic::{Published, Topic};
use usage::Growth;
pub use usage::{Ceilings, Usage};

/// The broker within one process; see the module.
pub struct MemoryBroker {
    clock: Arc<dyn Clock>,
    shards: Vec<Mutex<Topics>>,
    hasher: std::hash::RandomState,
    endpoints: RwLock<HashMap<Endpoint, Arc<dyn Inbox>>>,
    next_endpoint: AtomicU32,
    /// Distinguishes the epochs of this process from those of all others.
    epoch_prefix: String,
    /// Number in the epoch of streams that are created now.
    epoch: AtomicU64,
    /// Name of this node in lifecycle events.
    node: String,
    /// [`LIFECYCLE`], allocated once.
    system: Arc<str>,
    revocations: revocations::KeptRevocations,
    usage: Arc<Usage>,
    /// Current rules; `None` before the first are set.
    rules: Mutex<Option<Arc<Rules>>>,
}

type Topics = HashMap<Arc<str>, Topic>;

/// Shrinks a shard that was large once.
fn shrink(topics: &mut Topics) {
    if let Some(room) = spare(topics.len(), topics.capacity(), Kept::OfMany) {
        topics.shrink_to(room);
    }
}

impl MemoryBroker {
    /// Creates an empty broker. `epoch_prefix` must differ at every start of a process: it shows
    /// clients that the streams they know are lost.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, epoch_prefix: String) -> MemoryBroker {
        MemoryBroker {
            clock,
            shards: std::iter::repeat_with(Mutex::default).take(SHARDS).collect(),
            hasher: std::hash::RandomState::new(),
            endpoints: RwLock::default(),
            next_endpoint: AtomicU32::new(0),
            epoch_prefix,
            epoch: AtomicU64::new(0),
            node: String::new(),
            system: LIFECYCLE.into(),
            revocations: revocations::KeptRevocations::default(),
            usage: Arc::new(Usage::new(Ceilings::default())),
            rules: Mutex::default(),
        }
    }

    /// Counts stored bytes in `usage`, and enforces its ceilings.
    #[must_use]
    pub fn with_usage(self, usage: Arc<Usage>) -> MemoryBroker {
        MemoryBroker { usage, ..self }
    }

    /// Sets the name of this node in lifecycle events.
    #[must_use]
    pub fn with_node(self, node: String) -> MemoryBroker {
        MemoryBroker { node, ..self }
    }

    /// Number of channels with subscribers, a stream or presence.
    #[must_use]
    pub fn channel_count(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    fn with_topic<R>(&self, channel: &Arc<str>, act: impl FnOnce(&mut Topic, u64) -> R) -> R {
        let now_ms = self.clock.monotonic_ms();
        let index = self.hasher.hash_one(&**channel) as usize % SHARDS;
        let mut topics = lock(&self.shards[index]);
        let topic = topics.entry(channel.clone()).or_default();
        let before = topic.cost(channel);
        self.expire_topic(channel, topic, now_ms);
        let result = act(topic, now_ms);
        self.usage.change(before, topic.cost(channel));
        if topic.is_idle() {
            topics.remove(channel);
            shrink(&mut topics);
        }
        result
    }

    /// Checks that a channel may grow by this much. The server's own channels always may.
    fn admit(&self, channel: &str, more: Growth) -> Result<(), BrokerError> {
        if channel.starts_with(SYSTEM) { Ok(()) } else { self.usage.admit(more) }
    }

    fn inbox(&self, endpoint: Endpoint) -> Option<Arc<dyn Inbox>> {
        self.endpoints.read().unwrap_or_else(PoisonError::into_inner).get(&endpoint).cloned()
    }

    /// Returns the epoch for new streams. A stream that is deleted before its first publication is
    /// created again under the same epoch, so that invented channels leave no trace.
    fn new_epoch(&self) -> Arc<str> {
        let number = self.epoch.load(Ordering::Relaxed);
        format!("{}{number:x}", self.epoch_prefix).into()
    }

    /// Expires a topic. A stream that had publications is never created again under its epoch,
    /// because the shard is locked from here to its next creation.
    fn expire_topic(&self, channel: &Arc<str>, topic: &mut Topic, now_ms: u64) {
        if topic.expire(channel, now_ms) {
            self.epoch.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn publish_lifecycle(&self, lifecycle: &Lifecycle) {
        self.with_topic(&self.system, |topic, _| {
            if topic.has_subscribers() {
                let publication = lifecycle::publication(&self.node, lifecycle);
                let channel = self.system.clone();
                let (publication, epoch) = (Arc::new(publication), "".into());
                topic.notify(&BrokerEvent::Publication { channel, publication, epoch });
            }
        });
    }

    /// Answers a request about one channel; the reply is delivered under the channel's lock.
    fn answer<T: ReplyValue>(
        &self,
        inbox: &Arc<dyn Inbox>,
        id: RequestId<T>,
        channel: &Arc<str>,
        ask: impl FnOnce(&mut Topic, u64) -> Result<T, BrokerError>,
    ) {
        self.with_topic(channel, |topic, now_ms| {
            let result = ask(topic, now_ms);
            inbox.deliver(BrokerEvent::Reply(id.answer(result)));
        });
    }

    /// Submits a request of an endpoint. Never blocks; results are delivered as events.
    pub fn submit(&self, endpoint: Endpoint, request: BrokerRequest) {
        match request {
            BrokerRequest::Publications(request) => self.submit_publications(endpoint, request),
            BrokerRequest::Presence(request) => self.submit_presence(endpoint, request),
            BrokerRequest::NodeBus(request) => self.submit_node_bus(endpoint, request),
            BrokerRequest::Registry(request) => self.submit_registry(endpoint, request),
        }
    }

    fn handle_publications(
        &self,
        endpoint: Endpoint,
        inbox: &Arc<dyn Inbox>,
        request: PublicationsRequest,
    ) {
        match request {
            PublicationsRequest::Subscribe { id, channel, read } => {
                self.answer(inbox, id, &channel, |topic, now_ms| {
                    self.admit(&channel, topic.growth_of_listener(&channel))?;
                    topic.add_listener(endpoint, inbox.clone());
                    Ok(topic.join(now_ms, &read, || self.new_epoch()))
                });
            }
            PublicationsRequest::Unsubscribe { channel } => {
                self.with_topic(&channel, |topic, _| topic.remove_listener(endpoint));
            }
            PublicationsRequest::Publish { id, channel, publication, options } => {
                self.answer(inbox, id, &channel, |topic, now_ms| {
                    let published = Published { channel: &channel, publication, options: &options };
                    self.admit(&channel, topic.growth_of(&published))?;
                    topic.publish(now_ms, published, || self.new_epoch())
                });
            }
            PublicationsRequest::Announce { channel, info, change } => {
                self.with_topic(&channel, |topic, _| {
                    let channel = channel.clone();
                    topic.notify(&BrokerEvent::Membership { channel, info, change });
                });
            }
            PublicationsRequest::History { id, channel, query, meta_ttl_ms } => {
                self.answer(inbox, id, &channel, |topic, now_ms| {
                    topic.stream(now_ms, meta_ttl_ms, || self.new_epoch()).read(&query)
                });
            }
            PublicationsRequest::RemoveHistory { id, channel } => {
                self.answer(inbox, id, &channel, |topic, _| {
                    topic.clear_stream();
                    Ok(HistoryRemoved)
                });
            }
            PublicationsRequest::LimitTtl { channel, ttl_ms } => {
                self.with_topic(&channel, |topic, now_ms| {
                    // If there is no room for it, later requests are refused.
                    let more = topic.growth_of_listener(&channel);
                    if channel.starts_with(SYSTEM) || self.usage.has_room(more) {
                        topic.limit(now_ms, ttl_ms);
                    }
                });
            }
            PublicationsRequest::ChannelTtl { id, channel } => {
                self.answer(inbox, id, &channel, |topic, now_ms| Ok(topic.ttl(now_ms)));
            }
        }
    }

    fn handle_presence(
        &self,
        endpoint: Endpoint,
        inbox: &Arc<dyn Inbox>,
        request: PresenceRequest,
    ) {
        match request {
            PresenceRequest::Add { channel, info, announces } => {
                self.with_topic(&channel, |topic, _| {
                    topic.presence_mut().add(info, (endpoint, announces));
                });
            }
            PresenceRequest::Remove { channel, client } => {
                self.with_topic(&channel, |topic, _| topic.presence_mut().remove(&client.client));
            }
            PresenceRequest::Clients { id, channel } => {
                self.answer(inbox, id, &channel, |topic, _| Ok(topic.presence_mut().clients()));
            }
            PresenceRequest::Stats { id, channel } => {
                self.answer(inbox, id, &channel, |topic, _| Ok(topic.presence_mut().stats()));
            }
        }
    }

    fn handle_node_bus(&self, inbox: &Arc<dyn Inbox>, request: NodeBusRequest) {
        match request {
            NodeBusRequest::Control(control) => {
                self.notify_all(&BrokerEvent::Control(control));
            }
            NodeBusRequest::Lifecycle(lifecycle) => self.publish_lifecycle(&lifecycle),
            // There are no other nodes.
            NodeBusRequest::Survey { id, .. } => {
                inbox.deliver(BrokerEvent::Reply(id.answer(Ok(Survey::default()))));
            }
            NodeBusRequest::Answer { .. } => {}
        }
    }

    fn handle_registry(&self, inbox: &Arc<dyn Inbox>, request: RegistryRequest) {
        let reply = match request {
            RegistryRequest::Revoke { id, revocation } => {
                let outcome = self.revocations.store(&revocation);
                if outcome == RevokeOutcome::Stored {
                    self.notify_all(&BrokerEvent::Revocation(revocation));
                }
                id.answer(Ok(outcome))
            }
            RegistryRequest::Find { id, subject } => id.answer(Ok(self.revocations.find(&subject))),
            RegistryRequest::Read { id } => id.answer(Ok(self.revocations.read())),
        };
        inbox.deliver(BrokerEvent::Reply(reply));
    }

    fn notify_all(&self, event: &BrokerEvent) {
        let endpoints = self.endpoints.read().unwrap_or_else(PoisonError::into_inner);
        for inbox in endpoints.values() {
            inbox.deliver(event.clone());
        }
    }
}

impl Broker for MemoryBroker {
    fn attach(&self, inbox: Arc<dyn Inbox>) -> Endpoint {
        let endpoint = Endpoint(self.next_endpoint.fetch_add(1, Ordering::Relaxed));
        self.endpoints.write().unwrap_or_else(PoisonError::into_inner).insert(endpoint, inbox);
        endpoint
    }

    /// There are no other nodes whose options could differ. Streams of namespaces that start or
    /// stop to retain are deleted: publications in between have no offset, and would be missing
    /// without a detectable gap.
    fn set_rules(&self, rules: &Arc<Rules>) {
        let mut held = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(last) = held.replace(rules.clone()) else { return };
        let switched = switched_retention(&last, rules);
        if switched.is_empty() {
            return;
        }
        // Clients may hold positions of streams without publications too.
        self.epoch.fetch_add(1, Ordering::Relaxed);
        let is_meant = |channel: &str| {
            let names = [&last, rules].map(|rules| namespace_name(&rules.channels, channel));
            names.iter().flatten().any(|name| switched.contains(*name))
        };
        for shard in &self.shards {
            let mut topics = lock(shard);
            topics.retain(|channel, topic| {
                if is_meant(channel) {
                    let before = topic.cost(channel);
                    if topic.end_stream() {
                        self.epoch.fetch_add(1, Ordering::Relaxed);
                    }
                    self.usage.change(before, topic.cost(channel));
                }
                !topic.is_idle()
            });
            shrink(&mut topics);
        }
    }

    fn detach(&self, endpoint: Endpoint) {
        self.endpoints.write().unwrap_or_else(PoisonError::into_inner).remove(&endpoint);
        for shard in &self.shards {
            let mut topics = lock(shard);
            topics.retain(|channel, topic| {
                let before = topic.cost(channel);
                topic.forget(channel, endpoint);
                self.usage.change(before, topic.cost(channel));
                !topic.is_idle()
            });
            shrink(&mut topics);
        }
    }

    fn expire(&self) {
        self.revocations.expire();
        let now_ms = self.clock.monotonic_ms();
        for shard in &self.shards {
            let mut topics = lock(shard);
            topics.retain(|channel, topic| {
                let before = topic.cost(channel);
                self.expire_topic(channel, topic, now_ms);
                if self.usage.is_near_a_ceiling() && topic.forget_empty_stream() {
                    self.epoch.fetch_add(1, Ordering::Relaxed);
                }
                self.usage.change(before, topic.cost(channel));
                !topic.is_idle()
            });
            shrink(&mut topics);
        }
    }

    /// There are no other nodes to notify.
    fn end(&self) {}

    /// Available as long as its process runs.
    fn health(&self) -> Health {
        Health::Ready
    }

    fn lag(&self) -> Duration {
        Duration::ZERO
    }

    fn take_warning(&self) -> Option<String> {
        self.usage.take_warning()
    }
}

impl PublicationBroker for MemoryBroker {
    fn submit_publications(&self, endpoint: Endpoint, request: PublicationsRequest) {
        if let Some(inbox) = self.inbox(endpoint) {
            self.handle_publications(endpoint, &inbox, request);
        }
    }
}

impl PresenceBroker for MemoryBroker {
    fn submit_presence(&self, endpoint: Endpoint, request: PresenceRequest) {
        if let Some(inbox) = self.inbox(endpoint) {
            self.handle_presence(endpoint, &inbox, request);
        }
    }
}

impl NodeBus for MemoryBroker {
    fn submit_node_bus(&self, endpoint: Endpoint, request: NodeBusRequest) {
        if let Some(inbox) = self.inbox(endpoint) {
            self.handle_node_bus(&inbox, request);
        }
    }
}

impl RegistryBroker for MemoryBroker {
    fn submit_registry(&self, endpoint: Endpoint, request: RegistryRequest) {
        if let Some(inbox) = self.inbox(endpoint) {
            self.handle_registry(&inbox, request);
        }
    }
}

/// A panic under the lock ends its worker. The map is consistent even then, because each change is
/// a single step.
fn lock(shard: &Mutex<Topics>) -> MutexGuard<'_, Topics> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}
