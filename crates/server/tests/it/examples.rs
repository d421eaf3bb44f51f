//! The example backends, each in its language, behind the server with their configuration.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::support::{Fixture, Peer, upgrade};

/// A running example; ended when dropped.
struct Example {
    child: Child,
    port: u16,
}

impl Drop for Example {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

impl Example {
    /// Starts a command that prints the port on which it listens.
    fn start(command: &mut Command, how: &str) -> Example {
        let command = command.current_dir(folder()).env("PORT", "0").stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{how}: {error}"));
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().rsplit(' ').next().and_then(|port| port.parse().ok());
        Example { child, port: port.unwrap_or_else(|| panic!("{how}: {line:?}")) }
    }

    /// Starts the server of PHP, which takes a port and prints when it listens.
    fn php() -> Example {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new("php");
        command.args(["-S", &format!("127.0.0.1:{free}"), "backend.php"]).current_dir(folder());
        let mut child = command
            .stderr(Stdio::piped())
            .spawn()
            .expect("php: install it with apt-get install php-cli");
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let is_started = |line: &std::io::Result<String>| {
            line.as_ref().is_ok_and(|line| line.contains("started"))
        };
        assert!(lines.any(|line| is_started(&line)), "php has ended");
        // It writes a line for each request, and would otherwise wait for a reader.
        std::thread::spawn(move || lines.for_each(drop));
        Example { child, port: free }
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/backends")
}

fn ask(peer: &mut Peer, command: &Value) -> Value {
    peer.say(&command.to_string());
    serde_json::from_str(&peer.receive()).unwrap()
}

fn check(example: &Example) {
    let text = std::fs::read_to_string(folder().join("tidings.toml")).unwrap();
    let text = text.replace(":3000", &format!(":{}", example.port));
    let fixture = Fixture::of(&format!("{text}\n[shutdown]\ndrain_window = \"0s\"\n"));
    let connect = |headers| {
        let mut peer = Peer::dial(fixture.address);
        assert_eq!(peer.ask(&upgrade(headers)).0, 101);
        let connected = ask(&mut peer, &json!({"id": 1, "connect": {}}));
        (peer, connected)
    };
    let (_, refused) = connect("");
    assert_eq!(refused["error"], json!({"code": 1001, "message": "log in first"}));
    let (mut peer, connected) = connect("Cookie: session=ann\r\n");
    assert!(connected["connect"]["subs"]["news"].is_object(), "{connected}");
    let closed = ask(&mut peer, &json!({"id": 2, "subscribe": {"channel": "vault"}}));
    assert_eq!(closed["error"]["code"], 103);
    let joined = ask(&mut peer, &json!({"id": 3, "subscribe": {"channel": "room1"}}));
    assert!(joined["subscribe"].is_object(), "{joined}");
    let publish = json!({"id": 4, "publish": {"channel": "room1", "data": {"text": "hi"}}});
    let mut messages = [ask(&mut peer, &publish), Value::Null];
    messages[1] = serde_json::from_str(&peer.receive()).unwrap();
    let publication = messages.iter().find(|message| message.get("push").is_some()).unwrap();
    assert_eq!(publication["push"]["pub"]["data"], json!({"from": "ann", "text": "hi"}));
    let echo = ask(&mut peer, &json!({"id": 5, "rpc": {"method": "echo", "data": {"a": [1]}}}));
    assert_eq!(echo["rpc"]["data"], json!({"a": [1]}));
    let unknown = ask(&mut peer, &json!({"id": 6, "rpc": {"method": "other", "data": {}}}));
    assert_eq!(unknown["error"]["code"], 104);
}

#[test]
fn python() {
    check(&Example::start(Command::new("python3").arg("backend.py"), "python3"));
}

#[test]
fn node() {
    check(&Example::start(Command::new("node").arg("backend.mjs"), "node"));
}

#[test]
fn go() {
    // `go run` would leave its child running.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let program = target.join("example-backend-go");
    let mut build = Command::new("go");
    build.current_dir(folder()).env("GOCACHE", target.join("go-cache")).env("GOFLAGS", "");
    let built = build.arg("build").arg("-o").arg(&program).arg("backend.go").status();
    assert!(built.expect("go: install 1.22 or newer").success());
    check(&Example::start(&mut Command::new(&program), "the Go example"));
}

#[test]
fn php() {
    check(&Example::php());
}
