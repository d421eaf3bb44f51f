//! Decodes bytes into messages (RFC 6455 §5, §6.2, §8.1).
//!
//! Invariant: any split of the input gives the same messages or the same error. A complete frame is
//! unmasked in place and lent out. Only unfinished messages are stored, and never more bytes than
//! were received.

use std::ops::Deref;

use super::Role;
use super::close::{CloseCode, CloseFrame};
use super::deflate::{InflateError, Inflater, Window};
use super::header::{HEADER_MAX, Header, Opcode};
use super::mask;
use super::protocol_error::ProtocolError;
use crate::limits::{CONTROL_PAYLOAD_MAX, FRAGMENTS_MAX};

/// Decodes the bytes of one connection into messages.
#[derive(Debug)]
pub struct Decoder {
    limits: DecoderLimits,
    role: Role,
    allows_deflate: bool,
    partial: Option<Box<Partial>>,
}

/// Size limits of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecoderLimits {
    /// Maximum bytes as received.
    pub message_size: u32,
    /// Maximum bytes after inflation.
    pub inflated_size: u32,
}

/// One message or control frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Message<'i> {
    /// Text, verified to be UTF-8.
    Text(Payload<'i>),
    /// Binary data.
    Binary(Payload<'i>),
    /// A ping, to be answered with a pong of the same payload.
    Ping(Payload<'i>),
    /// A pong, solicited or not.
    Pong(Payload<'i>),
    /// The peer closes; `None` if its close frame is empty.
    Close(Option<CloseFrame>),
}

/// The bytes of a message.
#[derive(Debug)]
pub enum Payload<'i> {
    /// A part of the input.
    Borrowed(&'i mut [u8]),
    /// Assembled from several frames or reads.
    Owned(Vec<u8>),
}

/// State of an unfinished frame or message.
#[derive(Debug, Default)]
struct Partial {
    header: [u8; HEADER_MAX],
    header_length: usize,
    frame: Option<OpenFrame>,
    control: Vec<u8>,
    message: Option<OpenMessage>,
}

/// A frame whose payload is incomplete.
#[derive(Clone, Copy, Debug)]
struct OpenFrame {
    header: Header,
    received: u64,
}

/// A message with fragments still to come.
#[derive(Debug)]
struct OpenMessage {
    is_text: bool,
    is_compressed: bool,
    fragments: u32,
    data: Vec<u8>,
    /// Bytes at the start of `data` that are verified UTF-8, up to a character's end.
    valid_up_to: usize,
}

impl Decoder {
    /// Creates a decoder of the frames that the peer of `role` sends. Compressed messages are
    /// accepted if permessage-deflate was negotiated, whatever its window.
    #[must_use]
    pub fn new(role: Role, limits: DecoderLimits, deflate: Option<Window>) -> Decoder {
        Decoder { limits, role, allows_deflate: deflate.is_some(), partial: None }
    }

    /// Consumes bytes from the front of `input` until a message or control frame is complete.
    /// `None` means that all input is consumed and more is needed.
    ///
    /// # Errors
    /// [`ProtocolError`]. The connection must be closed then, and the decoder not be used again.
    pub fn next<'i>(
        &mut self,
        inflater: &mut Inflater,
        input: &mut &'i mut [u8],
    ) -> Result<Option<Message<'i>>, ProtocolError> {
        loop {
            let frame = match self.partial.as_ref().and_then(|partial| partial.frame) {
                Some(frame) => frame,
                None => {
                    let Some(header) = self.take_header(input)? else {
                        return Ok(None);
                    };
                    self.check(&header)?;
                    if self.is_lendable(&header, input.len()) {
                        let payload = take(input, header.length as usize);
                        return self.lend(inflater, &header, payload).map(Some);
                    }
                    self.open(&header)?;
                    OpenFrame { header, received: 0 }
                }
            };
            if !self.receive(frame, input)? {
                return Ok(None);
            }
            if let Some(message) = self.close_frame(inflater, &frame.header)? {
                return Ok(Some(message));
            }
        }
    }

    /// Bytes stored for an unfinished message.
    #[must_use]
    pub fn kept(&self) -> usize {
        let message = |partial: &Partial| partial.message.as_ref().map_or(0, |m| m.data.capacity());
        self.partial
            .as_ref()
            .map_or(0, |p| size_of::<Partial>() + p.control.capacity() + message(p))
    }

    fn take_header(&mut self, input: &mut &mut [u8]) -> Result<Option<Header>, ProtocolError> {
        if let Some(partial) = self.partial.as_mut().filter(|partial| partial.header_length > 0) {
            let mut joined = partial.header;
            let kept = partial.header_length;
            let added = input.len().min(HEADER_MAX - kept);
            joined[kept..kept + added].copy_from_slice(&input[..added]);
            return match Header::decode(&joined[..kept + added])? {
                Some((header, length)) => {
                    partial.header_length = 0;
                    take(input, length - kept);
                    self.release();
                    Ok(Some(header))
                }
                None => {
                    partial.header = joined;
                    partial.header_length += added;
                    take(input, added);
                    Ok(None)
                }
            };
        }
        match Header::decode(input)? {
            Some((header, length)) => {
                take(input, length);
                Ok(Some(header))
            }
            None => {
                let rest = std::mem::take(input);
                if !rest.is_empty() {
                    let partial = self.partial.get_or_insert_default();
                    partial.header[..rest.len()].copy_from_slice(rest);
                    partial.header_length = rest.len();
                }
                Ok(None)
            }
        }
    }

    fn message(&self) -> Option<&OpenMessage> {
        self.partial.as_ref().and_then(|partial| partial.message.as_ref())
    }

    fn check(&self, header: &Header) -> Result<(), ProtocolError> {
        if header.mask.is_some() != (self.role == Role::Server) {
            return Err(ProtocolError::Masking);
        }
        let is_control = header.opcode.is_control();
        let is_first = matches!(header.opcode, Opcode::Text | Opcode::Binary);
        if header.is_compressed && !(self.allows_deflate && is_first) {
            return Err(ProtocolError::ReservedBits);
        }
        if is_control {
            let is_short = header.length <= CONTROL_PAYLOAD_MAX as u64;
            return if header.is_final && is_short {
                Ok(())
            } else {
                Err(ProtocolError::ControlFrame)
            };
        }
        let message = self.message();
        if message.is_some() == is_first {
            return Err(ProtocolError::Fragmentation);
        }
        let before = message.map_or(0, |message| message.data.len() as u64);
        if header.length.saturating_add(before) > u64::from(self.limits.message_size) {
            return Err(ProtocolError::TooBig);
        }
        if message.is_some_and(|message| message.fragments >= FRAGMENTS_MAX) {
            return Err(ProtocolError::TooBig);
        }
        Ok(())
    }

    /// Returns whether the frame can be lent out without a copy.
    fn is_lendable(&self, header: &Header, available: usize) -> bool {
        let is_whole = header.is_final && header.opcode != Opcode::Continuation;
        is_whole && header.length <= available as u64
    }

    fn lend<'i>(
        &self,
        inflater: &mut Inflater,
        header: &Header,
        payload: &'i mut [u8],
    ) -> Result<Message<'i>, ProtocolError> {
        if let Some(key) = header.mask {
            mask::apply(key, 0, payload);
        }
        match header.opcode {
            Opcode::Ping => Ok(Message::Ping(Payload::Borrowed(payload))),
            Opcode::Pong => Ok(Message::Pong(Payload::Borrowed(payload))),
            Opcode::Close => parse_close(payload).map(Message::Close),
            Opcode::Text | Opcode::Binary | Opcode::Continuation => {
                let is_text = header.opcode == Opcode::Text;
                let payload = if header.is_compressed {
                    Payload::Owned(self.inflate(inflater, payload)?)
                } else {
                    Payload::Borrowed(payload)
                };
                if is_text { text(payload) } else { Ok(Message::Binary(payload)) }
            }
        }
    }

    /// Starts to store a frame that arrives in pieces, or a fragment.
    fn open(&mut self, header: &Header) -> Result<(), ProtocolError> {
        let partial = self.partial.get_or_insert_default();
        partial.frame = Some(OpenFrame { header: *header, received: 0 });
        match (header.opcode, &mut partial.message) {
            (Opcode::Close | Opcode::Ping | Opcode::Pong, _) => partial.control = Vec::new(),
            (_, Some(message)) => message.fragments += 1,
            (opcode, message @ None) => {
                *message = Some(OpenMessage {
                    is_text: opcode == Opcode::Text,
                    is_compressed: header.is_compressed,
                    fragments: 1,
                    data: Vec::new(),
                    valid_up_to: 0,
                });
            }
        }
        Ok(())
    }

    /// Moves the open frame's bytes from the input. Returns whether the frame is complete.
    fn receive(&mut self, frame: OpenFrame, input: &mut &mut [u8]) -> Result<bool, ProtocolError> {
        let OpenFrame { header, received } = frame;
        let missing = header.length - received;
        let count =
            usize::try_from(missing).map_or(input.len(), |missing| missing.min(input.len()));
        let payload = take(input, count);
        if let Some(key) = header.mask {
            mask::apply(key, (received % 4) as usize, payload);
        }
        let partial = self.partial.as_mut().expect("a frame is open");
        if header.opcode.is_control() {
            partial.control.extend_from_slice(payload);
        } else if let Some(message) = &mut partial.message {
            message.data.extend_from_slice(payload);
            message.check_text()?;
        }
        let received = received + count as u64;
        partial.frame = Some(OpenFrame { header, received });
        Ok(received == header.length)
    }

    /// Completes the open frame, and the message if this was its last fragment.
    fn close_frame<'i>(
        &mut self,
        inflater: &mut Inflater,
        header: &Header,
    ) -> Result<Option<Message<'i>>, ProtocolError> {
        let partial = self.partial.as_mut().expect("a frame was open");
        partial.frame = None;
        if header.opcode.is_control() {
            let payload = std::mem::take(&mut partial.control);
            self.release();
            return Ok(Some(match header.opcode {
                Opcode::Ping => Message::Ping(Payload::Owned(payload)),
                Opcode::Pong => Message::Pong(Payload::Owned(payload)),
                _ => Message::Close(parse_close(&payload)?),
            }));
        }
        if !header.is_final {
            return Ok(None);
        }
        let message = partial.message.take().expect("a data frame belongs to a message");
        self.release();
        let data = if message.is_compressed {
            self.inflate(inflater, &message.data)?
        } else {
            message.data
        };
        let payload = Payload::Owned(data);
        if message.is_text { text(payload).map(Some) } else { Ok(Some(Message::Binary(payload))) }
    }

    fn inflate(&self, inflater: &mut Inflater, data: &[u8]) -> Result<Vec<u8>, ProtocolError> {
        inflater.inflate(data, self.limits.inflated_size as usize).map_err(|error| match error {
            InflateError::Corrupt => ProtocolError::Deflate,
            InflateError::TooBig => ProtocolError::TooBig,
        })
    }

    /// Frees the memory if nothing is unfinished.
    fn release(&mut self) {
        let is_done = |partial: &Partial| {
            partial.header_length == 0 && partial.frame.is_none() && partial.message.is_none()
        };
        if self.partial.as_ref().is_some_and(|partial| is_done(partial)) {
            self.partial = None;
        }
    }
}

impl OpenMessage {
    /// Detects invalid UTF-8 as soon as it is received (RFC 6455 §8.1).
    fn check_text(&mut self) -> Result<(), ProtocolError> {
        if !self.is_text || self.is_compressed {
            return Ok(());
        }
        match simdutf8::compat::from_utf8(&self.data[self.valid_up_to..]) {
            Ok(_) => self.valid_up_to = self.data.len(),
            Err(error) if error.error_len().is_some() => return Err(ProtocolError::Utf8),
            Err(error) => self.valid_up_to += error.valid_up_to(),
        }
        Ok(())
    }
}

impl Deref for Payload<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Payload::Borrowed(bytes) => bytes,
            Payload::Owned(bytes) => bytes,
        }
    }
}

impl PartialEq for Payload<'_> {
    fn eq(&self, other: &Payload<'_>) -> bool {
        **self == **other
    }
}

impl Eq for Payload<'_> {}

fn take<'i>(input: &mut &'i mut [u8], count: usize) -> &'i mut [u8] {
    let (taken, rest) = std::mem::take(input).split_at_mut(count);
    *input = rest;
    taken
}

fn text(payload: Payload<'_>) -> Result<Message<'_>, ProtocolError> {
    match simdutf8::basic::from_utf8(&payload) {
        Ok(_) => Ok(Message::Text(payload)),
        Err(_) => Err(ProtocolError::Utf8),
    }
}

fn parse_close(payload: &[u8]) -> Result<Option<CloseFrame>, ProtocolError> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok(None) } else { Err(ProtocolError::CloseFrame) };
    };
    let code = CloseCode::new(u16::from_be_bytes(*code)).ok_or(ProtocolError::CloseFrame)?;
    let reason = std::str::from_utf8(reason).map_err(|_| ProtocolError::Utf8)?.to_owned();
    Ok(Some(CloseFrame { code, reason }))
}

const _: () = assert!(size_of::<Decoder>() <= 24, "every idle connection has one");

#[cfg(test)]
mod tests;
