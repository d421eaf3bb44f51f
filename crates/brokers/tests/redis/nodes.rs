//! Registered nodes: lifecycle events, routing of control messages, surveys and cleanup.

use std::sync::Arc;

use brokers::{Broker as _, Endpoint};
use bytes::Bytes;
use engine::broker::{
    BrokerEvent, Control, NodeBusRequest, Order, PresenceRequest, Survey, Target,
};
use engine::channel::LIFECYCLE;
use engine::lifecycle::{Change, Lifecycle};
use wire::protocol::{ClientInfo, DisconnectCode};

use crate::server::{PATIENCE, RedisServer, wait_until};
use crate::world::{Node, at, settings};

fn client(user: &str, client: &str) -> Arc<ClientInfo> {
    Arc::new(ClientInfo { user: user.into(), client: client.into(), ..ClientInfo::default() })
}

fn tell(node: &Node, endpoint: Endpoint, info: &Arc<ClientInfo>, change: Change) {
    let lifecycle = Lifecycle { info: info.clone(), change, at_ms: 7 };
    node.submit(endpoint, NodeBusRequest::Lifecycle(lifecycle));
}

fn offline() -> Change {
    Change::Offline { reason: "gone".into() }
}

/// The stream that backends read: event, client and reason.
fn events(server: &RedisServer) -> Vec<(String, String, String)> {
    let keys = server.ask(&["KEYS", "*:events"]);
    let Some(key) = keys.list().first() else { return Vec::new() };
    let entries = server.ask(&["XRANGE", key.text(), "-", "+"]);
    let read = |entry: &crate::server::Answer| {
        let fields = entry.list()[1].list();
        assert_eq!(fields[0].text(), "event");
        let event: serde_json::Value = serde_json::from_str(fields[1].text()).unwrap();
        let text = |name: &str| event[name].as_str().unwrap().to_owned();
        (text("event"), text("client_id"), text("reason"))
    };
    entries.list().iter().map(read).collect()
}

fn event(event: &str, client: &str, reason: &str) -> (String, String, String) {
    (event.to_owned(), client.to_owned(), reason.to_owned())
}

#[test]
fn a_node_that_ends_takes_its_clients_with_it() {
    let server = RedisServer::start(&[]);
    let mut node = Node::start(settings(&at(&server)));
    let endpoint = node.attach();
    for number in 0..450 {
        tell(&node, endpoint, &client("ann", &number.to_string()), Change::Online);
    }
    tell(&node, endpoint, &client("ann", "7"), offline());
    wait_until("all events are stored", || events(&server).len() == 451);
    drop(node);
    let reported = events(&server);
    let of_7: Vec<_> = reported.iter().filter(|(_, client, _)| client == "7").cloned().collect();
    assert_eq!(of_7, [event("online", "7", ""), event("offline", "7", "gone")]);
    let last = reported.iter().filter(|(event, ..)| event == "offline").count();
    assert_eq!(last, 450, "each client goes offline once");
    for key in ["*:nodes", "*:online:*", "*:owners:*", "*:names", "*:claims"] {
        assert_eq!(server.ask(&["KEYS", key]).list(), [], "{key}");
    }
}

#[test]
fn after_a_restart_without_data_online_clients_are_sent_again() {
    let mut server = RedisServer::start(&[]);
    let mut node = Node::start(settings(&at(&server)));
    let endpoint = node.attach();
    tell(&node, endpoint, &client("ann", "stays"), Change::Online);
    tell(&node, endpoint, &client("bob", "leaves"), Change::Online);
    wait_until("both events are stored", || events(&server).len() == 2);
    server.kill();
    node.wait_unready("Redis at 127.0.0.1");
    tell(&node, endpoint, &client("bob", "leaves"), offline());
    tell(&node, endpoint, &client("eve", "comes"), Change::Online);
    server.restart();
    wait_until("online clients are announced", || events(&server).len() == 2);
    node.wait_ready();
    let mut reported = events(&server);
    reported.sort();
    assert_eq!(reported, [event("online", "comes", ""), event("online", "stays", "")]);
}

#[test]
fn events_during_an_outage_of_redis_are_sent_afterwards() {
    let mut server = RedisServer::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let mut node = Node::start(settings(&at(&server)));
    let endpoint = node.attach();
    tell(&node, endpoint, &client("ann", "1"), Change::Online);
    wait_until("the event is stored", || events(&server).len() == 1);
    server.kill();
    node.wait_unready("Redis at 127.0.0.1");
    tell(&node, endpoint, &client("ann", "1"), offline());
    tell(&node, endpoint, &client("ann", "2"), Change::Online);
    server.restart();
    let expected =
        [event("online", "1", ""), event("offline", "1", "gone"), event("online", "2", "")];
    wait_until("the remaining events are stored once", || events(&server) == expected);
}

#[test]
fn a_control_message_goes_to_the_node_that_has_the_client() {
    let server = RedisServer::start(&[]);
    let mut nodes: Vec<Node> = (0..3).map(|_| Node::start(settings(&at(&server)))).collect();
    let endpoints: Vec<Endpoint> = nodes.iter_mut().map(Node::attach).collect();
    tell(&nodes[0], endpoints[0], &client("ann", "1"), Change::Online);
    tell(&nodes[1], endpoints[1], &client("bob", "2"), Change::Online);
    wait_until("both events are stored", || events(&server).len() == 2);
    let order = |user: &str, client: &str| {
        let target = Target { user: user.into(), client: client.into(), ..Target::default() };
        let order = Order::Disconnect(DisconnectCode::ForceDisconnect.into());
        nodes[2].submit(endpoints[2], NodeBusRequest::Control(Arc::new(Control { target, order })));
    };
    let received = |index: usize| loop {
        let (_, event) =
            nodes[index].inbox(endpoints[index]).wait(PATIENCE).expect("a control message arrives");
        if let BrokerEvent::Control(control) = event {
            return (control.target.user.clone(), control.target.client.clone());
        }
    };
    order("ann", "");
    order("bob", "2");
    // The user is not recorded: the message goes to all nodes.
    order("eve", "");
    let named = |user: &str, client: &str| (user.to_owned(), client.to_owned());
    assert_eq!([received(0), received(0)], [named("ann", ""), named("eve", "")]);
    assert_eq!([received(1), received(1)], [named("bob", "2"), named("eve", "")]);
    assert_eq!(received(2), named("eve", ""));
}

#[test]
fn every_other_node_answers_a_survey() {
    let server = RedisServer::start(&[]);
    let mut nodes: Vec<Node> = (0..3).map(|_| Node::start(settings(&at(&server)))).collect();
    let endpoints: Vec<Endpoint> = nodes.iter_mut().map(Node::attach).collect();
    std::thread::scope(|scope| {
        for (index, answer) in [(1, "one"), (2, "two")] {
            let (node, endpoint) = (&nodes[index], endpoints[index]);
            scope.spawn(move || {
                let (_, event) = node.inbox(endpoint).wait(PATIENCE).expect("a question arrives");
                let BrokerEvent::Question { ticket, question } = event else { panic!("{event:?}") };
                assert_eq!(question, "who?");
                node.submit(endpoint, NodeBusRequest::Answer { ticket, answer: answer.into() });
            });
        }
        let question = Bytes::from_static(b"who?");
        let result = nodes[0].ask(endpoints[0], |id| NodeBusRequest::Survey { id, question });
        let Ok(Survey { mut answers, missing: 0 }) = result else { panic!("{result:?}") };
        answers.sort();
        assert_eq!(answers, ["one", "two"]);
    });
    let question = Bytes::from_static(b"who?");
    let result = nodes[0].ask(endpoints[0], |id| NodeBusRequest::Survey { id, question });
    let silent = Survey { answers: Vec::new(), missing: 2 };
    assert_eq!(result, Ok(silent), "no node has answered");
}

#[test]
fn a_failed_node_is_cleaned_up_by_one_other() {
    let server = RedisServer::start(&[]);
    let mut watcher = Node::start(settings(&at(&server)));
    let mut other = Node::start(settings(&at(&server)));
    let (endpoint, second) = (watcher.attach(), other.attach());
    let channel: Arc<str> = LIFECYCLE.into();
    watcher.subscribe(endpoint, &channel).unwrap();
    watcher.subscribe(endpoint, "room").unwrap();
    // A node behind a proxy of its own, which is closed later.
    let proxy = crate::proxy::ClosableProxy::open(server.port);
    let address = vec![format!("redis://127.0.0.1:{}", proxy.port)];
    let mut lost = Node::start(settings(&address));
    let lost_endpoint = lost.attach();
    // More clients than one step scans, so that steps over emptied pages occur.
    for number in 0..5_000 {
        let info = client("ann", &number.to_string());
        tell(&lost, lost_endpoint, &info, Change::Online);
        if number < 300 {
            let room = if number < 250 { "room".to_owned() } else { format!("room-{number}") };
            let (channel, announces) = (room.into(), number == 0);
            lost.submit(lost_endpoint, PresenceRequest::Add { channel, info, announces });
        }
    }
    wait_until("all events are stored", || events(&server).len() == 5_000);
    proxy.close();
    let (mut gone, mut left) = (0, Vec::new());
    while gone < 5_000 {
        let (_, event) =
            watcher.inbox(endpoint).wait(PATIENCE).expect("every offline event arrives");
        match event {
            BrokerEvent::Publication { publication, .. } => {
                let event: serde_json::Value = serde_json::from_slice(&publication.data).unwrap();
                gone += usize::from(event["event"] == "offline" && event["reason"] == "node lost");
            }
            BrokerEvent::Membership { info, .. } => left.push(info.client.clone()),
            _ => {}
        }
    }
    assert_eq!(left, ["0"], "only announced clients are announced to leave");
    let count = events(&server).iter().filter(|(event, ..)| event == "offline").count();
    assert_eq!(count, 5_000, "each client goes offline once");
    wait_until("the node is removed", || {
        server.ask(&["KEYS", "*:online:*"]).list().is_empty()
            && server.ask(&["KEYS", "*:ends:*"]).list().is_empty()
    });
    // The node is alive after all.
    proxy.reopen();
    wait_until("its clients are back", || events(&server).len() == 15_000);
    let stats = |channel: &str| {
        let channel = channel.into();
        match other.ask(second, |id| PresenceRequest::Stats { id, channel }) {
            Ok(stats) => stats.num_clients,
            answer => panic!("{answer:?}"),
        }
    };
    wait_until("they are present", || stats("room") == 250 && stats("room-299") == 1);
}

/// The registry key with this suffix.
fn key(server: &RedisServer, end: &str) -> String {
    let keys = server.ask(&["KEYS", &format!("*{end}")]);
    assert_eq!(keys.list().len(), 1, "{end}: {keys:?}");
    keys.list()[0].text().to_owned()
}

#[test]
fn a_node_wrongly_cleaned_up_announces_its_clients_again() {
    let server = RedisServer::start(&[]);
    let settings = settings(&at(&server));
    let id = settings.node.clone();
    let mut node = Node::start(settings);
    let endpoint = node.attach();
    let info = client("ann", "1");
    tell(&node, endpoint, &info, Change::Online);
    let channel: Arc<str> = "room".into();
    let entered = PresenceRequest::Add { channel: channel.clone(), info, announces: false };
    node.submit(endpoint, entered);
    let stats =
        || match node.ask(endpoint, |id| PresenceRequest::Stats { id, channel: channel.clone() }) {
            Ok(stats) => stats.num_clients,
            answer => panic!("{answer:?}"),
        };
    wait_until("the event is stored", || events(&server).len() == 1);
    wait_until("it is present", || stats() == 1);
    // The state after a cleanup by another node that found this node alive.
    server.ask(&["HDEL", &key(&server, &format!("online:{id}")), "1"]);
    server.ask(&["DEL", &key(&server, "clients:room")]);
    let claims = key(&server, "nodes").replace("nodes", "claims");
    server.ask(&["HSET", &claims, &id, "99999999999999"]);
    wait_until("it is announced again", || events(&server).len() == 2);
    wait_until("it is present again", || stats() == 1);
    assert_eq!(server.ask(&["HLEN", &claims]).number(), 0);
}

#[test]
fn no_node_is_cleaned_up_when_all_leases_expire_at_once() {
    let server = RedisServer::start(&[]);
    let mut nodes: Vec<Node> = (0..3).map(|_| Node::start(settings(&at(&server)))).collect();
    let endpoints: Vec<Endpoint> = nodes.iter_mut().map(Node::attach).collect();
    for (index, (node, endpoint)) in nodes.iter().zip(&endpoints).enumerate() {
        tell(node, *endpoint, &client("ann", &index.to_string()), Change::Online);
    }
    wait_until("all events are stored", || events(&server).len() == 3);
    let registry = key(&server, "nodes");
    for _ in 0..20 {
        // The state after Redis accepted no writes for longer than a lease.
        let members = server.ask(&["ZRANGE", &registry, "0", "-1"]);
        let mut command = vec!["ZADD", &registry];
        members.list().iter().for_each(|member| command.extend(["1", member.text()]));
        server.ask(&command);
        let ends = || server.ask(&["ZCOUNT", &registry, "2", "+inf"]).number();
        wait_until("all have renewed", || ends() == 3);
    }
    assert!(events(&server).iter().all(|(event, ..)| event == "online"), "{:?}", events(&server));
}

#[test]
fn a_redis_that_refuses_writes_is_retried_at_a_bounded_rate() {
    let server = RedisServer::start(&[]);
    let mut node = Node::start(settings(&at(&server)));
    let endpoint = node.attach();
    let calls = || {
        let stats = server.ask(&["INFO", "commandstats"]);
        let line = stats.text().lines().find(|line| line.starts_with("cmdstat_evalsha:")).unwrap();
        let calls = line.split("calls=").nth(1).unwrap().split(',').next().unwrap();
        calls.parse::<u32>().unwrap()
    };
    server.ask(&["CONFIG", "SET", "maxmemory", "1"]);
    tell(&node, endpoint, &client("ann", "1"), Change::Online);
    wait_until("it is refused", || {
        node.broker.take_warning().is_some_and(|text| text.contains("OOM"))
    });
    let (before, began) = (calls(), std::time::Instant::now());
    wait_until("a second has passed", || began.elapsed().as_millis() > 1_000);
    assert!(calls() - before < 100, "{} commands in a second", calls() - before);
    server.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    wait_until("the event is stored", || events(&server) == [event("online", "1", "")]);
}

#[test]
fn two_nodes_of_one_name_are_a_warning() {
    let server = RedisServer::start(&[]);
    let mut twin = settings(&at(&server));
    let one = Node::start(settings(&at(&server)));
    twin.name = "same".to_owned();
    let first = Node::start(twin.clone());
    twin.node.push('x');
    let second = Node::start(twin);
    for node in [&first, &second] {
        wait_until("the other node of this name is detected", || {
            node.broker.take_warning().is_some_and(|text| text.contains("node.name"))
        });
    }
    assert_eq!(one.broker.take_warning(), None);
}
