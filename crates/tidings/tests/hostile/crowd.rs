//! Many sockets: those that never say connect, and more than there are descriptors.

use std::time::{Duration, Instant};

use wire::websocket::encoder::FrameKind;

use crate::case::Case;
use crate::peer::{Heard, Peer, frame, upgrade};

/// Memory of a socket that has shaken hands and says nothing.
const KB_PER_SOCKET_MAX: f64 = 4.0;

#[test]
fn ten_thousand_that_never_say_connect_are_closed_and_forgotten() {
    const PEERS: usize = 10_000;
    const BATCH: usize = 500;
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let delay = Duration::from_secs(3);
    let case = Case::busy("a silent crowd", &[("client.stale_close_delay", "3s")]);
    let began = Instant::now();
    let mut peers: Vec<(Peer, Instant)> = Vec::new();
    for batch in 0..PEERS / BATCH {
        let first = batch * BATCH;
        for index in first..first + BATCH {
            let mut peer = Peer::dial_as(case.server.address, index);
            peer.send(upgrade("").as_bytes());
            peers.push((peer, Instant::now()));
        }
        for (peer, since) in &mut peers[first..] {
            peer.accepted();
            *since = Instant::now();
        }
    }
    let opened = began.elapsed();
    let mut latest = Duration::ZERO;
    for (peer, since) in &mut peers {
        assert_eq!(peer.next(), Heard::Closed(3502));
        latest = latest.max(since.elapsed());
        peer.send(&frame(FrameKind::Ping, b""));
    }
    let per_socket = case.growth_kb() as f64 / PEERS as f64;
    assert!(per_socket <= KB_PER_SOCKET_MAX, "{per_socket} kB per socket");
    assert!(latest <= delay + Duration::from_secs(5), "the last after {latest:?}");
    drop(peers);
    case.finish(format!(
        "{PEERS} sockets opened in {opened:.1?}, {per_socket:.2} kB each, closed with 3502, \
         the last after {latest:.1?}"
    ));
}

#[test]
fn when_descriptors_are_short_those_inside_are_served_and_room_comes_back() {
    let case = Case::short_of_descriptors("no descriptors left", 200);
    let mut inside = Peer::admitted(case.server.address);
    inside.subscribe("open:x");
    // The kernel takes them into its queue; the server cannot.
    let crowd: Vec<Peer> = (0..400).map(|_| Peer::dial(case.server.address)).collect();
    for _ in 0..100 {
        inside.say(r#"{"id":3,"publish":{"channel":"open:x","data":1}}"#);
        while !inside.hear().contains(r#""id":3"#) {}
    }
    drop(crowd);
    let began = Instant::now();
    Peer::admitted(case.server.address).reset();
    let took = began.elapsed();
    inside.reset();
    case.finish(format!("400 sockets against 200 descriptors; room again after {took:.1?}"));
}
