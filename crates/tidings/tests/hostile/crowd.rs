//! Many sockets: those that never say connect, and more than there are descriptors.

use std::time::{Duration, Instant};

use wire::websocket::encoder::FrameKind;

use crate::case::Case;
use crate::peer::{Peer, Received, frame, upgrade};

/// Memory of a socket that has shaken hands and says nothing.
const KB_PER_SOCKET_MAX: f64 = 4.0;

/// Kilobytes that a crowd may add to what the one before it left: far less than a crowd takes.
const NEXT_CROWD_KB_MAX: u64 = 2 * 1024;
/// Crowds until the allocator has all its room.
const CROWDS_MAX: usize = 4;

#[test]
fn ten_thousand_that_never_say_connect_are_closed_and_forgotten() {
    const PEERS: usize = 10_000;
    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let delay = Duration::from_secs(3);
    let mut case = Case::busy("a silent crowd", &[("client.stale_close_delay", "3s")]);
    let (mut opened, mut latest) = crowd(&case, PEERS);
    let per_socket = case.growth_kb() as f64 / PEERS as f64;
    assert!(per_socket <= KB_PER_SOCKET_MAX, "{per_socket} kB per socket");
    // What the allocator keeps of one crowd is room for the next. Those that are not forgotten need
    // more every time.
    let mut crowds = 1;
    loop {
        case.begin_again(NEXT_CROWD_KB_MAX);
        let (opened_again, latest_again) = crowd(&case, PEERS);
        (opened, latest) = (opened.max(opened_again), latest.max(latest_again));
        crowds += 1;
        if crowds == CROWDS_MAX || case.left_over_kb() <= NEXT_CROWD_KB_MAX {
            break;
        }
    }
    assert!(latest <= delay + Duration::from_secs(5), "the last after {latest:?}");
    case.finish(format!(
        "{crowds} times {PEERS} sockets opened in {opened:.1?}, {per_socket:.2} kB each, closed \
         with 3502, the last after {latest:.1?}"
    ));
}

/// So many shake hands and say nothing until they are closed. How long opening took, and how long
/// the last one stayed.
fn crowd(case: &Case, peers: usize) -> (Duration, Duration) {
    const BATCH: usize = 500;
    let began = Instant::now();
    let mut crowd: Vec<(Peer, Instant)> = Vec::new();
    for batch in 0..peers / BATCH {
        let first = batch * BATCH;
        for index in first..first + BATCH {
            let mut peer = Peer::dial_as(case.server.address, index);
            peer.send(upgrade("").as_bytes());
            crowd.push((peer, Instant::now()));
        }
        for (peer, since) in &mut crowd[first..] {
            peer.accepted();
            *since = Instant::now();
        }
    }
    let opened = began.elapsed();
    let mut latest = Duration::ZERO;
    for (peer, since) in &mut crowd {
        assert_eq!(peer.next(), Received::Closed(3502));
        latest = latest.max(since.elapsed());
        peer.send(&frame(FrameKind::Ping, b""));
    }
    (opened, latest)
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
        while !inside.receive().contains(r#""id":3"#) {}
    }
    drop(crowd);
    let began = Instant::now();
    Peer::admitted(case.server.address).reset();
    let took = began.elapsed();
    inside.reset();
    case.finish(format!("400 sockets against 200 descriptors; room again after {took:.1?}"));
}
