//! Bytes on their way to the socket. The commands of one turn share a frame, as the official SDKs
//! batch them.
//!
//! Invariant: commands leave in the order in which they were given, and a frame holds more than one
//! only below [`FRAME_SIZE_MAX`](crate::limits::FRAME_SIZE_MAX). At most one pong of each kind
//! waits, however many pings come.

use std::fmt;

use wire::protocol::{self, Codec, Command, Request};
use wire::websocket::encoder::{self, FrameKind};

use super::random::Randomness;
use crate::limits::FRAME_SIZE_MAX;

/// Encoded commands that wait for the socket.
pub(super) struct CommandOutbox {
    codec: Codec,
    /// Commands without a frame.
    batch: Vec<u8>,
    /// Frames, and before them the handshake.
    bytes: Vec<u8>,
    /// Payload of the newest WebSocket ping that is not answered. A pong for it answers all earlier
    /// pings (RFC 6455 §5.5.3).
    ping: Option<Vec<u8>>,
    /// Whether a ping of the protocol is not answered; one pong answers all of them.
    owes_pong: bool,
}

/// Without the bytes, among which there are tokens.
impl fmt::Debug for CommandOutbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandOutbox").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl CommandOutbox {
    pub(super) fn new(codec: Codec) -> CommandOutbox {
        CommandOutbox { codec, batch: Vec::new(), bytes: Vec::new(), ping: None, owes_pong: false }
    }

    /// Bytes that wait for the socket.
    pub(super) fn len(&self) -> usize {
        self.batch.len() + self.bytes.len()
    }

    /// Adds bytes that are no frame: the handshake.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Answers a WebSocket ping.
    pub(super) fn answer_ping(&mut self, payload: &[u8]) {
        self.ping = Some(payload.to_vec());
    }

    /// Answers a ping of the protocol.
    pub(super) fn pong(&mut self) {
        self.owes_pong = true;
    }

    pub(super) fn command(&mut self, command: &Command, random: &mut Randomness) {
        let before = self.batch.len();
        protocol::encode_command(self.codec, command, &mut self.batch);
        if before == 0 || self.batch.len() <= FRAME_SIZE_MAX {
            return;
        }
        self.batch.truncate(before);
        self.flush(random);
        protocol::encode_command(self.codec, command, &mut self.batch);
    }

    /// Adds a close frame behind everything else.
    pub(super) fn close(&mut self, random: &mut Randomness) {
        self.flush(random);
        close(random, &mut self.bytes);
    }

    /// Everything that there is to send.
    pub(super) fn take(&mut self, random: &mut Randomness) -> Option<Vec<u8>> {
        if std::mem::take(&mut self.owes_pong) {
            self.command(&Command { id: 0, request: Request::Pong }, random);
        }
        self.flush(random);
        if let Some(payload) = self.ping.take() {
            self.frame(FrameKind::Pong, &payload, random.mask());
        }
        Some(std::mem::take(&mut self.bytes)).filter(|bytes| !bytes.is_empty())
    }

    /// The connection is lost.
    pub(super) fn clear(&mut self) {
        *self = CommandOutbox::new(self.codec);
    }

    fn frame(&mut self, kind: FrameKind, payload: &[u8], mask: [u8; 4]) {
        encoder::client_frame(kind, payload, mask, &mut self.bytes);
    }

    fn flush(&mut self, random: &mut Randomness) {
        if !self.batch.is_empty() {
            let batch = std::mem::take(&mut self.batch);
            self.frame(frame_kind(self.codec), &batch, random.mask());
        }
    }
}

/// The kind of frame in which a codec's messages travel.
fn frame_kind(codec: Codec) -> FrameKind {
    match codec {
        Codec::Json => FrameKind::Text,
        Codec::Protobuf => FrameKind::Binary,
    }
}

/// Appends a close frame.
fn close(random: &mut Randomness, out: &mut Vec<u8>) {
    encoder::client_close(1000, "", random.mask(), out);
}
