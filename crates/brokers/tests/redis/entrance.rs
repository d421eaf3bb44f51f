//! Connecting to Redis: every configuration error is reported with the option to change; TLS,
//! users, databases and shards work.

use std::io::Write as _;

use crate::conformance;
use brokers::redis::RedisSettings;
use brokers::redis::settings::{TlsPem, TlsSettings};
use brokers::{Broker as _, Health};

use crate::server::{RedisServer, free_port};
use crate::world::{Node, RedisWorld, at, settings};

/// The unavailable reason of a node with invalid settings, and whether it is lasting.
fn refusal(settings: RedisSettings, has: &str) -> (String, bool) {
    let node = Node::start_anyhow(settings);
    let reason = node.wait_unready(has);
    match node.broker.health() {
        Health::Unready { is_lasting, .. } => (reason, is_lasting),
        Health::Ready => panic!("ready in spite of: {reason}"),
    }
}

#[test]
fn missing_passwords_and_users_are_reported() {
    let server = RedisServer::start(&["--requirepass", "secret"]);
    let port = server.port;
    let with = |login: &str| settings(&[format!("redis://{login}127.0.0.1:{port}")]);
    for login in ["", ":wrong@", "nobody:secret@"] {
        let (reason, is_lasting) = refusal(with(login), "engine.redis.password");
        assert!(is_lasting && !reason.contains("secret"), "{reason}");
    }
    drop(Node::start(with(":secret@")));
    server.ask(&["ACL", "SETUSER", "ann", "on", ">hers", "~*", "&*", "+@all"]);
    drop(Node::start(with("ann:hers@")));
    server.ask(&["ACL", "SETUSER", "bob", "on", ">his", "~*", "&*", "+@all", "-@scripting"]);
    let (reason, is_lasting) = refusal(with("bob:his@"), "use scripts");
    assert!(is_lasting && reason.contains("engine.redis.user"), "{reason}");
}

/// The permissions listed in docs/clustering.md.
const RIGHTS: &str =
    "resetchannels ~test* &test* +@read +@write +@scripting +@pubsub +@connection +info +time";

#[test]
fn the_documented_permissions_suffice_and_each_missing_one_is_named() {
    let server = RedisServer::start(&[]);
    let with = |name: &str, rights: &[&str]| {
        server.ask(&[&["ACL", "SETUSER", name, "reset", "on", ">his"], rights].concat());
        settings(&[format!("redis://{name}:his@127.0.0.1:{}", server.port)])
    };
    let all: Vec<&str> = RIGHTS.split(' ').collect();
    let node = Node::start(with("all", &all));
    node.publish("room", "a").expect("publishing is allowed");
    for missing in ["~test*", "&test*", "+@pubsub", "+info", "+time"] {
        let rest: Vec<&str> = all.iter().copied().filter(|right| *right != missing).collect();
        let (reason, is_lasting) = refusal(with("some", &rest), "engine.redis.user");
        assert!(is_lasting, "without {missing}: {reason}");
    }
}

#[test]
fn a_redis_that_takes_no_writes_or_no_lease_is_not_ready() {
    let server = RedisServer::start(&[]);
    let node = Node::start(settings(&at(&server)));
    server.ask(&["CONFIG", "SET", "maxmemory", "1"]);
    assert!(node.wait_unready("replied with an error").contains("OOM"));
    server.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    node.wait_ready();
    let keys = server.ask(&["KEYS", "*}:nodes"]);
    let nodes = keys.list()[0].text();
    server.ask(&["DEL", nodes]);
    server.ask(&["SET", nodes, "x"]);
    node.wait_unready("engine.redis.prefix");
    assert!(refusal(settings(&at(&server)), "engine.redis.prefix").1);
    server.ask(&["DEL", nodes]);
    node.wait_ready();
}

#[test]
fn servers_in_another_order_are_reported() {
    let (one, two) = (RedisServer::start(&[]), RedisServer::start(&[]));
    let both = [at(&one), at(&two)].concat();
    drop(Node::start(settings(&both)));
    drop(Node::start(settings(&both)));
    let turned: Vec<String> = both.iter().rev().cloned().collect();
    for other in [turned, at(&one)] {
        let (reason, is_lasting) = refusal(settings(&other), "in the same order");
        assert!(is_lasting, "{reason}");
    }
}

#[test]
fn wrong_servers_are_distinguished() {
    let server = RedisServer::start(&[]);
    let port = server.port.to_string();
    let replica = RedisServer::start(&["--replicaof", "127.0.0.1", &port]);
    assert!(!refusal(settings(&at(&replica)), "is a replica").1, "it may become the master");
    let member = RedisServer::start(&["--cluster-enabled", "yes"]);
    assert!(refusal(settings(&at(&member)), "is part of a cluster").1);
    let as_cluster = |port| settings(&[format!("redis+cluster://127.0.0.1:{port}")]);
    refusal(as_cluster(server.port), "is not part of a cluster");
    let sentinel = format!("redis+sentinel://127.0.0.1:{}?sentinel_master_name=x", server.port);
    assert!(refusal(settings(&[sentinel]), "is no Sentinel").1);
    refusal(as_cluster(member.port), "slots that no server answers for");
    let nowhere = settings(&[format!("redis://127.0.0.1:{}", free_port())]);
    assert!(!refusal(nowhere, "cannot be reached").1);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    refusal(settings(&[format!("redis://127.0.0.1:{port}")]), "does not answer");
    // Runs until the tests end.
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // The client may have timed out.
            let _gone = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    refusal(settings(&[format!("redis://127.0.0.1:{port}")]), "does not speak the protocol");
    let database = settings(&[format!("redis://127.0.0.1:{}/99", server.port)]);
    assert!(refusal(database, "engine.redis.db").1);
}

#[test]
fn data_of_another_application_under_the_prefix_is_left_alone() {
    let server = RedisServer::start(&[]);
    drop(Node::start(settings(&at(&server))));
    let keys = server.ask(&["KEYS", "*layout"]);
    let layout = keys.list()[0].text();
    for write in [&["SET", layout, "another 1"][..], &["LPUSH", layout, "x"]] {
        server.ask(&["DEL", layout]);
        server.ask(write);
        let (reason, is_lasting) = refusal(settings(&at(&server)), "engine.redis.prefix");
        assert!(is_lasting, "{reason}");
    }
    assert_eq!(server.ask(&["LLEN", layout]).number(), 1);
    let other = RedisSettings { prefix: "other".to_owned(), ..settings(&at(&server)) };
    drop(Node::start(other));
}

#[test]
fn databases_and_prefixes_separate() {
    let server = RedisServer::start(&[]);
    let mut one = Node::start(settings(&at(&server)));
    let mut two = Node::start(RedisSettings { prefix: "b".to_owned(), ..settings(&at(&server)) });
    let (here, there) = (one.attach(), two.attach());
    let mut three = Node::start(settings(&[format!("{}/5", at(&server)[0])]));
    let elsewhere = three.attach();
    one.subscribe(here, "room").unwrap();
    two.subscribe(there, "room").unwrap();
    three.subscribe(elsewhere, "room").unwrap();
    three.publish("room", "c").unwrap();
    one.publish("room", "a").unwrap();
    two.publish("room", "b").unwrap();
    assert_eq!(one.wait_data(here), "a");
    assert_eq!(two.wait_data(there), "b");
    assert_eq!(three.wait_data(elsewhere), "c");
}

#[test]
fn tls_is_spoken_and_certificates_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["redis.test".to_owned()]).unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (cert_file, key_file) =
        (file("cert.pem", &cert.pem()), file("key.pem", &signing_key.serialize_pem()));
    let port = free_port().to_string();
    let server = RedisServer::start(&[
        "--tls-port",
        &port,
        "--tls-cert-file",
        &cert_file,
        "--tls-key-file",
        &key_file,
        "--tls-ca-cert-file",
        &cert_file,
        "--tls-auth-clients",
        "no",
    ]);
    let address = [format!("rediss://127.0.0.1:{port}")];
    let with = |pem: &str, name: &str| {
        let pem = TlsPem { roots: Some(pem), own: None };
        let tls = TlsSettings::new(pem, Some(name.to_owned())).unwrap();
        RedisSettings { tls: Some(tls), ..settings(&address) }
    };
    let mut node = Node::start(with(&cert.pem(), "redis.test"));
    let endpoint = node.attach();
    node.subscribe(endpoint, "room").unwrap();
    node.publish("room", "a").unwrap();
    assert_eq!(node.wait_data(endpoint), "a");
    refusal(with(&cert.pem(), "other.test"), "engine.redis.tls");
    let other = rcgen::generate_simple_self_signed(vec!["redis.test".to_owned()]).unwrap();
    refusal(with(&other.cert.pem(), "redis.test"), "engine.redis.tls");
    refusal(with(&cert.pem(), "redis.test").at_plain(server.port), "engine.redis.tls");
    assert!(TlsSettings::new(TlsPem { roots: Some("x"), own: None }, None).is_err());
}

trait AtPlain {
    fn at_plain(self, port: u16) -> RedisSettings;
}

impl AtPlain for RedisSettings {
    /// The same settings for a port without TLS.
    fn at_plain(self, port: u16) -> RedisSettings {
        let deployment = settings(&[format!("redis://127.0.0.1:{port}")]).deployment;
        RedisSettings { deployment, ..self }
    }
}

#[test]
fn channels_spread_over_independent_servers() {
    let servers = [RedisServer::start(&[]), RedisServer::start(&[]), RedisServer::start(&[])];
    let addresses: Vec<String> = servers.iter().flat_map(at).collect();
    let mut world = RedisWorld::new(settings(&addresses), servers.iter().collect());
    conformance::run(&mut world);
    let node = Node::start(settings(&addresses));
    for index in 0..60 {
        node.publish(&format!("spread-{index}"), "a").unwrap();
    }
    for server in &servers {
        assert!(server.ask(&["KEYS", "*stream:spread-*"]).list().len() > 8);
    }
}
