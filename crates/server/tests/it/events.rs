//! Events of a server, as the example receiver gets them.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;

use crate::support::Fixture;

const SECRET: &str = "whsec_ZXhhbXBsZSBzZWNyZXQsIG1ha2UgeW91ciBvd24=";

/// The example receiver; ended when dropped.
struct ExampleReceiver {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    port: u16,
}

impl Drop for ExampleReceiver {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

impl ExampleReceiver {
    fn start(secret: &str) -> ExampleReceiver {
        let mut command = Command::new("python3");
        command.arg("receiver.py").current_dir(folder()).env("PORT", "0").env("SECRET", secret);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("python3 is needed");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.next().unwrap().unwrap();
        let port = line.rsplit(' ').next().unwrap().parse().unwrap();
        ExampleReceiver { child, lines, port }
    }

    /// Waits for the next event.
    fn next(&mut self) -> Value {
        serde_json::from_str(&self.lines.next().unwrap().unwrap()).unwrap()
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/events")
}

/// A server with the configuration of the example, whose API has metrics.
fn server(port: u16) -> Fixture {
    let text = std::fs::read_to_string(folder().join("tidings.toml")).unwrap();
    let text = text.replace(":3000", &format!(":{port}"));
    Fixture::of(&format!(
        "{text}\n[prometheus]\nenabled = true\n[shutdown]\ndrain_window = \"0s\"\n"
    ))
}

#[test]
fn the_example_receives_what_happens_until_the_server_has_stopped() {
    let mut receiver = ExampleReceiver::start(SECRET);
    let mut fixture = server(receiver.port);
    let joined = receiver.next();
    assert_eq!(joined["event"], "node_joined");
    let mut peer = fixture.connect();
    peer.say(r#"{"id":1,"connect":{}}"#);
    peer.receive();
    let online = receiver.next();
    assert_eq!((&online["event"], &online["user_id"]), (&"online".into(), &"".into()));
    peer.say(r#"{"id":2,"subscribe":{"channel":"news"}}"#);
    peer.receive();
    for name in ["occupied", "subscribed"] {
        let event = receiver.next();
        assert_eq!((&event["event"], &event["channel"]), (&name.into(), &"news".into()));
    }
    let (_, _, metrics) = fixture.request("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(metrics.contains("tidings_events_lost_total{sink=\"backend\",reason=\"full\"} 0"));
    let server = fixture.server.take().unwrap();
    fixture.runtime.block_on(server.stop());
    for name in ["node_draining", "unsubscribed", "vacated", "offline", "node_left"] {
        let event = receiver.next();
        assert_eq!(event["event"], name, "{event}");
        assert_eq!(event["node_id"], joined["node_id"]);
        if name == "offline" {
            assert_eq!(event["client_id"], online["client_id"]);
            assert_eq!(event["reason"], "shutdown");
        }
    }
}

#[test]
fn the_example_refuses_requests_that_are_not_signed_with_its_secret() {
    let receiver = ExampleReceiver::start("whsec_YW5vdGhlciBzZWNyZXQgb2YgYW5vdGhlciBvbmU=");
    let fixture = server(receiver.port);
    let has_failed = |metrics: &str| {
        let mut lines = metrics.lines();
        lines.any(|line| {
            let count = line.strip_prefix("tidings_events_failures_total{sink=\"backend\"} ");
            count.is_some_and(|count| count != "0")
        })
    };
    let mut metrics = String::new();
    while !has_failed(&metrics) {
        metrics = fixture.request("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").2;
    }
    assert!(metrics.contains("tidings_events_queued{sink=\"backend\"} 1\n"), "{metrics}");
    assert!(metrics.contains("tidings_events_delivered_total{sink=\"backend\"} 0\n"), "{metrics}");
}

#[test]
fn a_heartbeat_says_what_the_node_has() {
    let mut receiver = ExampleReceiver::start(SECRET);
    let text = format!(
        "[[events]]\nname = \"backend\"\nenabled = true\ninclude = [\"node_heartbeat\"]\n\
         [events.webhook]\nendpoint = \"http://127.0.0.1:{}/events\"\nsecret = \"{SECRET}\"\n",
        receiver.port
    );
    let _fixture = Fixture::of(&text);
    let event = receiver.next();
    assert_eq!((&event["event"], &event["num_clients"]), (&"node_heartbeat".into(), &0.into()));
}

#[test]
fn the_example_answers_strangers() {
    let receiver = ExampleReceiver::start(SECRET);
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    for (head, status) in [
        ("Content-Length: 99999999999".to_owned(), "413"),
        ("Content-Length: -1".to_owned(), "411"),
        (
            format!(
                "Content-Length: 0\r\nWebhook-Timestamp: {now}\r\nWebhook-Signature: v1,\u{e9}"
            ),
            "401",
        ),
        ("Content-Length: 0\r\nWebhook-Timestamp: \u{b2}".to_owned(), "401"),
    ] {
        let mut stream = TcpStream::connect(("127.0.0.1", receiver.port)).unwrap();
        write!(stream, "POST /events HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n").unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        assert_eq!(line.split(' ').nth(1), Some(status), "{head}");
    }
}
