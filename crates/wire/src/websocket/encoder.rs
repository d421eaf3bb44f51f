//! Encodes payloads as frames. Messages are never fragmented: one frame is one message.

use bytes::Bytes;

use super::close::CloseFrame;
use super::deflate::{Deflater, Window};
use super::header::{HEADER_MAX, Header, Opcode};
use super::mask;
use crate::limits::CLOSE_REASON_MAX;

/// The kind of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// A text message; the payload must be UTF-8.
    Text,
    /// A binary message.
    Binary,
    /// A ping; at most 125 bytes.
    Ping,
    /// A pong, with the ping's payload.
    Pong,
}

impl FrameKind {
    fn opcode(self) -> Opcode {
        match self {
            FrameKind::Text => Opcode::Text,
            FrameKind::Binary => Opcode::Binary,
            FrameKind::Ping => Opcode::Ping,
            FrameKind::Pong => Opcode::Pong,
        }
    }
}

/// Encodes a frame of a server.
#[must_use]
pub fn frame(kind: FrameKind, payload: &[u8]) -> Bytes {
    whole(header(kind.opcode(), payload), payload)
}

/// Encodes a compressed frame of a server, for connections with permessage-deflate. Sends the
/// payload uncompressed if that is shorter.
pub fn compressed_frame(
    kind: FrameKind,
    payload: &[u8],
    window: Window,
    deflater: &mut Deflater,
) -> Bytes {
    match deflater.deflate(window, payload) {
        Some(compressed) if compressed.len() < payload.len() => {
            whole(Header { is_compressed: true, ..header(kind.opcode(), compressed) }, compressed)
        }
        _ => frame(kind, payload),
    }
}

/// Encodes a close frame of a server. A reason that is too long is truncated at a character.
#[must_use]
pub fn close_frame(code: u16, reason: &str) -> Bytes {
    let payload = close_payload(code, reason);
    whole(header(Opcode::Close, &payload), &payload)
}

/// Encodes the answer to a close frame, which repeats its code (RFC 6455 §5.5.1).
#[must_use]
pub fn close_answer(close: Option<&CloseFrame>) -> Bytes {
    match close {
        Some(close) => close_frame(close.code.number(), ""),
        None => whole(header(Opcode::Close, &[]), &[]),
    }
}

/// Appends a frame of a client, masked with `key`. The author of the payload must not be able to
/// predict the key.
pub fn client_frame(kind: FrameKind, payload: &[u8], key: [u8; 4], out: &mut Vec<u8>) {
    masked(kind.opcode(), payload, key, out);
}

/// Appends a close frame of a client.
pub fn client_close(code: u16, reason: &str, key: [u8; 4], out: &mut Vec<u8>) {
    masked(Opcode::Close, &close_payload(code, reason), key, out);
}

/// The header of a frame that is neither compressed nor masked.
fn header(opcode: Opcode, payload: &[u8]) -> Header {
    let length = payload.len() as u64;
    Header { opcode, is_final: true, is_compressed: false, mask: None, length }
}

fn whole(header: Header, payload: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(payload.len() + HEADER_MAX);
    header.encode(&mut out);
    out.extend_from_slice(payload);
    out.into()
}

fn masked(opcode: Opcode, payload: &[u8], key: [u8; 4], out: &mut Vec<u8>) {
    Header { mask: Some(key), ..header(opcode, payload) }.encode(out);
    let start = out.len();
    out.extend_from_slice(payload);
    mask::apply(key, 0, &mut out[start..]);
}

fn close_payload(code: u16, reason: &str) -> Vec<u8> {
    let reason = &reason[..reason.floor_char_boundary(CLOSE_REASON_MAX)];
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend_from_slice(reason.as_bytes());
    payload
}
