//! Messages larger than NATS takes: refused as permanent errors, without delaying others.

use std::sync::Arc;

use crate::conformance::World as _;
use brokers::Broker as _;
use brokers::nats::NatsOptions;
use engine::broker::{
    BrokerError, BrokerEvent, BrokerReply, NodeBusRequest, PresenceRequest, PublicationsRequest,
    PublishOptions, RequestId,
};
use engine::channel::LIFECYCLE;
use engine::lifecycle::{Change, Lifecycle};
use wire::protocol::{ClientInfo, Publication, StreamPosition};

use crate::comeback::{ROOM, enter, join, present};
use crate::lifecycle::reported;
use crate::pair::{LONG, Pair};
use crate::server::Server;
use crate::world::NatsWorld;

const SMALL: &str = "jetstream { store_dir: STORE }\nmax_payload: 65536";

fn publish(
    pair: &mut Pair,
    length: usize,
    history_size: u32,
) -> Result<StreamPosition, BrokerError> {
    let options = PublishOptions {
        history_size,
        history_ttl_ms: 60_000,
        history_meta_ttl_ms: 60_000,
        ..PublishOptions::default()
    };
    let publication = Publication { data: vec![b'1'; length].into(), ..Publication::default() };
    let ask = |id, channel| PublicationsRequest::Publish { id, channel, publication, options };
    pair.answer(pair.publisher, ask)
}

#[test]
fn a_publication_that_is_too_large_is_refused_permanently() {
    let server = Server::configured(SMALL);
    let mut pair = Pair::new(&server);
    pair.subscribe().unwrap();
    for history_size in [10, 0] {
        for length in [65_536, 70_000, 1_000_000] {
            let refused = publish(&mut pair, length, history_size);
            assert_eq!(
                refused,
                Err(BrokerError::TooLarge),
                "{length} bytes, history {history_size}"
            );
        }
    }
    // Just below the limit with its headers; the republished message has more of them.
    assert_eq!(publish(&mut pair, 65_000, 10).unwrap().offset, 1);
    assert_eq!(pair.received_offset(), 1);
    publish(&mut pair, 65_000, 0).unwrap();
    pair.world.wait_health(1, "ready");
}

#[test]
fn a_limit_of_messages_above_that_of_nats_is_a_warning() {
    let server = Server::configured(SMALL);
    let warning = |message_size_max| {
        let options = NatsOptions { message_size_max, ..server.options() };
        NatsWorld::new(&options, 1).nodes[0].take_warning()
    };
    assert_eq!(warning(65_536), None);
    let reported = warning(65_537).unwrap();
    assert!(reported.contains("websocket.message_size_limit (65537)"), "{reported}");
    assert!(reported.contains("max_payload of nats-server (65536)"), "{reported}");
}

#[test]
fn a_presence_entry_that_is_too_large_does_not_block_others() {
    let server = Server::configured(SMALL);
    let mut world = NatsWorld::new(&server.options(), 1);
    let (listener, endpoint) = (world.attach(), world.attach());
    join(&mut world, listener, LIFECYCLE);
    let conn_info = vec![b'x'; 70_000].into();
    let large = ClientInfo { client: "large".into(), conn_info, ..ClientInfo::default() };
    let large = Arc::new(large);
    let (channel, info) = (ROOM.into(), large.clone());
    world.submit(endpoint, PresenceRequest::Add { channel, info, announces: true });
    enter(&mut world, endpoint, "small");
    assert_eq!(present(&mut world, endpoint), 1);
    for info in [large, Arc::new(ClientInfo { client: "next".into(), ..ClientInfo::default() })] {
        let lifecycle = Lifecycle { info, change: Change::Online, at_ms: 1 };
        world.submit(endpoint, NodeBusRequest::Lifecycle(lifecycle));
    }
    while reported(&mut world, listener) != ("online".into(), "next".into()) {}
    world.wait_health(0, "ready");
    let warning = world.nodes[0].take_warning().unwrap();
    assert!(warning.contains("max_payload"), "{warning}");
}

#[test]
fn an_answer_to_another_node_that_is_too_large_is_a_warning() {
    let server = Server::configured(SMALL);
    let mut world = NatsWorld::new(&server.options(), 2);
    let (asks, answers) = (world.attach(), world.attach());
    world.submit(
        asks,
        NodeBusRequest::Survey { id: RequestId::new(1), question: b"?".as_slice().into() },
    );
    let ticket = loop {
        let event = world.next_within(answers, LONG).expect("it is asked");
        if let BrokerEvent::Question { ticket, .. } = event {
            break ticket;
        }
    };
    world.submit(answers, NodeBusRequest::Answer { ticket, answer: vec![0; 70_000].into() });
    let answer = world.next_within(asks, LONG);
    let Some(BrokerEvent::Reply(BrokerReply::Survey(_, Ok(survey)))) = answer else {
        panic!("{answer:?}");
    };
    assert_eq!((survey.answers.len(), survey.missing), (0, 1));
    let warning = world.nodes[1].take_warning().unwrap();
    assert!(warning.contains("max_payload"), "{warning}");
}
