//! Sockets that are reset or shut, at every stage of a connection's life.

use wire::websocket::encoder::{self, FrameKind};

use crate::case::Case;
use crate::peer::{Peer, Received, frame, upgrade};

#[test]
fn resets_and_ends_at_every_stage_leave_nothing_over() {
    const EACH: usize = 50;
    let case = Case::busy("resets and ends at every stage", &[]);
    let address = case.server.address;
    let stages: [(&str, &dyn Fn() -> Peer); 9] = [
        ("before the handshake", &|| Peer::dial(address)),
        ("in the handshake", &|| {
            let mut peer = Peer::dial(address);
            peer.send(&upgrade("").as_bytes()[..100]);
            peer
        }),
        ("behind the handshake, before its answer", &|| {
            let mut peer = Peer::dial(address);
            peer.send(upgrade("").as_bytes());
            peer
        }),
        ("after the handshake", &|| Peer::upgraded(address)),
        ("after connect", &|| Peer::admitted(address)),
        ("in a frame", &|| {
            let mut peer = Peer::admitted(address);
            let bytes = frame(FrameKind::Text, &[b' '; 1000]);
            peer.send(&bytes[..500]);
            peer
        }),
        ("while subscribing", &|| {
            let mut peer = Peer::admitted(address);
            peer.say(r#"{"id":2,"subscribe":{"channel":"kept:x"}}"#);
            peer
        }),
        ("while closing", &|| {
            let mut peer = Peer::admitted(address);
            let mut bytes = Vec::new();
            encoder::client_close(1000, "", [0; 4], &mut bytes);
            peer.send(&bytes);
            peer
        }),
        ("while being closed", &|| {
            let mut peer = Peer::admitted(address);
            peer.say("nonsense");
            assert_eq!(peer.end(), Received::Closed(3501));
            peer
        }),
    ];
    for (name, stage) in stages {
        for _ in 0..EACH {
            stage().reset();
            drop(stage());
        }
        case.server.wait(name, |now| {
            now.connections == case.before.connections && now.descriptors <= case.before.descriptors
        });
    }
    case.finish(format!("{} stages, {EACH} resets and {EACH} ends each", stages.len()));
}
