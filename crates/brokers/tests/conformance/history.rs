//! Cases of streams: offsets and epochs, bounds of history, reads, and temporary channels.

use std::time::{Duration, Instant};

use engine::broker::{
    BrokerError, BrokerEvent, HistoryQuery, HistoryRemoved, JoinRead, JoinedStream,
    PublicationsRequest, PublishOptions,
};
use wire::protocol::StreamPosition;

use super::{Actor, META, World, begin, kept, position};

pub(super) fn offsets_count(world: &mut dyn World) {
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

pub(super) fn history_bounds(world: &mut dyn World) {
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

pub(super) fn history_reads(world: &mut dyn World) {
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

pub(super) fn join_reads(world: &mut dyn World) {
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

pub(super) fn remove_history(world: &mut dyn World) {
    let (mut actor, one, _, channel) = begin(world);
    let before = actor.publish(one, &channel, "a", kept(10)).unwrap();
    let named = channel.clone();
    let answer = actor.ask(one, |id| PublicationsRequest::RemoveHistory { id, channel: named });
    assert_eq!(answer, Ok(HistoryRemoved));
    assert_eq!(actor.history(one, &channel, HistoryQuery::default()), Ok(vec![]));
    let after = actor.publish(one, &channel, "b", kept(10)).unwrap();
    assert_eq!(after, position(&before.epoch, 2));
}

pub(super) fn meta_ttl(world: &mut dyn World) {
    let (mut actor, one, _, channel) = begin(world);
    let before = actor.publish(one, &channel, "a", kept(10)).unwrap();
    actor.world.pass_ms(601_000);
    let after = actor.publish(one, &channel, "b", kept(10)).unwrap();
    assert_eq!(after.offset, 1);
    assert_ne!(after.epoch, before.epoch, "a new epoch has a new name");
}

pub(super) fn temporary(world: &mut dyn World) {
    const TTL_MS: u64 = 2_000;
    let (mut actor, one, two, channel) = begin(world);
    let ttl = |actor: &mut Actor<'_>, endpoint| {
        let channel = channel.clone();
        match actor.ask(endpoint, |id| PublicationsRequest::ChannelTtl { id, channel }) {
            Ok(ttl) => ttl,
            answer => panic!("the TTL request was answered with {answer:?}"),
        }
    };
    assert_eq!(ttl(&mut actor, one), None);
    let limit = |actor: &mut Actor<'_>, ttl_ms| {
        let channel = channel.clone();
        actor.submit(two, PublicationsRequest::LimitTtl { channel, ttl_ms });
    };
    // Before and after, as a joining session does.
    limit(&mut actor, TTL_MS);
    actor.subscribe(two, &channel, JoinRead::Position { meta_ttl_ms: 600_000 });
    limit(&mut actor, TTL_MS);
    limit(&mut actor, 600_000);
    // The first limit applies.
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
