//! Why the broker refuses to start: each reason with the option that it is about.

use std::net::TcpListener;

use brokers::redis::{RedisBroker, RedisError, RedisOptions};

use crate::server::Server;

fn refusal(options: RedisOptions) -> RedisError {
    match RedisBroker::start(options, "n") {
        Ok(_) => panic!("it started"),
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains("broker.redis."), "{text}");
            assert!(!text.contains("secret"), "{text}");
            error
        }
    }
}

fn at(address: String) -> RedisOptions {
    RedisOptions { address, ..RedisOptions::default() }
}

#[test]
fn nobody_at_the_address() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = refusal(at(format!("redis://ann:secret@{free}"))).to_string();
    assert!(text.contains(&free.to_string()) && text.contains("refused"), "{text}");
}

#[test]
fn one_who_is_silent_or_no_redis() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let text = refusal(at(format!("redis://{address}"))).to_string();
    assert!(text.contains("does not answer in time"), "{text}");
    let strange = std::thread::spawn(move || {
        use std::io::{Read, Write};
        // The first is the one that was left in the queue.
        for mut stream in listener.incoming().take(2).map(Result::unwrap) {
            let _left = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
            let _ended = stream.read(&mut [0; 100]);
        }
    });
    let text = refusal(at(format!("redis://{address}"))).to_string();
    assert!(text.contains("not the protocol of Redis"), "{text}");
    strange.join().unwrap();
}

#[test]
fn a_password() {
    let server = Server::with(&[
        "--requirepass",
        "right",
        "--user",
        "ann",
        "on",
        ">her",
        "allcommands",
        "allkeys",
        "allchannels",
    ]);
    let address = |secrets: &str| at(format!("redis://{secrets}127.0.0.1:{}", server.port));
    for wrong in ["", ":secret@", "ann:secret@", "bob:right@"] {
        let error = refusal(address(wrong));
        assert!(matches!(error, RedisError::Credentials { .. }), "{error}");
    }
    for right in [":right@", "default:right@", "ann:her@"] {
        RedisBroker::start(address(right), "n").unwrap();
    }
}

#[test]
fn a_user_who_may_not() {
    let server =
        Server::with(&["--user", "ann", "on", ">her", "+@connection", "allkeys", "allchannels"]);
    let error = refusal(at(format!("redis://ann:her@127.0.0.1:{}", server.port)));
    assert!(matches!(error, RedisError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("NOPERM"), "{error}");
}

#[test]
fn a_replica() {
    let master = Server::start();
    let port = master.port.to_string();
    let replica = Server::with(&["--replicaof", "127.0.0.1", &port]);
    let error = refusal(replica.options());
    assert!(matches!(error, RedisError::Replica { .. }), "{error}");
}

#[test]
fn a_cluster() {
    let error = refusal(Server::with(&["--cluster-enabled", "yes"]).options());
    assert!(matches!(error, RedisError::Mode { .. }), "{error}");
    assert!(error.to_string().contains("cluster"), "{error}");
}

#[test]
fn one_that_is_too_old() {
    let server = Server::with(&["--rename-command", "HELLO", "gone"]);
    let error = refusal(server.options());
    assert!(matches!(error, RedisError::TooOld { .. }), "{error}");
}

#[test]
fn a_database() {
    let server = Server::start();
    let of = |number: u32| at(format!("redis://127.0.0.1:{}/{number}", server.port));
    RedisBroker::start(of(3), "n").unwrap();
    let error = refusal(of(99));
    assert!(matches!(error, RedisError::Refused { command: "SELECT", .. }), "{error}");
}

#[test]
fn names_that_cannot_be() {
    for prefix in ["", "a b", "a{b}", "a:b"] {
        let error = refusal(RedisOptions { prefix: prefix.into(), ..RedisOptions::default() });
        assert!(matches!(error, RedisError::Prefix(_)), "{error}");
    }
    let error = refusal(at("localhost".into()));
    assert!(matches!(error, RedisError::Address), "{error}");
}
