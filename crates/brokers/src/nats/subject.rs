//! Names of a NATS installation: subjects and streams under one prefix.
//!
//! Invariant: different channels have different subjects, whatever is in their names, and no channel name can reach
//! another subject: a name is one token, in which everything but ASCII letters, digits, `-`, `_`, `:`, `#`, `@`, `/`
//! and `$` is written as `=` and two hexadecimal digits for each byte. `*` and `>` are characters like others.

use std::fmt::Write;

/// Subjects and streams of one installation.
#[derive(Clone, Debug)]
pub(super) struct Names {
    pub(super) prefix: String,
    /// This process.
    pub(super) node: String,
}

impl Names {
    /// What is fanned out: plain publications, joins and leaves, and what the history stream republishes.
    pub(super) fn channel(&self, token: &str) -> String {
        format!("{}.channel.{token}", self.prefix)
    }

    /// Where publications enter the history stream.
    pub(super) fn stream(&self, token: &str) -> String {
        format!("{}.stream.{token}", self.prefix)
    }

    pub(super) fn control(&self) -> String {
        format!("{}.control", self.prefix)
    }

    /// What is for one node alone.
    pub(super) fn control_of(&self, node: &str) -> String {
        format!("{}.control.{node}", self.prefix)
    }

    /// Clients that come and go, for backends.
    pub(super) fn events(&self) -> String {
        format!("{}.events", self.prefix)
    }

    pub(super) fn events_stream(&self) -> String {
        self.stream_name("events")
    }

    /// What a node says to itself, to know that the server has taken everything before it.
    pub(super) fn echo(&self) -> String {
        format!("{}.node.{}", self.prefix, self.node)
    }

    /// The era of the store.
    pub(super) fn era(&self) -> String {
        format!("{}.era", self.prefix)
    }

    /// Where the history stream takes a message that is about no channel: this is no token of a name.
    pub(super) fn probe(&self) -> String {
        self.stream("=probe")
    }

    pub(super) fn lease(&self, node: &str) -> String {
        format!("{}.lease.{node}", self.prefix)
    }

    /// Presence entries; `*` for any.
    pub(super) fn presence(&self, node: &str, party: &str, channel: &str, client: &str) -> String {
        format!("{}.presence.{node}.{party}.{channel}.{client}", self.prefix)
    }

    pub(super) fn history_stream(&self) -> String {
        self.stream_name("history")
    }

    pub(super) fn era_stream(&self) -> String {
        self.stream_name("era")
    }

    /// Where JetStream tells that another server leads the history stream.
    pub(super) fn leaders(&self) -> String {
        format!("$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.{}", self.history_stream())
    }

    pub(super) fn presence_stream(&self) -> String {
        self.stream_name("presence")
    }

    fn stream_name(&self, kind: &str) -> String {
        format!("{}_{kind}", self.prefix.replace('.', "_"))
    }
}

/// Any text as one token of a subject.
pub(super) fn token(text: &str) -> String {
    if text.is_empty() {
        return "=".into();
    }
    let mut token = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_:#@/$".contains(&byte) {
            token.push(char::from(byte));
        } else {
            write!(token, "={byte:02X}").expect("writing to a string does not fail");
        }
    }
    token
}

/// The text of a token; `None` when it is none of ours.
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
    fn any_name_is_one_token_and_comes_back() {
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
