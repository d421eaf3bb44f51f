//! RESP3, the protocol of Redis: commands out, values in.
//!
//! Invariant: the decoder looks at every byte once to find where a value ends, takes nothing before it is whole, and
//! holds no more than [`VALUE_MAX`] of one.

use bytes::{BufMut, Bytes, BytesMut};

use crate::limits::{VALUE_DEPTH_MAX, VALUE_MAX};

/// What Redis says. Kinds of which we make no difference are one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// Any kind of text or number that is no integer.
    Text(Bytes),
    Integer(i64),
    Null,
    /// Also a set, and a map as keys and values in turn.
    Array(Vec<Value>),
    /// Said without having been asked, or in place of an answer to `SUBSCRIBE`.
    Push(Vec<Value>),
    /// A refusal, with its text.
    Error(Bytes),
}

/// What came is not RESP3, or beyond what we take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not the protocol of Redis")]
pub(super) struct Malformed;

/// Eats bytes and gives values.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    pub(super) buffer: BytesMut,
    /// Up to where the buffer was looked at.
    seen: usize,
    /// Values, on any level, that the value at the front still lacks.
    lacking: u64,
}

impl Value {
    pub(super) fn text(&self) -> Option<&Bytes> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn array(&self) -> &[Value] {
        match self {
            Value::Array(values) => values,
            _ => &[],
        }
    }

    /// A number, however it is written.
    pub(super) fn number(&self) -> Option<u64> {
        match self {
            Value::Integer(number) => u64::try_from(*number).ok(),
            Value::Text(text) => std::str::from_utf8(text).ok()?.parse().ok(),
            _ => None,
        }
    }
}

impl Decoder {
    /// The next value, when it is whole.
    pub(super) fn next(&mut self) -> Result<Option<Value>, Malformed> {
        if self.seen == 0 {
            self.lacking = 1;
        }
        while self.lacking > 0 {
            let Some(head) = Head::read(&self.buffer[self.seen..])? else { return Ok(None) };
            let end = self.seen + head.length + head.body_length();
            if end > VALUE_MAX {
                return Err(Malformed);
            }
            if self.buffer.len() < end {
                self.buffer.reserve(end - self.buffer.len());
                return Ok(None);
            }
            self.seen = end;
            self.lacking = self.lacking - 1 + head.values();
            if self.lacking > VALUE_MAX as u64 {
                return Err(Malformed);
            }
        }
        let mut whole = self.buffer.split_to(std::mem::take(&mut self.seen)).freeze();
        parse(&mut whole, VALUE_DEPTH_MAX).map(Some)
    }
}

/// The line with which every value begins.
#[derive(Clone, Copy)]
struct Head {
    kind: u8,
    /// Of the line, with its end.
    length: usize,
    /// The number in the line of a value that has a body; `None` for a null.
    count: Option<usize>,
}

impl Head {
    fn read(bytes: &[u8]) -> Result<Option<Head>, Malformed> {
        let Some(end) = bytes.iter().take(LINE_MAX).position(|byte| *byte == b'\n') else {
            return if bytes.len() >= LINE_MAX { Err(Malformed) } else { Ok(None) };
        };
        let line = bytes[..end].strip_suffix(b"\r").ok_or(Malformed)?;
        let (kind, text) = line.split_first().ok_or(Malformed)?;
        let count = match kind {
            b'+' | b'-' | b':' | b',' | b'(' | b'#' | b'_' => None,
            b'$' | b'=' | b'!' | b'*' | b'~' | b'>' | b'%' if text == b"-1" => None,
            b'$' | b'=' | b'!' | b'*' | b'~' | b'>' | b'%' => Some(number(text)?),
            _ => return Err(Malformed),
        };
        Ok(Some(Head { kind: *kind, length: end + 1, count }))
    }

    /// Bytes behind the line, with their end.
    fn body_length(self) -> usize {
        match (self.kind, self.count) {
            (b'$' | b'=' | b'!', Some(count)) => count.saturating_add(2),
            _ => 0,
        }
    }

    /// Values behind the line.
    fn values(self) -> u64 {
        let count = self.count.unwrap_or(0) as u64;
        match self.kind {
            b'*' | b'~' | b'>' => count,
            b'%' => count.saturating_mul(2),
            _ => 0,
        }
    }
}

/// Writes a command.
pub(super) fn write_command(out: &mut BytesMut, words: &[&[u8]]) {
    out.reserve(words.iter().map(|word| word.len() + 16).sum());
    write_head(out, b'*', words.len());
    for word in words {
        write_head(out, b'$', word.len());
        out.put_slice(word);
        out.put_slice(b"\r\n");
    }
}

fn write_head(out: &mut BytesMut, kind: u8, count: usize) {
    out.put_u8(kind);
    out.put_slice(count.to_string().as_bytes());
    out.put_slice(b"\r\n");
}

/// Takes one value from the front of what is known to hold it whole.
fn parse(whole: &mut Bytes, depth: usize) -> Result<Value, Malformed> {
    let head = Head::read(whole)?.ok_or(Malformed)?;
    let line = whole.split_to(head.length).slice(1..head.length - 2);
    let values = |whole: &mut Bytes| -> Result<Vec<Value>, Malformed> {
        let depth = depth.checked_sub(1).ok_or(Malformed)?;
        (0..head.values()).map(|_| parse(whole, depth)).collect()
    };
    Ok(match head.kind {
        b'_' => Value::Null,
        b'+' | b',' | b'(' | b'#' => Value::Text(line),
        b'-' => Value::Error(line),
        b':' => {
            let text = std::str::from_utf8(&line).map_err(|_| Malformed)?;
            Value::Integer(text.parse().map_err(|_| Malformed)?)
        }
        _ if head.count.is_none() => Value::Null,
        b'>' => Value::Push(values(whole)?),
        b'*' | b'~' | b'%' => Value::Array(values(whole)?),
        kind => {
            let body = whole.split_to(head.body_length());
            let text = body.slice(..body.len() - 2);
            if &body[text.len()..] != b"\r\n" {
                return Err(Malformed);
            }
            if kind == b'!' { Value::Error(text) } else { Value::Text(text) }
        }
    })
}

fn number(text: &[u8]) -> Result<usize, Malformed> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return Err(Malformed);
    }
    std::str::from_utf8(text).map_err(|_| Malformed)?.parse().map_err(|_| Malformed)
}

/// A line at most, with its end: texts of errors are shorter.
const LINE_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn write(out: &mut BytesMut, value: &Value) {
        let mut many = |kind, values: &[Value]| {
            write_head(out, kind, values.len());
            values.iter().for_each(|value| write(out, value));
        };
        match value {
            Value::Array(values) => many(b'*', values),
            Value::Push(values) => many(b'>', values),
            Value::Null => out.put_slice(b"_\r\n"),
            Value::Integer(number) => out.put_slice(format!(":{number}\r\n").as_bytes()),
            Value::Text(text) | Value::Error(text) => {
                let kind = if matches!(value, Value::Text(_)) { b'$' } else { b'!' };
                write_head(out, kind, text.len());
                out.put_slice(text);
                out.put_slice(b"\r\n");
            }
        }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
        let leaf = prop_oneof![
            bytes().prop_map(Value::Text),
            bytes().prop_map(Value::Error),
            any::<i64>().prop_map(Value::Integer),
            Just(Value::Null),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            let values = proptest::collection::vec(inner, 0..6);
            prop_oneof![values.clone().prop_map(Value::Array), values.prop_map(Value::Push)]
        })
    }

    proptest! {
        #[test]
        fn values_come_back_however_they_are_cut(
            values in proptest::collection::vec(any_value(), 1..5),
            piece in 1usize..50,
        ) {
            let mut out = BytesMut::new();
            values.iter().for_each(|value| write(&mut out, value));
            let (mut decoder, mut back) = (Decoder::default(), Vec::new());
            for piece in out.chunks(piece) {
                decoder.buffer.put_slice(piece);
                while let Some(value) = decoder.next().unwrap() {
                    back.push(value);
                }
            }
            prop_assert_eq!(back, values);
            prop_assert!(decoder.buffer.is_empty());
        }

        #[test]
        fn strange_bytes_are_refused_or_wait(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut decoder = Decoder::default();
            decoder.buffer.put_slice(&bytes);
            while let Ok(Some(_)) = decoder.next() {}
        }
    }

    #[test]
    fn bounds_hold() {
        let refused = |bytes: &[u8]| {
            let mut decoder = Decoder::default();
            decoder.buffer.put_slice(bytes);
            decoder.next() == Err(Malformed)
        };
        assert!(refused(b"$99999999999\r\n"));
        assert!(refused(b"*99999999999\r\n"));
        assert!(refused(b"$-2\r\n"));
        assert!(refused(&b"+".repeat(LINE_MAX)));
        let deep = [&b"*1\r\n".repeat(VALUE_DEPTH_MAX + 1)[..], b"_\r\n"].concat();
        assert!(refused(&deep));
        assert!(!refused(&deep[4..]));
    }

    #[test]
    fn other_kinds_are_understood() {
        let mut decoder = Decoder::default();
        decoder.buffer.put_slice(b"%1\r\n+a\r\n,1.5\r\n~1\r\n#t\r\n$-1\r\n=5\r\ntxt:x\r\n");
        let text = |text: &'static str| Value::Text(Bytes::from_static(text.as_bytes()));
        let next = |decoder: &mut Decoder| decoder.next().unwrap().unwrap();
        assert_eq!(next(&mut decoder), Value::Array(vec![text("a"), text("1.5")]));
        assert_eq!(next(&mut decoder), Value::Array(vec![text("t")]));
        assert_eq!(next(&mut decoder), Value::Null);
        assert_eq!(next(&mut decoder), text("txt:x"));
    }
}
