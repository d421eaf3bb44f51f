//! A Redis Cluster of three masters and three replicas: the same cases, sharded pub/sub, a master killed and slots moved
//! under load.

use std::process::Command;
use std::time::Duration;

use brokers::conformance;

use crate::checker::{Checker, Publisher};
use crate::server::{RedisServer, wait_until};
use crate::world::{RedisWorld, settings};

struct Cluster {
    servers: Vec<RedisServer>,
}

impl Cluster {
    fn start() -> Cluster {
        let options = [
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            "1000",
            "--repl-diskless-sync-delay",
            "0",
            "--cluster-replica-validity-factor",
            "0",
        ];
        let servers: Vec<RedisServer> = (0..6).map(|_| RedisServer::start(&options)).collect();
        let addresses = servers.iter().map(|server| format!("127.0.0.1:{}", server.port));
        let addresses: Vec<String> = addresses.collect();
        let mut words = vec!["--cluster", "create"];
        words.extend(addresses.iter().map(String::as_str));
        words.extend(["--cluster-replicas", "1", "--cluster-yes"]);
        tool(&words);
        let cluster = Cluster { servers };
        cluster.wait_whole();
        cluster
    }

    fn wait_whole(&self) {
        wait_until("the cluster is whole", || {
            self.servers.iter().all(|server| {
                let state = server.ask(&["CLUSTER", "INFO"]);
                let replication = server.ask(&["INFO", "replication"]);
                state.text().contains("cluster_state:ok")
                    && (replication.text().contains("role:master")
                        || replication.text().contains("master_link_status:up"))
            })
        });
    }

    fn addresses(&self) -> Vec<String> {
        let ports = self.servers.iter().map(|server| format!("127.0.0.1:{}", server.port));
        vec![format!("redis+cluster://{}", ports.collect::<Vec<_>>().join(","))]
    }

    fn masters(&self) -> Vec<usize> {
        let is_master = |index: &usize| {
            self.servers[*index].ask(&["INFO", "replication"]).text().contains("role:master")
        };
        (0..self.servers.len()).filter(is_master).collect()
    }
}

fn tool(words: &[&str]) {
    let output = Command::new("redis-cli").args(words).output().expect("redis-cli");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn passes_every_case_of_the_conformance_suite_and_shards_its_channels() {
    let cluster = Cluster::start();
    let masters = cluster.masters();
    let servers = masters.iter().map(|index| &cluster.servers[*index]).collect();
    let mut world = RedisWorld::new(settings(&cluster.addresses()), servers);
    for (name, case) in conformance::ALL.iter().chain(conformance::ENDS) {
        println!("{name}");
        case(&mut world);
    }
    let checker = Checker::start(settings(&cluster.addresses()), 60);
    for index in masters {
        let server = &cluster.servers[index];
        let kind = if server.has_shards() { "SHARDCHANNELS" } else { "CHANNELS" };
        assert!(server.ask(&["PUBSUB", kind, "*c:room-*"]).list().len() > 8);
        if server.has_shards() {
            assert_eq!(server.ask(&["PUBSUB", "CHANNELS", "*"]).list(), []);
        }
        // Of the two nodes one each.
        let clients = server.ask(&["CLIENT", "LIST", "TYPE", "pubsub"]);
        assert_eq!(clients.text().lines().count(), 2, "{}", clients.text());
    }
    checker.assert_complete();
}

#[test]
fn a_master_that_is_killed_under_load_costs_nothing_that_is_not_told() {
    let mut cluster = Cluster::start();
    let mut checker = Checker::start(settings(&cluster.addresses()), 200);
    let publisher = Publisher::start(settings(&cluster.addresses()), 200);
    publisher.wait_more(500);
    let killed = cluster.masters()[0];
    cluster.servers[killed].kill();
    checker.listen(Duration::from_millis(1));
    // All channels, so also those of the killed one: its replica has taken over.
    wait_until("a replica has taken over", || {
        let others = (0..6).filter(|index| *index != killed);
        let of = |index: usize| cluster.servers[index].ask(&["CLUSTER", "INFO"]);
        others.into_iter().all(|index| of(index).text().contains("cluster_state:ok"))
    });
    publisher.wait_more(1000);
    publisher.stop();
    checker.listen(Duration::from_millis(500));
    assert!(checker.gaps > 0, "a third of the channels has new epochs");
    assert!(checker.heard > 1000);
    checker.assert_complete();
}

#[test]
fn slots_that_move_under_load_take_their_channels_with_them() {
    let cluster = Cluster::start();
    let mut checker = Checker::start(settings(&cluster.addresses()), 200);
    let publisher = Publisher::start(settings(&cluster.addresses()), 200);
    publisher.wait_more(500);
    let masters = cluster.masters();
    let id = |index: usize| {
        let id = cluster.servers[masters[index]].ask(&["CLUSTER", "MYID"]);
        id.text().to_owned()
    };
    let address = format!("127.0.0.1:{}", cluster.servers[masters[0]].port);
    let (from, to) = (id(0), id(1));
    tool(&[
        "--cluster",
        "reshard",
        &address,
        "--cluster-from",
        &from,
        "--cluster-to",
        &to,
        "--cluster-slots",
        "700",
        "--cluster-yes",
    ]);
    publisher.wait_more(1000);
    publisher.stop();
    checker.listen(Duration::from_millis(500));
    assert!(checker.heard > 1000);
    checker.assert_complete();
}
