//! Clients that come and go: told in order, and after NATS was away.

use std::sync::Arc;

use brokers::conformance::World as _;
use engine::broker::{BrokerEvent, BrokerRequest};
use engine::channel::LIFECYCLE;
use engine::lifecycle::{Change, Lifecycle};
use wire::protocol::ClientInfo;

use crate::pair::{LONG, Pair};
use crate::server::Server;

fn tell(pair: &mut Pair, client: &str, is_online: bool) {
    let info = ClientInfo { client: client.into(), user: "ann".into(), ..ClientInfo::default() };
    let change = match is_online {
        true => Change::Online,
        false => Change::Offline { reason: "gone".into() },
    };
    let lifecycle = Lifecycle { info: Arc::new(info), change, at_ms: 7 };
    pair.world.submit(pair.publisher, BrokerRequest::Lifecycle(lifecycle));
}

/// The next event that the listener is told: which, and of whom.
fn told(pair: &mut Pair) -> (String, String) {
    loop {
        let event = pair.world.next_within(pair.listener, LONG).expect("an event is told");
        if let BrokerEvent::Publication { publication, .. } = event {
            let event: serde_json::Value = serde_json::from_slice(&publication.data).unwrap();
            let text = |name: &str| event[name].as_str().unwrap().to_owned();
            return (text("event"), text("client_id"));
        }
    }
}

/// Events that backends can read.
fn stored(server: &Server) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = async_nats::connect(server.options().url).await.unwrap();
        let subject = "$JS.API.STREAM.INFO.tidings_events";
        let info = client.request(subject, "".into()).await.unwrap();
        let info: serde_json::Value = serde_json::from_slice(&info.payload).unwrap();
        info["state"]["messages"].as_u64().unwrap()
    })
}

#[test]
fn clients_are_told_in_order_and_after_nats_was_away() {
    let mut server = Server::start();
    let mut pair = Pair::new(&server);
    pair.channel = LIFECYCLE.into();
    pair.subscribe().unwrap();
    for number in 0..300 {
        tell(&mut pair, &number.to_string(), true);
        tell(&mut pair, &number.to_string(), false);
    }
    let mut last = std::collections::HashMap::new();
    for _ in 0..600 {
        let (event, client) = told(&mut pair);
        let before = last.insert(client, event.clone());
        assert_eq!(before.as_deref(), (event == "offline").then_some("online"));
    }
    tell(&mut pair, "stays", true);
    assert_eq!(told(&mut pair), ("online".into(), "stays".into()));
    assert_eq!(stored(&server), 601);
    server.kill();
    tell(&mut pair, "stays", false);
    tell(&mut pair, "comes", true);
    server.run();
    let both = [told(&mut pair), told(&mut pair)];
    assert!(both.contains(&("offline".into(), "stays".into())), "{both:?}");
    assert!(both.contains(&("online".into(), "comes".into())), "{both:?}");
    assert_eq!(stored(&server), 603, "each of them once");
}
