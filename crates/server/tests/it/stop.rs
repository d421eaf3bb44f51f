//! Graceful shutdown: the node is not ready, refuses new connections, notifies clients, and ends.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use server::config::Shutdown;

use crate::support::{API_KEY, Fixture, upgrade};

#[test]
fn stopping_closes_all_clients_with_3001_over_the_window() {
    let mut fixture = Fixture::start();
    let mut peers: Vec<_> = (0..10).map(|_| fixture.admitted()).collect();
    assert_eq!(fixture.request("GET /ready HTTP/1.1\r\nHost: x\r\n\r\n").0, 200);
    let server = fixture.server.take().unwrap();
    let began = Instant::now();
    let stopped = fixture.runtime.spawn(server.stop());
    let address = fixture.address;
    let ends: Vec<_> = peers
        .iter_mut()
        .map(|peer| {
            let code = peer.close_code();
            // Answers the close frame, as clients do.
            peer.close(3001);
            (code, began.elapsed().as_millis())
        })
        .collect();
    assert!(ends.iter().all(|(code, _)| *code == 3001), "{ends:?}");
    let last = ends.iter().map(|(_, at)| *at).max().unwrap();
    assert!((200..3000).contains(&last), "spread over 300 ms, the last after {last} ms");
    fixture.runtime.block_on(stopped).unwrap();
    assert!(std::net::TcpStream::connect(address).is_err(), "nobody listens any more");
}

#[test]
fn health_readiness_and_api_are_served_until_the_last_client_has_disconnected() {
    let mut fixture = Fixture::with(&[("shutdown.timeout", "30s")]);
    let mut last = fixture.admitted();
    let server = fixture.server.take().unwrap();
    let stopped = fixture.runtime.spawn(server.stop());
    assert_eq!(last.close_code(), 3001);
    let get = |path: &str| fixture.request(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
    assert_eq!(get("/health").0, 200);
    let (status, _, reason) = get("/ready");
    assert_eq!((status, &*reason), (503, "stopping\n"));
    assert_eq!(fixture.api("publish", r#"{"channel":"open:x","data":1}"#).0, 200);
    let (status, head, _) = fixture.request(&upgrade(""));
    assert_eq!(status, 503);
    assert!(head.contains("retry-after: "), "{head}");
    last.close(3001);
    fixture.runtime.block_on(stopped).unwrap();
    assert!(std::net::TcpStream::connect(fixture.address).is_err(), "nobody listens any more");
}

#[test]
fn nobody_waits_for_requests_that_have_not_come() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let tls = [
        ("http_server.tls.enabled", "true"),
        ("http_server.tls.cert_pem", &*certificate),
        ("http_server.tls.key_pem", &*key),
    ];
    let proxied = [("client.trusted_proxies", "127.0.0.1"), ("http_server.proxy_protocol", "true")];
    for (settings, begin) in [
        (&[][..], ""),
        (&[], "GET /heal"),
        (&[], "GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /heal"),
        (&tls, ""),
        (&tls, "\u{16}\u{3}\u{1}\u{2}"),
        (&proxied, "PROXY TCP4 "),
    ] {
        let mut fixture = Fixture::with(settings);
        let mut peer = TcpStream::connect(fixture.address).unwrap();
        peer.write_all(begin.as_bytes()).unwrap();
        if begin.contains("HTTP") {
            peer.read_exact(&mut [0; 12]).unwrap();
        }
        let began = Instant::now();
        let stopped = fixture.runtime.spawn(fixture.server.take().unwrap().stop());
        // The end or a reset: the server leaves.
        let _left = peer.read_to_end(&mut Vec::new());
        drop(peer);
        fixture.runtime.block_on(stopped).unwrap();
        assert!(began.elapsed() < Duration::from_secs(4), "{begin:?}: {:?}", began.elapsed());
    }
}

/// Peers that keep their connections, whatever the server does.
#[test]
fn idle_connections_are_closed_at_once_and_requests_under_way_finish() {
    let mut fixture = Fixture::start();
    let dial = |begin: &str| {
        let mut peer = TcpStream::connect(fixture.address).unwrap();
        peer.write_all(begin.as_bytes()).unwrap();
        peer
    };
    let mut silent = dial("");
    let mut idle = dial("GET /health HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut answer = Vec::new();
    while !answer.ends_with(b"ok\n") {
        let mut byte = [0];
        idle.read_exact(&mut byte).unwrap();
        answer.extend(byte);
    }
    let body = r#"{"channel":"open:x","data":1}"#;
    let mut busy = dial(&format!(
        "POST /api/publish HTTP/1.1\r\nHost: x\r\nX-API-Key: {API_KEY}\r\nExpect: 100-continue\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    ));
    let mut expected = [0; b"HTTP/1.1 100 Continue\r\n\r\n".len()];
    busy.read_exact(&mut expected).unwrap();
    let began = Instant::now();
    let stopped = fixture.runtime.spawn(fixture.server.take().unwrap().stop());
    for peer in [&mut silent, &mut idle] {
        assert_eq!(peer.read(&mut [0]).unwrap(), 0, "the end of the stream, not a reset");
    }
    busy.write_all(body.as_bytes()).unwrap();
    let mut answer = String::new();
    busy.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("result"), "{answer}");
    drop(busy);
    fixture.runtime.block_on(stopped).unwrap();
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[test]
fn a_rate_makes_the_window_longer_and_the_timeout_bounds_it() {
    let window = |drain_rate, clients| {
        let (timeout, drain_window) = (Duration::from_secs(30), Duration::from_secs(3));
        Shutdown { timeout, drain_window, drain_rate }.window(clients).as_millis()
    };
    assert_eq!(
        [window(0, 1_000_000), window(1_000, 100), window(1_000, 10_000)],
        [3_000, 3_000, 10_000]
    );
    assert_eq!(window(1_000, 1_000_000), 27_000);
    let mut fixture = Fixture::with(&[("shutdown.drain_rate", "10")]);
    let mut peers: Vec<_> = (0..10).map(|_| fixture.admitted()).collect();
    let server = fixture.server.take().unwrap();
    let began = Instant::now();
    let stopped = fixture.runtime.spawn(server.stop());
    for peer in &mut peers {
        assert_eq!(peer.close_code(), 3001);
        peer.close(3001);
    }
    fixture.runtime.block_on(stopped).unwrap();
    assert!(
        began.elapsed() > Duration::from_millis(600),
        "ten at ten in a second: {:?}",
        began.elapsed()
    );
}

#[test]
fn a_peer_that_does_not_answer_the_close_is_cut_off() {
    let mut fixture = Fixture::with(&[("shutdown.timeout", "30s")]);
    let _silent = fixture.admitted();
    let server = fixture.server.take().unwrap();
    let began = Instant::now();
    fixture.runtime.block_on(server.stop());
    let passed = began.elapsed().as_secs();
    assert!(
        (4..15).contains(&passed),
        "stopped after {passed} s, not after the close timeout of 5 s"
    );
}

#[test]
fn two_servers_cannot_have_one_port() {
    let fixture = Fixture::start();
    let port = fixture.address.port().to_string();
    let source = server::config::Source {
        flags: vec![
            ("http_server.address".to_owned(), "127.0.0.1".to_owned()),
            ("http_server.port".to_owned(), port.clone()),
        ],
        ..Default::default()
    };
    let (config, _) = server::config::load(&source).unwrap();
    let result = fixture.runtime.block_on(server::Server::start(config));
    let text = result.err().unwrap().to_string();
    let hint = "address in use; choose another with --http_server.port";
    assert_eq!(text, format!("cannot listen on 127.0.0.1:{port}: {hint}"));
    assert_eq!(fixture.request(&upgrade("")).0, 101);
}

#[test]
fn reads_of_the_api_are_answered_after_the_workers_have_ended() {
    let mut fixture = Fixture::start();
    let mut silent = TcpStream::connect(fixture.address).unwrap();
    let mut peer = TcpStream::connect(fixture.address).unwrap();
    let head = format!(
        "POST /api/info HTTP/1.1\r\nHost: x\r\nX-API-Key: {API_KEY}\r\nExpect: 100-continue\r\n\
         Content-Length: 2\r\n\r\n"
    );
    peer.write_all(head.as_bytes()).unwrap();
    peer.read_exact(&mut [0; "HTTP/1.1 100 Continue\r\n\r\n".len()]).unwrap();
    let stopped = fixture.runtime.spawn(fixture.server.take().unwrap().stop());
    // Idle connections are closed after the workers have ended.
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    let began = Instant::now();
    peer.write_all(b"{}").unwrap();
    let mut answer = String::new();
    peer.read_to_string(&mut answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.contains(r#""num_clients":0"#),
        "{answer}"
    );
    assert!(began.elapsed() < Duration::from_secs(2), "answered after {:?}", began.elapsed());
    fixture.runtime.block_on(stopped).unwrap();
}
