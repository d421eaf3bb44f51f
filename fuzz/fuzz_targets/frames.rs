//! The frame decoder: any split of the input gives the same messages or the same error, stored
//! bytes are limited by received bytes, and decoded messages can be sent again.
//!
//! Input: two bytes of choices, then the bytes of a peer.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::websocket::Role;
use wire::websocket::close::CloseFrame;
use wire::websocket::decoder::{Decoder, DecoderLimits, Message};
use wire::websocket::deflate::{Inflater, Window};
use wire::websocket::encoder::{self, FrameKind};
use wire::websocket::protocol_error::ProtocolError;

const LIMITS: DecoderLimits = DecoderLimits { message_size: 4_096, inflated_size: 16_384 };
const WIDE: DecoderLimits = DecoderLimits { message_size: 65_536, inflated_size: 65_536 };

/// Bytes that a decoder may store beside those received: its own fields, and the growth of a
/// vector.
const KEPT_BESIDE: usize = 512;

/// A message that outlives the input.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Data(FrameKind, Vec<u8>),
    Close(Option<CloseFrame>),
    Refused(ProtocolError),
}

fuzz_target!(|input: &[u8]| {
    let Some((&[choices, split], bytes)) = input.split_first_chunk() else { return };
    let role = if choices & 1 == 0 { Role::Server } else { Role::Client };
    let deflate = (choices & 2 != 0).then_some(Window::Full);
    let decoder = || Decoder::new(role, LIMITS, deflate);
    let whole = decode(&mut decoder(), [bytes]);
    let piece = usize::from(split) + 1;
    assert_eq!(whole, decode(&mut decoder(), bytes.chunks(piece)), "pieces of {piece}");
    assert_eq!(whole, decode(&mut decoder(), bytes.chunks(1)), "byte by byte");
    send_again(role, &whole);
});

fn decode<'p>(decoder: &mut Decoder, pieces: impl IntoIterator<Item = &'p [u8]>) -> Vec<Seen> {
    let mut inflater = Inflater::default();
    let (mut seen, mut received) = (Vec::new(), 0);
    for piece in pieces {
        received += piece.len();
        let mut owned = piece.to_vec();
        let mut input = &mut owned[..];
        loop {
            seen.push(match decoder.next(&mut inflater, &mut input) {
                Ok(None) => break,
                Ok(Some(message)) => keep(&message),
                Err(refusal) => {
                    seen.push(Seen::Refused(refusal));
                    return seen;
                }
            });
        }
        assert!(input.is_empty(), "more is asked for while there is some");
        let most = received.min(LIMITS.message_size as usize);
        assert!(decoder.kept() <= KEPT_BESIDE + 2 * most, "{} for {received}", decoder.kept());
    }
    seen
}

fn keep(message: &Message<'_>) -> Seen {
    let (kind, payload) = match message {
        Message::Text(payload) => (FrameKind::Text, payload),
        Message::Binary(payload) => (FrameKind::Binary, payload),
        Message::Ping(payload) => (FrameKind::Ping, payload),
        Message::Pong(payload) => (FrameKind::Pong, payload),
        Message::Close(close) => return Seen::Close(close.clone()),
    };
    let most = match kind {
        FrameKind::Text | FrameKind::Binary => LIMITS.inflated_size as usize,
        FrameKind::Ping | FrameKind::Pong => 125,
    };
    assert!(payload.len() <= most.max(LIMITS.message_size as usize));
    if kind == FrameKind::Text {
        assert!(std::str::from_utf8(payload).is_ok());
    }
    Seen::Data(kind, payload.to_vec())
}

/// Sends every message again as a whole frame: nothing is stored between two.
fn send_again(role: Role, messages: &[Seen]) {
    let mut decoder = Decoder::new(role, WIDE, None);
    for message in messages {
        let mut frame = Vec::new();
        match (role, message) {
            (_, Seen::Refused(_)) => return,
            (Role::Server, Seen::Data(kind, payload)) => {
                encoder::client_frame(*kind, payload, [1, 2, 3, 4], &mut frame);
            }
            (Role::Server, Seen::Close(Some(close))) => {
                encoder::client_close(close.code.number(), &close.reason, [1, 2, 3, 4], &mut frame);
            }
            (Role::Client, Seen::Data(kind, payload)) => {
                frame.extend_from_slice(&encoder::frame(*kind, payload));
            }
            (Role::Client, Seen::Close(Some(close))) => {
                frame.extend_from_slice(&encoder::close_frame(close.code.number(), &close.reason));
            }
            (_, Seen::Close(None)) => continue,
        }
        let mut input = &mut frame[..];
        let again = decoder.next(&mut Inflater::default(), &mut input);
        let again = again.expect("what we send is understood").expect("a frame is whole");
        assert_eq!(keep(&again), *message);
        assert!(input.is_empty() && decoder.kept() == 0);
    }
}
