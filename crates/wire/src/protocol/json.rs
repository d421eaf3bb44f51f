//! The JSON codec: objects separated by newlines, payloads embedded unchanged.
//!
//! Invariant: an encoded message contains no newline, so that a newline always separates two
//! messages.

mod read;
mod value;
mod write;

use super::items::ItemBudget;
use super::{Command, DecodeError, Reply};
use crate::limits::COMMANDS_PER_MESSAGE_MAX;

/// Decodes all commands of one message.
///
/// # Errors
/// [`DecodeError`] if any line is not a command.
pub fn decode_commands(message: &[u8]) -> Result<Vec<Command>, DecodeError> {
    decode_lines(message, |line, _| read::command(line))
}

/// Decodes all replies of one message.
///
/// # Errors
/// [`DecodeError`] if any line is not a reply.
pub fn decode_replies(message: &[u8]) -> Result<Vec<Reply>, DecodeError> {
    decode_lines(message, read::reply)
}

/// Appends a command, after a newline if `out` already contains a message.
pub fn encode_command(command: &Command, out: &mut Vec<u8>) {
    separate(out);
    write::command(command, out);
}

/// Appends a reply, after a newline if `out` already contains a message.
pub fn encode_reply(reply: &Reply, out: &mut Vec<u8>) {
    separate(out);
    write::reply(reply, out);
}

fn separate(out: &mut Vec<u8>) {
    if !out.is_empty() {
        out.push(b'\n');
    }
}

fn decode_lines<T>(
    message: &[u8],
    decode: fn(&[u8], &ItemBudget) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    // One newline at the end is tolerated.
    let message = message.strip_suffix(b"\n").unwrap_or(message);
    if message.is_empty() {
        return Err(DecodeError::Empty);
    }
    let items = ItemBudget::of(message.len());
    let mut decoded = Vec::with_capacity(1);
    for line in message.split(|byte| *byte == b'\n') {
        if decoded.len() == COMMANDS_PER_MESSAGE_MAX {
            return Err(DecodeError::TooMany);
        }
        decoded.push(decode(line, &items)?);
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests;
