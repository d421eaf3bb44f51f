//! Violations of RFC 6455 and RFC 7692 by a peer.
//!
//! Invariant: each maps to exactly one close code.

use thiserror::Error;

use super::close::CloseCode;

/// A violation of the protocol by the peer. Each maps to the close code of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProtocolError {
    /// A reserved bit is set that no extension defines.
    #[error("a reserved bit is set")]
    ReservedBits,
    /// The opcode is not assigned.
    #[error("the opcode is not assigned")]
    UnknownOpcode,
    /// The length is not in its shortest form, or above 63 bits.
    #[error("the length is not in its shortest form")]
    LengthEncoding,
    /// A client's frame is not masked, or a server's is.
    #[error("a client's frame must be masked, a server's must not")]
    Masking,
    /// A control frame is fragmented or longer than 125 bytes.
    #[error("a control frame is fragmented or too long")]
    ControlFrame,
    /// A continuation without a first fragment, or a new message within a fragmented one.
    #[error("fragments are out of order")]
    Fragmentation,
    /// A close frame of one byte, or with a code that must not be sent.
    #[error("the close frame is malformed")]
    CloseFrame,
    /// The text is not UTF-8.
    #[error("text is not UTF-8")]
    Utf8,
    /// The message exceeds the limit of bytes, fragments or inflated bytes.
    #[error("the message is too big")]
    TooBig,
    /// Compressed bytes cannot be inflated.
    #[error("the compressed message is corrupt")]
    Deflate,
}

impl ProtocolError {
    /// Returns the close code of the answer.
    #[must_use]
    pub fn close_code(self) -> CloseCode {
        match self {
            ProtocolError::Utf8 | ProtocolError::Deflate => CloseCode::INVALID_DATA,
            ProtocolError::TooBig => CloseCode::TOO_BIG,
            ProtocolError::ReservedBits
            | ProtocolError::UnknownOpcode
            | ProtocolError::LengthEncoding
            | ProtocolError::Masking
            | ProtocolError::ControlFrame
            | ProtocolError::Fragmentation
            | ProtocolError::CloseFrame => CloseCode::PROTOCOL,
        }
    }
}
