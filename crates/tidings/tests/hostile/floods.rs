//! One connection that sends without end and does not read.

use std::time::{Duration, Instant};

use wire::websocket::encoder::FrameKind;

use crate::case::Case;
use crate::peer::{Peer, frame};
use crate::server::sum;

/// Time of a flood, even when its connection is closed sooner.
const TIME: Duration = Duration::from_secs(1);

/// Time within which it must have been closed, if at all; the kernel's buffers take the first
/// megabytes of the answers.
const LONGEST: Duration = Duration::from_secs(15);

/// Whatever it sends, a connection costs the server no more than this: its queue's bound, and as
/// much again.
const GROWTH_KB_MAX: u64 = 4 * 1024;

/// Floods from one connection until it is closed with one of these codes, or, without any, for a
/// while.
fn flood(name: &'static str, bytes: &[u8], codes: &[u16]) {
    let case = Case::busy(name, &[]);
    let mut peer = Peer::dial_narrow(case.server.address).admit();
    let began = (Instant::now(), case.server.processor_time());
    let sent = match codes {
        [] => peer.flood(bytes, TIME..TIME, || false),
        codes => peer.flood(bytes, TIME..LONGEST, || closed_by(&case, codes).is_some()),
    };
    let took = began.0.elapsed();
    let used = case.server.processor_time() - began.1;
    let growth = case.growth_kb();
    let ended = match closed_by(&case, codes) {
        Some(code) => format!("ended by {code}"),
        None => {
            let page = case.server.metrics();
            assert!(codes.is_empty(), "{name} does not end with {codes:?}: {page}");
            let connections = case.before.connections + 1;
            case.server.wait("it ends", |now| now.connections == connections);
            "not ended".to_owned()
        }
    };
    drop(peer);
    case.finish(format!("{sent} bytes sent in {took:.1?}, {ended}, {used:.1?} of processor time"));
    assert!(growth <= GROWTH_KB_MAX, "grew by {growth} kB");
}

/// Which of these codes a connection was closed with.
pub(crate) fn closed_by(case: &Case, codes: &[u16]) -> Option<u16> {
    let page = case.server.metrics();
    codes.iter().copied().find(|code| {
        sum(&page, &format!("tidings_connections_closed_total{{code=\"{code}\"}}")) == 1
    })
}

/// A frame with so many commands, and that frame so often that a write is worth its while.
pub(crate) fn commands(count: usize, command: impl Fn(usize) -> String) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut number = 0;
    while bytes.len() < 256 * 1024 {
        let lines: Vec<String> = (number..number + count).map(&command).collect();
        number += count;
        bytes.extend_from_slice(&frame(FrameKind::Text, lines.join("\n").as_bytes()));
    }
    bytes
}

#[test]
fn of_commands() {
    let bytes = commands(1000, |_| r#"{"id":1,"rpc":{}}"#.to_owned());
    flood("a flood of commands", &bytes, &[3008]);
}

#[test]
fn of_commands_one_a_frame() {
    let bytes = commands(1, |_| r#"{"id":1,"rpc":{}}"#.to_owned());
    flood("a flood of commands, one a frame", &bytes, &[3008]);
}

#[test]
fn of_subscribes() {
    let bytes = commands(500, |n| format!(r#"{{"id":1,"subscribe":{{"channel":"open:{n}"}}}}"#));
    flood("a flood of subscribes", &bytes, &[3008]);
}

#[test]
fn of_subscribes_and_unsubscribes() {
    let bytes = commands(500, |n| {
        let action = if n % 2 == 0 { "subscribe" } else { "unsubscribe" };
        format!(r#"{{"id":1,"{action}":{{"channel":"open:{}"}}}}"#, n / 2)
    });
    flood("a flood of subscribes and unsubscribes", &bytes, &[3008, 3013]);
}

#[test]
fn of_publications() {
    let bytes =
        commands(500, |_| r#"{"id":1,"publish":{"channel":"open:flood","data":1}}"#.to_owned());
    flood("a flood of publications", &bytes, &[3008]);
}

#[test]
fn of_protocol_pongs() {
    // The first unsolicited pong ends it.
    flood("a flood of pongs of the protocol", &commands(1, |_| "{}".to_owned()), &[3501]);
}

#[test]
fn of_websocket_pongs() {
    // RFC 6455 §5.5.3 allows them, so nothing ends it but the peer.
    let bytes = frame(FrameKind::Pong, b"").repeat(40_000);
    flood("a flood of WebSocket pongs", &bytes, &[]);
}

#[test]
fn of_websocket_pings() {
    let case = Case::busy("a flood of WebSocket pings", &[]);
    let mut peer = Peer::dial_narrow(case.server.address).admit();
    // First the kernel's buffers are filled, with long ones.
    let long = frame(FrameKind::Ping, &[b' '; 125]).repeat(500);
    let totals = || {
        let page = case.server.metrics();
        ["received", "sent"].map(|what| sum(&page, &format!("tidings_{what}_bytes_total")))
    };
    let mut waiting = 0;
    while waiting < 100_000 {
        let [received, sent] = totals();
        peer.send(&long);
        while totals()[0] < received + long.len() as u64 {}
        // The neighbour's bytes are few beside these.
        let answer = long.len() as u64 - 4 * 500;
        waiting += answer.saturating_sub(totals()[1] - sent);
    }
    // Then the server's own queue, with short ones: each is a frame in memory.
    let sent = peer.flood(&frame(FrameKind::Ping, b"").repeat(40_000), TIME..LONGEST, || {
        closed_by(&case, &[3008]).is_some()
    });
    let growth = case.growth_kb();
    let is_slow = closed_by(&case, &[3008]).is_some();
    drop(peer);
    case.finish(format!("{} short ones until 3008", sent / 6));
    assert!(is_slow, "never called slow");
    assert!(growth <= GROWTH_KB_MAX, "grew by {growth} kB");
}

#[test]
fn of_channels_made_up() {
    const CHANNELS: usize = 30_000;
    const BATCH: usize = 100;
    let case = Case::busy("channels made up", &[]);
    let mut peer = Peer::admitted(case.server.address);
    for first in (0..CHANNELS).step_by(BATCH) {
        for action in ["subscribe", "unsubscribe"] {
            let lines: Vec<String> = (first..first + BATCH)
                .map(|n| format!(r#"{{"id":1,"{action}":{{"channel":"kept:{n}"}}}}"#))
                .collect();
            peer.say(&lines.join("\n"));
            let mut missing = BATCH;
            while missing > 0 {
                let replies = peer.receive();
                assert!(!replies.contains("error"), "{replies}");
                missing -= replies.lines().count();
            }
        }
    }
    drop(peer);
    let growth = case.growth_kb();
    case.finish(format!("{CHANNELS} channels with history subscribed and left"));
    assert!(growth <= GROWTH_KB_MAX, "grew by {growth} kB");
}
