//! A cluster of three NATS servers with three replicas, whose stream leader is killed under load:
//! no acknowledged publication is lost, all nodes see one order, and subscribers are notified of
//! gaps.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::conformance;
use crate::conformance::World as _;
use brokers::Endpoint;
use bytes::Bytes;
use engine::broker::{
    BrokerEvent, BrokerReply, HistoryQuery, JoinRead, PublicationsRequest, PublishOptions,
    RequestId,
};
use wire::protocol::{HistoryResult, Publication, StreamPosition};

use crate::pair::LONG;
use crate::server::Cluster;
use crate::world::NatsWorld;

const CHANNELS: u64 = 8;
const HISTORY: u32 = 5000;

/// Publications in flight and their outcomes, and what each listener has received.
struct Load {
    world: NatsWorld,
    listeners: Vec<Listener>,
    publisher: Endpoint,
    channels: Vec<Arc<str>>,
    number: u64,
    under_way: usize,
    /// Numbers of acknowledged publications, by channel and offset.
    accepted: HashMap<(Arc<str>, u64), u64>,
}

struct Listener {
    endpoint: Endpoint,
    positions: HashMap<Arc<str>, StreamPosition>,
    /// Numbers of received publications, by channel and offset.
    received: HashMap<(Arc<str>, u64), u64>,
    gaps: u64,
    /// Channels whose position was received.
    reported: HashSet<Arc<str>>,
}

impl Listener {
    fn take(&mut self, event: BrokerEvent) {
        let (channel, position, expected) = match event {
            BrokerEvent::Publication { channel, publication, epoch } => {
                let epoch = epoch.to_string();
                let offset = publication.offset;
                self.received.insert((channel.clone(), offset), number(&publication));
                (channel, StreamPosition { offset, epoch }, 1)
            }
            BrokerEvent::Position { channel, top } => {
                self.reported.insert(channel.clone());
                (channel, top, 0)
            }
            _ => return,
        };
        let held = self.positions.get_mut(&channel).expect("a channel to which it is subscribed");
        assert_eq!(held.epoch, position.epoch, "nothing was lost");
        if position.offset > held.offset {
            self.gaps += u64::from(position.offset != held.offset + expected);
            *held = position;
        }
    }
}

fn number(publication: &Publication) -> u64 {
    std::str::from_utf8(&publication.data).unwrap().parse().unwrap()
}

impl Load {
    fn start(cluster: &Cluster) -> Load {
        let mut options = cluster.options();
        options.jetstream.as_mut().unwrap().history_size_max = HISTORY;
        let mut world = NatsWorld::new(&options, 3);
        let endpoints = [world.attach(), world.attach(), world.attach()];
        let channels: Vec<Arc<str>> = (0..CHANNELS).map(|_| world.fresh_channel()).collect();
        let listeners = endpoints
            .map(|endpoint| {
                let positions = HashMap::new();
                Listener {
                    endpoint,
                    positions,
                    received: HashMap::new(),
                    gaps: 0,
                    reported: HashSet::new(),
                }
            })
            .into();
        let publisher = world.attach();
        let (number, under_way) = (0, 0);
        let accepted = HashMap::new();
        let mut load = Load { world, listeners, publisher, channels, number, under_way, accepted };
        load.subscribe();
        load
    }

    fn subscribe(&mut self) {
        for listener in &mut self.listeners {
            for channel in &self.channels {
                let read = JoinRead::Position { meta_ttl_ms: 600_000 };
                let (id, channel) = (RequestId::new(0), channel.clone());
                let request = PublicationsRequest::Subscribe { id, channel: channel.clone(), read };
                self.world.submit(listener.endpoint, request);
                match self.world.next_within(listener.endpoint, LONG) {
                    Some(BrokerEvent::Reply(BrokerReply::Subscribed(_, Ok(stream)))) => {
                        listener.positions.insert(channel, stream.top)
                    }
                    other => panic!("unexpected reply to subscribe: {other:?}"),
                };
            }
        }
    }

    fn publish(&mut self) {
        self.number += 1;
        let number = self.number;
        let channel = self.channels[(number % CHANNELS) as usize].clone();
        let data = Bytes::from(number.to_string());
        let publication = Publication { data, ..Publication::default() };
        let options = PublishOptions {
            history_size: HISTORY,
            history_ttl_ms: 60_000,
            history_meta_ttl_ms: 600_000,
            ..PublishOptions::default()
        };
        let id = RequestId::new(number);
        self.under_way += 1;
        let request = PublicationsRequest::Publish { id, channel, publication, options };
        self.world.submit(self.publisher, request);
    }

    fn take(&mut self, wait: Duration) -> bool {
        let mut wait = wait;
        let mut has_come = false;
        while let Some(event) = self.world.next_within(self.publisher, wait) {
            wait = Duration::ZERO;
            has_come = true;
            let BrokerEvent::Reply(BrokerReply::Published(id, result)) = event else { continue };
            self.under_way -= 1;
            if let Ok(position) = result {
                let channel = self.channels[(id.number() % CHANNELS) as usize].clone();
                let twice = self.accepted.insert((channel, position.offset), id.number());
                assert_eq!(twice, None, "one offset for two publications");
            }
        }
        for listener in &mut self.listeners {
            while let Some(event) = self.world.next_within(listener.endpoint, Duration::ZERO) {
                has_come = true;
                listener.take(event);
            }
        }
        has_come
    }

    /// Publishes until `more` further publications are accepted.
    fn run_until_accepted(&mut self, more: usize) {
        let goal = self.accepted.len() + more;
        // An election may take several rounds.
        let until = Instant::now() + 4 * LONG;
        while self.accepted.len() < goal {
            assert!(Instant::now() < until, "no publication is accepted");
            // A limited number at a time: publications of one channel follow each other.
            while self.under_way < 4 * self.channels.len() {
                self.publish();
            }
            self.take(Duration::from_millis(20));
        }
    }

    fn history(&mut self, channel: &Arc<str>) -> HistoryResult {
        let until = Instant::now() + LONG;
        loop {
            let query = HistoryQuery::default();
            let (id, channel) = (RequestId::new(0), channel.clone());
            let ask = PublicationsRequest::History { id, channel, query, meta_ttl_ms: 600_000 };
            self.world.submit(self.publisher, ask);
            match self.world.next_within(self.publisher, LONG) {
                Some(BrokerEvent::Reply(BrokerReply::History(_, Ok(history)))) => {
                    return history;
                }
                other => assert!(Instant::now() < until, "unexpected reply to history: {other:?}"),
            }
        }
    }

    /// Waits until every listener has received every publication, or the position that shows a gap.
    /// Call it after the last publication.
    fn assert_complete(&mut self) {
        while self.under_way > 0 {
            assert!(self.take(LONG), "a reply in time");
        }
        let channels = self.channels.clone();
        for channel in &channels {
            for index in 0..self.listeners.len() {
                let until = Instant::now() + LONG;
                while !self.listeners[index].reported.contains(channel) {
                    assert!(
                        Instant::now() < until,
                        "listener {index} receives no position after the election"
                    );
                    self.take(Duration::from_millis(50));
                }
            }
            let history = self.history(channel);
            let kept: HashMap<u64, u64> =
                history.publications.iter().map(|one| (one.offset, number(one))).collect();
            assert_eq!(kept.len() as u64, history.offset, "offsets without gaps");
            let ours = |((of, offset), number): (&(Arc<str>, u64), &u64)| {
                (of == channel).then_some((*offset, *number))
            };
            for (offset, number) in self.accepted.iter().filter_map(ours) {
                assert_eq!(kept.get(&offset), Some(&number), "lost: {number} at {offset}");
            }
            for index in 0..self.listeners.len() {
                let until = Instant::now() + LONG;
                while self.listeners[index].positions[channel].offset < history.offset {
                    assert!(Instant::now() < until, "listener {index} receives no position");
                    self.take(Duration::from_millis(50));
                }
                let received = self.listeners[index].received.iter();
                for (offset, number) in received.filter_map(ours) {
                    assert_eq!(kept.get(&offset), Some(&number), "another order");
                }
            }
        }
    }
}

#[test]
fn three_servers_pass_every_case() {
    let cluster = Cluster::start();
    let mut world = NatsWorld::new(&cluster.options(), 1);
    conformance::run(&mut world);
}

#[test]
fn the_leader_of_the_stream_is_killed_under_load_and_restarted() {
    let mut cluster = Cluster::start();
    let mut load = Load::start(&cluster);
    load.run_until_accepted(200);
    let leader = cluster.leader("tidings_history");
    cluster.servers[leader].kill();
    load.run_until_accepted(200);
    cluster.servers[leader].run();
    load.run_until_accepted(400);
    load.assert_complete();
    let gaps: Vec<u64> = load.listeners.iter().map(|listener| listener.gaps).collect();
    println!("{} published, {} accepted, gaps {gaps:?}", load.number, load.accepted.len());
}
