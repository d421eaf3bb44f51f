//! Peers that stop: reading, answering pings, answering our goodbye.

use std::time::{Duration, Instant};

use server::limits::CLOSE_TIMEOUT_MS;

use crate::case::Case;
use crate::peer::{Peer, Received};

const CLOSE_TIMEOUT: Duration = Duration::from_millis(CLOSE_TIMEOUT_MS);

#[test]
fn who_stops_reading_is_closed_at_the_bound() {
    const BOUND_KB: u64 = 1024;
    let case = Case::busy("a reader that stops", &[]);
    let mut reader = Peer::admitted(case.server.address);
    reader.subscribe("open:flood");
    let subscriptions = case.before.subscriptions + 1;
    case.server.wait("it is subscribed", |now| now.subscriptions == subscriptions);
    let data = format!("\"{}\"", "x".repeat(16 * 1024));
    let mut published = 0;
    // By then the only other subscription is the neighbour's.
    while case.server.footprint().subscriptions > case.before.subscriptions {
        assert!(published < 2000, "never called slow");
        (0..10).for_each(|_| case.server.publish("open:flood", &data));
        published += 10;
    }
    let end = reader.end();
    assert_eq!(end, Received::Closed(3008));
    let growth = case.growth_kb();
    assert!(growth <= 4 * BOUND_KB, "grew by {growth} kB");
    drop(reader);
    case.finish(format!("closed with 3008 after {published} publications of 16 kB"));
}

#[test]
fn who_never_answers_our_close_is_cut_off() {
    let case = Case::quiet("a close never answered", &[]);
    let mut silent = Peer::admitted(case.server.address);
    let mut talking = Peer::admitted(case.server.address);
    silent.say("nonsense");
    talking.say("nonsense");
    let began = Instant::now();
    assert_eq!(silent.end(), Received::Closed(3501));
    let most = CLOSE_TIMEOUT * 2;
    let sent = talking.flood(&[0x8a, 0x80, 0, 0, 0, 0].repeat(1000), most..most, || false);
    let talked = began.elapsed();
    assert_eq!(silent.next(), Received::Cut);
    let slack = Duration::from_secs(2);
    assert!((CLOSE_TIMEOUT - slack / 4..CLOSE_TIMEOUT + slack).contains(&talked), "{talked:?}");
    drop(talking);
    case.finish(format!("cut off after {talked:.2?}, whatever else it sent ({sent} bytes)"));
}

#[test]
fn half_open_peers_are_gone_within_interval_and_timeout() {
    const PEERS: usize = 100;
    let settings = [("client.ping_interval", "1s"), ("client.pong_timeout", "500ms")];
    let most = Duration::from_millis(1500 + engine_tick_ms() + 500);
    let case = Case::quiet("half-open peers", &settings);
    let began = Instant::now();
    let mut peers: Vec<Peer> = Vec::new();
    for _ in 0..PEERS {
        let mut peer = Peer::admitted(case.server.address);
        peer.subscribe("open:x");
        peers.push(peer);
    }
    let opened = began.elapsed();
    case.server.wait("subscriptions of dead peers", |now| now.subscriptions == 0);
    let removed = began.elapsed();
    assert!(removed <= opened + most, "{removed:?}, opened within {opened:?}");
    case.server.wait("sockets of dead peers", |now| now.connections == 0);
    let gone = began.elapsed();
    assert!(gone <= opened + most + CLOSE_TIMEOUT, "{gone:?}");
    assert_eq!(peers[0].end(), Received::Closed(3012));
    drop(peers);
    case.finish(format!(
        "{PEERS} peers opened within {opened:.2?}, unsubscribed after {removed:.2?}, sockets gone \
         after {gone:.2?}"
    ));
}

/// Turns of the engine's timer wheel: two, as ping and pong each wait for one.
fn engine_tick_ms() -> u64 {
    2 * 128
}
