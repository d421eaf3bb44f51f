//! Calls of the server API over gRPC on one connection, one after the other: HTTP/2 (RFC 9113) as
//! far as that needs. Heads are written without compression and never read: a call was taken if a
//! message came back that has no error.
//!
//! Invariant: any split of the bytes gives the same answer, and what is received is credited to the
//! server at once.

use std::fmt;

/// Bytes of a request: half of the window that a server grants at first, so that it never has to be
/// waited for.
const REQUEST_MAX: usize = 32 * 1024;
/// Bytes of a frame's content that every peer takes.
const FRAME_MAX: usize = 16 * 1024;
/// Bytes before the content of a frame.
const FRAME_HEAD: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// A gRPC connection to the server API with one call at a time.
pub(crate) struct GrpcExchange {
    /// The head of every request.
    head: Vec<u8>,
    stream: u32,
    is_batch: bool,
    unread: Vec<u8>,
    /// The message that comes, behind its prefix.
    message: Vec<u8>,
    /// Frames that must be sent beside requests.
    replies: Vec<u8>,
}

/// Why a call was not taken, or cannot be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GrpcFault {
    TooLarge(usize),
    Refused,
    Error(String),
    Cut,
}

impl fmt::Display for GrpcFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GrpcFault::TooLarge(bytes) => {
                write!(
                    formatter,
                    "a request of {bytes} bytes is more than {REQUEST_MAX}: lower --batch"
                )
            }
            GrpcFault::Refused => formatter.write_str(
                "the server API answered with a status (is --api-key the server's grpc_api.key?)",
            ),
            GrpcFault::Error(text) => write!(formatter, "the server API answered {text}"),
            GrpcFault::Cut => formatter.write_str("the server API ended the connection"),
        }
    }
}

impl GrpcExchange {
    pub(crate) fn new(authority: &str, key: &str, batch: u32) -> GrpcExchange {
        let is_batch = batch > 1;
        let method = if is_batch { "Batch" } else { "Publish" };
        // Fields of the static table (RFC 7541, appendix A), and literals that are not indexed.
        let mut head = vec![0x83, 0x86];
        field(&mut head, &[0x04], &format!("/centrifugal.centrifugo.api.CentrifugoApi/{method}"));
        field(&mut head, &[0x01], authority);
        field(&mut head, &[0x0f, 0x10], "application/grpc");
        field(&mut head, &[0x0f, 0x08], &format!("apikey {key}"));
        let mut te = vec![0x00];
        text(&mut te, "te");
        field(&mut head, &te, "trailers");
        let mut replies = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        frame(&mut replies, (SETTINGS, 0, 0), &[]);
        let (unread, message) = (Vec::new(), Vec::new());
        // The first request has stream 1.
        GrpcExchange { head, stream: u32::MAX, is_batch, unread, message, replies }
    }

    /// A publication as it stands in a request.
    pub(crate) fn publication(&self, channel: &str, data: &[u8]) -> Vec<u8> {
        let mut request = Vec::with_capacity(channel.len() + data.len() + 24);
        bytes(&mut request, 1, channel.as_bytes());
        bytes(&mut request, 2, data);
        if !self.is_batch {
            return request;
        }
        let (mut command, mut member) = (Vec::new(), Vec::new());
        bytes(&mut command, 4, &request);
        bytes(&mut member, 1, &command);
        member
    }

    /// Appends a request with this message.
    pub(crate) fn request(&mut self, message: &[u8], out: &mut Vec<u8>) -> Result<(), GrpcFault> {
        if message.len() > REQUEST_MAX {
            return Err(GrpcFault::TooLarge(message.len()));
        }
        self.stream = self.stream.wrapping_add(2);
        self.message.clear();
        frame(out, (HEADERS, END_HEADERS, self.stream), &self.head);
        let mut body = vec![0];
        body.extend_from_slice(&(message.len() as u32).to_be_bytes());
        body.extend_from_slice(message);
        let mut parts = body.chunks(FRAME_MAX).peekable();
        while let Some(part) = parts.next() {
            let flags = if parts.peek().is_none() { END_STREAM } else { 0 };
            frame(out, (DATA, flags, self.stream), part);
        }
        Ok(())
    }

    /// Moves frames that must be sent beside requests.
    pub(crate) fn take_replies(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.replies);
    }

    /// Takes bytes in. Returns whether the answer to the request is whole and good.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<bool, GrpcFault> {
        self.unread.extend_from_slice(bytes);
        let mut is_whole = false;
        while let Some((&[a, b, c, kind, flags, ref stream @ ..], rest)) =
            self.unread.split_first_chunk::<FRAME_HEAD>()
        {
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            let Some(content) = rest.get(..length) else { break };
            let stream = u32::from_be_bytes(*stream);
            match kind {
                SETTINGS if flags & ACK == 0 => frame(&mut self.replies, (SETTINGS, ACK, 0), &[]),
                PING if flags & ACK == 0 => frame(&mut self.replies, (PING, ACK, 0), content),
                RST_STREAM | GOAWAY => return Err(GrpcFault::Cut),
                DATA => {
                    if length > 0 {
                        let credit = (length as u32).to_be_bytes();
                        frame(&mut self.replies, (WINDOW_UPDATE, 0, 0), &credit);
                    }
                    self.message.extend_from_slice(content);
                }
                _ => {}
            }
            if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 && stream == self.stream {
                is_whole = true;
            }
            self.unread.drain(..FRAME_HEAD + length);
        }
        if is_whole {
            self.check()?;
        }
        Ok(is_whole)
    }

    /// Checks that the answer has no error.
    fn check(&self) -> Result<(), GrpcFault> {
        let Some((_prefix, mut message)) = self.message.split_first_chunk::<5>() else {
            return Err(GrpcFault::Refused);
        };
        if !self.is_batch {
            return no_error(message, 1);
        }
        while let Some((_, reply, rest)) = member(message) {
            no_error(reply, 2)?;
            message = rest;
        }
        Ok(())
    }
}

/// Fails if this field, an error with code and text, is the first of the message.
fn no_error(message: &[u8], field: u8) -> Result<(), GrpcFault> {
    match member(message) {
        Some((found, error, _)) if found == field => {
            Err(GrpcFault::Error(String::from_utf8_lossy(error).into_owned()))
        }
        _ => Ok(()),
    }
}

/// The first field of a message, if it has a length: its number, its content, and what follows.
fn member(message: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, mut rest) = message.split_first()?;
    let mut length = 0;
    for shift in (0..32).step_by(7) {
        let (&byte, behind) = rest.split_first()?;
        rest = behind;
        length |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    let (content, rest) = rest.split_at_checked(length)?;
    (tag & 7 == 2).then_some((tag >> 3, content, rest))
}

/// Appends a field of a message with a length (Protobuf).
fn bytes(out: &mut Vec<u8>, number: u8, content: &[u8]) {
    out.push(number << 3 | 2);
    let mut length = content.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(content);
}

/// Appends a frame of this kind, with flags and stream.
fn frame(out: &mut Vec<u8>, (kind, flags, stream): (u8, u8, u32), content: &[u8]) {
    out.extend_from_slice(&(content.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(content);
}

/// Appends a field of a head (HPACK).
fn field(out: &mut Vec<u8>, name: &[u8], value: &str) {
    out.extend_from_slice(name);
    text(out, value);
}

/// Appends a text without Huffman coding (RFC 7541, section 5.2).
fn text(out: &mut Vec<u8>, text: &str) {
    match u8::try_from(text.len()) {
        Ok(short @ 0..0x7f) => out.push(short),
        _ => {
            let mut rest = text.len() - 0x7f;
            out.push(0x7f);
            while rest >= 0x80 {
                out.push(rest as u8 | 0x80);
                rest >>= 7;
            }
            out.push(rest as u8);
        }
    }
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer with this message, between other frames.
    fn answer(message: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        frame(&mut out, (SETTINGS, 0, 0), &[0; 6]);
        frame(&mut out, (HEADERS, END_HEADERS, 1), b"head");
        let mut body = vec![0];
        body.extend_from_slice(&(message.len() as u32).to_be_bytes());
        body.extend_from_slice(message);
        frame(&mut out, (DATA, 0, 1), &body);
        frame(&mut out, (HEADERS, END_HEADERS | END_STREAM, 1), b"trailers");
        out
    }

    fn exchange(batch: u32) -> GrpcExchange {
        let mut exchange = GrpcExchange::new("localhost", "key", batch);
        exchange.replies.clear();
        let publication = exchange.publication("a", b"1");
        exchange.request(&publication, &mut Vec::new()).unwrap();
        exchange
    }

    #[test]
    fn any_split_of_an_answer_gives_the_same() {
        let mut result = Vec::new();
        bytes(&mut result, 2, b"\x08\x01");
        let answer = answer(&result);
        for at in 0..answer.len() {
            let mut exchange = exchange(1);
            assert_eq!(exchange.feed(&answer[..at]), Ok(false));
            assert_eq!(exchange.feed(&answer[at..]), Ok(true));
            // The settings are acknowledged, the data is credited.
            assert_eq!(exchange.replies.len(), FRAME_HEAD + FRAME_HEAD + 4);
        }
    }

    #[test]
    fn an_error_is_none_taken() {
        let mut error = Vec::new();
        bytes(&mut error, 1, b"102");
        assert_eq!(exchange(1).feed(&answer(&error)), Err(GrpcFault::Error("102".to_owned())));
        let (mut good, mut bad, mut replies) = (Vec::new(), Vec::new(), Vec::new());
        bytes(&mut good, 4, b"");
        bytes(&mut bad, 2, b"111");
        bytes(&mut replies, 1, &good);
        assert_eq!(exchange(2).feed(&answer(&replies)), Ok(true));
        bytes(&mut replies, 1, &bad);
        assert_eq!(exchange(2).feed(&answer(&replies)), Err(GrpcFault::Error("111".to_owned())));
        let mut refused = Vec::new();
        frame(&mut refused, (HEADERS, END_HEADERS | END_STREAM, 1), b"status");
        assert_eq!(exchange(1).feed(&refused), Err(GrpcFault::Refused));
        let mut cut = Vec::new();
        frame(&mut cut, (GOAWAY, 0, 0), &[0; 8]);
        assert_eq!(exchange(1).feed(&cut), Err(GrpcFault::Cut));
    }
}
