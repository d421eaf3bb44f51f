//! One connection that sends without end and does not read.

use std::time::Duration;

use wire::websocket::encoder::FrameKind;

use crate::case::Case;
use crate::peer::{Peer, frame};
use crate::server::sum;

const TIME: Duration = Duration::from_secs(1);

/// For floods of which little comes back: the kernel's buffers take the first megabytes.
const LONG: Duration = Duration::from_millis(2500);

/// Whatever it sends, a connection costs the server no more than this: its queue's bound, and as much again.
const GROWTH_KB_MAX: u64 = 4 * 1024;

/// How the server answers a flood.
#[derive(Clone, Copy)]
enum Ending {
    By(u16),
    /// Where the machine is quick enough to fill the kernel's buffers.
    PerhapsBy(u16),
    Never,
}

/// Floods from one connection.
fn flood(name: &'static str, time: Duration, bytes: &[u8], ending: Ending) {
    let case = Case::busy(name, &[]);
    let mut peer = Peer::admitted(case.server.address);
    peer.narrow();
    let began = case.server.processor_time();
    let sent = peer.flood(bytes, time);
    let used = case.server.processor_time() - began;
    let growth = case.growth_kb();
    let page = case.server.metrics();
    let closed = |code| sum(&page, &format!("tidings_connections_closed_total{{code=\"{code}\"}}"));
    let ended = match ending {
        Ending::By(code) | Ending::PerhapsBy(code) if closed(code) == 1 => {
            format!("ended by {code}")
        }
        Ending::By(code) => panic!("{name} does not end with {code}:\n{page}"),
        Ending::PerhapsBy(_) | Ending::Never => {
            let connections = sum(&page, "tidings_connections");
            assert_eq!(connections, case.before.connections + 1, "{name} ends:\n{page}");
            "not ended".to_owned()
        }
    };
    drop(peer);
    case.finish(format!("{sent} bytes sent, {ended}, {used:.1?} of processor time"));
    assert!(growth <= GROWTH_KB_MAX, "grew by {growth} kB");
}

/// A frame with so many commands, and that frame so often that a write is worth its while.
fn commands(count: usize, command: impl Fn(usize) -> String) -> Vec<u8> {
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
    flood("a flood of commands", TIME, &bytes, Ending::By(3008));
}

#[test]
fn of_commands_one_a_frame() {
    let bytes = commands(1, |_| r#"{"id":1,"rpc":{}}"#.to_owned());
    flood("a flood of commands, one a frame", TIME, &bytes, Ending::By(3008));
}

#[test]
fn of_subscribes() {
    let bytes = commands(500, |n| format!(r#"{{"id":1,"subscribe":{{"channel":"open:{n}"}}}}"#));
    flood("a flood of subscribes", TIME, &bytes, Ending::By(3008));
}

#[test]
fn of_subscribes_and_unsubscribes() {
    let bytes = commands(500, |n| {
        let action = if n % 2 == 0 { "subscribe" } else { "unsubscribe" };
        format!(r#"{{"id":1,"{action}":{{"channel":"open:{}"}}}}"#, n / 2)
    });
    flood("a flood of subscribes and unsubscribes", LONG, &bytes, Ending::PerhapsBy(3008));
}

#[test]
fn of_publications() {
    let bytes =
        commands(500, |_| r#"{"id":1,"publish":{"channel":"open:flood","data":1}}"#.to_owned());
    flood("a flood of publications", LONG, &bytes, Ending::PerhapsBy(3008));
}

#[test]
fn of_protocol_pongs() {
    // The first pong that nobody asked for ends it.
    flood(
        "a flood of pongs of the protocol",
        TIME,
        &commands(1, |_| "{}".to_owned()),
        Ending::By(3501),
    );
}

#[test]
fn of_websocket_pongs() {
    // RFC 6455 §5.5.3 allows them, so nothing ends it but the peer.
    let bytes = frame(FrameKind::Pong, b"").repeat(40_000);
    flood("a flood of WebSocket pongs", TIME, &bytes, Ending::Never);
}

#[test]
fn of_websocket_pings() {
    let case = Case::busy("a flood of WebSocket pings", &[]);
    let mut peer = Peer::admitted(case.server.address);
    peer.narrow();
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
    let sent = peer.flood(&frame(FrameKind::Ping, b"").repeat(40_000), LONG);
    let growth = case.growth_kb();
    let slow = sum(&case.server.metrics(), "tidings_connections_closed_total{code=\"3008\"}");
    drop(peer);
    case.finish(format!("{} short ones until 3008", sent / 6));
    assert_eq!(slow, 1, "never called slow");
    assert!(growth <= GROWTH_KB_MAX, "grew by {growth} kB");
}
