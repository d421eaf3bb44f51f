//! The client protocol, version 2: commands, replies and pushes, in JSON and in Protobuf.
//!
//! One grammar per codec, and in each file decode stands beside encode, so that either end of the
//! wire (the server, our own client, the load tool) uses the same lines. Section numbers refer to
//! the public protocol description of the Centrifuge client protocol.

pub mod codes;
mod depth;
pub mod json;
pub mod message;
pub mod protobuf;

pub use codes::{Disconnect, DisconnectCode, ErrorCode, UnsubscribeCode};
pub use depth::is_nested_too_deep;
pub use message::*;

use thiserror::Error;

/// How commands and replies of one connection are written (§1.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// JSON objects in text frames, separated by newlines.
    Json,
    /// Protobuf messages in binary frames, each behind its length as a varint.
    Protobuf,
}

/// Why bytes are not commands (or, on a client, not replies). Always answered with
/// [`DisconnectCode::BadRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The message has no byte in it.
    #[error("the message is empty")]
    Empty,
    /// The text is no JSON object of the expected shape.
    #[error("the message is not valid JSON for this protocol")]
    Json,
    /// The bytes are no Protobuf message of the expected shape.
    #[error("the message is not valid Protobuf for this protocol")]
    Protobuf,
    /// A command reaches beyond the end of its message.
    #[error("the message ends inside a command")]
    Truncated,
    /// More commands in one message than [`crate::limits::COMMANDS_PER_MESSAGE_MAX`].
    #[error("too many commands in one message")]
    TooMany,
}

/// Reads all commands of one message. An id of zero without `send` is a [`Request::Pong`]; a
/// positive id without a known request is a [`Request::Missing`] (§1.8).
///
/// # Errors
/// [`DecodeError`] when any part of the message is not a command; no command of it may then be
/// executed.
pub fn decode_commands(codec: Codec, message: &[u8]) -> Result<Vec<Command>, DecodeError> {
    match codec {
        Codec::Json => json::decode_commands(message),
        Codec::Protobuf => protobuf::decode_commands(message),
    }
}

/// Reads all replies of one message: what a client does with what the server sent.
///
/// # Errors
/// [`DecodeError`] when any part of the message is not a reply.
pub fn decode_replies(codec: Codec, message: &[u8]) -> Result<Vec<Reply>, DecodeError> {
    match codec {
        Codec::Json => json::decode_replies(message),
        Codec::Protobuf => protobuf::decode_replies(message),
    }
}

/// Appends one reply to `out`, with the separator that the codec needs between the messages of one
/// frame when `out` already holds some.
pub fn encode_reply(codec: Codec, reply: &Reply, out: &mut Vec<u8>) {
    match codec {
        Codec::Json => json::encode_reply(reply, out),
        Codec::Protobuf => protobuf::encode_reply(reply, out),
    }
}

/// Appends one command to `out`, separated as [`encode_reply`] does.
pub fn encode_command(codec: Codec, command: &Command, out: &mut Vec<u8>) {
    match codec {
        Codec::Json => json::encode_command(command, out),
        Codec::Protobuf => protobuf::encode_command(command, out),
    }
}

/// Whether `data` is one whole JSON value of bearable depth, and so can be embedded in a JSON
/// message.
#[must_use]
pub fn is_json(data: &[u8]) -> bool {
    !depth::exceeds(data) && is_any_json(data)
}

/// Whether `data` is one whole JSON value of whatever depth.
fn is_any_json(data: &[u8]) -> bool {
    // Over bytes, the parser would skip strings without looking whether they are UTF-8.
    simdutf8::basic::from_utf8(data)
        .is_ok_and(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok())
}

#[cfg(test)]
mod tests;
