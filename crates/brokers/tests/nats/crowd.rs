//! Many concurrent publications from two nodes: one order, offsets without gaps, and no reply
//! before the publications that it covers.

use std::sync::Arc;
use std::time::Duration;

use crate::conformance::World;
use engine::broker::{
    BrokerEvent, BrokerReply, JoinRead, PublicationsRequest, PublishOptions, RequestId,
};
use wire::protocol::Publication;

use crate::pair::LONG;
use crate::server::Server;
use crate::world::NatsWorld;

const PUBLICATIONS: u64 = 1000;

#[test]
fn replies_come_after_the_publications_they_cover() {
    let server = Server::start();
    let mut world = NatsWorld::new(&server.options(), 2);
    let (one, two) = (world.attach(), world.attach());
    let channel = world.fresh_channel();
    let subscribe = |channel: &Arc<str>| PublicationsRequest::Subscribe {
        id: RequestId::new(0),
        channel: channel.clone(),
        read: JoinRead::Position { meta_ttl_ms: 600_000 },
    };
    world.submit(one, subscribe(&channel));
    // Publications before the subscription are not received.
    while !matches!(world.next_within(one, LONG), Some(BrokerEvent::Reply(_))) {}
    for number in 1..=PUBLICATIONS {
        let options = PublishOptions {
            history_size: 10,
            history_ttl_ms: 60_000,
            history_meta_ttl_ms: 600_000,
            ..PublishOptions::default()
        };
        let id = RequestId::new(number);
        let (publication, channel) = (Publication::default(), channel.clone());
        let endpoint = if number % 2 == 0 { one } else { two };
        world.submit(
            endpoint,
            PublicationsRequest::Publish { id, channel: channel.clone(), publication, options },
        );
        if number % 7 == 0 {
            world.submit(one, subscribe(&channel));
        }
    }
    let (mut received, mut refused, mut answers, mut joins) = (0, 0, 0, 0);
    while answers < PUBLICATIONS / 2 || received + refused < PUBLICATIONS {
        while let Some(event) = world.next_within(two, Duration::ZERO) {
            if matches!(&event, BrokerEvent::Reply(reply) if reply.outcome().1.is_err()) {
                refused += 1;
            }
        }
        let event = world.next_within(one, Duration::from_secs(5));
        match event
            .unwrap_or_else(|| panic!("{received} received, {refused} refused, {answers} answers"))
        {
            BrokerEvent::Publication { publication, .. } => {
                assert_eq!(publication.offset, received + 1);
                received += 1;
            }
            BrokerEvent::Reply(BrokerReply::Subscribed(_, Ok(stream))) => {
                assert!(stream.top.offset <= received, "{} ahead of {received}", stream.top.offset);
                joins += 1;
            }
            BrokerEvent::Reply(BrokerReply::Published(_, Ok(position))) => {
                assert!(position.offset <= received, "{} ahead of {received}", position.offset);
                answers += 1;
            }
            BrokerEvent::Reply(_) => {
                refused += 1;
                answers += 1;
            }
            _ => {}
        }
    }
    println!("{received} received, {refused} refused, {joins} joins");
    assert_eq!(refused, 0);
}
