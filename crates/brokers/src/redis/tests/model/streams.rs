//! Streams of the model.
//!
//! Invariant: ids only grow, also after entries were trimmed.

use super::reply::Reply;
use super::store::{Outcome, Store, Stream, StreamId, Value, Words, integer, option, wrong_type};

const INVALID_ID: &str = "ERR Invalid stream ID specified as stream command argument";
const SMALL_ID: &str =
    "ERR The ID specified in XADD is equal or smaller than the target stream top item";

impl Store {
    pub(super) fn stream_command(&mut self, name: &str, words: Words<'_>) -> Outcome {
        let key = &words[0];
        match name {
            "XADD" => {
                let now = u64::try_from(self.now_ms()).unwrap_or(0);
                let is_new = self.value(key).is_none();
                let added = self.change(
                    key,
                    || Value::Stream(Stream::default()),
                    |value| {
                        let Value::Stream(stream) = value else { return wrong_type() };
                        add(stream, &words[1..], now)
                    },
                );
                if is_new && added.is_err() {
                    self.dispatch("DEL", std::slice::from_ref(key))?;
                }
                added
            }
            "XTRIM" => {
                if self.value(key).is_none() {
                    return Ok(Reply::Integer(0));
                }
                self.change(
                    key,
                    || Value::Stream(Stream::default()),
                    |value| {
                        let Value::Stream(stream) = value else { return wrong_type() };
                        // Always by the lowest id, exactly.
                        let first = stream_id(&words[3], 0)?;
                        let before = stream.entries.len();
                        stream.entries.retain(|id, _| *id >= first);
                        let removed = before - stream.entries.len();
                        Ok(Reply::Integer(removed.try_into().unwrap_or(0)))
                    },
                )
            }
            "XRANGE" | "XREVRANGE" => match self.value(key) {
                None => Ok(Reply::List(Vec::new())),
                Some(Value::Stream(stream)) => range(stream, name == "XREVRANGE", &words[1..]),
                Some(_) => wrong_type(),
            },
            _ => panic!("the model does not know the command {name}"),
        }
    }
}

/// MAXLEN, how exactly, a length, then id, fields and values.
fn add(stream: &mut Stream, words: Words<'_>, now_ms: u64) -> Outcome {
    let (is_exact, size) = (words[1] == b"=", integer(&words[2])?);
    let size = usize::try_from(size).map_err(|_| "ERR The MAXLEN argument must be >= 0.")?;
    let id = match &words[3][..] {
        b"*" if now_ms > stream.last.0 => (now_ms, 0),
        b"*" => (stream.last.0, stream.last.1 + 1),
        text => stream_id(text, 0)?,
    };
    if id <= stream.last {
        return Err(SMALL_ID.to_owned());
    }
    stream.last = id;
    stream.entries.insert(id, words[4..].to_vec());
    // Redis drops whole nodes of a hundred entries when it need not be exact.
    let slack = if is_exact { 0 } else { 100 };
    if stream.entries.len() > size + slack {
        while stream.entries.len() > size {
            stream.entries.pop_first();
        }
    }
    Ok(Reply::Bulk(show(id).into_bytes()))
}

fn range(stream: &Stream, is_reverse: bool, words: Words<'_>) -> Outcome {
    let (from, to) = if is_reverse { (&words[1], &words[0]) } else { (&words[0], &words[1]) };
    let first = match from.strip_prefix(b"(") {
        Some(text) => after(stream_id(text, 0)?),
        None => stream_id(from, 0)?,
    };
    let last = match to.strip_prefix(b"(") {
        Some(text) => before(stream_id(text, u64::MAX)?),
        None => stream_id(to, u64::MAX)?,
    };
    let count = match option(words, "COUNT") {
        Some(count) => usize::try_from(integer(count)?).unwrap_or(0),
        None => usize::MAX,
    };
    match count {
        0 => return Ok(Reply::Null),
        _ if first > last => return Ok(Reply::List(Vec::new())),
        _ => {}
    }
    let show_entry = |(id, fields): (&StreamId, &Vec<Vec<u8>>)| {
        let fields = fields.iter().map(|field| Reply::bulk(field)).collect();
        Reply::List(vec![Reply::Bulk(show(*id).into_bytes()), Reply::List(fields)])
    };
    let found = stream.entries.range(first..=last);
    Ok(Reply::List(match is_reverse {
        true => found.rev().take(count).map(show_entry).collect(),
        false => found.take(count).map(show_entry).collect(),
    }))
}

fn after((ms, sequence): StreamId) -> StreamId {
    sequence.checked_add(1).map_or((ms + 1, 0), |next| (ms, next))
}

fn before((ms, sequence): StreamId) -> StreamId {
    sequence.checked_sub(1).map_or((ms.saturating_sub(1), u64::MAX), |last| (ms, last))
}

fn stream_id(text: &[u8], sequence: u64) -> Result<StreamId, String> {
    match text {
        b"-" => return Ok((0, 0)),
        b"+" => return Ok((u64::MAX, u64::MAX)),
        _ => {}
    }
    let parse = || {
        let text = std::str::from_utf8(text).ok()?;
        match text.split_once('-') {
            Some((ms, sequence)) => Some((ms.parse().ok()?, sequence.parse().ok()?)),
            None => Some((text.parse().ok()?, sequence)),
        }
    };
    parse().ok_or_else(|| INVALID_ID.to_owned())
}

fn show((ms, sequence): StreamId) -> String {
    format!("{ms}-{sequence}")
}
