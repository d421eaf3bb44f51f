//! Messages that are more than they seem: bombs and crumbs.

use std::time::Duration;

use wire::limits::FRAGMENTS_MAX;
use wire::websocket::deflate::{Deflater, Window};

use crate::case::Case;
use crate::peer::{Peer, Received, upgrade};

#[test]
fn a_deflate_bomb_is_refused_before_it_unfolds() {
    const ROUNDS: usize = 20;
    let case = Case::busy("deflate bombs", &[("websocket.compression", "true")]);
    let bomb = Deflater::new(9).deflate(Window::Full, &vec![b' '; 60_000_000]).unwrap().to_vec();
    assert!(bomb.len() < 65_536, "within the message limit: {}", bomb.len());
    let mut frame = vec![0xc1, 0x80 | 126];
    frame.extend_from_slice(&u16::try_from(bomb.len()).unwrap().to_be_bytes());
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(&bomb);
    let began = case.server.processor_time();
    for _ in 0..ROUNDS {
        let mut peer = Peer::dial(case.server.address);
        peer.send(upgrade("Sec-WebSocket-Extensions: permessage-deflate\r\n").as_bytes());
        let head = peer.accepted();
        assert!(head.to_lowercase().contains("permessage-deflate"), "{head}");
        peer.send(&frame);
        assert_eq!(peer.end(), Received::Closed(1009));
    }
    let each = (case.server.processor_time() - began) / ROUNDS as u32;
    let growth = case.growth_kb();
    assert!(growth <= 4 * 1024, "grew by {growth} kB");
    case.finish(format!(
        "{ROUNDS} times {} bytes that would be 60 MB, 1009 each, {each:.1?} of processor time",
        bomb.len()
    ));
}

#[test]
fn crumbs_are_joined_up_to_a_bound() {
    let case = Case::busy("one-byte fragments", &[]);
    let crumb = |first: u8, byte: u8| [first, 0x81, 0, 0, 0, 0, byte];
    // As many bytes as a message may have: white space around the empty command that answers a
    // ping.
    let mut crumbs: Vec<u8> = Vec::new();
    crumbs.extend_from_slice(&crumb(0x01, b' '));
    let text = format!("{:>65533}}}", r#"{"id":7,"rpc":{}"#);
    text.bytes().for_each(|byte| crumbs.extend_from_slice(&crumb(0x00, byte)));
    crumbs.extend_from_slice(&crumb(0x80, b' '));
    let mut peer = Peer::admitted(case.server.address);
    let began = case.server.processor_time();
    peer.send(&crumbs);
    let reply = peer.receive();
    assert!(reply.contains(r#""code":108"#), "{reply}");
    let joined = case.server.processor_time() - began;
    assert!(joined <= Duration::from_secs(2), "{joined:?}");

    // Without bytes the message limit does not help.
    let began = case.server.processor_time();
    let mut empty = vec![0x01, 0x80, 0, 0, 0, 0];
    (0..200_000).for_each(|_| empty.extend_from_slice(&[0x00, 0x80, 0, 0, 0, 0]));
    const { assert!(200_000 > FRAGMENTS_MAX) };
    peer.send(&empty);
    assert_eq!(peer.end(), Received::Closed(1009));
    let refused = case.server.processor_time() - began;
    assert!(refused <= Duration::from_secs(2), "{refused:?}");

    let mut peer = Peer::admitted(case.server.address);
    let mut crumbs = crumb(0x01, b' ').to_vec();
    (0..200_000).for_each(|_| crumbs.extend_from_slice(&crumb(0x00, b' ')));
    peer.send(&crumbs);
    assert_eq!(peer.end(), Received::Closed(1009));
    let growth = case.growth_kb();
    assert!(growth <= 4 * 1024, "grew by {growth} kB");
    drop(peer);
    case.finish(format!(
        "65,536 joined in {joined:.1?} of processor time, 200,000 refused with 1009 in {refused:.1?}"
    ));
}
