//! From replies to frames: each is encoded once for every way in which the peers of a worker want it.
//!
//! Invariant: what [`Variants`] returns for one encoding is the same bytes for every session of that encoding.

use bytes::Bytes;
use wire::protocol::{
    self, ClientInfo, Codec, Publication, PushEvent, Reply, ReplyBody, SubscribeResult,
};
use wire::websocket::deflate::{Deflater, Window};
use wire::websocket::encoder::{self, FrameKind};

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

/// A payload that is no JSON value was to go into a JSON message (§1.4: that connection ends with 3506).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotJson;

impl Encoder {
    /// An encoder that compresses, where negotiated, messages of at least `deflate_min_size` bytes.
    #[must_use]
    pub fn new(deflater: Deflater, deflate_min_size: usize) -> Encoder {
        Encoder { deflater, deflate_min_size, payload: Vec::new() }
    }

    /// One frame with one reply in it.
    ///
    /// # Errors
    /// [`NotJson`] when the reply carries a payload that JSON cannot embed.
    pub fn frame(&mut self, encoding: Encoding, reply: &Reply) -> Result<Bytes, NotJson> {
        if encoding.codec == Codec::Json && !has_only_json(&reply.body) {
            return Err(NotJson);
        }
        let kind = match encoding.codec {
            Codec::Json => FrameKind::Text,
            Codec::Protobuf => FrameKind::Binary,
        };
        self.payload.clear();
        protocol::encode_reply(encoding.codec, reply, &mut self.payload);
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

fn has_only_json(body: &ReplyBody) -> bool {
    let is_fine = |data: &Bytes| data.is_empty() || protocol::is_json(data);
    let is_info = |info: &ClientInfo| is_fine(&info.conn_info) && is_fine(&info.chan_info);
    let is_publication = |publication: &Publication| {
        is_fine(&publication.data) && publication.info.as_ref().is_none_or(is_info)
    };
    let is_subscribed = |result: &SubscribeResult| {
        is_fine(&result.data) && result.publications.iter().all(|p| is_publication(p))
    };
    match body {
        ReplyBody::Push(push) => match &push.event {
            PushEvent::Publication(publication) => is_publication(publication),
            PushEvent::Join(info) | PushEvent::Leave(info) => is_info(info),
            PushEvent::Message { data } | PushEvent::Subscribe { data, .. } => is_fine(data),
            PushEvent::Unsubscribe { .. }
            | PushEvent::Disconnect { .. }
            | PushEvent::Refresh { .. } => true,
        },
        ReplyBody::Subscribe(result) => is_subscribed(result),
        ReplyBody::Connect(result) => {
            is_fine(&result.data) && result.subs.iter().all(|(_, result)| is_subscribed(result))
        }
        ReplyBody::Presence(clients) => clients.iter().all(|(_, info)| is_info(info)),
        ReplyBody::History(result) => result.publications.iter().all(|p| is_publication(p)),
        ReplyBody::Rpc { data } => is_fine(data),
        ReplyBody::Ping
        | ReplyBody::Error(_)
        | ReplyBody::Unsubscribe
        | ReplyBody::Publish
        | ReplyBody::PresenceStats(_)
        | ReplyBody::Refresh(_)
        | ReplyBody::SubRefresh { .. } => true,
    }
}
