//! The client protocol, version 2: commands, replies and pushes, in JSON and in Protobuf.
//!
//! Decode and encode stand side by side, so that both ends (server, client, load tool) use the same
//! code. The protocol is described at <https://centrifugal.dev/docs/transports/client_protocol>;
//! its schema is `wire/proto/client.proto`.

pub mod codes;
mod depth;
mod items;
pub mod json;
pub mod message;
pub mod protobuf;

pub use codes::{Disconnect, DisconnectCode, ErrorCode, UnsubscribeCode};
pub use depth::is_nested_too_deep;
pub use message::*;

use thiserror::Error;

/// The encoding of a connection's commands and replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// JSON objects in text frames, separated by newlines.
    Json,
    /// Protobuf messages in binary frames, each preceded by its length as a varint.
    Protobuf,
}

/// Why a message is not a list of commands (or, on a client, of replies). Always answered with
/// [`DisconnectCode::BadRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The message is empty.
    #[error("the message is empty")]
    Empty,
    /// The text is not a JSON object of the expected shape.
    #[error("the message is not valid JSON for this protocol")]
    Json,
    /// The bytes are not a Protobuf message of the expected shape.
    #[error("the message is not valid Protobuf for this protocol")]
    Protobuf,
    /// A command extends beyond the end of its message.
    #[error("a command extends beyond the end of the message")]
    Truncated,
    /// The message has more commands or replies than
    /// [`crate::limits::COMMANDS_PER_MESSAGE_MAX`], or more items in its replies than its bytes
    /// allow ([`crate::limits::ITEM_SIZE_MIN`]).
    #[error("too many commands or items in one message")]
    TooMany,
}

/// Decodes all commands of one message. An id of zero without `send` is a [`Request::Pong`]; a
/// positive id without a known request is a [`Request::Missing`].
///
/// # Errors
/// [`DecodeError`] if any part of the message is not a command. No command of the message may be
/// executed then.
pub fn decode_commands(codec: Codec, message: &[u8]) -> Result<Vec<Command>, DecodeError> {
    match codec {
        Codec::Json => json::decode_commands(message),
        Codec::Protobuf => protobuf::decode_commands(message),
    }
}

/// Decodes all replies of one message, on a client.
///
/// # Errors
/// [`DecodeError`] if any part of the message is not a reply.
pub fn decode_replies(codec: Codec, message: &[u8]) -> Result<Vec<Reply>, DecodeError> {
    match codec {
        Codec::Json => json::decode_replies(message),
        Codec::Protobuf => protobuf::decode_replies(message),
    }
}

/// Appends one reply to `out`, after the separator that the codec requires if `out` already
/// contains a message.
pub fn encode_reply(codec: Codec, reply: &Reply, out: &mut Vec<u8>) {
    match codec {
        Codec::Json => json::encode_reply(reply, out),
        Codec::Protobuf => protobuf::encode_reply(reply, out),
    }
}

/// Appends one command to `out`, separated as by [`encode_reply`].
pub fn encode_command(codec: Codec, command: &Command, out: &mut Vec<u8>) {
    match codec {
        Codec::Json => json::encode_command(command, out),
        Codec::Protobuf => protobuf::encode_command(command, out),
    }
}

/// Returns whether `data` is exactly one JSON value of at most the maximum depth, and so can be
/// embedded in a JSON message.
#[must_use]
pub fn is_json(data: &[u8]) -> bool {
    !depth::exceeds(data) && is_any_json(data)
}

/// Returns whether `data` is exactly one JSON value of any depth.
fn is_any_json(data: &[u8]) -> bool {
    // Given bytes, the parser would skip strings without checking that they are UTF-8.
    simdutf8::basic::from_utf8(data)
        .is_ok_and(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok())
}

#[cfg(test)]
mod tests;
