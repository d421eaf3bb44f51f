//! Encodes replies as frames, once for each encoding that sessions of a worker use.
//!
//! Invariant: for one encoding [`Variants`] returns the same bytes to every session.

pub(crate) mod not_json;

use std::borrow::Cow;

use bytes::Bytes;
use wire::protocol::{self, Codec, Reply};
use wire::websocket::deflate::{Deflater, Window};
use wire::websocket::encoder::{self, FrameKind};

use not_json::Obstacle;

/// How messages of one session are encoded as frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// JSON or Protobuf.
    pub codec: Codec,
    /// Window of permessage-deflate; `None` if it was not negotiated.
    pub deflate: Option<Window>,
}

/// Encodes replies as frames. Owns the scratch memory, once per worker.
#[derive(Debug)]
pub struct Encoder {
    deflater: Deflater,
    /// Messages shorter than this many bytes are not compressed.
    deflate_min_size: usize,
    payload: Vec<u8>,
}

/// The frames of one push, each encoded on first use.
#[derive(Debug)]
pub struct Variants {
    reply: Reply,
    frames: [Option<Result<Bytes, NotJson>>; 6],
}

/// A publication that is not JSON cannot be sent in a JSON message. Its receiver skips it. (The
/// compatible server closes the connection with 3506.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotJson;

impl Encoder {
    /// Creates an encoder. Where compression is negotiated, messages of at least `deflate_min_size`
    /// bytes are compressed.
    #[must_use]
    pub fn new(deflater: Deflater, deflate_min_size: usize) -> Encoder {
        Encoder { deflater, deflate_min_size, payload: Vec::new() }
    }

    /// Encodes one reply as one frame. Client information that is not JSON is left out of a JSON
    /// message.
    ///
    /// # Errors
    /// [`NotJson`] if the reply carries data that is not JSON and the message is.
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
        // A large message must not keep its memory.
        self.payload.shrink_to(PAYLOAD_KEPT);
        Ok(frame)
    }
}

impl Variants {
    /// Creates variants of a reply; nothing is encoded yet.
    #[must_use]
    pub fn new(reply: Reply) -> Variants {
        Variants { reply, frames: [const { None }; 6] }
    }

    /// Returns the frame for sessions of this encoding.
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

/// Bytes of scratch memory kept between messages.
const PAYLOAD_KEPT: usize = 64 * 1024;

/// Returns the reply without client information that is not JSON.
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
