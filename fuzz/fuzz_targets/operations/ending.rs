//! What must hold when nothing is in flight any more, and after all clients have left.

use engine::broker::{BrokerReply, HistoryQuery, PresenceRequest, PublicationsRequest, RequestId};
use wire::protocol::{PresenceStats, StreamPosition};

use crate::rules::{CHANNELS, POSITION_CHECK_DELAY_MS};
use crate::world::World;

pub fn check(world: &mut World) {
    world.unblock_all();
    world.send_all();
    settle(world);
    everything_is_answered(world);
    // Every loss is detected by then.
    for _ in 0..3 {
        world.pass(POSITION_CHECK_DELAY_MS);
        settle(world);
    }
    everything_is_answered(world);
    everybody_has_everything(world);
    presence_is_that_of_the_living(world);
    (0..world.peers.len()).for_each(|index| world.cut(index as u8));
    settle(world);
    nothing_is_left(world);
}

/// Runs until every request is answered and every event delivered.
fn settle(world: &mut World) {
    loop {
        world.turn();
        world.deny_all();
        if !world.step() {
            break;
        }
    }
}

fn everything_is_answered(world: &World) {
    for peer in &world.peers {
        assert_eq!(peer.unanswered(), Vec::<&wire::protocol::Request>::new());
    }
}

/// A subscriber with a position and no notice of a gap is at the top of the stream.
fn everybody_has_everything(world: &mut World) {
    for channel in CHANNELS {
        let here = world.peers.iter().filter(|peer| peer.is_alive());
        let held = here.filter_map(|peer| peer.subscriptions.get(channel));
        let positions: Vec<StreamPosition> =
            held.filter(|held| held.is_positioned).map(|held| held.position.clone()).collect();
        if positions.is_empty() {
            continue;
        }
        let query = HistoryQuery { limit: Some(0), ..HistoryQuery::default() };
        let (id, channel) = (RequestId::new(0), channel.into());
        let request = PublicationsRequest::History { id, channel, query, meta_ttl_ms: 0 };
        let Some(BrokerReply::History(_, Ok(top))) = world.ask(request.into()) else {
            panic!("no history")
        };
        for position in positions {
            assert_eq!((position.offset, &position.epoch), (top.offset, &top.epoch));
        }
    }
}

fn presence(world: &mut World, channel: &str) -> PresenceStats {
    let request = PresenceRequest::Stats { id: RequestId::new(0), channel: channel.into() };
    match world.ask(request.into()) {
        Some(BrokerReply::PresenceStats(_, Ok(stats))) => stats,
        other => panic!("{other:?}"),
    }
}

fn presence_is_that_of_the_living(world: &mut World) {
    let here = world.peers.iter().filter(|peer| peer.is_alive());
    let is_certain = here.clone().all(|peer| !peer.is_confused);
    let count = here.filter(|peer| peer.subscriptions.contains_key("people:x")).count();
    assert!(!is_certain || presence(world, "people:x").num_clients as usize == count);
}

fn nothing_is_left(world: &mut World) {
    assert_eq!(world.worker.session_count(), 0);
    assert_eq!(world.worker.subscription_count(), 0);
    assert!(world.worker.hub().is_empty());
    assert!(world.worker.users().is_empty());
    for channel in CHANNELS {
        assert_eq!(presence(world, channel), PresenceStats::default(), "{channel}");
        world.publish(channel);
    }
    assert!(
        world.queue.pop().is_none(),
        "the worker is subscribed to channels without subscribers"
    );
}
