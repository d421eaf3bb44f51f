//! The conformance cases: what every broker does for its endpoints, as functions of a [`World`].
//! A broker's test creates a world and calls [`run`].
//!
//! The memory broker is the model: where a case leaves a choice, other brokers do what it does.

mod history;
mod node_bus;
mod presence;
mod publications;
mod revocations;

use std::sync::Arc;

use brokers::Endpoint;
use bytes::Bytes;
use engine::broker::{
    BrokerError, BrokerEvent, BrokerRequest, HistoryQuery, JoinRead, JoinedStream, PresenceRequest,
    PublicationsRequest, PublishOptions, ReplyValue, RequestId,
};
use wire::protocol::{ClientInfo, PresenceStats, Publication, StreamPosition};

/// A broker under test: endpoints on one or several nodes, and a clock that can be moved.
pub(crate) trait World {
    /// The number of nodes over which [`World::attach`] spreads the endpoints.
    fn node_count(&self) -> usize;
    /// Attaches a new endpoint.
    fn attach(&mut self) -> Endpoint;
    /// Submits a request of an endpoint.
    fn submit(&mut self, endpoint: Endpoint, request: BrokerRequest);
    /// Waits for the next event of an endpoint. A case never waits for the absence of an event:
    /// an event that must not arrive would arrive before one that must.
    ///
    /// # Panics
    /// When no event arrives.
    fn next_due(&mut self, endpoint: Endpoint) -> BrokerEvent;
    /// Detaches an endpoint.
    fn detach(&mut self, endpoint: Endpoint);
    /// Makes the endpoint's inbox report that it is full.
    fn fill_inbox(&mut self, endpoint: Endpoint);
    /// Makes the endpoint's inbox report that it has room again.
    fn drain_inbox(&mut self, endpoint: Endpoint);
    /// Advances the time by which the broker expires its data.
    fn pass_ms(&mut self, ms: u64);
    /// Returns a channel name that no case has used.
    fn fresh_channel(&mut self) -> Arc<str>;
}

/// Runs every case in this world. Cases of [`ONE_NODE`] are left out when there are several nodes.
pub(crate) fn run(world: &mut dyn World) {
    let one_node: &[Case] = if world.node_count() == 1 { ONE_NODE } else { &[] };
    for (name, case) in ANY_NODES.iter().chain(one_node) {
        println!("{name}");
        case(world);
    }
}

/// A case: its name, and the function that fails when the broker does not pass.
type Case = (&'static str, fn(&mut dyn World));

/// Cases that hold for endpoints on any nodes.
const ANY_NODES: &[Case] = &[
    ("each subscriber receives a publication once, in one order", publications::one_order),
    ("an endpoint that is not subscribed receives nothing", publications::no_subscriber_no_event),
    ("a reply follows the events that precede it", publications::reply_after_events),
    ("a second subscribe is accepted and duplicates nothing", publications::subscribe_twice),
    ("an idempotency key is accepted once", publications::idempotency),
    ("a stale version is not published", publications::versions),
    ("offsets count from one within an epoch", history::offsets_count),
    ("history is bounded by size and by time", history::history_bounds),
    ("history is read in both directions and rejects another epoch", history::history_reads),
    ("a subscribe reads the requested part of the stream", history::join_reads),
    ("removing history keeps the position", history::remove_history),
    ("offset and epoch expire after their TTL", history::meta_ttl),
    ("a temporary channel expires with its history", history::temporary),
    ("presence counts clients and users", presence::presence),
    ("joins and leaves are delivered", presence::membership),
    ("a control reaches every endpoint", node_bus::control),
    ("lifecycle events are delivered in order for each client", node_bus::lifecycle),
    ("a survey has no answers when no other node exists", node_bus::survey),
    ("a revocation is stored, delivered to every endpoint and lifted later", revocations::kept),
    ("expired revocations are not read, and earlier changes lose", revocations::over),
    ("the revocation of a subject is found, also under the longest id", revocations::found),
];

/// Cases that require all endpoints on one node, because other nodes learn of the change later.
const ONE_NODE: &[Case] = &[
    ("an endpoint that detaches leaves no presence", presence::detach),
    ("a full inbox refuses publications with an error", publications::overload),
];

/// Sends requests to a world and waits for their replies.
struct Actor<'w> {
    world: &'w mut dyn World,
    next_id: u64,
}

impl Actor<'_> {
    fn ask<T: ReplyValue, R: Into<BrokerRequest>>(
        &mut self,
        endpoint: Endpoint,
        request: impl FnOnce(RequestId<T>) -> R,
    ) -> Result<T, BrokerError> {
        self.next_id += 1;
        let id = RequestId::new(self.next_id);
        self.submit(endpoint, request(id));
        loop {
            if let BrokerEvent::Reply(reply) = self.world.next_due(endpoint) {
                let (answered, result) = T::of(reply).expect("a reply of the request's type");
                assert_eq!(answered, id, "replies arrive in the order of the requests");
                return result;
            }
        }
    }

    fn submit(&mut self, endpoint: Endpoint, request: impl Into<BrokerRequest>) {
        self.world.submit(endpoint, request.into());
    }

    fn subscribe(
        &mut self,
        endpoint: Endpoint,
        channel: &Arc<str>,
        read: JoinRead,
    ) -> JoinedStream {
        let channel = channel.clone();
        self.ask(endpoint, |id| PublicationsRequest::Subscribe { id, channel, read })
            .expect("a reply")
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
        self.ask(endpoint, |id| PublicationsRequest::Publish { id, channel, publication, options })
    }

    fn history(
        &mut self,
        endpoint: Endpoint,
        channel: &Arc<str>,
        query: HistoryQuery,
    ) -> Result<Vec<u64>, BrokerError> {
        let channel = channel.clone();
        let meta_ttl_ms = 0;
        let ask = |id| PublicationsRequest::History { id, channel, query, meta_ttl_ms };
        let result = self.ask(endpoint, ask)?;
        Ok(result.publications.iter().map(|publication| publication.offset).collect())
    }

    fn stats(&mut self, endpoint: Endpoint, channel: &Arc<str>) -> PresenceStats {
        let channel = channel.clone();
        self.ask(endpoint, |id| PresenceRequest::Stats { id, channel }).expect("a reply")
    }

    /// Returns the events of an endpoint up to and including the first that matches.
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

    /// Returns the events of an endpoint up to and including this reply.
    fn events_to_reply(&mut self, endpoint: Endpoint, number: u64) -> Vec<BrokerEvent> {
        let is_it = |event: &BrokerEvent| matches!(event, BrokerEvent::Reply(reply) if reply.outcome().0 == number);
        self.events_to(endpoint, is_it)
    }

    /// Returns the payloads that an endpoint receives, up to and including this one.
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

fn client(user: &str, client: &str) -> Arc<ClientInfo> {
    Arc::new(ClientInfo { user: user.into(), client: client.into(), ..ClientInfo::default() })
}

const META: JoinRead = JoinRead::Position { meta_ttl_ms: 600_000 };
