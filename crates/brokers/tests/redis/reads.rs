//! Long replies under Redis' default output limits for subscribers: they arrive complete, in order,
//! and without a disconnect.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use brokers::Endpoint;
use brokers::redis::RedisSettings;
use engine::broker::{
    BrokerEvent, BrokerReply, HistoryQuery, JoinRead, PresenceRequest, PublicationsRequest,
    PublishOptions, RequestId,
};
use wire::protocol::{ClientInfo, Publication, StreamPosition};

use crate::server::{PATIENCE, RedisServer};
use crate::world::{Node, at, settings};

/// A node with a long timeout: these reads are large, and test builds are slow.
fn patient(server: &RedisServer) -> Node {
    let io_timeout = 10 * Duration::from_secs(1);
    Node::start(RedisSettings { io_timeout, ..settings(&at(server)) })
}

/// Publishes this many publications of this many bytes.
fn fill(
    node: &Node,
    endpoint: Endpoint,
    channel: &str,
    count: u64,
    bytes: usize,
) -> StreamPosition {
    let data = bytes::Bytes::from(vec![b'x'; bytes]);
    for number in 0..count {
        let publication = Publication { data: data.clone(), ..Publication::default() };
        let options = PublishOptions {
            history_size: 1000,
            history_ttl_ms: 600_000,
            history_meta_ttl_ms: 600_000,
            ..PublishOptions::default()
        };
        let (id, channel) = (RequestId::new(number), channel.into());
        node.submit(endpoint, PublicationsRequest::Publish { id, channel, publication, options });
    }
    let mut top = StreamPosition::default();
    for _ in 0..count {
        match node.inbox(endpoint).wait(PATIENCE).expect("an answer").1 {
            BrokerEvent::Reply(BrokerReply::Published(_, Ok(position))) => {
                top = position;
            }
            event => panic!("{event:?}"),
        }
    }
    top
}

/// Ids of the subscriber connections.
fn links(server: &RedisServer) -> Vec<String> {
    let list = server.ask(&["CLIENT", "LIST", "TYPE", "pubsub"]);
    list.text().lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
}

/// Ends the sampling, also when the test fails.
struct Over<'o>(&'o AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The maximum number of bytes that wait for a subscriber, by sampling.
fn most_waiting(server: &RedisServer, is_over: &AtomicBool) -> usize {
    let mut most = 0;
    while !is_over.load(Ordering::Relaxed) {
        let list = server.ask(&["CLIENT", "LIST", "TYPE", "pubsub"]);
        let waiting = list.text().split(' ').filter_map(|word| word.strip_prefix("omem="));
        most = most.max(waiting.filter_map(|bytes| bytes.parse().ok()).max().unwrap_or(0));
        // Leaves time to Redis and to the processor.
        std::thread::sleep(Duration::from_millis(1));
    }
    most
}

#[test]
fn two_long_histories_at_once_cost_no_connection() {
    let server = RedisServer::start(&[]);
    let mut node = patient(&server);
    let (filler, listener) = (node.attach(), node.attach());
    fill(&node, filler, "long", 300, 60_000);
    node.subscribe(listener, "room").unwrap();
    let readers: Vec<Endpoint> = (0..2).map(|_| node.attach()).collect();
    let before = links(&server);
    let is_over = AtomicBool::new(false);
    let most = std::thread::scope(|scope| {
        let looking = scope.spawn(|| most_waiting(&server, &is_over));
        let over = Over(&is_over);
        for round in 0..3 {
            for reader in &readers {
                let (channel, query) = ("long".into(), HistoryQuery::default());
                let id = RequestId::new(round);
                let meta_ttl_ms = 600_000;
                let read = PublicationsRequest::History { id, channel, query, meta_ttl_ms };
                node.submit(*reader, read);
            }
            node.publish("room", "still subscribed").unwrap();
            for reader in &readers {
                match node.inbox(*reader).wait(PATIENCE).expect("an answer").1 {
                    BrokerEvent::Reply(BrokerReply::History(_, Ok(history))) => {
                        let offsets = history.publications.iter().map(|one| one.offset);
                        assert!(offsets.eq(1..=300));
                        assert_eq!(history.offset, 300);
                    }
                    event => panic!("{event:?}"),
                }
            }
            assert_eq!(node.wait_data(listener), "still subscribed");
        }
        drop(over);
        looking.join().unwrap()
    });
    assert_eq!(links(&server), before, "the connection is the same");
    println!("at most {most} bytes waited in Redis");
    assert!(most < 8 << 20, "{most} bytes waited for this node");
}

#[test]
fn many_large_recoveries_cost_no_connection() {
    let count = 600;
    let server = RedisServer::start(&[]);
    let mut node = patient(&server);
    let endpoints: Vec<Endpoint> = (0..count).map(|_| node.attach()).collect();
    for (number, endpoint) in endpoints.iter().enumerate() {
        fill(&node, *endpoint, &format!("channel-{number}"), 100, 900);
    }
    let before = links(&server);
    let is_over = AtomicBool::new(false);
    let began = Instant::now();
    let most = std::thread::scope(|scope| {
        let looking = scope.spawn(|| most_waiting(&server, &is_over));
        let over = Over(&is_over);
        for (number, endpoint) in endpoints.iter().enumerate() {
            let since = StreamPosition { offset: 0, epoch: String::new() };
            let read =
                JoinRead::Since { since, limit: 1_000, bytes_max: None, meta_ttl_ms: 600_000 };
            let (id, channel) = (RequestId::new(9_999), format!("channel-{number}").into());
            node.submit(*endpoint, PublicationsRequest::Subscribe { id, channel, read });
        }
        for endpoint in &endpoints {
            match node.inbox(*endpoint).wait(PATIENCE).expect("an answer").1 {
                BrokerEvent::Reply(BrokerReply::Subscribed(_, Ok(stream))) => {
                    let offsets = stream.publications.iter().map(|one| one.offset);
                    assert!(offsets.eq(1..=100));
                }
                event => panic!("{event:?}"),
            }
        }
        drop(over);
        looking.join().unwrap()
    });
    println!("{count} recoveries took {:?}, {most} bytes waited at most", began.elapsed());
    assert_eq!(links(&server), before, "the connection is the same");
    assert!(most < 8 << 20, "{most} bytes waited for this node");
}

#[test]
fn a_recovery_of_many_pages_has_no_gap_while_the_channel_goes_on() {
    let server = RedisServer::start(&[]);
    let mut node = patient(&server);
    let (filler, reader) = (node.attach(), node.attach());
    let top = fill(&node, filler, "room", 100, 3_000);
    let since = StreamPosition { offset: 10, epoch: top.epoch };
    let read = JoinRead::Since { since, limit: 1_000, bytes_max: None, meta_ttl_ms: 600_000 };
    let (id, channel) = (RequestId::new(9_999), "room".into());
    node.submit(reader, PublicationsRequest::Subscribe { id, channel, read });
    fill(&node, filler, "room", 100, 3_000);
    let (mut live, mut recovered) = (Vec::new(), None);
    while recovered.is_none() || live.last() != Some(&200) {
        match node.inbox(reader).wait(PATIENCE).expect("an event").1 {
            BrokerEvent::Publication { publication, .. } => live.push(publication.offset),
            BrokerEvent::Reply(BrokerReply::Subscribed(_, Ok(stream))) => {
                let top = stream.top.offset;
                let offsets = stream.publications.iter().map(|one| one.offset);
                assert!(offsets.eq(11..=top));
                // Earlier publications are covered by the reply, later ones follow it.
                assert!(live.iter().all(|offset| *offset <= top), "{live:?} before {top}");
                live.clear();
                live.push(top);
                recovered = Some(top);
            }
            event => panic!("{event:?}"),
        }
    }
    let first = recovered.unwrap();
    assert!(live.into_iter().eq(first..=200));
}

#[test]
fn a_publication_larger_than_every_bound_is_read() {
    let server = RedisServer::start(&[]);
    let mut node = patient(&server);
    let (filler, reader) = (node.attach(), node.attach());
    fill(&node, filler, "huge", 3, 5 << 20);
    for reverse in [false, true] {
        let query = HistoryQuery { reverse, ..HistoryQuery::default() };
        let (channel, meta_ttl_ms) = ("huge".into(), 600_000);
        let ask = |id| PublicationsRequest::History { id, channel, query, meta_ttl_ms };
        let Ok(history) = node.ask(reader, ask) else { panic!("no history") };
        let mut offsets: Vec<u64> = history.publications.iter().map(|one| one.offset).collect();
        if reverse {
            offsets.reverse();
        }
        assert_eq!(offsets, [1, 2, 3]);
    }
}

#[test]
fn redis_sends_little_more_than_the_byte_limit_of_a_read() {
    let server = RedisServer::start(&[]);
    let mut node = Node::start(settings(&at(&server)));
    let endpoint = node.attach();
    fill(&node, endpoint, "room", 300, 60_000);
    let sent = || {
        let stats = server.ask(&["INFO", "stats"]);
        let mut lines = stats.text().lines();
        let line = lines.find_map(|line| line.strip_prefix("total_net_output_bytes:"));
        line.unwrap().parse::<usize>().unwrap()
    };
    for bytes_max in [50_000, 600_000, 3_000_000] {
        let before = sent();
        let query = HistoryQuery { bytes_max: Some(bytes_max), ..HistoryQuery::default() };
        let (channel, meta_ttl_ms) = ("room".into(), 600_000);
        let read = node.ask(endpoint, |id| PublicationsRequest::History {
            id,
            channel,
            query,
            meta_ttl_ms,
        });
        let Ok(history) = read else { panic!("{read:?}") };
        let weight = history.publications[0].weight();
        assert_eq!(history.publications.len(), (bytes_max / weight).max(1));
        let cost = sent() - before;
        // The publication that did not fit, and other traffic of the node.
        assert!(cost < bytes_max + 100_000, "{cost} bytes for {bytes_max}");
    }
}

#[test]
fn a_long_list_of_clients_is_complete() {
    let server = RedisServer::start(&[]);
    let mut node = patient(&server);
    let endpoint = node.attach();
    let channel: Arc<str> = "room".into();
    for number in 0..3_000 {
        let (client, user) = (format!("client-{number}"), format!("user-{}", number % 7));
        let conn_info = vec![b'1'; 200].into();
        let info = Arc::new(ClientInfo { client, user, conn_info, ..ClientInfo::default() });
        let channel = channel.clone();
        let enter = PresenceRequest::Add { channel, info, announces: false };
        node.submit(endpoint, enter);
    }
    let ask = |id| PresenceRequest::Clients { id, channel: channel.clone() };
    let Ok(mut clients) = node.ask(endpoint, ask) else { panic!("no list") };
    clients.sort_by(|one, other| one.client.cmp(&other.client));
    clients.dedup_by(|one, other| one.client == other.client);
    assert_eq!(clients.len(), 3_000);
}
