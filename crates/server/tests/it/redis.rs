//! Nodes on one Redis: publications of one node reach the clients of the other. When Redis is
//! unavailable, clients stay connected, the node is not ready, and requests fail with a temporary
//! error.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};
use server::config::{Source, load};
use server::{Server, StartError};

use crate::support::{Fixture, PATIENCE};

pub(crate) struct Redis {
    child: Child,
    pub(crate) port: u16,
}

impl Redis {
    pub(crate) fn start(port: u16) -> Redis {
        let started = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        let child = started.unwrap_or_else(|error| panic!("{error}; apt-get install redis-server"));
        Redis { child, port }
    }

    fn address(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // It may have been ended already.
        let _dead = self.child.kill();
        let _dead = self.child.wait();
    }
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub(crate) fn node(redis: &Redis) -> Fixture {
    Fixture::with(&[
        ("engine.type", "redis"),
        ("engine.redis.address", &redis.address()),
        ("engine.redis.io_timeout", "500ms"),
    ])
}

fn result(node: &Fixture, method: &str, body: &str) -> Value {
    let answer: Value = serde_json::from_str(&node.api(method, body).1).unwrap();
    answer["result"].clone()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "{what}");
    }
}

#[test]
fn nodes_answer_for_each_other_and_share_dynamic_configuration() {
    let redis = Redis::start(free_port());
    let nodes = [node(&redis), node(&redis)];
    let mut peers: Vec<_> = nodes.iter().map(Fixture::admitted).collect();
    for peer in &mut peers {
        peer.say(r#"{"id":2,"subscribe":{"channel":"kept:x"}}"#);
        assert!(peer.receive().contains("subscribe"));
    }
    for node in &nodes {
        assert_eq!(result(node, "info", "")["nodes"].as_array().unwrap().len(), 2);
        let channel = result(node, "channel", r#"{"channel":"kept:x"}"#);
        assert_eq!((&channel["num_clients"], &channel["num_nodes"]), (&json!(2), &json!(2)));
        let channels = result(node, "channels", r#"{"pattern":"kept:*"}"#);
        assert_eq!(channels, json!({"channels": {"kept:x": {"num_clients": 2}}}));
        let clients = result(node, "clients", r#"{"user":"ann"}"#);
        assert_eq!(clients["clients"].as_array().unwrap().len(), 2, "{clients}");
    }
    let change = r#"{"channel":"sys:config","data":{"namespace":"open","options":{"history_size":5,"history_ttl":"1m"}}}"#;
    assert_eq!(result(&nodes[0], "publish", change)["offset"], 1);
    let keeps = |node: &Fixture| {
        let published = result(node, "publish", r#"{"channel":"open:x","data":1}"#);
        published["offset"].is_number()
    };
    until("the other node follows", || keeps(&nodes[1]));
    // A node that starts later has the configuration before it serves.
    assert!(keeps(&node(&redis)));
    // A disconnect on one node closes the connection on the other.
    result(&nodes[0], "disconnect", r#"{"user":"ann"}"#);
    for peer in &mut peers {
        assert_eq!(peer.close_code(), 3503);
    }
}

#[test]
fn presence_in_the_redis_of_the_engine_adds_no_nodes() {
    let redis = Redis::start(free_port());
    // The second name of that Redis is not recognised; its keys are others.
    for host in ["127.0.0.1", "localhost"] {
        let presence = format!("redis://{host}:{}", redis.port);
        let settings = [
            ("engine.type", "redis"),
            ("engine.redis.address", &redis.address()),
            ("engine.redis.prefix", host),
            ("presence_manager.enabled", "true"),
            ("presence_manager.type", "redis"),
            ("presence_manager.redis.address", &presence),
            ("presence_manager.redis.prefix", host),
        ];
        let nodes = [Fixture::with(&settings), Fixture::with(&settings)];
        let mut peer = nodes[0].admitted();
        peer.say(r#"{"id":2,"subscribe":{"channel":"kept:x"}}"#);
        assert!(peer.receive().contains("subscribe"));
        for node in &nodes {
            let info = result(node, "info", "");
            assert_eq!(info["nodes"].as_array().unwrap().len(), 2, "{info}");
            assert!(info.get("missing_nodes").is_none(), "{host}: {info}");
            let present = result(node, "presence", r#"{"channel":"kept:x"}"#);
            assert_eq!(present["presence"].as_object().unwrap().len(), 1, "{present}");
        }
    }
}

#[test]
fn limits_change_on_all_nodes_at_run_time() {
    let redis = Redis::start(free_port());
    let nodes = [node(&redis), node(&redis)];
    let mut peers: Vec<_> = nodes.iter().map(Fixture::admitted).collect();
    let change =
        r#"{"channel":"sys:config","data":{"limits":{"connection.publishes":"1/h burst 1"}}}"#;
    assert_eq!(result(&nodes[0], "publish", change)["offset"], 1);
    for peer in &mut peers {
        until("the node follows", || {
            peer.say(r#"{"id":2,"publish":{"channel":"open:x","data":1}}"#);
            peer.receive().contains("too many requests; retry after ")
        });
    }
    let third = node(&redis);
    let mut late = third.admitted();
    late.say(r#"{"id":2,"publish":{"channel":"open:x","data":1}}"#);
    late.say(r#"{"id":3,"publish":{"channel":"open:x","data":1}}"#);
    let answers = [late.receive(), late.receive()];
    assert!(
        answers.iter().any(|answer| answer.contains(r#"{"id":2,"publish":{}}"#)),
        "{answers:?}"
    );
    assert!(answers.iter().any(|answer| answer.contains(r#""code":111"#)), "{answers:?}");
}

#[test]
fn changed_options_are_restored_after_redis_has_lost_its_data() {
    let redis = Redis::start(free_port());
    let nodes = [node(&redis), node(&redis)];
    let change = r#"{"channel":"sys:config","data":{"namespace":"open","options":{"history_size":5,"history_ttl":"1m"}}}"#;
    assert_eq!(result(&nodes[0], "publish", change)["offset"], 1);
    let keeps = |node: &Fixture| {
        let published = result(node, "publish", r#"{"channel":"open:x","data":1}"#);
        published["offset"].is_number()
    };
    until("both follow", || nodes.iter().all(keeps));
    let port = redis.port;
    drop(redis);
    wait_ready(&nodes[0], 503);
    let redis = Redis::start(port);
    nodes.iter().for_each(|node| drop(wait_ready(node, 200)));
    until("what was changed is there again, once", || {
        let history = result(&nodes[0], "history", r#"{"channel":"sys:config","limit":-1}"#);
        history["publications"].as_array().is_some_and(|all| all.len() == 1)
    });
    assert!(keeps(&node(&redis)), "one that starts later follows");
}

fn wait_ready(node: &Fixture, status: u16) -> String {
    let start = Instant::now();
    loop {
        let (seen, _, body) =
            node.request("GET /ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        if seen == status {
            return body;
        }
        assert!(start.elapsed() < PATIENCE, "in vain: {body}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn two_nodes_share_channels_and_clients_stay_connected_without_redis() {
    let redis = Redis::start(free_port());
    let (one, two) = (node(&redis), node(&redis));
    let mut peer = two.admitted();
    peer.say(r#"{"id":2,"subscribe":{"channel":"kept:x"}}"#);
    assert!(peer.receive().contains(r#""subscribe":{"#));
    let publish = r#"{"channel":"kept:x","data":{"n":1}}"#;
    assert!(one.api("publish", publish).1.contains(r#""offset":1"#));
    assert!(peer.receive().contains(r#""data":{"n":1}"#));
    assert_eq!(wait_ready(&one, 200), "ready\n");

    let port = redis.port;
    drop(redis);
    assert!(wait_ready(&one, 503).contains("Redis at 127.0.0.1"));
    let (_, refused) = one.api("publish", publish);
    assert!(refused.contains(r#""code":100"#), "{refused}");
    peer.say(r#"{"id":3,"subscribe":{"channel":"kept:y"}}"#);
    let refused = peer.receive();
    assert!(refused.contains(r#""id":3,"error":{"code":100"#), "{refused}");
    assert!(refused.contains(r#""temporary":true"#), "{refused}");

    let _redis = Redis::start(port);
    wait_ready(&one, 200);
    wait_ready(&two, 200);
    assert!(one.api("publish", publish).1.contains(r#""offset":1"#), "the data was lost");
    assert!(peer.receive().contains(r#""data":{"n":1}"#), "not positioned, so it goes on");
}

#[test]
fn a_start_without_redis_fails_unless_it_is_configured_to_wait() {
    let port = free_port();
    let load = |wait: &str| {
        let flags = [
            ("engine.type", "redis"),
            ("engine.redis.address", &format!("redis://127.0.0.1:{port}")),
            ("engine.redis.wait_at_start", wait),
            ("engine.redis.io_timeout", "200ms"),
            ("engine.redis.connect_timeout", "200ms"),
            ("http_server.address", "127.0.0.1"),
            ("http_server.port", "0"),
        ];
        let flags = flags.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
        load(&Source { flags, ..Source::default() }).unwrap().0
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let failed = runtime.block_on(Server::start(load("false")));
    assert!(
        matches!(&failed, Err(StartError::Broker(reason)) if reason.contains("cannot be reached"))
    );
    let waiting = runtime.spawn(Server::start(load("true")));
    let _redis = Redis::start(port);
    let server = runtime.block_on(waiting).unwrap().unwrap();
    TcpStream::connect(server.address().unwrap()).unwrap();
    runtime.block_on(server.stop());
}
