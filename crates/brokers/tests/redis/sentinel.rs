//! Sentinels name the master: it is found at start, and again after a failover, also when the old
//! master stays alive and cannot be demoted.

use std::path::Path;
use std::time::{Duration, Instant};

use brokers::redis::RedisSettings;
use brokers::redis::settings::{Deployment, Login, ServerLocation};
use brokers::{Broker as _, Endpoint, Health};
use engine::broker::{PublicationsRequest, PublishOptions};
use wire::protocol::{Publication, StreamPosition};

use crate::checker::{Checker, Publisher};
use crate::groups::{Watched, links};
use crate::redirect::Redirect;
use crate::server::{PATIENCE, RedisServer, free_port, wait_until};
use crate::world::{Node, at, settings};

#[test]
fn a_master_that_is_killed_under_load_is_followed_to_the_next() {
    let mut watched = Watched::start();
    let mut checker = Checker::start(settings(&[watched.address("main")]), 50);
    let publisher = Publisher::start(settings(&[watched.address("main")]), 50);
    publisher.wait_more(500);
    watched.master.kill();
    watched.wait_taken_over();
    publisher.wait_more(500);
    publisher.stop();
    checker.listen(Duration::from_millis(500));
    assert!(checker.gaps >= 50, "all channels have new epochs");
    checker.assert_complete();
}

/// Two nodes under Sentinels, each with an endpoint subscribed to `room`, and the top of its
/// stream.
struct Two {
    nodes: Vec<Node>,
    endpoints: Vec<Endpoint>,
    top: StreamPosition,
}

impl Two {
    fn start(watched: &Watched) -> Two {
        let mut nodes: Vec<Node> =
            (0..2).map(|_| Node::start(settings(&[watched.address("main")]))).collect();
        let endpoints: Vec<Endpoint> = nodes.iter_mut().map(Node::attach).collect();
        for (node, endpoint) in nodes.iter().zip(&endpoints) {
            node.subscribe(*endpoint, "room").unwrap();
        }
        let top = nodes[0].publish("room", "before").unwrap();
        for (node, endpoint) in nodes.iter().zip(&endpoints) {
            assert_eq!(node.wait_data(*endpoint), "before");
        }
        Two { nodes, endpoints, top }
    }

    /// Waits until both nodes report the new epoch, are ready, and receive each other's
    /// publications, with and without history.
    fn wait_together(&mut self, since: Instant) {
        let received = |two: &Two, index: usize, data: &str| {
            while two.nodes[index].wait_data(two.endpoints[index]) != data {}
        };
        for (node, endpoint) in self.nodes.iter().zip(&self.endpoints) {
            let (reported, top) = node.wait_position(*endpoint);
            assert_ne!(top.epoch, self.top.epoch);
            println!("told {:?} after the switch", reported.saturating_duration_since(since));
            node.wait_ready();
        }
        for (from, to) in [(0, 1), (1, 0)] {
            let position = self.nodes[from].publish("room", "after").unwrap();
            assert_eq!(position.offset, self.top.offset + 1, "one stream for both");
            self.top = position;
            received(self, to, "after");
            let publisher = self.nodes[from].attach();
            let publication = Publication { data: "plain".into(), ..Publication::default() };
            let (channel, options) = ("room".into(), PublishOptions::default());
            let sent = self.nodes[from].ask(publisher, |id| PublicationsRequest::Publish {
                id,
                channel,
                publication,
                options,
            });
            assert!(sent.is_ok(), "{sent:?}");
            received(self, to, "plain");
            received(self, from, "plain");
        }
    }
}

#[test]
fn a_planned_failover_is_followed_at_once() {
    let watched = Watched::start();
    let mut two = Two::start(&watched);
    watched.fail_over();
    let since = Instant::now();
    two.wait_together(since);
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    assert!(watched.replica.ask(&["KEYS", "*meta:room"]).list().len() == 1);
}

#[test]
fn an_old_master_that_cannot_be_demoted_is_left() {
    for is_spared in [false, true] {
        let mut watched = Watched::start();
        let mut two = Two::start(&watched);
        let links = links(&watched.master);
        assert_eq!(links.len(), 2);
        // One node stays connected to a live server that accepts publications but is not the
        // master.
        watched.shut_the_master(is_spared.then_some(&*links[0]));
        two.wait_together(Instant::now());
        watched.wait_followed(2);
        let role = watched.master.ask(&["INFO", "replication"]);
        assert!(role.text().contains("role:master"), "it has not been demoted");
        let stream = watched.master.ask(&["KEYS", "*stream:room"]);
        let kept = watched.master.ask(&["XLEN", stream.list()[0].text()]).number();
        println!("{kept} publications are in the old master");
    }
}

#[test]
fn a_server_that_replaces_another_at_its_address_is_detected() {
    let (one, two) = (RedisServer::start(&[]), RedisServer::start(&[]));
    let name = Redirect::start(one.port);
    let address = [format!("redis://127.0.0.1:{}", name.port)];
    let mut node = Node::start(settings(&address));
    let endpoint = node.attach();
    let before = node.subscribe(endpoint, "room").unwrap();
    // Like a DNS change: the connection to the old server stays open.
    name.lead_to(two.port);
    let (_, top) = node.wait_position(endpoint);
    assert_ne!(top.epoch, before.top.epoch);
    node.wait_ready();
    node.publish("room", "there").unwrap();
    assert_eq!(two.ask(&["KEYS", "*stream:room"]).list().len(), 1);
    assert_eq!(one.ask(&["KEYS", "*stream:room"]).list().len(), 0);
}

/// The lasting unavailable reason of a node with invalid settings.
fn lasting_refusal(settings: RedisSettings, has: &str) -> String {
    let node = Node::start_anyhow(settings);
    let reason = node.wait_unready(has);
    let Health::Unready { is_lasting: true, .. } = node.broker.health() else {
        panic!("{reason} does not end the start")
    };
    reason
}

fn with_login(mut settings: RedisSettings, user: &str, password: &str) -> RedisSettings {
    let Deployment::Servers(servers) = &mut settings.deployment else { panic!("no servers") };
    let ServerLocation::Sentinel { login, .. } = &mut servers[0] else { panic!("no Sentinel") };
    *login = Login { user: user.to_owned(), password: password.to_owned() };
    settings
}

/// A single Sentinel with a master named `main`; `extra` is appended to its configuration.
fn sentinel_of(server: &RedisServer, folder: &Path, extra: &str) -> RedisServer {
    let port = free_port();
    let file = folder.join(format!("{port}.conf"));
    let text = format!(
        "port {port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {} 1\n{extra}\n",
        server.port
    );
    std::fs::write(&file, text).unwrap();
    RedisServer::start_program("redis-sentinel", port, &[file.to_str().unwrap()])
}

/// Waits until the Sentinel has received this many further connections.
fn wait_asked(sentinel: &RedisServer, times: u64, mut meanwhile: impl FnMut()) {
    let connections = || {
        let stats = sentinel.ask(&["INFO", "stats"]);
        let mut lines = stats.text().lines();
        let line = lines.find_map(|line| line.strip_prefix("total_connections_received:"));
        line.expect("connection counter").parse::<u64>().unwrap()
    };
    let (first, mut own) = (connections(), 0);
    wait_until("the Sentinel is queried", || {
        meanwhile();
        own += 1;
        connections() >= first + own + times
    });
}

#[test]
fn one_sentinel_of_three_that_names_another_master_is_outvoted() {
    let (master, other) = (RedisServer::start(&[]), RedisServer::start(&[]));
    let folder = tempfile::tempdir().unwrap();
    let wrong = sentinel_of(&other, folder.path(), "sentinel config-epoch main 99");
    let right = [(); 2].map(|()| sentinel_of(&master, folder.path(), ""));
    let ports = [wrong.port, right[0].port, right[1].port];
    let hosts = ports.map(|port| format!("127.0.0.1:{port}")).join(",");
    let address = [format!("redis+sentinel://{hosts}?sentinel_master_name=main")];
    let node = Node::start(settings(&address));
    let is_ready = || assert_eq!(node.broker.health(), Health::Ready);
    wait_asked(&wrong, 3, is_ready);
    // Nor when the other Sentinels are silent; then no new node connects.
    right.iter().for_each(|sentinel| sentinel.signal("STOP"));
    wait_asked(&wrong, 3, is_ready);
    node.publish("room", "here").unwrap();
    let late = Node::start_anyhow(settings(&address));
    late.wait_unready("only 1 of 3 Sentinels");
    assert_eq!(other.ask(&["DBSIZE"]).number(), 0);
}

#[test]
fn wrong_sentinel_settings_are_reported_with_their_option() {
    let master = RedisServer::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let sentinel = |extra: &str| sentinel_of(&master, folder.path(), extra);
    let of = |server: &RedisServer, name: &str| {
        let address =
            format!("redis+sentinel://127.0.0.1:{}?sentinel_master_name={name}", server.port);
        settings(&[address])
    };
    let (shut, open) = (sentinel("requirepass secret"), sentinel(""));
    for (user, password) in [("", ""), ("", "wrong"), ("nobody", "secret")] {
        let refused = with_login(of(&shut, "main"), user, password);
        let reason = lasting_refusal(refused, "engine.redis.sentinel_password");
        assert!(!reason.contains("secret") && !reason.contains("engine.redis.user"), "{reason}");
    }
    drop(Node::start(with_login(of(&shut, "main"), "", "secret")));
    // A password where none is configured.
    lasting_refusal(with_login(of(&open, "main"), "", "secret"), "engine.redis.sentinel_password");
    lasting_refusal(of(&open, "other"), "sentinel_master_name");
    lasting_refusal(of(&master, "main"), "is no Sentinel");
    // One working Sentinel is enough.
    let both = format!(
        "redis+sentinel://127.0.0.1:{},127.0.0.1:{}?sentinel_master_name=main",
        free_port(),
        open.port
    );
    drop(Node::start(settings(&[both])));
    // The password of Redis is another option.
    let mut master = master;
    master.set_password("of its own");
    lasting_refusal(of(&open, "main"), "engine.redis.password");
}

#[test]
fn stopped_sentinels_do_not_matter_while_other_nodes_use_the_same_master() {
    without_sentinels(3, "no Sentinel");
}

#[test]
fn one_sentinel_of_three_neither_confirms_a_master_nor_names_one() {
    without_sentinels(2, "only 1 of 3 Sentinels");
}

/// This many of three Sentinels are stopped. A node leaves its master only if no other node uses
/// it.
fn without_sentinels(away: usize, reason: &str) {
    let watched = Watched::start();
    let two = Two::start(&watched);
    watched.sentinels[..away].iter().for_each(|sentinel| sentinel.signal("STOP"));
    // Longer than the time after which only the other node confirms the master.
    let until = Instant::now() + Duration::from_secs(7);
    while Instant::now() < until {
        assert_eq!(two.nodes[0].broker.health(), Health::Ready);
        std::thread::sleep(Duration::from_millis(200));
    }
    let Two { mut nodes, .. } = two;
    let last = nodes.pop().unwrap();
    drop(nodes);
    let began = Instant::now();
    last.wait_unready(reason);
    assert!(began.elapsed() < PATIENCE);
    drop(at(&watched.master));
}
