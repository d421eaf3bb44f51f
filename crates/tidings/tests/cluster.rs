//! Nodes as processes on one NATS, or one Redis: what is published on one is heard on the other,
//! and a broker that goes away takes readiness with it, but no client.

#[path = "../../server/tests/it/peer.rs"]
mod peer;
#[path = "support/process.rs"]
mod process;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use peer::{Peer, upgrade};
use process::{PATIENCE, Running, configured, tidings};

/// In which a publication comes, once everything is well.
const A_MOMENT: Duration = Duration::from_millis(100);

/// Gives every node a name of its own.
static NODES: AtomicUsize = AtomicUsize::new(0);

const CONFIG: &str = r#"
[http_server]
address = "127.0.0.1"
port = 0
[http_api]
key = "key"
[client]
allow_anonymous_connect_without_token = true
[client.token]
hmac_secret_key = "secret"
[shutdown]
drain_window = "0s"
[[channel.namespaces]]
name = "chat"
presence = true
history_size = 100
history_ttl = "60s"
force_recovery = true
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
[[channel.namespaces]]
name = "call"
channel_ttl = "6s"
history_size = 100
history_ttl = "60s"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
"#;

/// Which server connects the nodes.
#[derive(Clone, Copy)]
enum Kind {
    Nats,
    Redis,
}

/// Such a server, which is killed when the test ends.
struct Bus {
    kind: Kind,
    port: u16,
    store: TempDir,
    process: Child,
}

impl Kind {
    fn run(self, port: u16, store: &TempDir) -> Child {
        let (port, path) = (port.to_string(), store.path());
        let (name, ready) = match self {
            Kind::Nats => ("nats-server", "Server is ready"),
            Kind::Redis => ("redis-server", "Ready to accept connections"),
        };
        let mut command = Command::new(name);
        match self {
            Kind::Nats => command.args(["-a", "127.0.0.1", "-p", &port, "-js", "-sd"]).arg(path),
            Kind::Redis => command
                .args(["--bind", "127.0.0.1", "--port", &port, "--appendonly", "yes", "--dir"])
                .arg(path),
        };
        let (reader, writer) = std::io::pipe().unwrap();
        let out = writer.try_clone().unwrap();
        let process = command.stdout(out).stderr(writer).stdin(Stdio::null()).spawn();
        let process = process.unwrap_or_else(|_| panic!("missing: apt-get install {name}"));
        drop(command);
        let mut lines = BufReader::new(reader).lines();
        assert!(lines.any(|line| line.unwrap().contains(ready)), "{name} ended");
        std::thread::spawn(move || lines.for_each(drop));
        process
    }
}

impl Bus {
    fn start(kind: Kind) -> Bus {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let store = tempfile::tempdir().unwrap();
        let process = kind.run(port, &store);
        Bus { kind, port, store, process }
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn come_back(&mut self) {
        self.process = self.kind.run(self.port, &self.store);
    }

    fn lose_data(&mut self) {
        self.kill();
        self.store = tempfile::tempdir().unwrap();
        self.come_back();
    }

    fn settings(&self) -> Vec<String> {
        let port = self.port;
        match self.kind {
            Kind::Nats => vec![
                "--broker.enabled=true".to_owned(),
                "--broker.type=nats".to_owned(),
                format!("--broker.nats.url=nats://user:hidden@127.0.0.1:{port}"),
            ],
            Kind::Redis => vec![
                "--engine.redis.wait_at_start=false".to_owned(),
                "--engine.type=redis".to_owned(),
                "--engine.redis.lease=2s".to_owned(),
                format!("--engine.redis.address=redis://127.0.0.1:{port}"),
            ],
        }
    }

    /// Hears which clients come and go.
    fn watcher(&self, port: u16) -> Running {
        let (folder, file) = configured(CONFIG);
        let url = format!("ws://127.0.0.1:{port}/connection/websocket");
        let file = file.to_str().unwrap();
        let command = tidings(&["subscribe", "sys:presence", "-c", file, "--url", &url]);
        let watcher = Running::start(command);
        watcher.says("live: sys:presence");
        drop(folder);
        watcher
    }

    /// Bytes that a Redis has sent so far.
    fn sent(&self) -> usize {
        let mut tcp = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        tcp.write_all(b"INFO stats\r\nQUIT\r\n").unwrap();
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).unwrap();
        let mut lines = answer.lines();
        lines
            .find_map(|line| line.strip_prefix("total_net_output_bytes:"))
            .unwrap()
            .parse()
            .unwrap()
    }

    /// A node on it, and its port.
    fn node(&self) -> (TempDir, Running, u16) {
        self.node_with(&[])
    }

    /// The same, with more flags.
    fn node_with(&self, flags: &[&str]) -> (TempDir, Running, u16) {
        let (folder, file) = configured(CONFIG);
        let number = NODES.fetch_add(1, Ordering::Relaxed);
        let mut command = tidings(&["serve", "-c", file.to_str().unwrap()]);
        command.args(self.settings()).arg(format!("--node.name=node-{number}")).args(flags);
        let (node, port) = Running::serving(command);
        (folder, node, port)
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        // It may be dead already.
        let _dead = self.process.kill();
        let _dead = self.process.wait();
    }
}

/// Status line and body of an answer.
fn ask(port: u16, request: &str, body: &str) -> String {
    let mut tcp = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let length = body.len();
    write!(
        tcp,
        "{request} HTTP/1.1\r\nHost: x\r\nX-API-Key: key\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).unwrap();
    answer
}

/// What an answer says.
fn body(answer: &str) -> serde_json::Value {
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

fn publish(port: u16, data: &str) -> String {
    ask(port, "POST /api/publish", &format!(r#"{{"channel":"chat:x","data":{data}}}"#))
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        std::thread::yield_now();
    }
}

fn subscriber(port: u16) -> Running {
    subscriber_of(port, "chat:x")
}

fn subscriber_of(port: u16, channel: &str) -> Running {
    let url = format!("ws://127.0.0.1:{port}/connection/websocket");
    let subscriber = Running::start(tidings(&["subscribe", channel, "--url", &url]));
    subscriber.says(&format!("live: {channel}"));
    subscriber
}

/// A socket that is subscribed as [`subscriber`] is, without a process of its own.
fn subscribed(port: u16) -> Peer {
    let mut peer = Peer::dial(SocketAddr::from(([127, 0, 0, 1], port)));
    peer.send(upgrade("").as_bytes());
    let head = peer.head();
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    peer.say("{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"chat:x\"}}");
    while !peer.receive().contains("\"id\":2,\"subscribe\"") {}
    peer
}

fn prints(subscriber: &Running) -> String {
    subscriber.out.recv_timeout(PATIENCE).unwrap()
}

#[test]
fn two_nodes_on_nats_are_one() {
    two_nodes_are_one(Kind::Nats);
}

#[test]
fn two_nodes_on_redis_are_one() {
    two_nodes_are_one(Kind::Redis);
}

fn two_nodes_are_one(kind: Kind) {
    let bus = Bus::start(kind);
    let ((_a, _node_a, a), (_b, mut node_b, b)) = (bus.node(), bus.node());
    let (near, far) = (subscriber(a), subscriber(b));
    for number in 0..50 {
        // Whichever node it is published on, everybody has one order.
        let answer = publish(if number % 2 == 0 { a } else { b }, &number.to_string());
        assert!(answer.contains(&format!("\"offset\":{}", number + 1)), "{answer}");
    }
    for number in 0..50 {
        assert_eq!([prints(&near), prints(&far)], [number.to_string(), number.to_string()]);
    }
    let present = || ask(a, "POST /api/presence_stats", r#"{"channel":"chat:x"}"#);
    wait_until("both are present", || present().contains("\"num_clients\":2"));
    let page = |cursor: &str| {
        let asked = format!(r#"{{"channel":"chat:x","limit":1,"cursor":"{cursor}"}}"#);
        body(&ask(a, "POST /api/subscribers", &asked))["result"].clone()
    };
    let first = page("");
    let second = page(first["cursor"].as_str().unwrap());
    let names = [&first, &second].map(|page| page["subscribers"][0]["node"].clone());
    assert!(names[0] != names[1] && names.iter().all(|name| name.is_string()), "{names:?}");
    let rest = second["cursor"].as_str().map_or(serde_json::Value::Null, page);
    assert!(rest["subscribers"].as_array().is_none_or(Vec::is_empty), "{rest}");
    node_b.signal("-TERM");
    let (status, words) = (node_b.exit(), node_b.last_words());
    assert!(status.success() && !words.contains("panicked"), "{words}");
    // Its caller no longer waits for it.
    let info = body(&ask(a, "POST /api/info", "{}"))["result"].clone();
    assert_eq!(info["nodes"].as_array().unwrap().len(), 1, "{info}");
    assert_eq!(info["missing_nodes"], serde_json::Value::Null, "{info}");
    wait_until("one is present", || present().contains("\"num_clients\":1"));
}

#[test]
fn what_nats_does_not_carry_is_refused_for_good_and_harms_nobody() {
    let bus = Bus::start(Kind::Nats);
    let limit = "--websocket.message_size_limit=4000000";
    let (_a, node, a) = bus.node_with(&["--channel.max_length=3000", limit]);
    node.says("max_payload of nats-server (1048576)");
    let near = subscriber(a);
    let name = format!("chat:{}", ".".repeat(2_500));
    let asked = format!(r#"{{"channel":"{name}","data":1,"history":{{"limit":1}}}}"#);
    for method in ["publish", "history", "presence", "presence_stats", "history_remove"] {
        let answer = ask(a, &format!("POST /api/{method}"), &asked);
        let error = body(&answer)["error"].clone();
        assert_eq!(error["code"], 107, "{method}: {answer}");
        assert!(error["message"].as_str().unwrap().contains("channel name"), "{method}: {answer}");
    }
    let large = publish(a, &format!("\"{}\"", "x".repeat(1_100_000)));
    assert_eq!(body(&large)["error"]["code"], 107, "{large}");
    assert!(large.contains("max_payload"), "{large}");
    let url = format!("ws://127.0.0.1:{a}/connection/websocket");
    let mut far = Running::start(tidings(&["subscribe", &name, "--url", &url]));
    far.says("107");
    assert!(!far.exit().success());
    assert!(ask(a, "GET /ready", "").contains("200"));
    assert!(publish(a, "1").contains("\"offset\":1"));
    assert_eq!(prints(&near), "1");
}

#[test]
fn a_temporary_channel_on_nats_ends_on_both_nodes() {
    a_temporary_channel_ends_on_both_nodes(Kind::Nats);
}

#[test]
fn a_temporary_channel_on_redis_ends_on_both_nodes() {
    a_temporary_channel_ends_on_both_nodes(Kind::Redis);
}

fn a_temporary_channel_ends_on_both_nodes(kind: Kind) {
    let bus = Bus::start(kind);
    let ((_a, _node_a, a), (_b, _node_b, b)) = (bus.node(), bus.node());
    let began = Instant::now();
    let mut both = [subscriber_of(a, "call:x"), subscriber_of(b, "call:x")];
    let published = ask(a, "POST /api/publish", r#"{"channel":"call:x","data":1}"#);
    let reported = body(&ask(b, "POST /api/channel", r#"{"channel":"call:x"}"#))["result"].clone();
    assert_eq!(
        (&reported["tier"], &reported["num_clients"]),
        (&"temporary".into(), &2.into()),
        "{reported}"
    );
    for subscriber in &mut both {
        subscriber.says("(2100)");
        assert!(began.elapsed() >= Duration::from_secs(6));
        assert!(!subscriber.exit().success());
    }
    let history = || body(&ask(b, "POST /api/history", r#"{"channel":"call:x","limit":10}"#));
    wait_until("what it retained is gone", || {
        history()["result"]["publications"].as_array().is_some_and(Vec::is_empty)
    });
    let epoch = body(&published)["result"]["epoch"].clone();
    assert_ne!(history()["result"]["epoch"], epoch);
}

#[test]
fn a_node_that_is_killed_on_redis_leaves_no_stale_presence() {
    a_node_that_is_killed_leaves_no_stale_presence(Kind::Redis);
}

#[test]
fn a_node_that_is_killed_on_nats_leaves_no_stale_presence() {
    a_node_that_is_killed_leaves_no_stale_presence(Kind::Nats);
}

/// Others say of its clients that they are offline, once, and that they have left.
fn a_node_that_is_killed_leaves_no_stale_presence(kind: Kind) {
    let bus = Bus::start(kind);
    let ((_a, _node_a, a), (_b, mut node_b, b)) = (bus.node(), bus.node());
    let (_c, _node_c, c) = bus.node();
    let watcher = bus.watcher(a);
    let _near = subscriber(a);
    let far = subscriber(b);
    let present = || ask(a, "POST /api/presence_stats", r#"{"channel":"chat:x"}"#);
    wait_until("both are present", || present().contains("\"num_clients\":2"));
    let of_b: serde_json::Value = {
        let clients = body(&ask(c, "POST /api/clients", r#"{"user":""}"#));
        let nodes: Vec<_> = clients["result"]["clients"].as_array().unwrap().clone();
        let name = body(&ask(b, "POST /api/info", "{}"))["result"]["nodes"][0]["name"].clone();
        nodes.into_iter().find(|client| client["node"] == name).expect("b has a client")
    };
    assert_eq!(of_b["channels"], serde_json::json!(["chat:x"]));
    let lost = of_b["client"].as_str().unwrap();
    node_b.signal("-KILL");
    node_b.exit();
    wait_until("one is present", || present().contains("\"num_clients\":1"));
    let mut reported = Vec::new();
    while !reported.iter().any(|event: &String| event.contains("offline")) {
        reported.extend(Some(prints(&watcher)).filter(|event| event.contains(lost)));
    }
    // A duplicate from another node would have arrived before the next event.
    drop(far);
    let last = subscriber(a);
    let mut last_online = String::new();
    while !last_online.contains("online") || last_online.contains(lost) {
        last_online = prints(&watcher);
        reported.extend(Some(last_online.clone()).filter(|event| event.contains(lost)));
    }
    drop(last);
    let offline = reported.iter().filter(|event| event.contains("offline")).count();
    assert_eq!(offline, 1, "{reported:?}");
    assert!(reported.iter().any(|event| event.contains("node lost")), "{reported:?}");
    let nodes = ask(c, "POST /api/info", "{}");
    assert!(nodes.matches("\"uid\"").count() == 2 && !nodes.contains("missing"), "{nodes}");
}

#[test]
fn redis_sends_one_copy_for_each_node_and_publication() {
    const PUBLICATIONS: usize = 10;
    const SIZE: usize = 50_000;
    let bus = Bus::start(Kind::Redis);
    let ((_a, _node_a, a), (_b, _node_b, b)) = (bus.node(), bus.node());
    let ports = std::iter::repeat_n(a, 100).chain(std::iter::repeat_n(b, 100));
    let mut peers: Vec<Peer> = ports.map(subscribed).collect();
    let before = bus.sent();
    for _ in 0..PUBLICATIONS {
        let answer = publish(a, &format!("\"{}\"", "x".repeat(SIZE)));
        assert!(answer.contains("\"offset\""), "{answer}");
    }
    for peer in &mut peers {
        let mut received = 0;
        while received < PUBLICATIONS * SIZE {
            received += peer.receive().len();
        }
    }
    let copies = (bus.sent() - before) as f64 / (PUBLICATIONS * SIZE) as f64;
    // What else is said meanwhile is less than a third copy.
    assert!((2.0..3.0).contains(&copies), "{copies} copies for two nodes");
}

#[test]
fn a_nats_that_goes_away_takes_readiness_and_no_client() {
    a_broker_that_goes_away_takes_readiness_and_no_client(Kind::Nats);
}

#[test]
fn a_redis_that_goes_away_takes_readiness_and_no_client() {
    a_broker_that_goes_away_takes_readiness_and_no_client(Kind::Redis);
}

fn a_broker_that_goes_away_takes_readiness_and_no_client(kind: Kind) {
    let mut bus = Bus::start(kind);
    let (_folder, _node, port) = bus.node();
    let client = subscriber(port);
    publish(port, "1");
    assert_eq!(prints(&client), "1");
    bus.kill();
    wait_until("it is not ready", || ask(port, "GET /ready", "").contains("503"));
    let name = if matches!(kind, Kind::Nats) { "NATS" } else { "Redis" };
    let reason = ask(port, "GET /ready", "");
    assert!(reason.contains(name), "{reason}");
    let refused = publish(port, "2");
    assert!(refused.contains("\"error\"") && !refused.contains("\"offset\""), "{refused}");
    bus.come_back();
    wait_until("it is ready", || ask(port, "GET /ready", "").contains("200"));
    // A client that reconnects to another epoch is notified, and receives what follows.
    wait_until("the client receives what is published", || {
        let answer = publish(port, "3");
        answer.contains("\"offset\"")
            && client.out.recv_timeout(A_MOMENT).is_ok_and(|data| data == "3")
    });
}

#[test]
fn what_is_revoked_on_nats_is_revoked_on_all_nodes_and_outlives_its_broker() {
    what_is_revoked_is_revoked_on_all_nodes_and_outlives_its_broker(Kind::Nats);
}

#[test]
fn what_is_revoked_on_redis_is_revoked_on_all_nodes_and_outlives_its_broker() {
    what_is_revoked_is_revoked_on_all_nodes_and_outlives_its_broker(Kind::Redis);
}

fn what_is_revoked_is_revoked_on_all_nodes_and_outlives_its_broker(kind: Kind) {
    let mut bus = Bus::start(kind);
    let ((_a, _node_a, a), (_b, _node_b, b)) = (bus.node(), bus.node());
    let (_folder, file) = configured(CONFIG);
    let comes = |port: u16, user: &str| {
        let url = format!("ws://127.0.0.1:{port}/connection/websocket");
        let file = file.to_str().unwrap();
        Running::start(tidings(&["subscribe", "chat:x", "-c", file, "--url", &url, "--user", user]))
    };
    let (mut ann, bob) = (comes(b, "ann"), comes(b, "bob"));
    ann.says("live: chat:x");
    bob.says("live: chat:x");
    let revoke = |method: &str, port: u16| {
        let answer = ask(port, &format!("POST /api/{method}"), r#"{"user":"ann"}"#);
        assert!(answer.ends_with(r#"{"result":{}}"#), "{answer}");
    };
    let began = Instant::now();
    revoke("revoke", a);
    ann.says("3500");
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    ann.exit();
    comes(b, "ann").says("3500");
    // A node that starts knows it before it serves, also when the broker was away meanwhile.
    bus.kill();
    bus.come_back();
    wait_until("it is ready", || ask(a, "GET /ready", "").contains("200"));
    let (_c, _node_c, c) = bus.node();
    comes(c, "ann").says("3500");
    // A broker that comes back without its data is sent the events again.
    bus.lose_data();
    wait_until("it is ready", || ask(a, "GET /ready", "").contains("200"));
    wait_until("a node that starts is notified", || {
        let (_folder, _node, port) = bus.node();
        let client = comes(port, "ann");
        let is_answer = |line: &String| line.contains("3500") || line.contains("live:");
        client.err.iter().find(is_answer).is_some_and(|line| line.contains("3500"))
    });
    revoke("unrevoke", b);
    comes(a, "ann").says("live: chat:x");
    // The other client is notified that the stream has begun anew, and receives what is published
    // afterwards.
    wait_until("the other client receives what is published", || {
        publish(a, "1");
        bob.out.recv_timeout(A_MOMENT).is_ok_and(|data| data == "1")
    });
}

#[test]
fn without_its_broker_nothing_starts() {
    for (kind, setting) in [(Kind::Nats, "broker.nats.url"), (Kind::Redis, "engine.redis.address")]
    {
        let mut bus = Bus::start(kind);
        bus.kill();
        let (_folder, file) = configured(CONFIG);
        let mut command = tidings(&["serve", "-c", file.to_str().unwrap()]);
        let output = command.args(bus.settings()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(setting) && !said.contains("hidden"), "{said}");
    }
}
