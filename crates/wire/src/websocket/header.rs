//! The header of a frame, 2 to 14 bytes (RFC 6455 §5.2), decoded and encoded side by side.

use super::protocol_error::ProtocolError;

/// Bytes of the longest header: two bytes, eight of length, four of mask.
pub(super) const HEADER_MAX: usize = 14;

/// The kind of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) opcode: Opcode,
    pub(super) is_final: bool,
    /// Reserved bit 1: the message is compressed (RFC 7692 §6).
    pub(super) is_compressed: bool,
    pub(super) mask: Option<[u8; 4]>,
    pub(super) length: u64,
}

impl Opcode {
    pub(super) fn is_control(self) -> bool {
        matches!(self, Opcode::Close | Opcode::Ping | Opcode::Pong)
    }

    fn number(self) -> u8 {
        match self {
            Opcode::Continuation => 0,
            Opcode::Text => 1,
            Opcode::Binary => 2,
            Opcode::Close => 8,
            Opcode::Ping => 9,
            Opcode::Pong => 10,
        }
    }

    fn from_number(number: u8) -> Option<Opcode> {
        Some(match number {
            0 => Opcode::Continuation,
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            _ => return None,
        })
    }
}

impl Header {
    /// Decodes the header at the front of `bytes`. Returns it with its length; `None` if it is
    /// incomplete.
    pub(super) fn decode(bytes: &[u8]) -> Result<Option<(Header, usize)>, ProtocolError> {
        let [first, second, rest @ ..] = bytes else {
            return Ok(None);
        };
        if first & 0b0011_0000 != 0 {
            return Err(ProtocolError::ReservedBits);
        }
        let opcode = Opcode::from_number(first & 0x0F).ok_or(ProtocolError::UnknownOpcode)?;
        let (length, rest) = match second & 0x7F {
            126 => {
                let Some((bytes, rest)) = rest.split_first_chunk() else {
                    return Ok(None);
                };
                let length = u64::from(u16::from_be_bytes(*bytes));
                if length < 126 {
                    return Err(ProtocolError::LengthEncoding);
                }
                (length, rest)
            }
            127 => {
                let Some((bytes, rest)) = rest.split_first_chunk() else {
                    return Ok(None);
                };
                let length = u64::from_be_bytes(*bytes);
                if length <= u64::from(u16::MAX) || length >> 63 != 0 {
                    return Err(ProtocolError::LengthEncoding);
                }
                (length, rest)
            }
            length => (u64::from(length), rest),
        };
        let (mask, rest) = if second & 0x80 == 0 {
            (None, rest)
        } else {
            let Some((mask, rest)) = rest.split_first_chunk() else {
                return Ok(None);
            };
            (Some(*mask), rest)
        };
        let header = Header {
            opcode,
            is_final: first & 0x80 != 0,
            is_compressed: first & 0x40 != 0,
            mask,
            length,
        };
        Ok(Some((header, bytes.len() - rest.len())))
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let final_bit = u8::from(self.is_final) << 7;
        let compressed_bit = u8::from(self.is_compressed) << 6;
        out.push(final_bit | compressed_bit | self.opcode.number());
        let mask_bit = u8::from(self.mask.is_some()) << 7;
        match self.length {
            length @ 0..126 => out.push(mask_bit | length as u8),
            length @ 126..=0xFFFF => {
                out.push(mask_bit | 126);
                out.extend_from_slice(&(length as u16).to_be_bytes());
            }
            length => {
                out.push(mask_bit | 127);
                out.extend_from_slice(&length.to_be_bytes());
            }
        }
        if let Some(mask) = self.mask {
            out.extend_from_slice(&mask);
        }
    }
}
