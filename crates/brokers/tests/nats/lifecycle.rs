//! Lifecycle events: sent in order, and after an outage of NATS.

use std::sync::Arc;

use crate::conformance::World as _;
use brokers::Endpoint;
use engine::broker::{
    BrokerEvent, BrokerReply, JoinRead, NodeBusRequest, PresenceRequest, PublicationsRequest,
    RequestId,
};
use engine::channel::LIFECYCLE;
use engine::lifecycle::{Change, Lifecycle};
use wire::protocol::ClientInfo;

use crate::pair::{LONG, Pair};
use crate::server::Server;
use crate::world::NatsWorld;

pub(crate) fn tell(world: &mut NatsWorld, endpoint: Endpoint, client: &str, is_online: bool) {
    let info = ClientInfo { client: client.into(), user: "ann".into(), ..ClientInfo::default() };
    let change = match is_online {
        true => Change::Online,
        false => Change::Offline { reason: "gone".into() },
    };
    let lifecycle = Lifecycle { info: Arc::new(info), change, at_ms: 7 };
    world.submit(endpoint, NodeBusRequest::Lifecycle(lifecycle));
}

/// Kind and client of the next event that a listener receives.
pub(crate) fn reported(world: &mut NatsWorld, listener: Endpoint) -> (String, String) {
    loop {
        let event = world.next_within(listener, LONG).expect("an event in time");
        if let BrokerEvent::Publication { publication, .. } = event {
            let event: serde_json::Value = serde_json::from_slice(&publication.data).unwrap();
            let text = |name: &str| event[name].as_str().unwrap().to_owned();
            return (text("event"), text("client_id"));
        }
    }
}

#[test]
fn lifecycle_events_are_sent_in_order_and_after_an_outage_of_nats() {
    let mut server = Server::start();
    let mut pair = Pair::new(&server);
    pair.channel = LIFECYCLE.into();
    pair.subscribe().unwrap();
    // On the publisher's node: another node may connect again after these events.
    let (_, near) = (pair.world.attach(), pair.world.attach());
    pair.join(near, JoinRead::Nothing).unwrap();
    let Pair { mut world, listener, publisher, .. } = pair;
    for number in 0..300 {
        tell(&mut world, publisher, &number.to_string(), true);
        tell(&mut world, publisher, &number.to_string(), false);
    }
    let mut last = std::collections::HashMap::new();
    for _ in 0..600 {
        let (event, client) = reported(&mut world, listener);
        let before = last.insert(client, event.clone());
        assert_eq!(before.as_deref(), (event == "offline").then_some("online"));
    }
    tell(&mut world, publisher, "stays", true);
    assert_eq!(reported(&mut world, listener), ("online".into(), "stays".into()));
    while reported(&mut world, near).1 != "stays" {}
    assert_eq!(server.messages("tidings_events"), 601);
    server.kill();
    tell(&mut world, publisher, "stays", false);
    tell(&mut world, publisher, "comes", true);
    server.run();
    let both = [reported(&mut world, near), reported(&mut world, near)];
    assert!(both.contains(&("offline".into(), "stays".into())), "{both:?}");
    assert!(both.contains(&("online".into(), "comes".into())), "{both:?}");
    assert_eq!(server.messages("tidings_events"), 603, "each of them once");
    // Another node receives events once it is connected again.
    let (asked, channel) = (RequestId::new(9), Arc::from(LIFECYCLE));
    let again = PublicationsRequest::Subscribe { id: asked, channel, read: JoinRead::Nothing };
    world.submit(listener, again);
    while !matches!(
        world.next_within(listener, LONG).expect("a reply in time"),
        BrokerEvent::Reply(BrokerReply::Subscribed(id, _)) if id == asked
    ) {}
    tell(&mut world, publisher, "later", true);
    while reported(&mut world, listener).1 != "later" {}
}

#[test]
fn a_node_that_stops_has_sent_all_events_and_leaves_no_entries() {
    let server = Server::start();
    let mut world = NatsWorld::new(&server.options(), 1);
    let endpoint = world.attach();
    for number in 0..500 {
        tell(&mut world, endpoint, &number.to_string(), true);
    }
    for number in 0..500 {
        tell(&mut world, endpoint, &number.to_string(), false);
    }
    let channel = world.fresh_channel();
    let info = Arc::new(ClientInfo { client: "1".into(), ..ClientInfo::default() });
    let add = PresenceRequest::Add { channel, info, announces: true };
    world.submit(endpoint, add);
    world.detach(endpoint);
    brokers::Broker::end(&world.nodes[0]);
    assert_eq!(server.messages("tidings_events"), 1_000);
    assert_eq!(server.messages("tidings_presence"), 0);
}
