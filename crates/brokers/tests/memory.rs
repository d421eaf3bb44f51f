//! The memory broker against the conformance cases, and its own rules of expiry and memory limits.

mod conformance;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use brokers::memory::{Ceilings, Usage};
use brokers::{Broker, Clock, Endpoint, Inbox, MemoryBroker};
use engine::broker::{
    BrokerError, BrokerEvent, BrokerReply, BrokerRequest, HistoryQuery, JoinRead, JoinedStream,
    PublicationsRequest, PublishOptions, ReplyValue, RequestId,
};
use engine::rules::{Namespace, Rules};
use wire::protocol::{HistoryResult, Publication, StreamPosition};

use conformance::World;

#[derive(Default)]
struct TestClock(AtomicU64);

impl Clock for TestClock {
    fn monotonic_ms(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

#[derive(Default)]
struct TestInbox {
    events: Mutex<VecDeque<BrokerEvent>>,
    is_full: AtomicBool,
}

impl Inbox for TestInbox {
    fn deliver(&self, event: BrokerEvent) {
        self.events.lock().unwrap().push_back(event);
    }

    fn is_full(&self) -> bool {
        self.is_full.load(Ordering::SeqCst)
    }
}

struct MemoryWorld {
    clock: Arc<TestClock>,
    broker: MemoryBroker,
    inboxes: HashMap<Endpoint, Arc<TestInbox>>,
    channels: u32,
}

impl MemoryWorld {
    fn submit(&mut self, endpoint: Endpoint, request: impl Into<BrokerRequest>) {
        World::submit(self, endpoint, request.into());
    }

    fn new() -> MemoryWorld {
        let clock = Arc::new(TestClock::default());
        let broker = MemoryBroker::new(clock.clone(), "e".into());
        MemoryWorld { clock, broker, inboxes: HashMap::new(), channels: 0 }
    }

    fn next_event(&self, endpoint: Endpoint) -> Option<BrokerEvent> {
        self.inboxes[&endpoint].events.lock().unwrap().pop_front()
    }
}

impl World for MemoryWorld {
    fn node_count(&self) -> usize {
        1
    }

    fn attach(&mut self) -> Endpoint {
        let inbox = Arc::new(TestInbox::default());
        let endpoint = self.broker.attach(inbox.clone());
        self.inboxes.insert(endpoint, inbox);
        endpoint
    }

    fn submit(&mut self, endpoint: Endpoint, request: BrokerRequest) {
        self.broker.submit(endpoint, request);
    }

    fn next_due(&mut self, endpoint: Endpoint) -> BrokerEvent {
        self.next_event(endpoint).expect("an event comes")
    }

    fn detach(&mut self, endpoint: Endpoint) {
        self.broker.detach(endpoint);
    }

    fn fill_inbox(&mut self, endpoint: Endpoint) {
        self.inboxes[&endpoint].is_full.store(true, Ordering::SeqCst);
    }

    fn drain_inbox(&mut self, endpoint: Endpoint) {
        self.inboxes[&endpoint].is_full.store(false, Ordering::SeqCst);
    }

    fn pass_ms(&mut self, ms: u64) {
        self.clock.0.fetch_add(ms, Ordering::SeqCst);
    }

    fn fresh_channel(&mut self) -> Arc<str> {
        self.channels += 1;
        format!("channel-{}", self.channels).into()
    }
}

#[test]
fn passes_every_case_of_the_conformance_suite() {
    let mut world = MemoryWorld::new();
    conformance::run(&mut world);
}

#[test]
fn nothing_is_stored_after_everything_has_expired() {
    let mut world = MemoryWorld::new();
    let endpoint = world.attach();
    for index in 0..100u64 {
        let channel: Arc<str> = format!("room-{index}").into();
        let (id, read) = (RequestId::new(index), JoinRead::Nothing);
        let named = channel.clone();
        world.submit(endpoint, PublicationsRequest::Subscribe { id, channel: named, read });
        let id = RequestId::new(index);
        let options = PublishOptions {
            history_size: 10,
            history_ttl_ms: 1000,
            history_meta_ttl_ms: 5000,
            idempotency_key: "once".into(),
            ..PublishOptions::default()
        };
        let publication = Publication::default();
        world.submit(endpoint, PublicationsRequest::Publish { id, channel, publication, options });
    }
    assert_eq!(world.broker.channel_count(), 100);
    world.detach(endpoint);
    world.pass_ms(400_000);
    world.broker.expire();
    assert_eq!(world.broker.channel_count(), 0);
}

#[test]
fn reading_a_channel_without_publications_stores_nothing() {
    let mut world = MemoryWorld::new();
    let (reader, listener) = (world.attach(), world.attach());
    let received: Arc<str> = "heard".into();
    let meta_ttl_ms = 30 * 24 * 3_600_000;
    let position = JoinRead::Position { meta_ttl_ms };
    let ask = |world: &mut MemoryWorld, id, read: &JoinRead| {
        let (channel, read) = (received.clone(), read.clone());
        world.submit(
            listener,
            PublicationsRequest::Subscribe { id: RequestId::new(id), channel, read },
        );
        world.next_event(listener)
    };
    let before = ask(&mut world, 1, &position);
    for index in 0..1_000u64 {
        let channel: Arc<str> = format!("invented-{index}").into();
        let (id, query) = (RequestId::new(index), HistoryQuery::default());
        world.submit(reader, PublicationsRequest::History { id, channel, query, meta_ttl_ms });
    }
    assert_eq!(world.broker.channel_count(), 1, "only what somebody hears");
    world.pass_ms(40 * 24 * 3_600_000);
    world.broker.expire();
    let Some(BrokerEvent::Reply(BrokerReply::Subscribed(_, before))) = before else {
        panic!("{before:?}")
    };
    let after = ask(&mut world, 2, &position);
    let Some(BrokerEvent::Reply(BrokerReply::Subscribed(_, after))) = after else {
        panic!("{after:?}")
    };
    assert_eq!(before, after, "whoever listens keeps its position");
}

#[test]
fn invented_channels_cost_nothing_once_left_and_keep_their_epoch() {
    let mut world = MemoryWorld::new();
    let endpoint = world.attach();
    let join = |world: &mut MemoryWorld, index: u64| {
        let channel = format!("room-{index}").into();
        let read = JoinRead::Position { meta_ttl_ms: 5000 };
        let id = RequestId::new(index);
        world.submit(endpoint, PublicationsRequest::Subscribe { id, channel, read });
        let Some(BrokerEvent::Reply(BrokerReply::Subscribed(_, Ok(stream)))) =
            world.next_event(endpoint)
        else {
            panic!("no answer");
        };
        stream.top
    };
    let leave = |world: &mut MemoryWorld, index: u64| {
        let channel = format!("room-{index}").into();
        world.submit(endpoint, PublicationsRequest::Unsubscribe { channel });
    };
    let before: Vec<_> = (0..100).map(|index| join(&mut world, index)).collect();
    assert_eq!(world.broker.channel_count(), 100);
    (0..100).for_each(|index| leave(&mut world, index));
    assert_eq!(world.broker.channel_count(), 0);
    world.pass_ms(400_000);
    assert_eq!((0..100).map(|index| join(&mut world, index)).collect::<Vec<_>>(), before);
    // A stream that had a publication gets another epoch.
    let options = PublishOptions {
        history_size: 10,
        history_ttl_ms: 1000,
        history_meta_ttl_ms: 5000,
        ..PublishOptions::default()
    };
    let (id, publication) = (RequestId::new(7), Publication::default());
    let channel = "room-7".into();
    world.submit(endpoint, PublicationsRequest::Publish { id, channel, publication, options });
    while world.next_event(endpoint).is_some() {}
    world.pass_ms(400_000);
    assert_ne!(join(&mut world, 7).epoch, before[7].epoch);
}

/// Publishes `size` bytes that are retained; returns the reply.
fn publish(
    world: &mut MemoryWorld,
    endpoint: Endpoint,
    channel: &str,
    size: usize,
    history_size: u32,
) -> Result<StreamPosition, BrokerError> {
    let options = PublishOptions {
        history_size,
        history_ttl_ms: 1_000,
        history_meta_ttl_ms: 30 * 24 * 3_600_000,
        ..PublishOptions::default()
    };
    let publication = Publication { data: vec![b'x'; size].into(), ..Publication::default() };
    let (id, channel) = (RequestId::new(1), channel.into());
    world.submit(endpoint, PublicationsRequest::Publish { id, channel, publication, options });
    answer(world, endpoint)
}

fn subscribe(
    world: &mut MemoryWorld,
    endpoint: Endpoint,
    channel: &str,
) -> Result<JoinedStream, BrokerError> {
    let (id, channel) = (RequestId::new(2), channel.into());
    world.submit(endpoint, PublicationsRequest::Subscribe { id, channel, read: JoinRead::Nothing });
    answer(world, endpoint)
}

/// Returns the next reply; skips publications.
fn answer<T: ReplyValue>(world: &mut MemoryWorld, endpoint: Endpoint) -> Result<T, BrokerError> {
    loop {
        if let Some(BrokerEvent::Reply(reply)) = world.next_event(endpoint) {
            return T::of(reply).expect("a reply of the request's type").1;
        }
    }
}

fn with_ceilings(bytes: usize, channels: usize) -> (MemoryWorld, Arc<Usage>) {
    let mut world = MemoryWorld::new();
    let usage = Arc::new(Usage::new(Ceilings { bytes, channels }));
    let broker = MemoryBroker::new(world.clock.clone(), "e".into());
    world.broker = broker.with_usage(usage.clone());
    (world, usage)
}

#[test]
fn requests_above_the_byte_ceiling_are_refused_and_nothing_is_evicted() {
    let (mut world, usage) = with_ceilings(1 << 20, usize::MAX);
    let endpoint = world.attach();
    let kept =
        (0..).find(|n| publish(&mut world, endpoint, &format!("made-up-{n}"), 65_000, 3).is_err());
    let kept = kept.unwrap();
    assert!((14..=16).contains(&kept), "{kept} channels of 65 KB in 1 MiB");
    assert!(usage.bytes() <= 1 << 20 && usage.channels() == kept && usage.refused() == 1);
    // Requests without growth succeed: publications that are not retained, those that replace
    // another one, and the server's own.
    assert!(publish(&mut world, endpoint, "plain", 65_000, 0).is_ok());
    assert!(publish(&mut world, endpoint, "made-up-0", 65_000, 1).is_ok());
    assert!(publish(&mut world, endpoint, "sys:config", 65_000, 1).is_ok());
    assert_eq!(publish(&mut world, endpoint, "made-up-0", 65_000, 3), Err(BrokerError::Full));
    let read = |world: &mut MemoryWorld, channel: &str| {
        let (id, query) = (RequestId::new(3), HistoryQuery::default());
        let channel = channel.into();
        world.submit(
            endpoint,
            PublicationsRequest::History { id, channel, query, meta_ttl_ms: 1_000 },
        );
        answer::<HistoryResult>(world, endpoint).expect("a history").publications.len()
    };
    assert!((0..kept).all(|n| read(&mut world, &format!("made-up-{n}")) == 1));
    // After the retained publications expire there is room, also that of the names, long before the
    // TTL of offset and epoch.
    world.pass_ms(1_001);
    world.broker.expire();
    assert!(publish(&mut world, endpoint, "another", 65_000, 3).is_ok());
    world.pass_ms(30 * 24 * 3_600_000);
    world.broker.expire();
    assert_eq!((usage.bytes(), usage.channels()), (0, 0));
}

#[test]
fn empty_streams_are_deleted_sooner_near_a_ceiling() {
    let (mut world, usage) = with_ceilings(usize::MAX, 100);
    let endpoint = world.attach();
    subscribe(&mut world, endpoint, "heard").unwrap();
    publish(&mut world, endpoint, "heard", 10, 3).unwrap();
    for n in 0..70 {
        publish(&mut world, endpoint, &format!("brief-{n}"), 10, 3).unwrap();
    }
    world.pass_ms(2_000);
    world.broker.expire();
    assert_eq!(usage.channels(), 71, "remembered for a month, with room enough");
    assert_eq!(world.broker.take_warning(), None);
    for n in 0..10 {
        publish(&mut world, endpoint, &format!("new-{n}"), 10, 3).unwrap();
    }
    let warning = world.broker.take_warning().expect("a warning");
    assert!(warning.contains("81 of at most 100 channels"), "{warning}");
    assert_eq!(world.broker.take_warning(), None, "once");
    world.broker.expire();
    assert!(usage.channels() <= 75, "{} channels", usage.channels());
    assert!(world.broker.channel_count() == usage.channels());
    // Channels with subscribers or retained publications stay.
    for channel in std::iter::once("heard".to_owned()).chain((0..10).map(|n| format!("new-{n}"))) {
        let Ok(position) = publish(&mut world, endpoint, &channel, 10, 3) else {
            panic!("{channel} is refused");
        };
        assert_eq!(position.offset, 2, "{channel}");
    }
}

#[test]
fn one_channel_more_than_the_ceiling_is_refused() {
    let (mut world, usage) = with_ceilings(usize::MAX, 3);
    let endpoint = world.attach();
    for n in 0..3 {
        assert!(subscribe(&mut world, endpoint, &format!("room-{n}")).is_ok());
    }
    assert_eq!(subscribe(&mut world, endpoint, "room-3"), Err(BrokerError::Full));
    assert_eq!(publish(&mut world, endpoint, "room-3", 1, 1), Err(BrokerError::Full));
    assert!(subscribe(&mut world, endpoint, "room-0").is_ok(), "again is no more");
    assert!(subscribe(&mut world, endpoint, "sys:presence").is_ok());
    assert_eq!(world.broker.channel_count(), 4);
    for n in 0..2 {
        let channel = format!("room-{n}").into();
        world.submit(endpoint, PublicationsRequest::Unsubscribe { channel });
    }
    assert!(subscribe(&mut world, endpoint, "room-3").is_ok());
    world.detach(endpoint);
    assert_eq!((usage.bytes(), usage.channels()), (0, 0));
}

#[test]
fn a_channel_with_an_end_counts_like_any_other() {
    let (mut world, usage) = with_ceilings(usize::MAX, 3);
    let endpoint = world.attach();
    // As clients do that join invented channels and leave them.
    let visit = |world: &mut MemoryWorld, channel: &str| {
        let limit = PublicationsRequest::LimitTtl { channel: channel.into(), ttl_ms: 60_000 };
        world.submit(endpoint, limit);
        let joined = subscribe(world, endpoint, channel);
        world.submit(endpoint, PublicationsRequest::Unsubscribe { channel: channel.into() });
        joined
    };
    for n in 0..3 {
        assert!(visit(&mut world, &format!("room-{n}")).is_ok());
    }
    for n in 3..10 {
        assert_eq!(visit(&mut world, &format!("room-{n}")), Err(BrokerError::Full));
    }
    assert!(visit(&mut world, "room-0").is_ok(), "again is no more");
    assert_eq!((usage.channels(), usage.refused()), (3, 7));
    assert_eq!(world.broker.channel_count(), 3);
    world.pass_ms(60_000);
    world.broker.expire();
    assert_eq!((usage.bytes(), usage.channels()), (0, 0));
}

#[test]
fn a_stream_ends_when_its_namespace_ceases_to_retain_and_when_it_begins_again() {
    let rules = |history_size| {
        let namespace = Namespace { history_size, history_ttl_ms: 60_000, ..Namespace::default() };
        let mut rules = Rules::default();
        rules.channels.namespaces.insert("chat".to_owned(), namespace);
        Arc::new(rules)
    };
    let mut world = MemoryWorld::new();
    world.broker.set_rules(&rules(10));
    let endpoint = world.attach();
    let join = |world: &mut MemoryWorld, channel: &str, since: Option<&StreamPosition>| {
        let meta_ttl_ms = 600_000;
        let read = match since.cloned() {
            Some(since) => JoinRead::Since { since, limit: 10, bytes_max: None, meta_ttl_ms },
            None => JoinRead::Position { meta_ttl_ms },
        };
        let (id, channel) = (RequestId::new(1), channel.into());
        world.submit(endpoint, PublicationsRequest::Subscribe { id, channel, read });
        loop {
            match world.next_event(endpoint).expect("an answer") {
                BrokerEvent::Reply(BrokerReply::Subscribed(_, Ok(stream))) => {
                    return stream.top;
                }
                BrokerEvent::Publication { .. } | BrokerEvent::Reply(_) => {}
                event => panic!("{event:?}"),
            }
        }
    };
    let publish = |world: &mut MemoryWorld, channel: &str, history_size| {
        let (id, channel, publication) =
            (RequestId::new(2), channel.into(), Publication::default());
        let (history_ttl_ms, history_meta_ttl_ms) = (60_000, 600_000);
        let options = PublishOptions {
            history_size,
            history_ttl_ms,
            history_meta_ttl_ms,
            ..PublishOptions::default()
        };
        world.submit(endpoint, PublicationsRequest::Publish { id, channel, publication, options });
    };
    for channel in ["chat:used", "other", "chat:used2"] {
        publish(&mut world, channel, 10);
    }
    let channels = ["chat:used", "chat:new", "other"];
    let before = channels.map(|channel| join(&mut world, channel, None));
    assert_eq!(before.each_ref().map(|top| top.offset), [1, 0, 1]);
    world.broker.set_rules(&rules(20));
    for (channel, top) in channels.iter().zip(&before) {
        assert_eq!(join(&mut world, channel, Some(top)), *top, "another size ends nothing");
    }
    world.broker.set_rules(&rules(0));
    for channel in channels {
        publish(&mut world, channel, 0);
    }
    world.broker.set_rules(&rules(10));
    for (channel, top) in channels.iter().zip(&before) {
        let now = join(&mut world, channel, Some(top));
        assert_eq!(now.epoch != top.epoch, channel.starts_with("chat:"), "{channel}: {now:?}");
    }
}
