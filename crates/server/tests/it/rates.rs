//! Rate limits and memory limits (`limits.*`, `engine.memory.*`): what is refused, and when to
//! retry.

use std::time::{Duration, Instant};

use crate::support::{API_KEY, Fixture, PATIENCE, Peer, Received, post, token, upgrade};

const GET_METRICS: &str = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";

fn publish(id: u32, channel: &str) -> String {
    format!(r#"{{"id":{id},"publish":{{"channel":"{channel}","data":1}}}}"#)
}

/// Milliseconds after which a refusal advises to retry; `None` for another reply.
fn wait_ms(answer: &str) -> Option<u64> {
    let rest = answer.split("too many requests; retry after ").nth(1)?;
    rest.split(" ms").next()?.parse().ok()
}

fn refused(fixture: &Fixture, bucket: &str) -> u64 {
    let page = fixture.request(GET_METRICS).2;
    let name = format!("tidings_limited_total{{bucket=\"{bucket}\"}} ");
    let line = page.lines().find_map(|line| line.strip_prefix(&name));
    line.expect("every bucket has a counter").parse().unwrap()
}

#[test]
fn a_refused_publication_is_accepted_after_the_advised_time() {
    let fixture = Fixture::with(&[("limits.connection.publishes", "5/s burst 2")]);
    let mut peer = fixture.admitted();
    let mut other = fixture.admitted();
    let mut answers = Vec::new();
    for id in 2..5 {
        peer.say(&publish(id, "open:x"));
        answers.push(peer.receive());
    }
    assert_eq!(answers[0], r#"{"id":2,"publish":{}}"#);
    assert_eq!(answers[1], r#"{"id":3,"publish":{}}"#);
    assert!(answers[2].contains(r#""code":111"#) && answers[2].contains(r#""temporary":true"#));
    let wait = wait_ms(&answers[2]).expect("a time to wait");
    assert!((1..=200).contains(&wait), "{wait} ms");
    other.say(&publish(2, "open:x"));
    assert_eq!(other.receive(), r#"{"id":2,"publish":{}}"#, "others are not slowed");
    let refused_at = Instant::now();
    while refused_at.elapsed() < Duration::from_millis(wait) {}
    peer.say(&publish(5, "open:x"));
    assert_eq!(peer.receive(), r#"{"id":5,"publish":{}}"#);
    assert_eq!(refused(&fixture, "connection.publishes"), 1);
}

#[test]
fn a_user_has_one_rate_on_all_workers_of_a_node() {
    let fixture =
        Fixture::with(&[("limits.user.publishes", "1/h burst 4"), ("server.workers", "3")]);
    let mut peers: Vec<Peer> = (0..6).map(|_| fixture.admitted()).collect();
    let mut accepted = 0;
    for peer in &mut peers {
        peer.say(&publish(2, "open:x"));
        accepted += usize::from(wait_ms(&peer.receive()).is_none());
    }
    assert_eq!(accepted, 4);
    let mut other = fixture.connect();
    other.say(&format!(r#"{{"id":1,"connect":{{"token":"{}"}}}}"#, token("bob")));
    other.receive();
    other.say(&publish(2, "open:x"));
    assert_eq!(other.receive(), r#"{"id":2,"publish":{}}"#);
    assert_eq!(refused(&fixture, "user.publishes"), 2);
}

#[test]
fn a_flood_of_commands_closes_the_connection_after_the_replies() {
    let fixture = Fixture::with(&[
        ("limits.connection.commands", "1/h burst 3"),
        ("limits.connection.refusals", "1/h burst 10"),
    ]);
    let mut peer = fixture.admitted();
    // These two are accepted. The close may overtake a reply that waits for the broker, so each is
    // received before the flood.
    for id in 2..4 {
        peer.say(&publish(id, "open:x"));
        assert_eq!(wait_ms(&peer.receive()), None);
    }
    for id in 4..20 {
        peer.say(&publish(id, "open:x"));
    }
    // Replies of one turn share a frame.
    let mut answers: Vec<String> = Vec::new();
    let end = loop {
        match peer.next() {
            Received::Text(text) => answers.extend(text.lines().map(str::to_owned)),
            end => break end,
        }
    };
    assert_eq!(end, Received::Closed(3013));
    assert_eq!(answers.len(), 10, "{answers:#?}");
    assert!(answers.iter().all(|answer| wait_ms(answer).is_some()), "{answers:#?}");
    assert_eq!(refused(&fixture, "connection.refusals"), 1);
}

#[test]
fn every_line_of_a_request_takes_a_token_of_its_key() {
    let fixture = Fixture::with(&[("limits.api_key.requests", "1/h burst 6")]);
    // Unknown methods and empty batches take one each, a batch one for each of its commands.
    let lines = [
        r#"{"method":"x"}"#,
        r#"{"method":"batch","params":{"commands":[]}}"#,
        r#"{"method":"batch","params":{"commands":[{"info":{}},{"info":{}},{"info":{}}]}}"#,
        r#"{"method":"x"}"#,
        r#"{"method":"x"}"#,
        r#"{"method":"batch","params":{"commands":[]}}"#,
    ];
    let request = post("/api", &format!("X-API-Key: {API_KEY}\r\n"), &lines.join("\n"));
    let (_, _, answer) = fixture.request(&request);
    let is_limited: Vec<bool> = answer.lines().map(|line| wait_ms(line).is_some()).collect();
    assert_eq!(is_limited, [false, false, false, false, true, true], "{answer}");
    assert_eq!(refused(&fixture, "api_key.requests"), 2);
}

#[test]
fn handshakes_and_api_calls_are_refused_with_429_and_retry_after() {
    let fixture = Fixture::with(&[
        ("limits.address.handshakes", "1/h burst 2"),
        ("limits.api_key.requests", "1/m burst 3"),
    ]);
    for expected in [101, 101, 429] {
        let (status, head, body) = fixture.request(&upgrade(""));
        assert_eq!(status, expected, "{body}");
        assert_eq!(head.contains("retry-after: 3600\r\n"), status == 429, "{head}");
        assert_eq!(wait_ms(&body).is_some(), status == 429, "{body}");
    }
    let call = |body: &str| {
        let method = if body.contains("commands") { "batch" } else { "info" };
        let key = format!("X-API-Key: {API_KEY}\r\n");
        fixture.request(&post(&format!("/api/{method}"), &key, body))
    };
    // Both commands of a batch are counted.
    let (status, _, body) = call(r#"{"commands":[{"info":{}},{"info":{}}]}"#);
    assert!(status == 200 && !body.contains("error"), "{body}");
    let (status, _, body) = call(r#"{"commands":[{"info":{}},{"info":{}}]}"#);
    assert!(status == 200 && body.contains(r#"{"replies":[{"info":{"#), "{body}");
    assert!(wait_ms(&body).is_some(), "{body}");
    let (status, head, body) = call("{}");
    assert_eq!(status, 429);
    let seconds = head.split("retry-after: ").nth(1).unwrap().lines().next().unwrap();
    assert!((1..=60).contains(&seconds.parse::<u64>().unwrap()), "{head}");
    assert!(body.contains(r#""code":111"#) && wait_ms(&body).is_some(), "{body}");
    // A request without a key takes no token.
    assert_eq!(fixture.request(&post("/api/info", "X-API-Key: wrong\r\n", "{}")).0, 401);
    assert_eq!(refused(&fixture, "address.handshakes"), 1);
    assert_eq!(refused(&fixture, "api_key.requests"), 2);
}

#[test]
fn an_address_that_connects_too_often_is_closed_at_once() {
    let fixture = Fixture::with(&[("limits.address.connects", "1/h burst 2")]);
    let mut operator = Peer::dial(fixture.address);
    assert_eq!(operator.ask(GET_METRICS).0, 200);
    let mut client = fixture.admitted();
    let mut third = Peer::dial(fixture.address);
    assert_eq!(third.next(), Received::Cut);
    // Open connections continue.
    client.say(&publish(2, "open:x"));
    assert_eq!(client.receive(), r#"{"id":2,"publish":{}}"#);
    let page = operator.ask(GET_METRICS).2;
    assert!(page.contains("tidings_limited_total{bucket=\"address.connects\"} 1\n"), "{page}");
}

#[test]
fn limits_change_at_run_time() {
    let fixture = Fixture::with(&[("limits.connection.publishes", "off")]);
    let change = |limits: &str| {
        let data = format!(r#"{{"channel":"sys:config","data":{{"limits":{limits}}}}}"#);
        fixture.api("publish", &data).1
    };
    let mut peer = fixture.admitted();
    for id in 2..50 {
        peer.say(&publish(id, "open:x"));
        assert_eq!(wait_ms(&peer.receive()), None);
    }
    let wrong = change(r#"{"connection.publish":"1/s"}"#);
    assert!(wrong.contains(r#""code":107"#) && wrong.contains("publishes"), "{wrong}");
    assert!(change(r#"{"connection.publishes":"1/h burst 5"}"#).contains("result"));
    let began = Instant::now();
    let mut id = 50;
    let mut is_refused = |peer: &mut Peer| {
        id += 1;
        peer.say(&publish(id, "open:x"));
        assert!(began.elapsed() < PATIENCE, "in vain");
        wait_ms(&peer.receive()).is_some()
    };
    while !is_refused(&mut peer) {}
    assert!(change(r#"{"connection.publishes":null}"#).contains("result"));
    while is_refused(&mut peer) {}
}

#[test]
fn publications_beyond_the_memory_of_the_engine_are_refused() {
    let fixture = Fixture::with(&[
        ("engine.memory.bytes_max", "200000"),
        ("limits.connection.new_channels", "off"),
    ]);
    let data = "x".repeat(50_000);
    let keep = |channel: u32| {
        let body = format!(r#"{{"channel":"kept:{channel}","data":"{data}"}}"#);
        fixture.api("publish", &body).1
    };
    let answers: Vec<String> = (0..5).map(keep).collect();
    assert!(answers[..3].iter().all(|answer| answer.contains(r#""offset":1"#)), "{answers:?}");
    assert!(answers[4].contains(r#""code":111"#), "{answers:?}");
    let page = fixture.request(GET_METRICS).2;
    assert!(page.contains("tidings_memory_engine_bytes_max 200000\n"), "{page}");
    assert!(!page.contains("tidings_memory_engine_refused_total 0\n"), "{page}");
    // Stored publications can still be read, and publications without history are delivered.
    assert!(fixture.api("history", r#"{"channel":"kept:0","limit":10}"#).1.contains(&data));
    let body = format!(r#"{{"channel":"open:x","data":"{data}"}}"#);
    assert!(fixture.api("publish", &body).1.contains("result"));
}
