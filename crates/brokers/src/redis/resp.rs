//! RESP3, the protocol of Redis: encodes commands and decodes frames.
//!
//! The decoder accepts bytes in any portions and returns complete frames. Incomplete aggregates are
//! kept on a stack, so each byte is parsed once. Invariant: memory is never allocated for an
//! announced length before its bytes arrive; lengths and nesting are bounded.

use bytes::{Buf, Bytes, BytesMut};

use crate::limits::{RESP_BULK_MAX, RESP_ITEMS_MAX, RESP_LINE_MAX, RESP_NESTING_MAX};

/// A frame of the server.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Frame {
    /// A simple or bulk string.
    Text(Bytes),
    /// An error reply: the command was not executed.
    Error(Bytes),
    /// An integer or a boolean.
    Integer(i64),
    /// Null.
    Null,
    /// An array, a set, or the keys and values of a map in turn.
    List(Vec<Frame>),
    /// A push, which is not a reply.
    Push(Vec<Frame>),
}

/// The peer does not speak RESP3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server does not speak the protocol of Redis")]
pub(super) struct NotResp;

/// An incremental decoder.
#[derive(Debug, Default)]
pub(super) struct RespDecoder {
    buffer: BytesMut,
    open: Vec<Open>,
}

/// An incomplete aggregate.
#[derive(Debug)]
struct Open {
    kind: Kind,
    missing: usize,
    items: Vec<Frame>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    List,
    Push,
    /// Precedes a frame and is dropped.
    Attribute,
}

/// The next token in the buffer.
enum Token {
    Whole(Frame),
    Opens(Kind, usize),
}

impl Frame {
    pub(super) fn text(&self) -> Option<&Bytes> {
        match self {
            Frame::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn list(&self) -> Option<&[Frame]> {
        match self {
            Frame::List(items) => Some(items),
            _ => None,
        }
    }

    pub(super) fn str(&self) -> Option<&str> {
        self.text().and_then(|text| std::str::from_utf8(text).ok())
    }

    pub(super) fn i64(&self) -> Option<i64> {
        match self {
            Frame::Integer(number) => Some(*number),
            _ => None,
        }
    }

    pub(super) fn u64(&self) -> Option<u64> {
        match self {
            Frame::Integer(number) => u64::try_from(*number).ok(),
            frame => frame.str()?.parse().ok(),
        }
    }
}

impl RespDecoder {
    /// Buffer to append received bytes to.
    pub(super) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next complete frame; `None` until more bytes arrive.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, NotResp> {
        while let Some(token) = self.token()? {
            let mut whole = match token {
                Token::Whole(frame) => frame,
                Token::Opens(kind, 0) => match close(kind, Vec::new()) {
                    Some(frame) => frame,
                    None => continue,
                },
                Token::Opens(kind, missing) => {
                    if self.open.len() == RESP_NESTING_MAX {
                        return Err(NotResp);
                    }
                    self.open.push(Open { kind, missing, items: Vec::new() });
                    continue;
                }
            };
            loop {
                let Some(top) = self.open.last_mut() else {
                    return Ok(Some(whole));
                };
                top.items.push(whole);
                top.missing -= 1;
                if top.missing > 0 {
                    break;
                }
                let Some(Open { kind, items, .. }) = self.open.pop() else { break };
                match close(kind, items) {
                    Some(frame) => whole = frame,
                    None => break,
                }
            }
        }
        Ok(None)
    }

    fn token(&mut self) -> Result<Option<Token>, NotResp> {
        let Some(&kind) = self.buffer.first() else {
            return Ok(None);
        };
        let Some(end) = memchr::memchr(b'\n', &self.buffer) else {
            return if self.buffer.len() > RESP_LINE_MAX { Err(NotResp) } else { Ok(None) };
        };
        if end < 2 || self.buffer[end - 1] != b'\r' {
            return Err(NotResp);
        }
        let line = &self.buffer[1..end - 1];
        let whole = match kind {
            b'$' | b'=' | b'!' => return self.bulk(kind, end),
            b'+' | b',' | b'(' => Frame::Text(Bytes::copy_from_slice(line)),
            b'-' => Frame::Error(Bytes::copy_from_slice(line)),
            b':' => Frame::Integer(number(line)?),
            b'_' => Frame::Null,
            b'#' => Frame::Integer(i64::from(line == b"t")),
            b'*' | b'~' | b'>' | b'%' | b'|' => {
                let Some(length) = length(line, RESP_ITEMS_MAX)? else {
                    self.buffer.advance(end + 1);
                    return Ok(Some(Token::Whole(Frame::Null)));
                };
                self.buffer.advance(end + 1);
                return Ok(Some(match kind {
                    b'>' => Token::Opens(Kind::Push, length),
                    b'%' => Token::Opens(Kind::List, 2 * length),
                    b'|' => Token::Opens(Kind::Attribute, 2 * length),
                    _ => Token::Opens(Kind::List, length),
                }));
            }
            _ => return Err(NotResp),
        };
        self.buffer.advance(end + 1);
        Ok(Some(Token::Whole(whole)))
    }

    fn bulk(&mut self, kind: u8, end: usize) -> Result<Option<Token>, NotResp> {
        let Some(length) = length(&self.buffer[1..end - 1], RESP_BULK_MAX)? else {
            self.buffer.advance(end + 1);
            return Ok(Some(Token::Whole(Frame::Null)));
        };
        let whole = end + 1 + length + 2;
        if self.buffer.len() < whole {
            self.buffer.reserve(whole - self.buffer.len());
            return Ok(None);
        }
        if &self.buffer[whole - 2..whole] != b"\r\n" {
            return Err(NotResp);
        }
        self.buffer.advance(end + 1);
        let mut text = self.buffer.split_to(length).freeze();
        self.buffer.advance(2);
        Ok(Some(Token::Whole(match kind {
            b'!' => Frame::Error(text),
            // A verbatim string: three letters of format and a colon, then the text.
            b'=' if text.len() >= 4 => Frame::Text(text.split_off(4)),
            _ => Frame::Text(text),
        })))
    }
}

fn close(kind: Kind, items: Vec<Frame>) -> Option<Frame> {
    match kind {
        Kind::List => Some(Frame::List(items)),
        Kind::Push => Some(Frame::Push(items)),
        Kind::Attribute => None,
    }
}

fn number(line: &[u8]) -> Result<i64, NotResp> {
    std::str::from_utf8(line).ok().and_then(|text| text.parse().ok()).ok_or(NotResp)
}

/// A length; `None` for the null of RESP2.
fn length(line: &[u8], max: usize) -> Result<Option<usize>, NotResp> {
    match number(line)? {
        -1 => Ok(None),
        length => {
            usize::try_from(length).ok().filter(|length| *length <= max).map(Some).ok_or(NotResp)
        }
    }
}

/// Appends a command.
pub(super) fn encode(out: &mut Vec<u8>, words: &[&[u8]]) {
    encode_length(out, words.len());
    words.iter().for_each(|word| encode_word(out, word));
}

/// Appends the number of words of a command; they follow.
pub(super) fn encode_length(out: &mut Vec<u8>, words: usize) {
    header(out, b'*', words);
}

/// Appends a word of a command.
pub(super) fn encode_word(out: &mut Vec<u8>, word: &[u8]) {
    header(out, b'$', word.len());
    out.extend_from_slice(word);
    out.extend_from_slice(b"\r\n");
}

fn header(out: &mut Vec<u8>, kind: u8, length: usize) {
    out.push(kind);
    out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(bytes: &[u8], portion: usize) -> Result<Vec<Frame>, NotResp> {
        let mut decoder = RespDecoder::default();
        let mut frames = Vec::new();
        for portion in bytes.chunks(portion) {
            decoder.buffer().extend_from_slice(portion);
            while let Some(frame) = decoder.next()? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    fn text(text: &str) -> Frame {
        Frame::Text(Bytes::copy_from_slice(text.as_bytes()))
    }

    fn write(frame: &Frame, out: &mut Vec<u8>) {
        match frame {
            Frame::Text(text) => {
                header(out, b'$', text.len());
                out.extend_from_slice(text);
                out.extend_from_slice(b"\r\n");
            }
            Frame::Error(text) => {
                header(out, b'!', text.len());
                out.extend_from_slice(text);
                out.extend_from_slice(b"\r\n");
            }
            Frame::Integer(number) => out.extend_from_slice(format!(":{number}\r\n").as_bytes()),
            Frame::Null => out.extend_from_slice(b"_\r\n"),
            Frame::List(items) | Frame::Push(items) => {
                let kind = if matches!(frame, Frame::List(_)) { b'*' } else { b'>' };
                header(out, kind, items.len());
                items.iter().for_each(|item| write(item, out));
            }
        }
    }

    #[test]
    fn reads_every_kind() {
        let bytes = b"+OK\r\n-ERR no\r\n:-7\r\n$2\r\na\n\r\n$-1\r\n_\r\n#t\r\n=6\r\ntxt:ab\r\n\
            %1\r\n+a\r\n*0\r\n|1\r\n+k\r\n+v\r\n,1.5\r\n>2\r\n+x\r\n~1\r\n:1\r\n*-1\r\n!3\r\nERR\r\n";
        let expected = vec![
            text("OK"),
            Frame::Error(Bytes::from_static(b"ERR no")),
            Frame::Integer(-7),
            text("a\n"),
            Frame::Null,
            Frame::Null,
            Frame::Integer(1),
            text("ab"),
            Frame::List(vec![text("a"), Frame::List(vec![])]),
            text("1.5"),
            Frame::Push(vec![text("x"), Frame::List(vec![Frame::Integer(1)])]),
            Frame::Null,
            Frame::Error(Bytes::from_static(b"ERR")),
        ];
        for portion in [1, 2, 3, 7, bytes.len()] {
            assert_eq!(decode(bytes, portion).as_ref(), Ok(&expected));
        }
    }

    #[test]
    fn refuses_malformed_and_unbounded_input() {
        let deep = "*1\r\n".repeat(RESP_NESTING_MAX + 1);
        let long = "+".repeat(RESP_LINE_MAX + 2);
        let huge = format!("${}\r\n", RESP_BULK_MAX + 1);
        for bytes in
            ["HTTP/1.1 400\r\n", "$-2\r\n", "$1\r\nabc", "\r\n", ":x\r\n", &deep, &long, &huge]
        {
            assert_eq!(decode(bytes.as_bytes(), 5), Err(NotResp), "{bytes:.20}");
        }
    }

    fn frames() -> impl Strategy<Value = Frame> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from);
        let leaf = prop_oneof![
            bytes().prop_map(Frame::Text),
            bytes().prop_map(Frame::Error),
            any::<i64>().prop_map(Frame::Integer),
            Just(Frame::Null),
        ];
        leaf.prop_recursive(3, 20, 5, |inner| {
            let items = || prop::collection::vec(inner.clone(), 0..5);
            prop_oneof![items().prop_map(Frame::List), items().prop_map(Frame::Push)]
        })
    }

    proptest! {
        #[test]
        fn any_portions_decode_to_the_same_frames(
            frames in prop::collection::vec(frames(), 1..5), portion in 1usize..40,
        ) {
            let mut bytes = Vec::new();
            frames.iter().for_each(|frame| write(frame, &mut bytes));
            prop_assert_eq!(decode(&bytes, portion), Ok(frames));
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), portion in 1usize..40) {
            let _any = decode(&bytes, portion);
        }

        #[test]
        fn a_command_is_a_list_of_texts(words in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 1..6)) {
            let mut out = Vec::new();
            encode(&mut out, &words.iter().map(|word| &word[..]).collect::<Vec<_>>());
            let words = words.into_iter().map(|word| Frame::Text(word.into())).collect();
            prop_assert_eq!(decode(&out, 3), Ok(vec![Frame::List(words)]));
        }
    }
}
