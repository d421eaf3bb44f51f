//! A running node that others have cleaned up as failed: it stores its presence entries again and
//! sends the online events of its clients again.

use std::sync::Arc;
use std::time::Duration;

use crate::conformance::World;
use brokers::Endpoint;
use brokers::nats::NatsOptions;
use engine::broker::{
    BrokerEvent, BrokerReply, JoinRead, PresenceRequest, PublicationsRequest, RequestId,
};
use engine::channel::LIFECYCLE;
use serde_json::{Value, json};
use wire::protocol::ClientInfo;

use crate::lifecycle::{reported, tell};
use crate::pair::LONG;
use crate::proxy::ClosableProxy;
use crate::server::Server;
use crate::world::NatsWorld;

pub(crate) const ROOM: &str = "room";

/// Another client of NATS.
pub(crate) struct RawClient {
    runtime: tokio::runtime::Runtime,
    client: async_nats::Client,
}

impl RawClient {
    pub(crate) fn new(server: &Server) -> RawClient {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = runtime.block_on(async_nats::connect(server.options().url)).unwrap();
        RawClient { runtime, client }
    }

    pub(crate) fn ask(&self, subject: &str, payload: impl Into<Vec<u8>>) -> Value {
        let answer = self.ask_raw(subject, payload);
        assert!(answer.get("error").is_none(), "{subject}: {answer}");
        answer
    }

    /// Like [`RawClient::ask`], but the answer may be an error.
    pub(crate) fn ask_raw(&self, subject: &str, payload: impl Into<Vec<u8>>) -> Value {
        let asking = self.client.request(subject.to_owned(), payload.into().into());
        serde_json::from_slice(&self.runtime.block_on(asking).unwrap().payload).unwrap()
    }

    fn purge(&self, filter: &str) {
        let filter = json!({ "filter": filter }).to_string();
        self.ask("$JS.API.STREAM.PURGE.tidings_presence", filter);
    }
}

pub(crate) fn join(world: &mut NatsWorld, endpoint: Endpoint, channel: &str) {
    let (channel, read) = (channel.into(), JoinRead::Nothing);
    world.submit(endpoint, PublicationsRequest::Subscribe { id: RequestId::new(1), channel, read });
    while !matches!(world.next_within(endpoint, LONG), Some(BrokerEvent::Reply(_))) {}
}

pub(crate) fn enter(world: &mut NatsWorld, endpoint: Endpoint, client: &str) {
    let info = Arc::new(ClientInfo { client: client.into(), ..ClientInfo::default() });
    let channel = ROOM.into();
    world.submit(endpoint, PresenceRequest::Add { channel, info, announces: false });
}

pub(crate) fn present(world: &mut NatsWorld, endpoint: Endpoint) -> u32 {
    loop {
        let (id, channel) = (RequestId::new(2), ROOM.into());
        world.submit(endpoint, PresenceRequest::Stats { id, channel });
        let event = world.next_within(endpoint, LONG).expect("a reply in time");
        if let BrokerEvent::Reply(BrokerReply::PresenceStats(_, Ok(stats))) = event {
            return stats.num_clients;
        }
    }
}

fn words(event: &str) -> (String, String) {
    (event.to_owned(), "stays".to_owned())
}

#[test]
fn a_connected_node_that_was_cleaned_up_stores_its_entries_again() {
    let server = Server::start();
    let mut world = NatsWorld::new(&server.with_short_lease(), 1);
    let (listener, endpoint) = (world.attach(), world.attach());
    join(&mut world, listener, LIFECYCLE);
    tell(&mut world, endpoint, "stays", true);
    assert_eq!(reported(&mut world, listener), words("online"));
    enter(&mut world, endpoint, "stays");
    assert_eq!(present(&mut world, endpoint), 1);
    let raw = RawClient::new(&server);
    // As a node does that finds an expired lease.
    raw.ask("tidings.lease.n0-", "t1 cleared by other\n");
    // The node renews its lease twice in this time.
    let early = world.next_within(listener, Duration::from_secs(2));
    assert!(early.is_none(), "an event before the other node has finished its cleanup: {early:?}");
    raw.purge("tidings.presence.n0-.>");
    raw.purge("tidings.lease.n0-");
    assert_eq!(reported(&mut world, listener), words("online"));
    assert_eq!(present(&mut world, endpoint), 1);
    assert_eq!(server.messages("tidings_events"), 2);
    tell(&mut world, endpoint, "stays", false);
    assert_eq!(reported(&mut world, listener), words("offline"));
    assert_eq!(server.messages("tidings_events"), 3);
}

#[test]
fn a_node_without_a_connection_for_longer_than_its_lease_stores_its_entries_again() {
    let server = Server::start();
    let proxy = ClosableProxy::open(server.port);
    let options = server.with_short_lease();
    let behind = NatsOptions { url: format!("nats://127.0.0.1:{}", proxy.port), ..options.clone() };
    let mut far = NatsWorld::named(&behind, 1, "far");
    let mut near = NatsWorld::named(&options, 1, "near");
    let (endpoint, listener) = (far.attach(), near.attach());
    let service = near.attach();
    join(&mut near, listener, LIFECYCLE);
    for (present_clients, client) in [(1, "first"), (2, "second")] {
        let of = |event: &str| (event.to_owned(), client.to_owned());
        tell(&mut far, endpoint, client, true);
        assert_eq!(reported(&mut near, listener), of("online"));
        enter(&mut far, endpoint, client);
        present(&mut far, endpoint);
        proxy.close();
        assert_eq!(reported(&mut near, listener), of("offline"));
        proxy.reopen();
        assert_eq!(reported(&mut near, listener), of("online"));
        // Other nodes check for expired leases when they renew their own.
        let until = std::time::Instant::now() + LONG;
        while present(&mut near, service) != present_clients {
            assert!(std::time::Instant::now() < until);
        }
        tell(&mut far, endpoint, client, false);
        assert_eq!(reported(&mut near, listener), of("offline"));
    }
    assert_eq!(server.messages("tidings_events"), 8);
}

#[test]
fn online_clients_are_sent_again_when_nats_has_lost_its_store() {
    let mut server = Server::start();
    let mut world = NatsWorld::new(&server.options(), 1);
    let (listener, endpoint) = (world.attach(), world.attach());
    join(&mut world, listener, LIFECYCLE);
    tell(&mut world, endpoint, "stays", true);
    assert_eq!(reported(&mut world, listener), words("online"));
    server.kill();
    server.lose_store();
    server.run();
    assert_eq!(reported(&mut world, listener), words("online"));
    assert_eq!(server.messages("tidings_events"), 1);
}
