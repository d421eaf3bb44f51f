//! Errors at start: each names the option that causes it.

use std::net::TcpListener;
use std::sync::Arc;

use brokers::Clock;
use brokers::nats::{NatsBroker, NatsError, NatsOptions};

use crate::server::Server;

struct StoppedClock;

impl Clock for StoppedClock {
    fn monotonic_ms(&self) -> u64 {
        0
    }
}

pub(crate) fn refusal(options: NatsOptions) -> NatsError {
    match NatsBroker::start(options, Arc::new(StoppedClock), "n") {
        Ok(_) => panic!("it started"),
        Err(error) => error,
    }
}

#[test]
fn no_server_at_the_address() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("nats://ann:secret@{free}");
    let text = refusal(NatsOptions { url, ..NatsOptions::default() }).to_string();
    assert!(text.contains("broker.nats.url") && text.contains(&free.to_string()), "{text}");
    assert!(!text.contains("secret"), "{text}");
}

#[test]
fn a_wrong_password() {
    let server = Server::with(&["--user", "ann", "--pass", "right"]);
    let mut options = NatsOptions { jetstream: None, ..server.options() };
    let right = options.url.replace("//", "//ann:right@");
    options.url = options.url.replace("//", "//ann:wrong@");
    let error = refusal(options.clone());
    assert!(matches!(error, NatsError::Credentials { .. }), "{error}");
    assert!(!error.to_string().contains("wrong"), "{error}");
    options.url = right;
    NatsBroker::start(options, Arc::new(StoppedClock), "n").unwrap();
}

#[test]
fn no_jetstream() {
    let server = Server::with(&[]);
    let error = refusal(server.options());
    assert!(matches!(error, NatsError::NoJetStream), "{error}");
    let options = NatsOptions { jetstream: None, ..server.options() };
    NatsBroker::start(options, Arc::new(StoppedClock), "n").unwrap();
}

#[test]
fn a_foreign_stream() {
    let server = Server::start();
    NatsBroker::start(server.options(), Arc::new(StoppedClock), "n").unwrap();
    // The same stream name with other subjects.
    let options = NatsOptions { prefix: "a.b".into(), ..server.options() };
    NatsBroker::start(options.clone(), Arc::new(StoppedClock), "n").unwrap();
    let error = refusal(NatsOptions { prefix: "a_b".into(), ..options });
    assert!(matches!(error, NatsError::ForeignStream { .. }), "{error}");
    assert!(error.to_string().contains("broker.nats.prefix"), "{error}");
}

#[test]
fn an_invalid_prefix() {
    for prefix in ["", "a b", "a..b", "*", ">"] {
        let error = refusal(NatsOptions { prefix: prefix.into(), ..NatsOptions::default() });
        assert!(matches!(error, NatsError::Prefix(_)), "{error}");
    }
}
