//! Sentinels that name the master: found at the start, and found again when another server has become it.

use std::time::Duration;

use crate::checker::{Checker, Publisher};
use crate::server::{RedisServer, free_port, wait_until};
use crate::world::{Node, settings};

#[test]
fn a_master_that_is_killed_under_load_is_followed_to_the_next() {
    let mut master = RedisServer::start(&["--repl-diskless-sync-delay", "0"]);
    let port_of_master = master.port.to_string();
    let replica = RedisServer::start(&["--replicaof", "127.0.0.1", &port_of_master]);
    wait_until("the replica has everything", || {
        replica.ask(&["INFO", "replication"]).text().contains("master_link_status:up")
    });
    let folder = tempfile::tempdir().unwrap();
    let sentinels: Vec<RedisServer> = (0..3)
        .map(|index| {
            let port = free_port();
            let file = folder.path().join(format!("sentinel-{index}.conf"));
            let text = format!(
                "port {port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {port_of_master} 2\n\
                 sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 5000\n"
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
    let hosts: Vec<String> =
        sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port)).collect();
    let address = |name: &str| {
        vec![format!("redis+sentinel://{}?sentinel_master_name={name}", hosts.join(","))]
    };
    let stranger = Node::start_anyhow(settings(&address("other")));
    stranger.wait_unready("sentinel_master_name");
    let mut checker = Checker::start(settings(&address("main")), 50);
    let publisher = Publisher::start(settings(&address("main")), 50);
    publisher.wait_more(500);
    master.kill();
    wait_until("the replica is the master", || {
        replica.ask(&["INFO", "replication"]).text().contains("role:master")
    });
    publisher.wait_more(500);
    publisher.stop();
    checker.listen(Duration::from_millis(500));
    assert!(checker.gaps >= 50, "all channels have new epochs");
    checker.assert_complete();
}
