//! Groups of redundant servers: a Cluster, and a master with a replica and Sentinels.

use std::process::Command;

use tempfile::TempDir;

use crate::server::{RedisServer, free_port, wait_until};

/// Three masters and three replicas.
pub(crate) struct Cluster {
    pub(crate) servers: Vec<RedisServer>,
}

impl Cluster {
    pub(crate) fn start() -> Cluster {
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

    pub(crate) fn address(&self) -> String {
        format!("redis+cluster://{}", hosts(&self.servers))
    }

    /// Waits until a replica of the killed master has been promoted, and all members have learned
    /// it.
    pub(crate) fn wait_taken_over(&self, killed: usize) {
        let others = || (0..self.servers.len()).filter(|index| *index != killed);
        let info = |index: usize, of: &[&str]| self.servers[index].ask(of).text().to_owned();
        wait_until("a replica is promoted", || {
            let is_master =
                |index: &usize| info(*index, &["INFO", "replication"]).contains("role:master");
            let is_whole =
                |index: usize| info(index, &["CLUSTER", "INFO"]).contains("cluster_state:ok");
            others().filter(is_master).count() == 3 && others().all(is_whole)
        });
    }

    /// Moves this many slots between two masters; returns when they have moved.
    pub(crate) fn move_slots(&self, count: usize) {
        let masters = self.masters();
        let id = |index: usize| {
            let id = self.servers[masters[index]].ask(&["CLUSTER", "MYID"]);
            id.text().to_owned()
        };
        let address = format!("127.0.0.1:{}", self.servers[masters[0]].port);
        tool(&[
            "--cluster",
            "reshard",
            &address,
            "--cluster-from",
            &id(0),
            "--cluster-to",
            &id(1),
            "--cluster-slots",
            &count.to_string(),
            "--cluster-yes",
        ]);
    }

    pub(crate) fn masters(&self) -> Vec<usize> {
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

/// A master named `main`, its replica, and three Sentinels.
pub(crate) struct Watched {
    pub(crate) master: RedisServer,
    pub(crate) replica: RedisServer,
    pub(crate) sentinels: Vec<RedisServer>,
    _folder: TempDir,
}

impl Watched {
    pub(crate) fn start() -> Watched {
        let master = RedisServer::start(&["--repl-diskless-sync-delay", "0"]);
        let port_of_master = master.port.to_string();
        let replica = RedisServer::start(&["--replicaof", "127.0.0.1", &port_of_master]);
        wait_until("the replica is in sync", || {
            replica.ask(&["INFO", "replication"]).text().contains("master_link_status:up")
        });
        let folder = tempfile::tempdir().unwrap();
        let sentinels: Vec<RedisServer> = (0..3)
            .map(|index| {
                let port = free_port();
                let file = folder.path().join(format!("sentinel-{index}.conf"));
                let text = format!(
                    "port {port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {port_of_master} 2\n\
                     sentinel down-after-milliseconds main 500\n\
                     sentinel failover-timeout main 5000\n"
                );
                std::fs::write(&file, text).unwrap();
                RedisServer::start_program("redis-sentinel", port, &[file.to_str().unwrap()])
            })
            .collect();
        wait_until("the Sentinels know each other and the replica", || {
            sentinels.iter().all(|sentinel| {
                let info = sentinel.ask(&["INFO", "sentinel"]);
                info.text().contains("slaves=1,sentinels=3")
            })
        });
        Watched { master, replica, sentinels, _folder: folder }
    }

    /// The address with the master's name, `main`.
    pub(crate) fn address(&self, name: &str) -> String {
        format!("redis+sentinel://{}?sentinel_master_name={name}", hosts(&self.sentinels))
    }

    /// Makes the Sentinels fail over to the replica; both servers stay alive.
    pub(crate) fn fail_over(&self) {
        wait_until("a Sentinel begins the failover", || {
            self.sentinels[0].ask(&["SENTINEL", "FAILOVER", "main"]).text() == "OK"
        });
        self.wait_taken_over();
    }

    /// Isolates the master from all but one node: the Sentinels replace it and cannot demote it.
    pub(crate) fn shut_the_master(&mut self, spared: Option<&str>) {
        let list = self.master.ask(&["CLIENT", "LIST"]);
        self.master.set_password("other password");
        let ids = list.text().lines().filter_map(|line| line.split(' ').next());
        for id in ids.map(|id| id.trim_start_matches("id=")).filter(|id| Some(*id) != spared) {
            self.master.ask(&["CLIENT", "KILL", "ID", id]);
        }
        self.wait_taken_over();
    }

    /// Waits until this many nodes are subscribed at the new master.
    pub(crate) fn wait_followed(&self, nodes: usize) {
        wait_until("all nodes have followed", || links(&self.replica).len() == nodes);
    }

    pub(crate) fn wait_taken_over(&self) {
        wait_until("the replica is the master", || {
            // A Sentinel closes the connections of the server that it promotes.
            let info = self.replica.try_ask(&["INFO", "replication"]);
            info.is_some_and(|info| info.text().contains("role:master"))
        });
    }
}

/// Ids of the nodes' subscriber connections at a monitored server.
pub(crate) fn links(server: &RedisServer) -> Vec<String> {
    let list = server.try_ask(&["CLIENT", "LIST", "TYPE", "pubsub"]);
    let list = list.as_ref().map_or("", |list| list.text());
    let nodes = list.lines().filter(|line| !line.contains("name=sentinel"));
    let ids = nodes.filter_map(|line| line.split(' ').next());
    ids.map(|id| id.trim_start_matches("id=").to_owned()).collect()
}

fn hosts(servers: &[RedisServer]) -> String {
    let hosts: Vec<String> =
        servers.iter().map(|server| format!("127.0.0.1:{}", server.port)).collect();
    hosts.join(",")
}
