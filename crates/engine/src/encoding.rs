//! From replies to frames: each is encoded once for every way in which the peers of a worker want
//! it.
//!
//! Invariant: what [`Variants`] returns for one encoding is the same bytes for every session of
//! that encoding.

pub(crate) mod not_json;

use std::borrow::Cow;

use bytes::Bytes;
use wire::protocol::{self, Codec, Reply};
use wire::websocket::deflate::{Deflater, Window};
use wire::websocket::encoder::{self, FrameKind};

use not_json::Obstacle;

/// How one session's messages become frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// JSON or Protobuf.
    pub codec: Codec,
    /// Whether and how permessage-deflate was negotiated.
    pub deflate: Option<Window>,
}

/// Turns replies into frames; owns the memory that this needs, once per worker.
#[derive(Debug)]
pub struct Encoder {
    deflater: Deflater,
    /// Messages below this many bytes are not compressed.
    deflate_min_size: usize,
    payload: Vec<u8>,
}

/// The frames of one push, made when first asked for.
#[derive(Debug)]
pub struct Variants {
    reply: Reply,
    frames: [Option<Result<Bytes, NotJson>>; 6],
}

/// A publication that is no JSON value was to go into a JSON message. Its receiver misses it; the
/// compatible server ends the connection (3506), for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotJson;

impl Encoder {
    /// An encoder that compresses, where negotiated, messages of at least `deflate_min_size` bytes.
    #[must_use]
    pub fn new(deflater: Deflater, deflate_min_size: usize) -> Encoder {
        Encoder { deflater, deflate_min_size, payload: Vec::new() }
    }

    /// One frame with one reply in it. Information that JSON cannot embed is left out of a JSON
    /// message.
    ///
    /// # Errors
    /// [`NotJson`] when the reply carries data that JSON cannot embed.
    pub fn frame(&mut self, encoding: Encoding, reply: &Reply) -> Result<Bytes, NotJson> {
        let reply = match encoding.codec {
            Codec::Json => as_json(reply)?,
            Codec::Protobuf => Cow::Borrowed(reply),
        };
        let kind = match encoding.codec {
            Codec::Json => FrameKind::Text,
            Codec::Protobuf => FrameKind::Binary,
        };
        self.payload.clear();
        protocol::encode_reply(encoding.codec, &reply, &mut self.payload);
        let frame = match encoding.deflate {
            Some(window) if self.payload.len() >= self.deflate_min_size => {
                encoder::compressed_frame(kind, &self.payload, window, &mut self.deflater)
            }
            _ => encoder::frame(kind, &self.payload),
        };
        // One big message must not hold its size for ever.
        self.payload.shrink_to(PAYLOAD_KEPT);
        Ok(frame)
    }
}

impl Variants {
    /// Nothing is encoded yet.
    #[must_use]
    pub fn new(reply: Reply) -> Variants {
        Variants { reply, frames: [const { None }; 6] }
    }

    /// The frame for sessions of this encoding.
    ///
    /// # Errors
    /// As [`Encoder::frame`].
    pub fn frame(&mut self, encoder: &mut Encoder, encoding: Encoding) -> Result<&Bytes, NotJson> {
        let deflate = match encoding.deflate {
            None => 0,
            Some(Window::Full) => 1,
            Some(Window::Small) => 2,
        };
        let index = usize::from(encoding.codec == Codec::Protobuf) + 2 * deflate;
        let frame = self.frames[index].get_or_insert_with(|| encoder.frame(encoding, &self.reply));
        frame.as_ref().map_err(|error| *error)
    }
}

/// Bytes of scratch memory that an encoder keeps between messages.
const PAYLOAD_KEPT: usize = 64 * 1024;

/// The reply as a JSON message can carry it.
fn as_json(reply: &Reply) -> Result<Cow<'_, Reply>, NotJson> {
    match not_json::obstacle(&reply.body) {
        Obstacle::None => Ok(Cow::Borrowed(reply)),
        Obstacle::Information => {
            let body = not_json::without_information(&reply.body);
            Ok(Cow::Owned(Reply { id: reply.id, body }))
        }
        Obstacle::Data => Err(NotJson),
    }
}
