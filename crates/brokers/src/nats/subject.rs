//! Names of a NATS installation: subjects and streams under one prefix.
//!
//! Invariant: different channels have different subjects, whatever their names contain, and no
//! channel name leads to a subject of another kind: a name is encoded as one token, in which every
//! byte except ASCII letters, digits, `-`, `_`, `:`, `#`, `@`, `/` and `$` is written as `=` and
//! two hexadecimal digits. `*` and `>` are encoded too. A name whose token is longer than
//! [`token_length_max`] is refused before it is sent: `nats-server` closes the connection of a
//! client that sends a longer line than its `max_control_line`.

use std::fmt::Write;
use std::sync::Arc;

use crate::limits::{NATS_SUBJECT_MAX, NATS_SUBJECT_RESERVE};

/// Subjects and streams of one installation.
#[derive(Clone, Debug)]
pub(super) struct Names {
    pub(super) prefix: String,
    /// Identifier of this process, as a token.
    pub(super) node: String,
}

/// A channel, and its name as one token of a subject.
#[derive(Clone, Debug)]
pub(super) struct ChannelName {
    pub(super) channel: Arc<str>,
    pub(super) token: Arc<str>,
}

/// A kind of messages with a stream of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Store {
    History,
    Presence,
    Events,
    Generation,
    Revocations,
}

impl ChannelName {
    pub(super) fn new(channel: Arc<str>) -> ChannelName {
        let token = token(&channel).into();
        ChannelName { channel, token }
    }
}

impl Names {
    /// The messages for subscribers: plain publications, joins and leaves, and records that the
    /// history stream republishes.
    pub(super) fn channel(&self, token: &str) -> String {
        format!("{}.channel.{token}", self.prefix)
    }

    /// The subject of the history stream that stores the records of a channel.
    pub(super) fn stream(&self, token: &str) -> String {
        format!("{}.stream.{token}", self.prefix)
    }

    pub(super) fn control(&self) -> String {
        format!("{}.control", self.prefix)
    }

    /// Control messages for one node.
    pub(super) fn control_of(&self, node: &str) -> String {
        format!("{}.control.{node}", self.prefix)
    }

    /// Lifecycle events for backends.
    pub(super) fn events(&self) -> String {
        format!("{}.events", self.prefix)
    }

    pub(super) fn events_stream(&self) -> String {
        self.stream_name("events")
    }

    /// The echoes of this node.
    pub(super) fn echo(&self) -> String {
        format!("{}.node.{}", self.prefix, self.node)
    }

    /// The generation of the store.
    pub(super) fn generation(&self) -> String {
        format!("{}.era", self.prefix)
    }

    /// A subject of the history stream that belongs to no channel: no name has this token.
    pub(super) fn probe(&self) -> String {
        self.stream("=probe")
    }

    /// The revocation of one subject; `*` for all.
    pub(super) fn revocation(&self, subject: &str) -> String {
        format!("{}.revocation.{subject}", self.prefix)
    }

    pub(super) fn revocation_stream(&self) -> String {
        self.stream_name("revocations")
    }

    pub(super) fn lease(&self, node: &str) -> String {
        format!("{}.lease.{node}", self.prefix)
    }

    /// A presence entry; `*` for any part.
    pub(super) fn presence(
        &self,
        node: &str,
        endpoint: &str,
        channel: &str,
        client: &str,
    ) -> String {
        format!("{}.presence.{node}.{endpoint}.{channel}.{client}", self.prefix)
    }

    pub(super) fn history_stream(&self) -> String {
        self.stream_name("history")
    }

    pub(super) fn generation_stream(&self) -> String {
        self.stream_name("era")
    }

    /// Advisories of JetStream that a server was elected leader of the history stream.
    pub(super) fn leaders(&self) -> String {
        format!("$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.{}", self.history_stream())
    }

    pub(super) fn presence_stream(&self) -> String {
        self.stream_name("presence")
    }

    pub(super) fn stream_of(&self, store: Store) -> String {
        match store {
            Store::History => self.history_stream(),
            Store::Presence => self.presence_stream(),
            Store::Events => self.events_stream(),
            Store::Generation => self.generation_stream(),
            Store::Revocations => self.revocation_stream(),
        }
    }

    /// The kind of stream that stores a subject.
    pub(super) fn store_of(&self, subject: &str) -> Store {
        let kind = subject.get(self.prefix.len() + 1..).and_then(|rest| rest.split('.').next());
        match kind {
            Some("stream") => Store::History,
            Some("events") => Store::Events,
            Some("era") => Store::Generation,
            Some("revocation") => Store::Revocations,
            _ => Store::Presence,
        }
    }

    fn stream_name(&self, kind: &str) -> String {
        format!("{}_{kind}", self.prefix.replace('.', "_"))
    }
}

/// Bytes of the longest channel name of any characters: each byte may take three in a subject.
#[must_use]
pub fn channel_length_max(prefix: &str) -> usize {
    token_length_max(prefix) / 3
}

/// Bytes of the longest channel name that has only characters which need no encoding.
#[must_use]
pub fn plain_channel_length_max(prefix: &str) -> usize {
    token_length_max(prefix)
}

/// Bytes of the longest token of a channel: a presence entry has the longest subject.
fn token_length_max(prefix: &str) -> usize {
    NATS_SUBJECT_MAX.saturating_sub(prefix.len() + NATS_SUBJECT_RESERVE)
}

/// Returns whether the subjects of a channel fit into a line of NATS.
pub(super) fn fits(prefix: &str, channel: &str) -> bool {
    let longest = token_length_max(prefix);
    channel.len() <= longest / 3 || token_length(channel) <= longest
}

fn token_length(text: &str) -> usize {
    text.bytes().map(|byte| if is_plain(byte) { 1 } else { 3 }).sum()
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_:#@/$".contains(&byte)
}

/// Encodes any text as one token of a subject.
pub(super) fn token(text: &str) -> String {
    if text.is_empty() {
        return "=".into();
    }
    let mut token = String::with_capacity(text.len());
    for byte in text.bytes() {
        if is_plain(byte) {
            token.push(char::from(byte));
        } else {
            write!(token, "={byte:02X}").expect("writing to a string does not fail");
        }
    }
    token
}

/// Decodes a token; `None` if it is not the encoding of any text.
pub(super) fn text(token: &str) -> Option<String> {
    if token == "=" {
        return Some(String::new());
    }
    let mut bytes = Vec::with_capacity(token.len());
    let mut rest = token.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        if *first == b'=' {
            let digits = std::str::from_utf8(behind.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &behind[2..];
        } else {
            bytes.push(*first);
            rest = behind;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_limited_by_the_bytes_of_their_token() {
        let plain = plain_channel_length_max("tidings");
        let any = channel_length_max("tidings");
        for (channel, expected) in [
            ("x".repeat(plain), true),
            ("x".repeat(plain + 1), false),
            (".".repeat(any), true),
            (".".repeat(any + 1), false),
            ("\u{20ac}".repeat(any / 3), true),
            ("\u{20ac}".repeat(any / 3 + 1), false),
        ] {
            assert_eq!(fits("tidings", &channel), expected, "{} bytes", channel.len());
            if expected {
                let names = Names { prefix: "tidings".into(), node: "0".repeat(8) };
                let client = "0".repeat(36);
                let subject = names.presence(&names.node, "4294967295", &token(&channel), &client);
                assert!(subject.len() <= NATS_SUBJECT_MAX, "{}", subject.len());
            }
        }
        assert_eq!(plain_channel_length_max(&"p".repeat(5_000)), 0);
    }

    #[test]
    fn every_name_round_trips_as_one_token() {
        for (name, expected) in [
            ("chat:room-1", "chat:room-1"),
            ("a.b", "a=2Eb"),
            ("a.*", "a=2E=2A"),
            (">", "=3E"),
            ("", "="),
            ("=", "=3D"),
            ("one two\r\n", "one=20two=0D=0A"),
            ("r\u{f6}m", "r=C3=B6m"),
            ("$SYS.x", "$SYS=2Ex"),
        ] {
            assert_eq!(token(name), expected);
            assert_eq!(text(expected).as_deref(), Some(name));
        }
        assert_eq!(text("=F"), None);
        assert_eq!(text("=probe"), None);
    }
}
