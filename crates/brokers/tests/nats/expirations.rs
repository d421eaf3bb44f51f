//! Temporary channels: all nodes end them at the same time, even after an outage of NATS, and no
//! messages are left.

use std::sync::Arc;
use std::time::{Duration, Instant};

use brokers::Endpoint;
use engine::broker::{BrokerEvent, ChannelTtl, HistoryQuery, JoinRead, PublicationsRequest};
use wire::protocol::HistoryResult;

use crate::pair::{LONG, Pair};
use crate::server::Server;
use crate::world::NatsWorld;

/// Longer than all steps before the end take on a busy machine.
const TTL: Duration = Duration::from_secs(6);

fn limit(pair: &mut Pair, endpoint: Endpoint, ttl: Duration) {
    let channel = pair.channel.clone();
    let ttl_ms = u64::try_from(ttl.as_millis()).unwrap();
    pair.world.submit(endpoint, PublicationsRequest::LimitTtl { channel, ttl_ms });
}

fn join(pair: &mut Pair, endpoint: Endpoint, ttl: Duration) -> String {
    limit(pair, endpoint, ttl);
    pair.join(endpoint, JoinRead::Position { meta_ttl_ms: 600_000 }).unwrap().top.epoch
}

fn read_ttl(pair: &mut Pair) -> Option<ChannelTtl> {
    pair.answer(pair.publisher, |id, channel| PublicationsRequest::ChannelTtl { id, channel })
        .unwrap()
}

fn history(pair: &mut Pair) -> HistoryResult {
    let query = HistoryQuery::default();
    let ask = |id, channel| PublicationsRequest::History { id, channel, query, meta_ttl_ms: 0 };
    pair.answer(pair.publisher, ask).unwrap()
}

fn wait_for_end(world: &mut NatsWorld, endpoint: Endpoint, channel: &Arc<str>) {
    loop {
        match world.next_within(endpoint, 2 * LONG).expect("an expiration in time") {
            BrokerEvent::Expired { channel: over } if over == *channel => return,
            _ => {}
        }
    }
}

#[test]
fn a_channel_ends_once_for_all_nodes_and_leaves_no_messages() {
    let server = Server::start();
    let mut pair = Pair::new(&server);
    let (near, far) = (pair.publisher, pair.listener);
    let began = Instant::now();
    let epoch = join(&mut pair, far, TTL);
    // The first limit takes precedence on every node.
    assert_eq!(join(&mut pair, near, 100 * TTL), epoch);
    for _ in 0..10 {
        assert_eq!(pair.publish(10).unwrap().epoch, epoch);
    }
    assert!(read_ttl(&mut pair).is_some_and(|ttl| ttl.left_ms + ttl.age_ms == 6_000));
    let channel = pair.channel.clone();
    wait_for_end(&mut pair.world, far, &channel);
    wait_for_end(&mut pair.world, near, &channel);
    assert!(began.elapsed() >= TTL, "too early");
    assert_eq!(read_ttl(&mut pair), None);
    let after = history(&mut pair);
    assert!(after.publications.is_empty() && after.offset == 0 && after.epoch != epoch);
    let until = Instant::now() + LONG;
    while server.messages("tidings_history") > 1 {
        assert!(Instant::now() < until, "retained messages are left");
    }
    // A new channel of the same name begins.
    let anew = join(&mut pair, far, TTL);
    assert_ne!(anew, epoch);
    assert!(read_ttl(&mut pair).is_some_and(|ttl| ttl.age_ms < 3_000));
    wait_for_end(&mut pair.world, far, &channel);
}

#[test]
fn a_channel_ends_in_time_despite_an_outage_of_nats() {
    let mut server = Server::start();
    let mut pair = Pair::new(&server);
    let (near, far) = (pair.publisher, pair.listener);
    let began = Instant::now();
    let ttl = 2 * TTL;
    let epoch = join(&mut pair, far, ttl);
    assert_eq!(join(&mut pair, near, ttl), epoch);
    server.kill();
    server.run();
    pair.publish_at_last(10);
    assert!(read_ttl(&mut pair).is_some_and(|ttl| ttl.age_ms > 0));
    let channel = pair.channel.clone();
    wait_for_end(&mut pair.world, far, &channel);
    wait_for_end(&mut pair.world, near, &channel);
    let took = began.elapsed();
    assert!(took >= ttl && took < 2 * ttl, "{took:?}");
}
