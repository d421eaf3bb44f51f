//! What an operator meets at a start: `tidings doctor` beside a server that runs, a port that
//! something else has, and a broker that is not there; and a node that waits for its broker, which
//! is alive, not ready, and says why.

#[path = "support/process.rs"]
mod process;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use process::{PATIENCE, Running, configured, tidings};

fn doctor(config: &str, port: u16) -> (Option<i32>, String) {
    let (_folder, file) = configured(config);
    let port = format!("--http_server.port={port}");
    let mut command = tidings(&["doctor", "-c", file.to_str().unwrap(), &port]);
    let Output { status, stdout, .. } = command.output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap())
}

/// The line about this subject, and the line below it.
fn said<'t>(text: &'t str, subject: &str) -> (&'t str, &'t str) {
    let mut lines = text.lines().skip_while(|line| !line.contains(subject));
    (lines.next().unwrap_or_default(), lines.next().unwrap_or_default())
}

const LOOPBACK: &str = "[http_server]\naddress = \"127.0.0.1\"\n[http_api]\nkey = \"0123456789abcdef0123456789abcdef\"\n";

#[test]
fn a_port_of_another_process_is_a_problem_and_one_of_a_running_server_is_not() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let (code, text) = doctor(LOOPBACK, port);
    assert_eq!(code, Some(1), "{text}");
    let (found, advice) = said(&text, "http_server.port");
    assert!(found.starts_with("problem") && found.contains(&port.to_string()), "{text}");
    assert!(advice.contains("do: "), "{text}");
    let (_folder, file) = configured(LOOPBACK);
    let file = file.to_str().unwrap();
    let (mut server, port) =
        Running::serving(tidings(&["serve", "-c", file, "--http_server.port=0"]));
    let (code, text) = doctor(LOOPBACK, port);
    assert_eq!(code, Some(0), "{text}");
    assert!(said(&text, "http_server.port").0.starts_with("ok"), "{text}");
    assert!(said(&text, "engine.type").0.starts_with("ok"), "{text}");
    server.signal("-TERM");
    assert!(server.exit().success(), "{}", server.last_words());
}

#[test]
fn a_broker_and_a_key_set_that_cannot_be_reached_are_problems_with_their_keys() {
    let config = format!(
        "{LOOPBACK}[engine]\ntype = \"redis\"\n[engine.redis]\naddress = [\"redis://127.0.0.1:1\"]\n\
         wait_at_start = false\n[client.token]\njwks_public_endpoint = \"http://127.0.0.1:1/keys\"\naudience = \"me\"\n"
    );
    let (code, text) = doctor(&config, 0);
    assert_eq!(code, Some(1), "{text}");
    for subject in ["engine.redis", "client.token.jwks_public_endpoint"] {
        let (found, advice) = said(&text, subject);
        assert!(found.starts_with("problem") && found.contains("127.0.0.1:1"), "{text}");
        assert!(advice.contains("do: "), "{text}");
    }
    assert!(text.ends_with("2 problems, 0 warnings\n"), "{text}");
}

#[test]
fn a_configuration_with_mistakes_is_reported_as_by_check() {
    let (_folder, file) = configured("[http_server]\nport = \"many\"\n");
    let output = tidings(&["doctor", "-c", file.to_str().unwrap()]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("http_server.port"));
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Status line and body of an answer; `None` while the port is closed.
fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// Asks until the answer is as wanted.
fn until(port: u16, path: &str, wanted: impl Fn(&str) -> bool) -> String {
    let began = Instant::now();
    loop {
        let answer = get(port, path);
        if let Some(answer) = answer.filter(|answer| wanted(answer)) {
            return answer;
        }
        assert!(began.elapsed() < PATIENCE, "{path} does not answer as wanted");
        std::thread::yield_now();
    }
}

#[test]
fn a_node_whose_redis_is_away_is_alive_and_becomes_ready_when_redis_comes() {
    let (port, redis_port) = (free_port(), free_port());
    let (folder, file) = configured(&format!(
        "[http_server]\naddress = \"127.0.0.1\"\nport = {port}\n[http_api]\nkey = \"key\"\n\
         [engine]\ntype = \"redis\"\n[engine.redis]\naddress = [\"redis://127.0.0.1:{redis_port}\"]\n"
    ));
    let mut server = Running::start(tidings(&["serve", "-c", file.to_str().unwrap()]));
    let health = until(port, "/health", |_| true);
    assert!(health.starts_with("HTTP/1.1 200"), "{health}");
    let ready = until(port, "/ready", |answer| answer.contains("Redis"));
    assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
    let mut redis = Command::new("redis-server")
        .args(["--port", &redis_port.to_string(), "--bind", "127.0.0.1", "--save", ""])
        .arg("--dir")
        .arg(folder.path())
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server; apt-get install redis-server");
    until(port, "/ready", |answer| answer.starts_with("HTTP/1.1 200"));
    server.signal("-TERM");
    let ended = server.exit();
    redis.kill().unwrap();
    redis.wait().unwrap();
    assert!(ended.success(), "{}", server.last_words());
}
