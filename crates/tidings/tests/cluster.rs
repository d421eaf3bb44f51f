//! Nodes as processes on one NATS: what is published on one is heard on the other, and a NATS that goes away takes
//! readiness with it, but no client.

#[path = "support/process.rs"]
mod process;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use tempfile::TempDir;

use process::{PATIENCE, Running, configured, tidings};

const CONFIG: &str = r#"
[http_server]
address = "127.0.0.1"
port = 0
[http_api]
key = "key"
[client]
allow_anonymous_connect_without_token = true
[shutdown]
drain_window = "0s"
[broker]
enabled = true
type = "nats"
[[channel.namespaces]]
name = "chat"
presence = true
history_size = 100
history_ttl = "60s"
force_recovery = true
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
"#;

/// A NATS with JetStream, which is killed when the test ends.
struct Nats {
    port: u16,
    store: TempDir,
    process: Child,
}

impl Nats {
    fn start() -> Nats {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let store = tempfile::tempdir().unwrap();
        let process = Nats::run(port, &store);
        Nats { port, store, process }
    }

    fn run(port: u16, store: &TempDir) -> Child {
        let mut process = Command::new("nats-server")
            .args(["-a", "127.0.0.1", "-p", &port.to_string(), "-js", "-sd"])
            .arg(store.path())
            .stderr(Stdio::piped())
            .spawn()
            .expect("nats-server is missing: apt-get install nats-server");
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("Server is ready")), "nats-server ended");
        std::thread::spawn(move || lines.for_each(drop));
        process
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn come_back(&mut self) {
        self.process = Nats::run(self.port, &self.store);
    }

    /// A node on it, and its port.
    fn node(&self) -> (TempDir, Running, u16) {
        let (folder, file) = configured(CONFIG);
        let url = format!("--broker.nats.url=nats://127.0.0.1:{}", self.port);
        let (node, port) =
            Running::serving(tidings(&["serve", "-c", file.to_str().unwrap(), &url]));
        (folder, node, port)
    }
}

impl Drop for Nats {
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
    let url = format!("ws://127.0.0.1:{port}/connection/websocket");
    let subscriber = Running::start(tidings(&["subscribe", "chat:x", "--url", &url]));
    subscriber.says("live: chat:x");
    subscriber
}

fn prints(subscriber: &Running) -> String {
    subscriber.out.recv_timeout(PATIENCE).unwrap()
}

#[test]
fn two_nodes_are_one() {
    let nats = Nats::start();
    let ((_a, _node_a, a), (_b, mut node_b, b)) = (nats.node(), nats.node());
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
    node_b.signal("-TERM");
    let (status, words) = (node_b.exit(), node_b.last_words());
    assert!(status.success() && !words.contains("panicked"), "{words}");
    wait_until("one is present", || present().contains("\"num_clients\":1"));
}

#[test]
fn a_nats_that_goes_away_takes_readiness_and_no_client() {
    let mut nats = Nats::start();
    let (_folder, _node, port) = nats.node();
    let client = subscriber(port);
    publish(port, "1");
    assert_eq!(prints(&client), "1");
    nats.kill();
    wait_until("it is not ready", || ask(port, "GET /ready", "").contains("503"));
    assert!(ask(port, "GET /ready", "").contains("the broker does not answer"));
    let refused = publish(port, "2");
    assert!(refused.contains("\"error\"") && !refused.contains("\"offset\""), "{refused}");
    nats.come_back();
    wait_until("it is ready", || ask(port, "GET /ready", "").contains("200"));
    wait_until("it publishes", || publish(port, "3").contains("\"offset\""));
    // The one that was refused may have been taken all the same; what was accepted comes.
    wait_until("the client hears it", || prints(&client) == "3");
}

#[test]
fn without_nats_nothing_starts() {
    let mut nats = Nats::start();
    nats.kill();
    let (_folder, file) = configured(CONFIG);
    let url = format!("--broker.nats.url=nats://user:hidden@127.0.0.1:{}", nats.port);
    let output = tidings(&["serve", "-c", file.to_str().unwrap(), &url]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("broker.nats.url") && !said.contains("hidden"), "{said}");
}
