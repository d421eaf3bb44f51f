//! The decoder's results for valid and invalid bytes, however they are split.

use proptest::prelude::*;

use super::*;
use crate::websocket::deflate::{Deflater, Window};
use crate::websocket::encoder::{self, FrameKind};

const LIMITS: DecoderLimits = DecoderLimits { message_size: 100_000, inflated_size: 200_000 };
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A message that outlives the input.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>),
    Failed(u16),
}

fn feed(decoder: &mut Decoder, bytes: &[u8], seen: &mut Vec<Seen>) {
    let mut owned = bytes.to_vec();
    let mut input = &mut owned[..];
    let mut inflater = Inflater::default();
    loop {
        seen.push(match decoder.next(&mut inflater, &mut input) {
            Ok(None) => return,
            Ok(Some(Message::Text(payload))) => Seen::Text(payload.to_vec()),
            Ok(Some(Message::Binary(payload))) => Seen::Binary(payload.to_vec()),
            Ok(Some(Message::Ping(payload))) => Seen::Ping(payload.to_vec()),
            Ok(Some(Message::Pong(payload))) => Seen::Pong(payload.to_vec()),
            Ok(Some(Message::Close(close))) => Seen::Close(close.map(|close| close.code.number())),
            Err(error) => {
                seen.push(Seen::Failed(error.close_code().number()));
                return;
            }
        });
    }
}

fn decode_pieces(deflate: bool, pieces: &[&[u8]]) -> Vec<Seen> {
    let deflate = deflate.then_some(Window::Full);
    let mut decoder = Decoder::new(Role::Server, LIMITS, deflate);
    let mut seen = Vec::new();
    for piece in pieces {
        if matches!(seen.last(), Some(Seen::Failed(_))) {
            break;
        }
        feed(&mut decoder, piece, &mut seen);
    }
    seen
}

fn decode(bytes: &[u8]) -> Vec<Seen> {
    decode_pieces(false, &[bytes])
}

/// A client's frame with any first byte.
fn raw(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..126 => frame.push(0x80 | length as u8),
        length => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
    }
    frame.extend_from_slice(&KEY);
    let start = frame.len();
    frame.extend_from_slice(payload);
    mask::apply(KEY, 0, &mut frame[start..]);
    frame
}

#[test]
fn the_masked_hello_of_the_rfc() {
    let bytes = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(decode(&bytes), [Seen::Text(b"Hello".to_vec())]);
}

#[test]
fn fragments_with_a_ping_between_them() {
    let bytes = [raw(0x01, b"Hel"), raw(0x89, b"?"), raw(0x00, b""), raw(0x80, b"lo")].concat();
    assert_eq!(decode(&bytes), [Seen::Ping(b"?".to_vec()), Seen::Text(b"Hello".to_vec())]);
}

#[test]
fn every_breach_has_its_close_code() {
    let mut unmasked = raw(0x81, b"x");
    unmasked[1] &= 0x7F;
    let long_form = [&[0x81u8, 0xFE, 0, 5][..], &KEY, b"abcde"].concat();
    let negative = [&[0x82u8, 0xFF][..], &[0x80, 0, 0, 0, 0, 0, 0, 0], &KEY].concat();
    let huge = [&[0x82u8, 0xFF][..], &[0, 0, 0, 1, 0, 0, 0, 0], &KEY].concat();
    let too_long = vec![b'x'; 126];
    for (name, bytes, code) in [
        ("unmasked", unmasked, 1002),
        ("reserved bit 2", raw(0xA1, b""), 1002),
        ("compressed, not negotiated", raw(0xC1, b""), 1002),
        ("opcode 3", raw(0x83, b""), 1002),
        ("opcode 11", raw(0x8B, b""), 1002),
        ("length not in shortest form", long_form, 1002),
        ("length beyond 63 bits", negative, 1002),
        ("more than allowed", huge, 1009),
        ("fragmented ping", raw(0x09, b""), 1002),
        ("long ping", raw(0x89, &too_long), 1002),
        ("continuation of nothing", raw(0x80, b""), 1002),
        ("text inside a message", [raw(0x01, b"a"), raw(0x81, b"b")].concat(), 1002),
        ("close of one byte", raw(0x88, b"\x03"), 1002),
        ("close 1005", raw(0x88, b"\x03\xED"), 1002),
        ("close 999", raw(0x88, b"\x03\xE7"), 1002),
        ("close with a broken reason", raw(0x88, b"\x03\xE8\xFF"), 1007),
        ("broken text", raw(0x81, b"\xC3\x28"), 1007),
        ("text cut inside a character", raw(0x81, b"\xE2\x82"), 1007),
        ("fragment that cannot become text", raw(0x01, b"\xED\xA0\x80"), 1007),
    ] {
        assert_eq!(decode(&bytes).last(), Some(&Seen::Failed(code)), "{name}");
    }
}

#[test]
fn a_message_that_grows_beyond_the_bound_is_refused_before_it_is_received() {
    let half = vec![b'x'; 60_000];
    let first = raw(0x01, &half);
    let mut second_header = raw(0x80, &half);
    second_header.truncate(8);
    let seen = decode_pieces(false, &[&first, &second_header]);
    assert_eq!(seen, [Seen::Failed(1009)]);
}

#[test]
fn an_announced_length_allocates_nothing() {
    let header = [&[0x82u8, 0xFF][..], &90_000u64.to_be_bytes(), &KEY].concat();
    let mut decoder = Decoder::new(Role::Server, LIMITS, None);
    let mut seen = Vec::new();
    feed(&mut decoder, &header, &mut seen);
    assert!(seen.is_empty() && decoder.kept() < 300, "{}", decoder.kept());
    feed(&mut decoder, &vec![0; 90_000], &mut seen);
    assert!(matches!(&seen[..], [Seen::Binary(data)] if data.len() == 90_000));
    assert_eq!(decoder.kept(), 0);
}

#[test]
fn a_client_takes_unmasked_frames_only() {
    let mut decoder = Decoder::new(Role::Client, LIMITS, None);
    let mut seen = Vec::new();
    feed(&mut decoder, &encoder::frame(FrameKind::Text, b"hi"), &mut seen);
    feed(&mut decoder, &encoder::close_frame(3001, "shutdown"), &mut seen);
    feed(&mut decoder, &raw(0x81, b"no"), &mut seen);
    assert_eq!(seen, [Seen::Text(b"hi".to_vec()), Seen::Close(Some(3001)), Seen::Failed(1002)]);
}

#[test]
fn a_reason_is_cut_at_a_character() {
    let frame = encoder::close_frame(3000, &"\u{20ac}".repeat(60));
    let mut decoder = Decoder::new(Role::Client, LIMITS, None);
    let mut owned = frame.to_vec();
    let mut input = &mut owned[..];
    match decoder.next(&mut Inflater::default(), &mut input) {
        Ok(Some(Message::Close(Some(close)))) => assert_eq!(close.reason.len(), 123),
        other => panic!("{other:?}"),
    }
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let payload = proptest::collection::vec(any::<u8>(), 0..300);
    (0u8..8, payload).prop_map(|(kind, payload)| {
        let compressed = Deflater::new(1).deflate(Window::Full, &payload).unwrap().to_vec();
        match kind {
            0 => raw(0x82, &payload),
            1 => raw(0x81, String::from_utf8_lossy(&payload).as_bytes()),
            2 => raw(0x89, &payload[..payload.len().min(125)]),
            3 => [raw(0x02, &payload), raw(0x8A, b"p"), raw(0x80, &payload)].concat(),
            4 => raw(0xC2, &compressed),
            5 => {
                let (one, two) = compressed.split_at(compressed.len() / 2);
                [raw(0x42, one), raw(0x80, two)].concat()
            }
            6 => [raw(0x01, "\u{20ac}\u{1F600}".as_bytes()), raw(0x80, "x".as_bytes())].concat(),
            _ => {
                let text = "\u{20ac}uro \u{1F600}".as_bytes();
                let (one, two) = text.split_at(payload.len() % text.len());
                [raw(0x01, one), raw(0x00, b""), raw(0x80, two)].concat()
            }
        }
    })
}

proptest! {
    #[test]
    fn any_split_gives_the_same_messages(
        frames in proptest::collection::vec(any_frame(), 1..6),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..12),
        noise in proptest::option::of((any::<proptest::sample::Index>(), any::<u8>())),
    ) {
        let mut bytes = frames.concat();
        if let Some((index, byte)) = noise {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        let whole = decode_pieces(true, &[&bytes]);
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
        at.extend([0, bytes.len()]);
        at.sort_unstable();
        let pieces: Vec<&[u8]> = at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        let split = decode_pieces(true, &pieces);
        prop_assert_eq!(&whole, &split);
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        prop_assert_eq!(&whole, &decode_pieces(true, &single));
    }

    #[test]
    fn client_frames_are_decoded(payload in proptest::collection::vec(any::<u8>(), 0..70_000), key: [u8; 4]) {
        let mut bytes = Vec::new();
        encoder::client_frame(FrameKind::Binary, &payload, key, &mut bytes);
        encoder::client_close(4000, "bye", key, &mut bytes);
        prop_assert_eq!(decode(&bytes), [Seen::Binary(payload), Seen::Close(Some(4000))]);
    }
}
