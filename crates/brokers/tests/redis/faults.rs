//! Faults of a server as endpoints see them: an error at once or within the timeout, and, when the
//! server is back, the positions of all channels within a second.

use std::sync::Arc;
use std::time::{Duration, Instant};

use brokers::{Broker as _, Health};
use engine::broker::{
    BrokerError, BrokerEvent, BrokerReply, HistoryQuery, JoinRead, PresenceRequest,
    PublicationsRequest, PublishOptions, RequestId,
};
use wire::protocol::{ClientInfo, PresenceStats, Publication};

use crate::server::{PATIENCE, RedisServer, wait_until};
use crate::world::{Node, at, publish, settings};

const SECOND: Duration = Duration::from_secs(1);

fn ann() -> Arc<ClientInfo> {
    Arc::new(ClientInfo { user: "ann".into(), client: "1".into(), ..ClientInfo::default() })
}

fn stats(node: &Node, endpoint: brokers::Endpoint, channel: &str) -> PresenceStats {
    let channel = channel.into();
    match node.ask(endpoint, |id| PresenceRequest::Stats { id, channel }) {
        Ok(stats) => stats,
        other => panic!("presence stats answered {other:?}"),
    }
}

#[test]
fn two_nodes_receive_in_one_order_and_share_presence() {
    let server = RedisServer::start(&[]);
    let (mut one, mut two) =
        (Node::start(settings(&at(&server))), Node::start(settings(&at(&server))));
    let (here, there) = (one.attach(), two.attach());
    one.subscribe(here, "room").unwrap();
    two.subscribe(there, "room").unwrap();
    for index in 0..1000u64 {
        let (node, endpoint) = if index % 2 == 0 { (&one, here) } else { (&two, there) };
        node.submit(endpoint, publish(RequestId::new(index), "room", &index.to_string()));
    }
    let received: Vec<String> = (0..1000).map(|_| one.wait_data(here)).collect();
    assert_eq!(received, (0..1000).map(|_| two.wait_data(there)).collect::<Vec<_>>());
    one.submit(here, PresenceRequest::Add { channel: "room".into(), info: ann(), announces: true });
    assert_eq!(stats(&one, here, "room").num_clients, 1);
    assert_eq!(stats(&two, there, "room"), PresenceStats { num_clients: 1, num_users: 1 });
    one.broker.detach(here);
    wait_until("no client is left", || stats(&two, there, "room") == PresenceStats::default());
}

#[test]
fn clients_that_stay_are_renewed_and_stay_present() {
    let server = RedisServer::start(&[]);
    let presence_ttl = SECOND;
    let settings = brokers::redis::RedisSettings { presence_ttl, ..settings(&at(&server)) };
    let mut node = Node::start(settings);
    let endpoint = node.attach();
    let (channel, info) = ("room".into(), ann());
    node.submit(endpoint, PresenceRequest::Add { channel, info, announces: true });
    assert_eq!(stats(&node, endpoint, "room").num_clients, 1);
    let keys = server.ask(&["KEYS", "*ends:room"]);
    let key = keys.list()[0].text();
    let end = || server.ask(&["ZSCORE", key, "1"]).text().parse::<u64>().unwrap();
    let entered = end();
    wait_until("two renewals", || end() > entered + 600);
    assert_eq!(stats(&node, endpoint, "room").num_clients, 1);
    assert_eq!(node.broker.take_warning(), None);
}

#[test]
fn a_restart_with_data_ends_the_epoch_within_a_second_and_keeps_the_history() {
    let mut server = RedisServer::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let mut node = Node::start(settings(&at(&server)));
    let endpoint = node.attach();
    node.subscribe(endpoint, "room").unwrap();
    let before = node.publish("room", "a").unwrap();
    server.kill();
    node.wait_unready("Redis at 127.0.0.1");
    let asked = Instant::now();
    assert_eq!(node.publish("room", "b"), Err(BrokerError::Unavailable));
    assert!(asked.elapsed() < SECOND);
    server.restart();
    let returned = Instant::now();
    let (reported, top) = node.wait_position(endpoint);
    assert!(reported - returned < SECOND, "{:?}", reported - returned);
    // The last publications before the restart may not have reached the disk.
    assert_ne!(top.epoch, before.epoch);
    assert_eq!(top.offset, before.offset);
    node.wait_ready();
    assert_eq!(node.publish("room", "c").unwrap().offset, 2);
    assert_eq!(node.wait_data(endpoint), "c");
}

#[test]
fn a_restart_without_data_begins_new_epochs_and_restores_presence() {
    let mut server = RedisServer::start(&[]);
    let mut node = Node::start(settings(&at(&server)));
    let endpoint = node.attach();
    node.subscribe(endpoint, "room").unwrap();
    let before = node.publish("room", "a").unwrap();
    let (channel, info) = ("room".into(), ann());
    node.submit(endpoint, PresenceRequest::Add { channel, info, announces: true });
    assert_eq!(stats(&node, endpoint, "room").num_clients, 1);
    server.kill();
    node.wait_unready("Redis at 127.0.0.1");
    server.restart();
    let returned = Instant::now();
    let (reported, top) = node.wait_position(endpoint);
    assert!(reported - returned < SECOND, "{:?}", reported - returned);
    assert_ne!(top.epoch, before.epoch);
    assert_eq!(top.offset, 0);
    wait_until("presence is back", || stats(&node, endpoint, "room").num_clients == 1);
}

#[test]
fn a_client_that_left_while_redis_was_away_is_gone_when_it_is_back() {
    let mut server = RedisServer::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let mut node = Node::start(settings(&at(&server)));
    let endpoint = node.attach();
    let channel: Arc<str> = "room".into();
    let info = ann();
    let entered =
        PresenceRequest::Add { channel: channel.clone(), info: info.clone(), announces: true };
    node.submit(endpoint, entered);
    assert_eq!(stats(&node, endpoint, "room").num_clients, 1);
    server.kill();
    node.wait_unready("Redis at 127.0.0.1");
    node.submit(endpoint, PresenceRequest::Remove { channel, client: info });
    server.restart();
    node.wait_ready();
    assert_eq!(stats(&node, endpoint, "room"), PresenceStats::default());
}

#[test]
fn a_killed_connection_is_replaced_and_positions_are_reported() {
    let server = RedisServer::start(&[]);
    let mut node = Node::start(settings(&at(&server)));
    let other = Node::start(settings(&at(&server)));
    let endpoint = node.attach();
    let before = node.subscribe(endpoint, "room").unwrap();
    // All subscribers, including the other node's connection.
    server.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    let killed = Instant::now();
    let (reported, top) = node.wait_position(endpoint);
    assert!(reported - killed < SECOND, "{:?}", reported - killed);
    assert_eq!(top, before.top, "no publication was missed");
    // The other node's connection was killed as well, and it may not have noticed yet.
    wait_until("the other node publishes", || other.publish("room", "a").is_ok());
    assert_eq!(node.wait_data(endpoint), "a");
}

#[test]
fn a_stopped_server_fails_requests_in_time_and_resumes_in_order() {
    let server = RedisServer::start(&[]);
    let settings = brokers::redis::RedisSettings {
        io_timeout: Duration::from_millis(400),
        ..settings(&at(&server))
    };
    let mut node = Node::start(settings);
    let endpoint = node.attach();
    node.subscribe(endpoint, "room").unwrap();
    server.signal("STOP");
    let asked = Instant::now();
    assert_eq!(node.publish("room", "a"), Err(BrokerError::Unavailable));
    assert!(asked.elapsed() < SECOND, "{:?}", asked.elapsed());
    node.wait_unready("does not answer");
    let asked = Instant::now();
    assert_eq!(node.publish("room", "b"), Err(BrokerError::Unavailable));
    assert!(asked.elapsed() < Duration::from_millis(100), "at once: {:?}", asked.elapsed());
    // Longer than the broker waits before it reconnects.
    node.wait_unready("engine.redis");
    wait_until("the connection is closed", || asked.elapsed() > Duration::from_millis(1500));
    server.signal("CONT");
    let returned = Instant::now();
    let (reported, _) = node.wait_position(endpoint);
    assert!(reported - returned < SECOND, "{:?}", reported - returned);
    node.wait_ready();
    node.publish("room", "c").unwrap();
    // A request sent before the silence was detected may have been executed once; later requests
    // were not sent.
    let (channel, query) = ("room".into(), HistoryQuery::default());
    let history = |id| PublicationsRequest::History { id, channel, query, meta_ttl_ms: 1000 };
    let Ok(history) = node.ask(endpoint, history) else { panic!("no history") };
    let kept: Vec<&[u8]> = history.publications.iter().map(|kept| &*kept.data).collect();
    assert!(kept == [&b"c"[..]] || kept == [&b"a"[..], b"c"], "{kept:?}");
}

#[test]
fn a_short_stop_costs_no_connection() {
    let server = RedisServer::start(&[]);
    let mut node = Node::start(settings(&at(&server)));
    let endpoint = node.attach();
    node.subscribe(endpoint, "room").unwrap();
    let id = |server: &RedisServer| {
        let list = server.ask(&["CLIENT", "LIST", "TYPE", "pubsub"]);
        list.text().split(' ').next().map(str::to_owned)
    };
    let before = id(&server);
    server.signal("STOP");
    node.wait_unready("does not answer");
    server.signal("CONT");
    node.wait_ready();
    assert_eq!(id(&server), before);
    node.publish("room", "a").unwrap();
    assert_eq!(node.wait_data(endpoint), "a");
}

#[test]
fn flushed_scripts_are_loaded_again_in_order() {
    let server = RedisServer::start(&[]);
    let mut node = Node::start(settings(&at(&server)));
    let endpoint = node.attach();
    node.subscribe(endpoint, "room").unwrap();
    server.ask(&["SCRIPT", "FLUSH"]);
    for index in 0..100u64 {
        node.submit(endpoint, publish(RequestId::new(index), "room", &index.to_string()));
    }
    let received: Vec<String> = (0..100).map(|_| node.wait_data(endpoint)).collect();
    assert_eq!(received, (0..100).map(|index| index.to_string()).collect::<Vec<_>>());
}

#[test]
fn an_idle_server_without_scripts_keeps_its_connection() {
    let server = RedisServer::start(&[]);
    let node = Node::start(settings(&at(&server)));
    let connection = || {
        let all = server.ask(&["CLIENT", "LIST"]);
        let line = all.text().lines().find(|line| line.contains("flags=P")).map(str::to_owned);
        line.and_then(|line| line.split(' ').next().map(str::to_owned))
    };
    let before = connection().expect("the node's");
    let scripts =
        || server.ask(&["INFO", "memory"]).text().contains("number_of_cached_scripts:0\r");
    server.ask(&["SCRIPT", "FLUSH"]);
    wait_until("they are loaded again", || !scripts());
    // An unanswered probe would have closed the connection by then.
    let until = Instant::now() + 3 * SECOND;
    while Instant::now() < until {
        assert_eq!(connection().as_ref(), Some(&before));
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(node.broker.health(), Health::Ready);
}

#[test]
fn a_subscriber_whose_output_buffer_overflows_receives_the_position() {
    let limits = ["--client-output-buffer-limit", "pubsub", "100kb", "100kb", "1"];
    let server = RedisServer::start(&limits);
    let mut node = Node::start(settings(&at(&server)));
    let endpoint = node.attach();
    node.subscribe(endpoint, "room").unwrap();
    let name = server.ask(&["PUBSUB", "CHANNELS", "*c:room"]);
    let name = name.list()[0].text().to_owned();
    let script = "for i = 1, 100 do redis.call('PUBLISH', ARGV[1], string.rep('x', 100000)) end";
    server.ask(&["EVAL", script, "0", &name]);
    node.wait_position(endpoint);
    let warning = node.broker.take_warning();
    assert!(warning.is_some_and(|text| text.contains("client-output-buffer-limit")));
    node.wait_ready();
    node.publish("room", "a").unwrap();
    assert_eq!(node.wait_data(endpoint), "a");
}

#[test]
fn requests_without_a_connection_are_answered_and_subscribed_later() {
    let server = RedisServer::start(&[]);
    let address = at(&server);
    drop(server);
    let mut node = Node::start_anyhow(settings(&address));
    let endpoint = node.attach();
    assert_eq!(node.subscribe(endpoint, "room"), Err(BrokerError::Unavailable));
    let channel: Arc<str> = "plain".into();
    let read = JoinRead::Nothing;
    let asked = node.ask(endpoint, |id| PublicationsRequest::Subscribe { id, channel, read });
    assert_eq!(asked, Err(BrokerError::Unavailable));
    assert!(node.wait_unready("cannot be reached").contains("engine.redis.address"));
    let port = address[0].rsplit_once(':').unwrap().1.parse().unwrap();
    let _server = RedisServer::start_program("redis-server", port, &[]);
    node.wait_ready();
    let publication = Publication { data: "b".into(), ..Publication::default() };
    let (channel, options) = ("plain".into(), PublishOptions::default());
    let publisher = node.attach();
    let asked = node.ask(publisher, |id| PublicationsRequest::Publish {
        id,
        channel,
        publication,
        options,
    });
    assert!(asked.is_ok(), "{asked:?}");
    node.publish("room", "a").unwrap();
    assert_eq!([node.wait_data(endpoint), node.wait_data(endpoint)], ["b", "a"]);
}

#[test]
fn many_concurrent_recoveries_read_a_stream_once() {
    let server = RedisServer::start(&[]);
    let mut node = Node::start(settings(&at(&server)));
    let before = node.publish("room", "a").unwrap();
    node.publish("room", "b").unwrap();
    let endpoints: Vec<_> = (0..500).map(|_| node.attach()).collect();
    let calls = || {
        let stats = server.ask(&["INFO", "commandstats"]);
        let line = stats.text().lines().find(|line| line.starts_with("cmdstat_evalsha:")).unwrap();
        let calls = line.split("calls=").nth(1).unwrap().split(',').next().unwrap();
        calls.parse::<u32>().unwrap()
    };
    let first = calls();
    for endpoint in &endpoints {
        let read = JoinRead::Since {
            since: before.clone(),
            limit: 10,
            bytes_max: None,
            meta_ttl_ms: 60_000,
        };
        let (id, channel) = (RequestId::new(1), "room".into());
        node.submit(*endpoint, PublicationsRequest::Subscribe { id, channel, read });
    }
    node.publish("room", "c").unwrap();
    for endpoint in &endpoints {
        let mut seen = Vec::new();
        while seen.len() < 2 {
            match node.inbox(*endpoint).wait(PATIENCE).expect("every request gets a reply").1 {
                BrokerEvent::Reply(BrokerReply::Subscribed(_, Ok(stream))) => {
                    seen.extend(stream.publications.iter().map(|one| one.data.clone()));
                }
                BrokerEvent::Publication { publication, .. } => seen.push(publication.data.clone()),
                event => panic!("{event:?}"),
            }
        }
        assert_eq!(seen, ["b", "c"]);
    }
    let reads = calls() - first;
    assert!(reads < 100, "{reads} scripts for {} readers", endpoints.len());
}

#[test]
fn no_keys_are_left_without_clients() {
    let server = RedisServer::start(&[]);
    let mut node = Node::start(settings(&at(&server)));
    let endpoint = node.attach();
    for index in 0..50 {
        let channel = format!("room-{index}");
        node.subscribe(endpoint, &channel).unwrap();
        let channel = channel.into();
        node.submit(endpoint, PresenceRequest::Add { channel, info: ann(), announces: true });
    }
    node.broker.detach(endpoint);
    let other = node.attach();
    wait_until("no client is left", || {
        (0..50).all(|index| stats(&node, other, &format!("room-{index}")).num_clients == 0)
    });
    let channels = server.ask(&["PUBSUB", "CHANNELS", "*c:room-*"]);
    assert_eq!(channels.list(), []);
    for key in server.ask(&["KEYS", "*"]).list() {
        let key = key.text();
        // The layout key and the node's registration.
        let is_of_node = ["layout", "nodes", "names"].iter().any(|name| key.ends_with(name));
        assert!(is_of_node || key.contains("meta:"), "{key} is left");
        let left = server.ask(&["PTTL", key]).number();
        assert!(left > 0, "{key} has no end");
        assert!(is_of_node || left <= 600_000, "{key} is kept for {left} ms");
    }
}

#[test]
fn requests_submitted_before_the_end_are_executed() {
    let server = RedisServer::start(&[]);
    let mut node = Node::start(settings(&at(&server)));
    let mut other = Node::start(settings(&at(&server)));
    let (endpoint, watcher) = (node.attach(), other.attach());
    node.submit(
        endpoint,
        PresenceRequest::Add { channel: "room".into(), info: ann(), announces: true },
    );
    assert_eq!(stats(&node, endpoint, "room").num_clients, 1);
    node.broker.detach(endpoint);
    drop(node);
    assert_eq!(stats(&other, watcher, "room"), PresenceStats::default());
}

#[test]
fn a_foreign_key_fails_only_the_requests_that_need_it() {
    let server = RedisServer::start(&[]);
    let node = Node::start(settings(&at(&server)));
    node.publish("room", "a").unwrap();
    let keys = server.ask(&["KEYS", "*stream:room"]);
    let key = keys.list()[0].text();
    server.ask(&["DEL", key]);
    server.ask(&["SET", key, "x"]);
    assert_eq!(node.publish("room", "b"), Err(BrokerError::Unavailable));
    assert!(node.broker.take_warning().unwrap().contains("WRONGTYPE"));
    assert_eq!(server.ask(&["GET", key]).text(), "x");
    node.publish("other", "c").unwrap();
    node.wait_ready();
}
