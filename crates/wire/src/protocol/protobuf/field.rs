//! The Protobuf wire format: varints, tags and lengths, decoded and encoded side by side.

use std::str;

use bytes::Bytes;

use crate::protocol::DecodeError;
use crate::protocol::items::ItemBudget;

/// Reads the fields of one message.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    /// Items that the whole message may still have.
    items: &'a ItemBudget,
}

/// The value of one field.
#[derive(Clone, Copy)]
pub(super) enum Value<'a> {
    /// A varint (wire type 0).
    Varint(u64),
    /// Length-delimited bytes (wire type 2).
    Bytes(Reader<'a>),
    /// A fixed-size number (wire types 1 and 5), used by no field of this protocol.
    Fixed,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8], items: &'a ItemBudget) -> Reader<'a> {
        Reader { rest: bytes, items }
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// Returns the next field's number and value; `None` at the end of the message.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, DecodeError> {
        if self.is_at_end() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| DecodeError::Protobuf)?;
        if number == 0 {
            return Err(DecodeError::Protobuf);
        }
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => Value::Bytes(self.delimited()?),
            5 => self.take(4).map(|_| Value::Fixed)?,
            // Groups (wire types 3 and 4) are obsolete.
            _ => return Err(DecodeError::Protobuf),
        };
        Ok(Some((number, value)))
    }

    /// Reads a length and returns a reader of that many bytes.
    pub(super) fn delimited(&mut self) -> Result<Reader<'a>, DecodeError> {
        let length = usize::try_from(self.varint()?).map_err(|_| DecodeError::Truncated)?;
        Ok(Reader { rest: self.take(length)?, ..*self })
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, DecodeError> {
        // Most are tags and short lengths.
        if let [byte @ 0..0x80, rest @ ..] = self.rest {
            self.rest = rest;
            return Ok(u64::from(*byte));
        }
        let mut value = 0u64;
        for (index, byte) in self.rest.iter().take(10).enumerate() {
            // The tenth byte has room for one bit; higher bits are dropped, as in every
            // implementation.
            value |= u64::from(byte & 0x7F) << (7 * index);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        let is_short = self.rest.len() < 10;
        Err(if is_short { DecodeError::Truncated } else { DecodeError::Protobuf })
    }
}

impl<'a> Value<'a> {
    pub(super) fn u64(self) -> Result<u64, DecodeError> {
        match self {
            Value::Varint(value) => Ok(value),
            Value::Bytes(_) | Value::Fixed => Err(DecodeError::Protobuf),
        }
    }

    /// Returns the low 32 bits, as proto3 requires.
    pub(super) fn u32(self) -> Result<u32, DecodeError> {
        Ok(self.u64()? as u32)
    }

    pub(super) fn i64(self) -> Result<i64, DecodeError> {
        Ok(self.u64()? as i64)
    }

    pub(super) fn i32(self) -> Result<i32, DecodeError> {
        Ok(self.u64()? as i32)
    }

    pub(super) fn bool(self) -> Result<bool, DecodeError> {
        Ok(self.u64()? != 0)
    }

    /// A message of which there may be many in the message around it.
    pub(super) fn item(self) -> Result<Reader<'a>, DecodeError> {
        let reader = self.message()?;
        reader.items.take()?;
        Ok(reader)
    }

    pub(super) fn message(self) -> Result<Reader<'a>, DecodeError> {
        match self {
            Value::Bytes(reader) => Ok(reader),
            Value::Varint(_) | Value::Fixed => Err(DecodeError::Protobuf),
        }
    }

    pub(super) fn str(self) -> Result<&'a str, DecodeError> {
        str::from_utf8(self.message()?.rest).map_err(|_| DecodeError::Protobuf)
    }

    pub(super) fn string(self) -> Result<String, DecodeError> {
        Ok(self.str()?.to_owned())
    }

    pub(super) fn bytes(self) -> Result<Bytes, DecodeError> {
        Ok(Bytes::copy_from_slice(self.message()?.rest))
    }
}

/// Appends the output of `write`, preceded by its length.
pub(super) fn delimited(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.push(0);
    write(out);
    let mut length = out.len() - start - 1;
    if length >= 0x80 {
        make_room(out, start + 1, length);
    }
    let mut at = start;
    while length >= 0x80 {
        out[at] = length as u8 | 0x80;
        length >>= 7;
        at += 1;
    }
    out[at] = length as u8;
}

/// Moves the last `length` bytes, which begin at `at`, so that their length fits before them. One
/// byte is there already.
fn make_room(out: &mut Vec<u8>, at: usize, length: usize) {
    let more = length.ilog2() as usize / 7;
    out.resize(out.len() + more, 0);
    out.copy_within(at..at + length, at + more);
}

pub(super) fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a number unless it is zero.
pub(super) fn number(out: &mut Vec<u8>, field: u32, value: u64) {
    if value != 0 {
        varint(out, u64::from(field << 3));
        varint(out, value);
    }
}

/// Appends a signed number as its two's complement in 64 bits, unless it is zero.
pub(super) fn signed(out: &mut Vec<u8>, field: u32, value: i64) {
    number(out, field, value as u64);
}

pub(super) fn flag(out: &mut Vec<u8>, field: u32, value: bool) {
    number(out, field, u64::from(value));
}

/// Appends bytes or text unless empty.
pub(super) fn bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    if !value.is_empty() {
        varint(out, u64::from(field << 3 | 2));
        varint(out, value.len() as u64);
        out.extend_from_slice(value);
    }
}

/// Appends a message, even if empty.
pub(super) fn message(out: &mut Vec<u8>, field: u32, write: impl FnOnce(&mut Vec<u8>)) {
    varint(out, u64::from(field << 3 | 2));
    delimited(out, write);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_every_size_stands_before_its_bytes() {
        for bits in 0..22 {
            for length in [(1 << bits) - 1, 1 << bits] {
                let bytes: Vec<u8> = (0..length).map(|index| index as u8).collect();
                let mut expected = b"before".to_vec();
                varint(&mut expected, length as u64);
                expected.extend_from_slice(&bytes);
                let mut out = b"before".to_vec();
                delimited(&mut out, |out| out.extend_from_slice(&bytes));
                assert!(out == expected, "{length}");
                let items = ItemBudget::of(out.len());
                let mut reader = Reader::new(&out[b"before".len()..], &items);
                assert!(reader.delimited().unwrap().rest == bytes && reader.is_at_end());
            }
        }
    }
}
