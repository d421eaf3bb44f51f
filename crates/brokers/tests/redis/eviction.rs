//! A Redis that evicts keys when its memory is full: each key may be evicted alone, and node
//! registrations and presence are repaired.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use brokers::redis::RedisSettings;
use brokers::{Broker as _, Endpoint};
use bytes::Bytes;
use engine::broker::{
    BrokerEvent, Control, NodeBusRequest, Order, PresenceRequest, RegistryRequest, Survey, Target,
};
use engine::lifecycle::{Change, Lifecycle};
use engine::revocation::{Revocation, RevocationState, RevokeOutcome, Subject};
use wire::protocol::{ClientInfo, DisconnectCode, PresenceStats};

use crate::proxy::ClosableProxy;
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

/// The key with this suffix, if it exists.
fn key(server: &RedisServer, end: &str) -> Option<String> {
    let keys = server.ask(&["KEYS", &format!("*{end}")]);
    keys.list().first().map(|key| key.text().to_owned())
}

fn size(server: &RedisServer, end: &str) -> i64 {
    key(server, end).map_or(0, |key| server.ask(&["HLEN", &key]).number())
}

#[test]
fn evicted_clients_of_a_node_are_sent_again_and_counts_are_right() {
    let server = RedisServer::start(&[]);
    let settings = settings(&at(&server));
    let (online, owners) =
        (format!("online:{}", settings.node), format!("owners:{}", settings.node));
    let mut node = Node::start(settings);
    let endpoint = node.attach();
    let clients = [client("ann", "1"), client("ann", "2"), client("bob", "3")];
    clients.iter().for_each(|one| tell(&node, endpoint, one, Change::Online));
    // A field beside the clients marks them as complete.
    let is_whole = || size(&server, &online) == 4 && size(&server, &owners) == 3;
    wait_until("all are recorded", is_whole);
    let last = client("eve", "4");
    for dropped in [&[&online][..], &[&owners], &[&online, &owners]] {
        let names: Vec<String> = dropped.iter().filter_map(|end| key(&server, end)).collect();
        assert_eq!(names.len(), dropped.len());
        names.iter().for_each(|name| drop(server.ask(&["DEL", name])));
        // The first new client creates the keys again, alone at first.
        tell(&node, endpoint, &last, Change::Online);
        wait_until("all are recorded again", || {
            size(&server, &online) == 5 && size(&server, &owners) == 4
        });
        tell(&node, endpoint, &last, offline());
        wait_until("one client has left", is_whole);
        let warning = node.broker.take_warning();
        assert!(warning.is_some_and(|text| text.contains("evicted")), "{dropped:?}");
    }
    clients.iter().for_each(|one| tell(&node, endpoint, one, offline()));
    wait_until("no client is left", || size(&server, &online) == 0 && size(&server, &owners) == 0);
}

#[test]
fn evicted_presence_is_restored_by_the_next_renewal() {
    let server = RedisServer::start(&[]);
    let presence_ttl = Duration::from_secs(1);
    let mut node = Node::start(RedisSettings { presence_ttl, ..settings(&at(&server)) });
    let endpoint = node.attach();
    let channel: Arc<str> = "room".into();
    let clients: Vec<_> =
        (0..40).map(|number| client(&format!("{}", number % 4), &number.to_string())).collect();
    for info in &clients {
        let (channel, info) = (channel.clone(), info.clone());
        node.submit(endpoint, PresenceRequest::Add { channel, info, announces: false });
    }
    let stats =
        || match node.ask(endpoint, |id| PresenceRequest::Stats { id, channel: channel.clone() }) {
            Ok(stats) => stats,
            other => panic!("{other:?}"),
        };
    let all = PresenceStats { num_clients: 40, num_users: 4 };
    assert_eq!(stats(), all);
    let kinds = ["clients:room", "users:room", "ends:room"];
    for dropped in 1..8 {
        for (bit, kind) in kinds.iter().enumerate().filter(|(bit, _)| dropped & (1 << bit) != 0) {
            let name = key(&server, kind).unwrap_or_else(|| panic!("{bit}"));
            server.ask(&["DEL", &name]);
        }
        wait_until("all are counted again", || stats() == all);
    }
    for client in &clients {
        let (channel, client) = (channel.clone(), client.clone());
        node.submit(endpoint, PresenceRequest::Remove { channel, client });
    }
    assert_eq!(stats(), PresenceStats::default());
    for kind in kinds {
        assert_eq!(key(&server, kind), None, "nothing is left");
    }
}

#[test]
fn evicted_revocations_can_be_stored_again_and_none_expires_early() {
    let server = RedisServer::start(&[]);
    let mut node = Node::start(settings(&at(&server)));
    let endpoint = node.attach();
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    let revoked = |user: &str, seconds: i64| {
        let (subject, state) =
            (Subject::User(user.into()), RevocationState::Revoked { issued_before: 0 });
        Arc::new(Revocation { subject, state, ends_at: now_s + seconds, changed_at_ms: 7 })
    };
    let store = |change: &Arc<Revocation>| {
        let revocation = change.clone();
        let answer = node.ask(endpoint, |id| RegistryRequest::Revoke { id, revocation });
        assert_eq!(answer, Ok(RevokeOutcome::Stored), "{change:?}");
    };
    let (long, short) = (revoked("ann", 9_000), revoked("bob", 60));
    store(&long);
    for dropped in ["revocations", "revocation_ends"] {
        server.ask(&["DEL", &key(&server, dropped).unwrap()]);
        // A node that holds the revocation stores it again unchanged.
        store(&long);
        match node.ask(endpoint, |id| RegistryRequest::Read { id }) {
            Ok(kept) => {
                assert_eq!(kept, std::slice::from_ref(&long), "{dropped}");
            }
            other => panic!("{other:?}"),
        }
    }
    store(&short);
    let left = server.ask(&["TTL", &key(&server, "revocations").unwrap()]).number();
    assert!(left > 8_000, "{left} s: the longer one must not end with the shorter one");
}

#[test]
fn an_eviction_policy_is_a_warning_and_control_messages_go_to_all_nodes() {
    let server = RedisServer::start(&["--maxmemory-policy", "volatile-lru"]);
    let mut nodes: Vec<Node> = (0..2).map(|_| Node::start(settings(&at(&server)))).collect();
    let endpoints: Vec<Endpoint> = nodes.iter_mut().map(Node::attach).collect();
    for node in &nodes {
        let warning = node.broker.take_warning();
        assert!(warning.is_some_and(|text| text.contains("maxmemory-policy \"volatile-lru\"")));
    }
    // Redis records the user on one node; records of the other may have been evicted.
    tell(&nodes[0], endpoints[0], &client("ann", "1"), Change::Online);
    wait_until("the user is recorded", || key(&server, "events").is_some());
    let target = Target { user: "ann".into(), ..Target::default() };
    let order = Order::Disconnect(DisconnectCode::ForceDisconnect.into());
    let control = Arc::new(Control { target, order });
    nodes[0].submit(endpoints[0], NodeBusRequest::Control(control));
    for (node, endpoint) in nodes.iter().zip(&endpoints) {
        let (_, event) = node.inbox(*endpoint).wait(PATIENCE).expect("the control message arrives");
        assert!(matches!(event, BrokerEvent::Control(_)), "{event:?}");
    }
}

#[test]
fn evicted_nodes_are_still_surveyed_and_cleaned_up_after_their_end() {
    let server = RedisServer::start(&["--maxmemory-policy", "volatile-lru"]);
    let proxy = ClosableProxy::open(server.port);
    let asking_settings = settings(&at(&server));
    let id = asking_settings.node.clone();
    let mut asking = Node::start(asking_settings);
    let endpoint = asking.attach();
    let address = vec![format!("redis://127.0.0.1:{}", proxy.port)];
    let mut other = Node::start(settings(&address));
    let other_endpoint = other.attach();
    tell(&other, other_endpoint, &client("ann", "1"), Change::Online);
    wait_until("the user is recorded", || key(&server, "events").is_some());
    let nodes = key(&server, ":nodes").unwrap();
    let lease = || server.ask(&["ZSCORE", &nodes, &id]).text().to_owned();
    let before = lease();
    wait_until("it has renewed its lease, and lists the other node", || lease() != before);
    server.ask(&["DEL", &nodes]);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (_, event) = other.inbox(other_endpoint).wait(PATIENCE).expect("a question");
            let BrokerEvent::Question { ticket, .. } = event else { panic!("{event:?}") };
            let answer = "here".into();
            other.submit(other_endpoint, NodeBusRequest::Answer { ticket, answer });
        });
        let question = Bytes::from_static(b"who?");
        let result = asking.ask(endpoint, |id| NodeBusRequest::Survey { id, question });
        let expected = Survey { answers: vec!["here".into()], missing: 0 };
        assert_eq!(result, Ok(expected));
    });
    // The node ends without cleanup, and Redis evicts its lease.
    proxy.close();
    server.ask(&["DEL", &nodes]);
    let events = key(&server, "events").unwrap();
    wait_until("its client is reported offline", || {
        let all = format!("{:?}", server.ask(&["XRANGE", &events, "-", "+"]));
        all.contains("node lost")
    });
}
