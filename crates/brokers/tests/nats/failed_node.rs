//! Cleanup of a failed node: NATS has its lease, which is not renewed, and the presence entry of
//! its client.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::conformance::World;
use brokers::Broker as _;
use brokers::nats::NatsOptions;
use engine::broker::{
    BrokerEvent, BrokerReply, JoinRead, Membership, PresenceRequest, PublicationsRequest, RequestId,
};
use engine::channel::LIFECYCLE;
use serde_json::json;
use wire::protocol::{ClientInfo, Codec, Push, PushEvent, Reply, ReplyBody};

use crate::comeback::RawClient;
use crate::pair::LONG;
use crate::server::Server;
use crate::world::NatsWorld;

/// Stores the lease of a node, and the entry of its client in this channel.
fn appear(server: &Server, channel: &Arc<str>) -> Arc<ClientInfo> {
    let info = Arc::new(ClientInfo { client: "ghost".into(), ..ClientInfo::default() });
    let event = PushEvent::Join(info.clone());
    let push = Push { channel: channel.clone(), event };
    let mut entry = b"t1 plain\n".to_vec();
    let reply = Reply { id: 0, body: ReplyBody::Push(push) };
    wire::protocol::encode_reply(Codec::Protobuf, &reply, &mut entry);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = async_nats::connect(server.options().url).await.unwrap();
        for (subject, payload) in [
            ("tidings.lease.dead", b"t1 lease dead\n".to_vec()),
            ("tidings.presence.dead.0.room.ghost", entry),
        ] {
            client.request(subject, payload.into()).await.unwrap();
        }
    });
    info
}

#[test]
fn a_node_whose_cleanup_failed_is_ready_when_another_node_has_done_it() {
    let server = Server::start();
    let options = NatsOptions { lease_ms: 2_000, ..server.options() };
    let world = NatsWorld::new(&options, 1);
    let raw = RawClient::new(&server);
    let mut config = raw.ask("$JS.API.STREAM.INFO.tidings_events", "")["config"].clone();
    (config["max_bytes"], config["discard"]) = (1.into(), "new".into());
    raw.ask("$JS.API.STREAM.UPDATE.tidings_events", config.to_string());
    appear(&server, &LIFECYCLE.into());
    world.wait_health(0, "\"tidings_events\" takes no messages");
    // As another node does that has finished the cleanup.
    for filter in ["tidings.presence.dead.>", "tidings.lease.dead"] {
        let body = json!({ "filter": filter }).to_string();
        raw.ask("$JS.API.STREAM.PURGE.tidings_presence", body);
    }
    world.wait_health(0, "ready");
}

#[test]
fn a_failed_node_is_cleaned_up_once_and_its_clients_leave() {
    let server = Server::start();
    let mut world = NatsWorld::new(&server.with_short_lease(), 2);
    let (one, two) = (world.attach(), world.attach());
    let channel: Arc<str> = "room".into();
    let read = JoinRead::Nothing;
    let id = RequestId::new(1);
    world.submit(one, PublicationsRequest::Subscribe { id, channel: channel.clone(), read });
    let info = appear(&server, &channel);
    let count = |world: &mut NatsWorld| loop {
        let channel = channel.clone();
        world.submit(two, PresenceRequest::Stats { id: RequestId::new(2), channel });
        let answer = world.next_within(two, Duration::from_secs(5));
        if let Some(BrokerEvent::Reply(BrokerReply::PresenceStats(_, Ok(stats)))) = answer {
            return stats.num_clients;
        }
    };
    assert_eq!(count(&mut world), 1);
    loop {
        let event = world.next_within(one, Duration::from_secs(30)).expect("a leave in time");
        if let BrokerEvent::Membership { info: left, change: Membership::Leave, .. } = event {
            assert_eq!(left, info);
            break;
        }
    }
    assert_eq!(count(&mut world), 0);
    // Only one of the two nodes has published leaves; the other one checks twice in this time.
    let second = world.next_within(one, Duration::from_secs(2));
    assert!(second.is_none(), "{second:?}");
}

#[test]
fn two_nodes_of_one_name_are_a_warning_and_one_is_not() {
    let server = Server::start();
    let named = |name: &str| NatsOptions { name: name.into(), lease_ms: 2_000, ..server.options() };
    let alone = NatsWorld::named(&named("alone"), 1, "a");
    let twins = NatsWorld::named(&named("twin"), 2, "t");
    let until = Instant::now() + LONG;
    let warns = |world: &NatsWorld, node: usize| {
        world.nodes[node].take_warning().is_some_and(|text| text.contains("node.name"))
    };
    let (mut first, mut second) = (false, false);
    while !(first && second) {
        assert!(Instant::now() < until, "there is no warning");
        first |= warns(&twins, 0);
        second |= warns(&twins, 1);
    }
    assert_eq!(alone.nodes[0].take_warning(), None);
}
