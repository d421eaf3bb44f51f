//! The cases that every broker must pass, as functions of a [`World`]: one broker, several
//! endpoints, a clock that can be moved. A broker's test makes a world and runs every case of
//! [`ALL`].
//!
//! The memory broker is the model: where a case leaves room, it does what the memory broker does.

mod revocations;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use engine::broker::{
    BrokerError, BrokerEvent, BrokerReply, BrokerRequest, Control, HistoryQuery, JoinRead,
    JoinedStream, Membership, Order, PublishOptions, RequestId, Survey, Target,
};
use engine::channel::LIFECYCLE;
use engine::lifecycle::{Change, Lifecycle};
use wire::protocol::{ClientInfo, DisconnectCode, PresenceStats, Publication, StreamPosition};

use crate::Endpoint;

/// A broker under test, as the cases see it.
pub trait World {
    /// A new endpoint.
    fn attach(&mut self) -> Endpoint;
    /// Submits a request of an endpoint.
    fn submit(&mut self, endpoint: Endpoint, request: BrokerRequest);
    /// The next event of an endpoint. A case waits for events only, never for a time in which none
    /// comes: what must not come would come before one that must.
    ///
    /// # Panics
    /// When none comes.
    fn next_due(&mut self, endpoint: Endpoint) -> BrokerEvent;
    /// Detaches an endpoint.
    fn detach(&mut self, endpoint: Endpoint);
    /// Makes the endpoint's inbox say that it is full, or not any more.
    fn set_full(&mut self, endpoint: Endpoint, is_full: bool);
    /// Lets time pass, as far as the broker's memory of things is concerned.
    fn pass_ms(&mut self, ms: u64);
    /// A channel name that no case has used.
    fn fresh_channel(&mut self) -> Arc<str>;
}

/// A case: its name and what it does.
pub type Case = (&'static str, fn(&mut dyn World));

/// Every case.
pub const ALL: &[Case] = &[
    ("a publication reaches every listener once, in one order", one_order),
    ("an endpoint that is not subscribed receives nothing", no_listener_no_event),
    ("an answer stands behind what precedes it", answer_after_events),
    ("subscribing again is no error and doubles nothing", subscribe_twice),
    ("offsets count from one within an epoch", offsets_count),
    ("history is bounded by size and by time", history_bounds),
    ("history reads both ways and refuses another epoch", history_reads),
    ("a joining reader gets what it asked for", join_reads),
    ("removing history keeps the position", remove_history),
    ("offset and epoch are forgotten after their time", meta_ttl),
    ("an idempotency key is accepted once", idempotency),
    ("a stale version is not published", versions),
    ("presence follows clients and users", presence),
    ("an endpoint that detaches leaves no presence, and its leaves are published", detach),
    ("joins and leaves are delivered", membership),
    ("a control reaches every endpoint", control),
    ("lifecycle events are delivered in order for each client", lifecycle),
    (
        "a revocation is kept, delivered to every endpoint and lifted by a later change",
        revocations::kept,
    ),
    ("revocations that are over are not read, and earlier changes lose", revocations::over),
    ("what is stored of a subject is found, also under the longest id", revocations::found),
    ("nobody else is there to answer a question to other nodes", survey),
    ("a receiver that is full refuses publications with notice", overload),
    ("a temporary channel ends and takes what it retained with it", temporary),
];

struct Actor<'w> {
    world: &'w mut dyn World,
    next_id: u64,
}

impl Actor<'_> {
    fn ask(
        &mut self,
        endpoint: Endpoint,
        request: impl FnOnce(RequestId) -> BrokerRequest,
    ) -> Result<BrokerReply, BrokerError> {
        self.next_id += 1;
        let id = RequestId(self.next_id);
        self.world.submit(endpoint, request(id));
        loop {
            match self.world.next_due(endpoint) {
                BrokerEvent::Reply { id: answered, result } => {
                    assert_eq!(answered, id, "answers come in the order of the questions");
                    return result;
                }
                _ => continue,
            }
        }
    }

    fn subscribe(
        &mut self,
        endpoint: Endpoint,
        channel: &Arc<str>,
        read: JoinRead,
    ) -> JoinedStream {
        let channel = channel.clone();
        match self.ask(endpoint, |id| BrokerRequest::Subscribe { id, channel, read }) {
            Ok(BrokerReply::Subscribed(stream)) => stream,
            other => panic!("subscribe answered {other:?}"),
        }
    }

    fn publish(
        &mut self,
        endpoint: Endpoint,
        channel: &Arc<str>,
        data: &'static str,
        options: PublishOptions,
    ) -> Result<StreamPosition, BrokerError> {
        let publication =
            Publication { data: Bytes::from_static(data.as_bytes()), ..Publication::default() };
        let channel = channel.clone();
        match self.ask(endpoint, |id| BrokerRequest::Publish {
            id,
            channel,
            publication,
            options,
        })? {
            BrokerReply::Published(position) => Ok(position),
            other => panic!("publish answered {other:?}"),
        }
    }

    fn history(
        &mut self,
        endpoint: Endpoint,
        channel: &Arc<str>,
        query: HistoryQuery,
    ) -> Result<Vec<u64>, BrokerError> {
        let channel = channel.clone();
        let meta_ttl_ms = 0;
        let ask = |id| BrokerRequest::History { id, channel, query, meta_ttl_ms };
        match self.ask(endpoint, ask)? {
            BrokerReply::History(result) => {
                Ok(result.publications.iter().map(|publication| publication.offset).collect())
            }
            other => panic!("history answered {other:?}"),
        }
    }

    fn stats(&mut self, endpoint: Endpoint, channel: &Arc<str>) -> PresenceStats {
        let channel = channel.clone();
        match self.ask(endpoint, |id| BrokerRequest::PresenceStats { id, channel }) {
            Ok(BrokerReply::PresenceStats(stats)) => stats,
            other => panic!("presence stats answered {other:?}"),
        }
    }

    /// The events of an endpoint up to the first that is this, and with it.
    fn events_to(
        &mut self,
        endpoint: Endpoint,
        mut is_last: impl FnMut(&BrokerEvent) -> bool,
    ) -> Vec<BrokerEvent> {
        let mut events = Vec::new();
        loop {
            let event = self.world.next_due(endpoint);
            let is_over = is_last(&event);
            events.push(event);
            if is_over {
                return events;
            }
        }
    }

    /// The events of an endpoint up to this answer.
    fn events_to_reply(&mut self, endpoint: Endpoint, id: RequestId) -> Vec<BrokerEvent> {
        let is_it = |event: &BrokerEvent| matches!(event, BrokerEvent::Reply { id: answered, .. } if *answered == id);
        self.events_to(endpoint, is_it)
    }

    /// The payloads that an endpoint receives up to this one, and with it.
    fn payloads_to(&mut self, endpoint: Endpoint, last: &str) -> Vec<String> {
        let is_it = |event: &BrokerEvent| payload(event).as_deref() == Some(last);
        self.events_to(endpoint, is_it).iter().filter_map(payload).collect()
    }
}

fn payload(event: &BrokerEvent) -> Option<String> {
    match event {
        BrokerEvent::Publication { publication, .. } => {
            Some(String::from_utf8_lossy(&publication.data).into_owned())
        }
        _ => None,
    }
}

fn begin(world: &mut dyn World) -> (Actor<'_>, Endpoint, Endpoint, Arc<str>) {
    let (one, two, channel) = (world.attach(), world.attach(), world.fresh_channel());
    (Actor { world, next_id: 0 }, one, two, channel)
}

fn kept(size: u32) -> PublishOptions {
    PublishOptions {
        history_size: size,
        history_ttl_ms: 60_000,
        history_meta_ttl_ms: 600_000,
        ..PublishOptions::default()
    }
}

fn position(epoch: &str, offset: u64) -> StreamPosition {
    StreamPosition { offset, epoch: epoch.into() }
}

const META: JoinRead = JoinRead::Position { meta_ttl_ms: 600_000 };

fn one_order(world: &mut dyn World) {
    let (mut actor, one, two, channel) = begin(world);
    actor.subscribe(one, &channel, JoinRead::Nothing);
    actor.subscribe(two, &channel, JoinRead::Nothing);
    // Submitted without waiting for answers, by both endpoints in turn.
    for (index, data) in ["a", "b", "c", "d"].into_iter().enumerate() {
        let endpoint = if index % 2 == 0 { one } else { two };
        actor.world.submit(
            endpoint,
            BrokerRequest::Publish {
                id: RequestId(1000 + index as u64),
                channel: channel.clone(),
                publication: Publication {
                    data: Bytes::from_static(data.as_bytes()),
                    ..Publication::default()
                },
                options: kept(10),
            },
        );
    }
    let mut received = [one, two].map(|endpoint| {
        let last = RequestId(if endpoint == one { 1002 } else { 1003 });
        let events = actor.events_to_reply(endpoint, last);
        events.iter().filter_map(payload).collect::<Vec<String>>()
    });
    // Whatever is doubled stands before the end.
    let three = actor.world.attach();
    actor.publish(three, &channel, "end", kept(10)).unwrap();
    for (endpoint, received) in [one, two].into_iter().zip(&mut received) {
        received.extend(actor.payloads_to(endpoint, "end"));
    }
    let [by_one, by_two] = received;
    assert_eq!(by_one, by_two);
    let mut sorted = by_one;
    sorted.sort();
    assert_eq!(sorted, ["a", "b", "c", "d", "end"]);
}

fn no_listener_no_event(world: &mut dyn World) {
    let (mut actor, one, two, channel) = begin(world);
    actor.subscribe(two, &channel, JoinRead::Nothing);
    actor.world.submit(two, BrokerRequest::Unsubscribe { channel: channel.clone() });
    actor.publish(one, &channel, "a", PublishOptions::default()).unwrap();
    for (id, endpoint) in [(RequestId(1001), one), (RequestId(1002), two)] {
        let (channel, read) = (channel.clone(), JoinRead::Nothing);
        actor.world.submit(endpoint, BrokerRequest::Subscribe { id, channel, read });
        let events = actor.events_to_reply(endpoint, id);
        assert!(events.iter().all(|event| payload(event).is_none()), "{events:?}");
    }
    let three = actor.world.attach();
    actor.publish(three, &channel, "end", PublishOptions::default()).unwrap();
    assert_eq!(actor.payloads_to(one, "end"), ["end"]);
    assert_eq!(actor.payloads_to(two, "end"), ["end"]);
}

fn answer_after_events(world: &mut dyn World) {
    let (mut actor, one, _, channel) = begin(world);
    actor.subscribe(one, &channel, META);
    actor.world.submit(
        one,
        BrokerRequest::Publish {
            id: RequestId(7),
            channel: channel.clone(),
            publication: Publication::default(),
            options: kept(10),
        },
    );
    let read = META;
    let id = RequestId(8);
    actor.world.submit(one, BrokerRequest::Subscribe { id, channel: channel.clone(), read });
    let events = actor.events_to_reply(one, id);
    assert!(events.iter().any(|event| payload(event).is_some()), "{events:?}");
}

fn subscribe_twice(world: &mut dyn World) {
    let (mut actor, one, two, channel) = begin(world);
    actor.subscribe(one, &channel, JoinRead::Nothing);
    actor.subscribe(one, &channel, META);
    for data in ["a", "end"] {
        actor.publish(two, &channel, data, PublishOptions::default()).unwrap();
    }
    assert_eq!(actor.payloads_to(one, "end"), ["a", "end"]);
}

fn offsets_count(world: &mut dyn World) {
    let (mut actor, one, two, channel) = begin(world);
    let start = actor.subscribe(one, &channel, META);
    assert_eq!(start.top.offset, 0);
    assert!(!start.top.epoch.is_empty());
    let first = actor.publish(two, &channel, "a", kept(10)).unwrap();
    let second = actor.publish(two, &channel, "b", kept(10)).unwrap();
    assert_eq!(first, position(&start.top.epoch, 1));
    assert_eq!(second, position(&start.top.epoch, 2));
    let without = actor.publish(two, &channel, "c", PublishOptions::default()).unwrap();
    assert_eq!(without, StreamPosition::default());
    let mut offsets = Vec::new();
    while offsets.len() < 3 {
        if let BrokerEvent::Publication { publication, epoch, .. } = actor.world.next_due(one) {
            let expected = if publication.offset > 0 { &*start.top.epoch } else { "" };
            assert_eq!(&*epoch, expected);
            offsets.push(publication.offset);
        }
    }
    offsets.sort_unstable();
    assert_eq!(offsets, [0, 1, 2]);
}

fn history_bounds(world: &mut dyn World) {
    let (mut actor, one, _, channel) = begin(world);
    for data in ["a", "b", "c"] {
        actor.publish(one, &channel, data, kept(2)).unwrap();
    }
    assert_eq!(actor.history(one, &channel, HistoryQuery::default()), Ok(vec![2, 3]));
    actor.world.pass_ms(61_000);
    assert_eq!(actor.history(one, &channel, HistoryQuery::default()), Ok(vec![]));
    let next = actor.publish(one, &channel, "d", kept(2)).unwrap();
    assert_eq!(next.offset, 4);
}

fn history_reads(world: &mut dyn World) {
    let (mut actor, one, _, channel) = begin(world);
    let epoch = (0..5).map(|_| actor.publish(one, &channel, "x", kept(10)).unwrap().epoch).last();
    let epoch = epoch.unwrap_or_default();
    let mut read = |limit, since: Option<u64>, reverse| {
        let since = since.map(|offset| position(&epoch, offset));
        actor.history(one, &channel, HistoryQuery { limit, since, reverse, bytes_max: None })
    };
    assert_eq!(read(Some(0), None, false), Ok(vec![]));
    assert_eq!(read(Some(2), None, false), Ok(vec![1, 2]));
    assert_eq!(read(Some(2), None, true), Ok(vec![5, 4]));
    assert_eq!(read(Some(2), Some(2), false), Ok(vec![3, 4]));
    assert_eq!(read(None, Some(3), true), Ok(vec![2, 1]));
    let since = Some(position("other", 1));
    let query = HistoryQuery { since, ..HistoryQuery::default() };
    assert_eq!(actor.history(one, &channel, query), Err(BrokerError::UnrecoverablePosition));
}

fn join_reads(world: &mut dyn World) {
    let (mut actor, one, two, channel) = begin(world);
    let top = (0..4).map(|_| actor.publish(one, &channel, "x", kept(3)).unwrap()).last();
    let top = top.unwrap_or_default();
    let offsets = |stream: &JoinedStream| -> Vec<u64> {
        stream.publications.iter().map(|publication| publication.offset).collect()
    };
    let mut join = |read| actor.subscribe(two, &channel, read);
    assert_eq!(join(JoinRead::Nothing), JoinedStream::default());
    let at_top = join(META);
    assert_eq!((&at_top.top, at_top.publications.len()), (&top, 0));
    assert_eq!(offsets(&join(JoinRead::Newest { meta_ttl_ms: 1000 })), [4]);
    let mut since = |epoch: &str, offset, limit| {
        let since = position(epoch, offset);
        let stream = join(JoinRead::Since { since, limit, bytes_max: None, meta_ttl_ms: 1000 });
        assert_eq!(stream.top, top);
        offsets(&stream)
    };
    assert_eq!(since(&top.epoch, 2, 10), [3, 4]);
    assert_eq!(since("", 2, 10), [3, 4]);
    assert_eq!(since(&top.epoch, 0, 10), [2, 3, 4]);
    assert_eq!(since(&top.epoch, 1, 2), [2, 3]);
    assert_eq!(since(&top.epoch, 4, 10), [0u64; 0]);
    assert_eq!(since("other", 2, 10), [0u64; 0]);
}

fn remove_history(world: &mut dyn World) {
    let (mut actor, one, _, channel) = begin(world);
    let before = actor.publish(one, &channel, "a", kept(10)).unwrap();
    let named = channel.clone();
    let answer = actor.ask(one, |id| BrokerRequest::RemoveHistory { id, channel: named });
    assert_eq!(answer, Ok(BrokerReply::HistoryRemoved));
    assert_eq!(actor.history(one, &channel, HistoryQuery::default()), Ok(vec![]));
    let after = actor.publish(one, &channel, "b", kept(10)).unwrap();
    assert_eq!(after, position(&before.epoch, 2));
}

fn meta_ttl(world: &mut dyn World) {
    let (mut actor, one, _, channel) = begin(world);
    let before = actor.publish(one, &channel, "a", kept(10)).unwrap();
    actor.world.pass_ms(601_000);
    let after = actor.publish(one, &channel, "b", kept(10)).unwrap();
    assert_eq!(after.offset, 1);
    assert_ne!(after.epoch, before.epoch, "a new epoch has a new name");
}

fn idempotency(world: &mut dyn World) {
    let (mut actor, one, two, channel) = begin(world);
    actor.subscribe(two, &channel, JoinRead::Nothing);
    let options = |key: &str| PublishOptions { idempotency_key: key.into(), ..kept(10) };
    let first = actor.publish(one, &channel, "a", options("k")).unwrap();
    assert_eq!(actor.publish(one, &channel, "b", options("k")), Ok(first.clone()));
    let other = actor.publish(one, &channel, "c", options("l")).unwrap();
    assert_eq!(other.offset, first.offset + 1);
    assert_eq!(actor.payloads_to(two, "c"), ["a", "c"]);
    actor.world.pass_ms(301_000);
    actor.publish(one, &channel, "d", options("k")).unwrap();
    assert_eq!(actor.payloads_to(two, "d"), ["d"]);
}

fn versions(world: &mut dyn World) {
    let (mut actor, one, two, channel) = begin(world);
    actor.subscribe(two, &channel, JoinRead::Nothing);
    // Beyond 2^53, where floating point can no longer tell neighbours apart.
    let big = 1u64 << 53;
    let options = |version: u64, epoch: &str| PublishOptions {
        version,
        version_epoch: epoch.into(),
        ..kept(10)
    };
    for (data, version, epoch) in [
        ("a", big, "e"),
        ("stale", big, "e"),
        ("b", big + 1, "e"),
        ("stale", big, "e"),
        ("stale", big, ""),
        ("c", 1, "f"),
        ("unversioned", 0, ""),
    ] {
        actor.publish(one, &channel, data, options(version, epoch)).unwrap();
    }
    assert_eq!(actor.payloads_to(two, "unversioned"), ["a", "b", "c", "unversioned"]);
}

fn client(user: &str, client: &str) -> Arc<ClientInfo> {
    Arc::new(ClientInfo { user: user.into(), client: client.into(), ..ClientInfo::default() })
}

fn presence(world: &mut dyn World) {
    let (mut actor, one, two, channel) = begin(world);
    let add = |info| BrokerRequest::AddPresence { channel: channel.clone(), info, announces: true };
    actor.world.submit(one, add(client("ann", "1")));
    actor.world.submit(one, add(client("ann", "2")));
    actor.world.submit(one, add(client("bob", "3")));
    let client_3 = client("bob", "3");
    assert_eq!(actor.stats(one, &channel), PresenceStats { num_clients: 3, num_users: 2 });
    let named = channel.clone();
    actor.world.submit(one, BrokerRequest::RemovePresence { channel: named, client: client_3 });
    let named = channel.clone();
    let answer = actor.ask(one, |id| BrokerRequest::Presence { id, channel: named });
    let Ok(BrokerReply::Presence(clients)) = answer else { panic!("presence: {answer:?}") };
    let mut names: Vec<&str> = clients.iter().map(|info| &*info.client).collect();
    names.sort_unstable();
    assert_eq!(names, ["1", "2"]);
    assert_eq!(actor.stats(two, &channel), PresenceStats { num_clients: 2, num_users: 1 });
}

fn detach(world: &mut dyn World) {
    let (mut actor, one, two, channel) = begin(world);
    actor.subscribe(two, &channel, JoinRead::Nothing);
    let info = client("ann", "1");
    actor.world.submit(
        one,
        BrokerRequest::AddPresence { channel: channel.clone(), info, announces: true },
    );
    assert_eq!(actor.stats(one, &channel).num_clients, 1);
    actor.world.detach(one);
    assert_eq!(actor.stats(two, &channel), PresenceStats::default());
}

fn membership(world: &mut dyn World) {
    let (mut actor, one, two, channel) = begin(world);
    actor.subscribe(two, &channel, JoinRead::Nothing);
    for change in [Membership::Join, Membership::Leave] {
        let (channel, info) = (channel.clone(), client("ann", "1"));
        actor.world.submit(one, BrokerRequest::Announce { channel, info, change });
    }
    actor.publish(one, &channel, "end", PublishOptions::default()).unwrap();
    let changes: Vec<Membership> = actor
        .events_to(two, |event| payload(event).is_some())
        .into_iter()
        .filter_map(|event| match event {
            BrokerEvent::Membership { change, info, .. } if info.user == "ann" => Some(change),
            _ => None,
        })
        .collect();
    assert_eq!(changes, [Membership::Join, Membership::Leave]);
}

fn control(world: &mut dyn World) {
    let (mut actor, one, two, _) = begin(world);
    let controls = ["ann", "bob"].map(|user| {
        Arc::new(Control {
            target: Target { user: user.into(), ..Target::default() },
            order: Order::Disconnect(DisconnectCode::ForceDisconnect.into()),
        })
    });
    for control in &controls {
        actor.world.submit(one, BrokerRequest::Control(control.clone()));
    }
    let is = |event: &BrokerEvent, control: &Arc<Control>| matches!(event, BrokerEvent::Control(received) if received == control);
    for endpoint in [one, two] {
        let events = actor.events_to(endpoint, |event| is(event, &controls[1]));
        let received = events.iter().filter(|event| is(event, &controls[0]));
        assert_eq!(received.count(), 1, "{events:?}");
    }
}

fn lifecycle(world: &mut dyn World) {
    let (mut actor, one, two, _) = begin(world);
    actor.subscribe(two, &LIFECYCLE.into(), JoinRead::Nothing);
    let event = |client: &Arc<ClientInfo>, change| {
        BrokerRequest::Lifecycle(Lifecycle { info: client.clone(), change, at_ms: 7 })
    };
    let (ann, bob) = (client("ann \"\u{e9}", "1"), client("bob", "2"));
    let offline = Change::Offline { reason: "shutdown".into() };
    for (client, change) in
        [(&ann, Change::Online), (&bob, Change::Online), (&ann, offline.clone()), (&bob, offline)]
    {
        actor.world.submit(one, event(client, change));
    }
    let mut missing = 4;
    let mut events = actor.events_to(two, |event| {
        missing -= usize::from(payload(event).is_some());
        missing == 0
    });
    // Behind all of them.
    actor.world.submit(one, event(&client("carol", "3"), Change::Online));
    events.extend(
        actor.events_to(two, |event| payload(event).is_some_and(|text| text.contains("carol"))),
    );
    let received: Vec<serde_json::Value> = events
        .iter()
        .filter_map(payload)
        .map(|event| serde_json::from_str(&event).expect("events are JSON"))
        .collect();
    for client in [ann, bob] {
        let of_client: Vec<_> =
            received.iter().filter(|event| event["client_id"] == *client.client).collect();
        let words: Vec<_> =
            of_client.iter().map(|event| (&event["event"], &event["reason"])).collect();
        assert_eq!(
            words,
            [(&"online".into(), &"".into()), (&"offline".into(), &"shutdown".into())]
        );
        for event in of_client {
            assert_eq!(event["user_id"], *client.user);
            assert_eq!(event["timestamp"], 7);
            assert!(event["node_id"].is_string());
        }
    }
}

fn temporary(world: &mut dyn World) {
    const TTL_MS: u64 = 2_000;
    let (mut actor, one, two, channel) = begin(world);
    let ttl = |actor: &mut Actor<'_>, endpoint| {
        let channel = channel.clone();
        match actor.ask(endpoint, |id| BrokerRequest::ChannelTtl { id, channel }) {
            Ok(BrokerReply::ChannelTtl(ttl)) => ttl,
            answer => panic!("the TTL request was answered with {answer:?}"),
        }
    };
    assert_eq!(ttl(&mut actor, one), None);
    let limit = |actor: &mut Actor<'_>, ttl_ms| {
        let channel = channel.clone();
        actor.world.submit(two, BrokerRequest::LimitTtl { channel, ttl_ms });
    };
    // Before and behind, as whoever joins does.
    limit(&mut actor, TTL_MS);
    actor.subscribe(two, &channel, JoinRead::Position { meta_ttl_ms: 600_000 });
    limit(&mut actor, TTL_MS);
    limit(&mut actor, 600_000);
    // The first limit holds. Whoever asks behind it knows it.
    assert!(ttl(&mut actor, two).is_some_and(|ttl| ttl.left_ms <= TTL_MS));
    let before = actor.publish(one, &channel, "a", kept(10)).expect("it is published");
    actor.world.pass_ms(TTL_MS);
    let began = Instant::now();
    while ttl(&mut actor, one).is_some() {
        assert!(began.elapsed() < Duration::from_secs(20), "it does not end");
    }
    actor.events_to(
        two,
        |event| matches!(event, BrokerEvent::Expired { channel: over } if *over == channel),
    );
    limit(&mut actor, 600_000);
    let position = JoinRead::Position { meta_ttl_ms: 600_000 };
    let after = actor.subscribe(two, &channel, position).top;
    assert!(after.offset == 0 && after.epoch != before.epoch, "{after:?} follows {before:?}");
}

fn survey(world: &mut dyn World) {
    let (mut actor, one, _, _) = begin(world);
    let question = Bytes::from_static(b"x");
    let answer = actor.ask(one, |id| BrokerRequest::Survey { id, question });
    assert_eq!(answer, Ok(BrokerReply::Survey(Survey::default())));
}

fn overload(world: &mut dyn World) {
    let (mut actor, one, two, channel) = begin(world);
    actor.subscribe(two, &channel, JoinRead::Nothing);
    actor.world.set_full(two, true);
    let refused = actor.publish(one, &channel, "a", kept(10));
    assert_eq!(refused, Err(BrokerError::Overloaded));
    actor.world.set_full(two, false);
    assert_eq!(actor.publish(one, &channel, "b", kept(10)).map(|p| p.offset), Ok(1));
    assert_eq!(actor.payloads_to(two, "b"), ["b"]);
}
