//! Answers of HTTP/1.1 as they come, whatever form their body has: with a length, in chunks, or
//! until the peer closes (RFC 9112 §6.3). Heads are httparse's.
//!
//! Invariant: any split of the bytes gives the same answer, and no more than [`BODY_MAX`] bytes of
//! a body are kept.

use std::fmt;

/// Bytes of a head.
const HEAD_MAX: usize = 64 * 1024;
/// Bytes of a body: the largest batch of the server API and more.
const BODY_MAX: usize = 64 * 1024 * 1024;
/// Bytes of a chunk's size, its extensions, or a trailer.
const LINE_MAX: usize = 16 * 1024;

/// A decoder of HTTP/1.1 responses, fed with bytes as they arrive.
#[derive(Debug)]
pub(crate) struct HttpResponse {
    status: u16,
    stays: bool,
    part: Part,
    /// Bytes that are not understood yet: a head, or the line of a chunk.
    waiting: Vec<u8>,
    body: Vec<u8>,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Head,
    /// So many bytes of body.
    Length(u64),
    ChunkSize,
    Chunk(u64),
    /// The end of the line behind a chunk.
    ChunkEnd,
    Trailers,
    UntilClose,
    Done,
}

/// How far an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    More,
    /// It is whole, and so many of the last bytes are behind it.
    Whole {
        rest: usize,
    },
}

/// Bytes that are no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotHttp(&'static str);

impl fmt::Display for NotHttp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the answer is not HTTP: {}", self.0)
    }
}

impl HttpResponse {
    pub(crate) fn new() -> HttpResponse {
        HttpResponse {
            status: 0,
            stays: true,
            part: Part::Head,
            waiting: Vec::new(),
            body: Vec::new(),
        }
    }

    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    /// What has come of the body, without its chunks' sizes.
    pub(crate) fn body(&self) -> &[u8] {
        &self.body
    }

    /// Whether the connection may be used for another request.
    pub(crate) fn stays(&self) -> bool {
        self.stays
    }

    /// Takes bytes in.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> Result<Progress, NotHttp> {
        while self.part != Part::Done {
            if bytes.is_empty() && !matches!(self.part, Part::Length(0)) {
                return Ok(Progress::More);
            }
            bytes = match self.part {
                Part::Head => self.take_head(bytes)?,
                Part::Length(left) | Part::Chunk(left) => self.take_body(bytes, left)?,
                Part::UntilClose => self.take_body(bytes, u64::MAX)?,
                Part::ChunkSize | Part::ChunkEnd | Part::Trailers => self.take_line(bytes)?,
                Part::Done => break,
            };
        }
        Ok(Progress::Whole { rest: bytes.len() })
    }

    /// The peer has closed; whether that was the end of the answer.
    pub(crate) fn is_whole_at_close(&self) -> bool {
        matches!(self.part, Part::UntilClose | Part::Done)
    }

    fn take_head<'b>(&mut self, bytes: &'b [u8]) -> Result<&'b [u8], NotHttp> {
        let known = self.waiting.len();
        self.waiting.extend_from_slice(bytes);
        let mut headers = [httparse::EMPTY_HEADER; 128];
        let mut head = httparse::Response::new(&mut headers);
        let length = match head.parse(&self.waiting) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if self.waiting.len() <= HEAD_MAX => return Ok(&[]),
            Ok(httparse::Status::Partial) => return Err(NotHttp("its head does not end")),
            Err(_) => return Err(NotHttp("its head cannot be read")),
        };
        let status = head.code.unwrap_or(0);
        let values = |name: &'static str| {
            let named =
                head.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
            named.filter_map(|header| std::str::from_utf8(header.value).ok().map(str::trim))
        };
        let has = |name, token: &str| {
            values(name)
                .flat_map(|value| value.split(','))
                .any(|one| one.trim().eq_ignore_ascii_case(token))
        };
        // An answer of HTTP/1.0 ends its connection, unless it says otherwise.
        let stays = !has("connection", "close")
            && (head.version == Some(1) || has("connection", "keep-alive"));
        let lengths: Vec<Option<u64>> =
            values("content-length").map(|value| value.parse().ok()).collect();
        let part = match (status, &lengths[..]) {
            // An interim answer: the real one follows.
            (100 | 102..=199, _) => Part::Head,
            (101 | 204 | 304, _) => Part::Done,
            _ if has("transfer-encoding", "chunked") => Part::ChunkSize,
            (_, []) => Part::UntilClose,
            (_, [Some(first), others @ ..])
                if others.iter().all(|other| *other == Some(*first)) =>
            {
                Part::Length(*first)
            }
            _ => return Err(NotHttp("its Content-Length is not a number")),
        };
        (self.status, self.stays, self.part) = (status, stays && part != Part::UntilClose, part);
        self.waiting.clear();
        // What was known of the head before is shorter than the whole head.
        Ok(&bytes[length - known..])
    }

    fn take_body<'b>(&mut self, bytes: &'b [u8], left: u64) -> Result<&'b [u8], NotHttp> {
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let (body, rest) = bytes.split_at(count);
        if self.body.len() + count > BODY_MAX {
            return Err(NotHttp("its body is too long"));
        }
        self.body.extend_from_slice(body);
        let left = left - count as u64;
        self.part = match self.part {
            Part::Length(_) if left == 0 => Part::Done,
            Part::Length(_) => Part::Length(left),
            Part::Chunk(_) if left == 0 => Part::ChunkEnd,
            Part::Chunk(_) => Part::Chunk(left),
            part => part,
        };
        Ok(rest)
    }

    /// Takes a line of what is around chunks.
    fn take_line<'b>(&mut self, bytes: &'b [u8]) -> Result<&'b [u8], NotHttp> {
        let end = memchr::memchr(b'\n', bytes);
        let (part, rest) = bytes.split_at(end.map_or(bytes.len(), |at| at + 1));
        self.waiting.extend_from_slice(part);
        if self.waiting.len() > LINE_MAX {
            return Err(NotHttp("a line between its chunks does not end"));
        }
        if end.is_none() {
            return Ok(rest);
        }
        let line = std::mem::take(&mut self.waiting);
        let line = line.trim_ascii();
        self.part = match self.part {
            Part::ChunkEnd if line.is_empty() => Part::ChunkSize,
            Part::ChunkEnd => return Err(NotHttp("a chunk is longer than it says")),
            Part::Trailers if line.is_empty() => Part::Done,
            Part::Trailers => Part::Trailers,
            _ => match chunk_size(line)? {
                0 => Part::Trailers,
                size => Part::Chunk(size),
            },
        };
        Ok(rest)
    }
}

/// Extensions may follow behind a semicolon.
fn chunk_size(line: &[u8]) -> Result<u64, NotHttp> {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let is_hex = !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
    let text = std::str::from_utf8(digits).ok().filter(|_| is_hex);
    text.and_then(|text| u64::from_str_radix(text, 16).ok()).ok_or(NotHttp("a chunk has no size"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
    const CHUNKS: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n3;x=y\r\nhel\r\n02\r\nlo\r\n0\r\nT: 1\r\n\r\n";
    const INTERIM: &str = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello";

    #[test]
    fn every_form_is_the_same_answer_however_it_is_split() {
        for text in [LENGTH, CHUNKS, INTERIM] {
            for first in 1..text.len() {
                for second in [first, (first + text.len()) / 2] {
                    let mut answer = HttpResponse::new();
                    let parts = [&text[..first], &text[first..second], &text[second..]];
                    let states = parts.map(|part| answer.feed(part.as_bytes()).unwrap());
                    assert_eq!(states[2], Progress::Whole { rest: 0 }, "{text} at {first}");
                    assert_eq!(
                        (answer.status(), answer.body(), answer.stays()),
                        (200, &b"hello"[..], true)
                    );
                }
            }
        }
    }

    #[test]
    fn what_is_behind_an_answer_is_left() {
        let mut answer = HttpResponse::new();
        let two = format!("{CHUNKS}{LENGTH}");
        assert_eq!(answer.feed(two.as_bytes()), Ok(Progress::Whole { rest: LENGTH.len() }));
        let mut answer = HttpResponse::new();
        assert_eq!(
            answer.feed(b"HTTP/1.1 204 No Content\r\n\r\n"),
            Ok(Progress::Whole { rest: 0 })
        );
        let mut answer = HttpResponse::new();
        assert_eq!(
            answer.feed(b"HTTP/1.1 500 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
            Ok(Progress::Whole { rest: 0 })
        );
        assert!(!answer.stays());
    }

    #[test]
    fn without_a_length_the_close_ends_it() {
        let mut answer = HttpResponse::new();
        assert_eq!(answer.feed(b"HTTP/1.0 200 OK\r\n\r\nhello"), Ok(Progress::More));
        assert!(answer.is_whole_at_close() && !answer.stays() && answer.body() == b"hello");
        let mut cut = HttpResponse::new();
        assert_eq!(cut.feed(&LENGTH.as_bytes()[..LENGTH.len() - 1]), Ok(Progress::More));
        assert!(!cut.is_whole_at_close());
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for text in [
            "\u{16}\u{3}\u{1}",
            "HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+1\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
        ] {
            assert!(HttpResponse::new().feed(text.as_bytes()).is_err(), "{text}");
        }
    }
}
