//! The Protobuf codec: messages preceded by their length, fields by number, unknown fields skipped.
//!
//! Invariant: decoding never reads beyond the bytes of the message, whatever lengths it contains.

mod field;
mod read;
mod write;

use super::items::ItemBudget;
use super::{ClientInfo, Command, DecodeError, Publication, Reply};
use crate::limits::COMMANDS_PER_MESSAGE_MAX;
use field::Reader;

/// Decodes all commands of one message.
///
/// # Errors
/// [`DecodeError`] if any part is not a command.
pub fn decode_commands(message: &[u8]) -> Result<Vec<Command>, DecodeError> {
    decode_delimited(message, read::command)
}

/// Decodes all replies of one message.
///
/// # Errors
/// [`DecodeError`] if any part is not a reply.
pub fn decode_replies(message: &[u8]) -> Result<Vec<Reply>, DecodeError> {
    decode_delimited(message, read::reply)
}

/// Appends a command, preceded by its length.
pub fn encode_command(command: &Command, out: &mut Vec<u8>) {
    field::delimited(out, |out| write::command(command, out));
}

/// Appends a reply, preceded by its length.
pub fn encode_reply(reply: &Reply, out: &mut Vec<u8>) {
    field::delimited(out, |out| write::reply(reply, out));
}

/// Appends a publication without a length.
pub fn encode_publication(publication: &Publication, out: &mut Vec<u8>) {
    write::publication(publication, out);
}

/// Decodes the output of [`encode_publication`].
///
/// # Errors
/// [`DecodeError`] if the bytes are not a publication.
pub fn decode_publication(bytes: &[u8]) -> Result<Publication, DecodeError> {
    read::publication(Reader::new(bytes, &ItemBudget::of(bytes.len())))
}

/// Appends a client's information without a length.
pub fn encode_client_info(info: &ClientInfo, out: &mut Vec<u8>) {
    write::client_info(info, out);
}

/// Decodes the output of [`encode_client_info`].
///
/// # Errors
/// [`DecodeError`] if the bytes are not a client's information.
pub fn decode_client_info(bytes: &[u8]) -> Result<ClientInfo, DecodeError> {
    read::client_info(Reader::new(bytes, &ItemBudget::of(bytes.len())))
}

fn decode_delimited<T>(
    message: &[u8],
    decode: fn(Reader<'_>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    if message.is_empty() {
        return Err(DecodeError::Empty);
    }
    let items = ItemBudget::of(message.len());
    let mut reader = Reader::new(message, &items);
    let mut decoded = Vec::with_capacity(1);
    while !reader.is_at_end() {
        if decoded.len() == COMMANDS_PER_MESSAGE_MAX {
            return Err(DecodeError::TooMany);
        }
        decoded.push(decode(reader.delimited()?)?);
    }
    Ok(decoded)
}
