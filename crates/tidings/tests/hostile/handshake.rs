//! Peers that never get as far as a WebSocket.

use std::io::{ErrorKind, Read as _};
use std::time::{Duration, Instant};

use server::limits::HEADER_TIMEOUT;

use crate::case::Case;
use crate::peer::{Peer, upgrade};

/// How much later than its timeout a handshake may be cut off.
const SLACK: Duration = Duration::from_secs(2);

#[test]
fn a_dripping_handshake_is_cut_off_in_time() {
    const PEERS: usize = 200;
    let case = Case::quiet("dripping handshakes", &[]);
    let request = upgrade("");
    let mut peers: Vec<(Peer, Instant)> = Vec::new();
    let mut ends = Vec::new();
    for index in 0..PEERS {
        peers.push((Peer::dial_as(case.server.address, index), Instant::now()));
        peers[index].0.stream.set_nonblocking(true).unwrap();
    }
    for byte in request.as_bytes().chunks(1) {
        for (peer, _) in &mut peers {
            peer.send(byte);
        }
        std::thread::sleep(Duration::from_secs(1));
        peers.retain_mut(|(peer, began)| {
            let is_open = is_open(peer);
            if !is_open {
                ends.push(began.elapsed());
            }
            is_open
        });
        if peers.is_empty() {
            break;
        }
    }
    let (first, last) = (ends.iter().min().unwrap(), ends.iter().max().unwrap());
    assert_eq!(ends.len(), PEERS);
    assert!(*first >= HEADER_TIMEOUT - SLACK && *last <= HEADER_TIMEOUT + SLACK, "{ends:?}");
    case.finish(format!("{PEERS} cut off after {first:.1?} to {last:.1?}"));
}

/// Reads what there is; whether the socket has not ended.
fn is_open(peer: &mut Peer) -> bool {
    let mut part = [0; 1024];
    loop {
        match peer.stream.read(&mut part) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
}

#[test]
fn who_asks_and_never_reads_the_answers_is_cut_off() {
    const PEERS: usize = 20;
    let case = Case::quiet("unread HTTP answers", &[]);
    let request = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1000);
    let time = Duration::from_millis(100);
    let mut sent = 0;
    let mut peers: Vec<Peer> = Vec::new();
    for _ in 0..PEERS {
        let mut peer = Peer::dial_narrow(case.server.address);
        sent += peer.flood(request.as_bytes(), time..time, || false);
        peers.push(peer);
    }
    let began = Instant::now();
    case.server.wait("a peer that does not read holds its place", |now| {
        now.descriptors <= case.before.descriptors
    });
    let took = began.elapsed();
    drop(peers);
    case.finish(format!("{PEERS} peers, {sent} bytes of requests, all gone after {took:.1?}"));
}
