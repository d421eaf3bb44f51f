//! Logs and metrics of refusals: a line with client and reason, a count by reason, and never a
//! token or a key.

use std::io;
use std::sync::{Mutex, Once, PoisonError};
use std::time::Instant;

use server::token::{SubscriptionTokenRequest, TokenRequest, sign_subscription};
use tracing_subscriber::fmt::MakeWriter;

use crate::support::{API_KEY, Fixture, PATIENCE, Peer, SECRET, post, token, upgrade};

/// The log of all servers of this process.
static LOG: Mutex<String> = Mutex::new(String::new());

struct Log;

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        log().push_str(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Log;

    fn make_writer(&self) -> Log {
        Log
    }
}

fn log() -> std::sync::MutexGuard<'static, String> {
    LOG.lock().unwrap_or_else(PoisonError::into_inner)
}

fn start_logging() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing_subscriber::fmt().with_writer(Log).json().flatten_event(true).init();
    });
}

/// The log line that contains all of these texts.
fn line(wanted: &[&str]) -> String {
    let began = Instant::now();
    loop {
        let found = log()
            .lines()
            .find(|line| wanted.iter().all(|one| line.contains(one)))
            .map(str::to_owned);
        match found {
            Some(line) => return line,
            None => assert!(began.elapsed() < PATIENCE, "no line has {wanted:?}:\n{}", log()),
        }
        std::thread::yield_now();
    }
}

fn count(fixture: &Fixture, subject: &str, reason: &str) -> u64 {
    let metric = format!("tidings_refusals_total{{subject=\"{subject}\",reason=\"{reason}\"}} ");
    let (_, _, page) = fixture.request("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    page.lines().find_map(|line| line.strip_prefix(&metric)).map_or(0, |n| n.parse().unwrap())
}

fn subscription_token(user: &str, channel: &str) -> String {
    let token = TokenRequest { user: user.to_owned(), ..TokenRequest::default() };
    let request = SubscriptionTokenRequest { token, channel: channel.to_owned(), data: None };
    sign_subscription(SECRET, &request, 0).unwrap()
}

fn connected(fixture: &Fixture, user: &str) -> Peer {
    let mut peer = fixture.connect();
    peer.say(&format!(r#"{{"id":1,"connect":{{"token":"{}"}}}}"#, token(user)));
    assert!(peer.receive().contains(r#""connect":{"#));
    peer
}

#[test]
fn a_token_of_another_user_or_channel_is_logged_with_the_difference() {
    start_logging();
    let fixture = Fixture::start();
    for (user, of, channel, claim, found) in [
        ("mismatched-1", "somebody", "closed:room", "user", "somebody"),
        ("mismatched-2", "mismatched-2", "closed:other", "channel", "closed:other"),
    ] {
        let mut peer = connected(&fixture, user);
        let token = subscription_token(of, channel);
        let command = format!(r#"{{"channel":"closed:room","token":"{token}"}}"#);
        peer.say(&format!(r#"{{"id":2,"subscribe":{command}}}"#));
        assert_eq!(peer.close_code(), 3500);
        let claim = format!(r#""claim":"{claim}""#);
        let line = line(&["INFO", user, &claim, found, "closed:room", "subscription"]);
        assert!(!line.contains(&token), "{line}");
    }
    assert_eq!(count(&fixture, "token", "user") + count(&fixture, "token", "channel"), 2);
}

#[test]
fn an_invalid_token_is_logged_with_the_cause_and_without_the_token() {
    start_logging();
    let fixture = Fixture::start();
    let forged = token("forger").replace('.', ".x");
    let mut peer = fixture.connect();
    peer.say(&format!(r#"{{"id":1,"connect":{{"token":"{forged}"}}}}"#));
    assert_eq!(peer.close_code(), 3500);
    let mut peer = connected(&fixture, "holder-of-a-bad-token");
    let command = r#"{"channel":"closed:bad","token":"e30.e30.e30"}"#;
    peer.say(&format!(r#"{{"id":2,"subscribe":{command}}}"#));
    assert!(peer.receive().contains(r#""code":103"#));
    let line = line(&["INFO", "holder-of-a-bad-token", "closed:bad", "a token is refused"]);
    assert!(!line.contains("e30.e30"), "{line}");
    assert!(!log().contains(&forged));
}

#[test]
fn a_wrong_key_and_an_origin_that_is_not_allowed_are_logged_as_warnings() {
    start_logging();
    let fixture = Fixture::start();
    let wrong = "X-API-Key: quite-a-wrong-key\r\n";
    assert_eq!(fixture.request(&post("/api/publish", wrong, "{}")).0, 401);
    assert_eq!(fixture.request(&post("/api/broadcast", "", "{}")).0, 401);
    line(&["WARN", "wrong_key", "/api/publish", "127.0.0.1"]);
    line(&["WARN", "missing_key", "/api/broadcast"]);
    assert!(!log().contains("quite-a-wrong-key") && !log().contains(API_KEY));
    assert_eq!(count(&fixture, "api_key", "wrong_key"), 1);
    let origin = "https://not-listed.example";
    assert_eq!(fixture.request(&upgrade(&format!("Origin: {origin}\r\n"))).0, 403);
    line(&["WARN", origin, "client.allowed_origins"]);
    assert_eq!(count(&fixture, "origin", "not_allowed"), 1);
}

#[test]
fn a_missing_permission_is_logged_with_user_and_channel() {
    start_logging();
    let fixture = Fixture::start();
    let mut peer = connected(&fixture, "without-permission");
    for (id, command) in [(2, "presence"), (3, "presence_stats"), (4, "history")] {
        peer.say(&format!(r#"{{"id":{id},"{command}":{{"channel":"kept:x"}}}}"#));
        assert!(peer.receive().contains(r#""code":103"#));
        let command = format!(r#""command":"{command}""#);
        line(&["INFO", &command, "without-permission", "kept:x", "permission_denied"]);
    }
    assert_eq!(count(&fixture, "presence", "permission_denied"), 2);
    assert_eq!(count(&fixture, "history", "permission_denied"), 1);
}

#[test]
fn a_flood_of_refusals_does_not_flood_the_log() {
    start_logging();
    let fixture = Fixture::start();
    let mut peer = connected(&fixture, "flooding");
    for id in 2..302 {
        peer.say(&format!(r#"{{"id":{id},"history":{{"channel":"kept:x"}}}}"#));
        assert!(peer.receive().contains(r#""code":103"#));
    }
    assert_eq!(count(&fixture, "history", "permission_denied"), 300);
    let lines = log().lines().filter(|line| line.contains("flooding")).count();
    assert!((1..100).contains(&lines), "{lines} lines");
}
