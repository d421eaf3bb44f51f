//! Escapes text of peers for terminals: characters that control the terminal, change the direction
//! of writing or are invisible become escapes (`\u009b`).
//!
//! Invariant: the result contains no control, bidirectional or invisible character; all other
//! characters are unchanged.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::limits::LOGGED_BYTES_MAX;

/// Escapes text and keeps it on one line: line breaks and tabs are escaped too.
#[must_use]
pub fn visible(text: &str) -> Cow<'_, str> {
    escape(text, |out, character| match character {
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        other => push_unicode(out, other),
    })
}

/// Escapes JSON and keeps it on one line with the same value: white space between tokens becomes
/// spaces, and characters in strings become JSON escapes.
#[must_use]
pub fn visible_json(json: &str) -> Cow<'_, str> {
    escape(json, |out, character| match character {
        '\n' | '\r' | '\t' => out.push(' '),
        other => push_unicode(out, other),
    })
}

fn escape(text: &str, mut replace: impl FnMut(&mut String, char)) -> Cow<'_, str> {
    let Some(first) = text.find(is_hidden) else { return Cow::Borrowed(text) };
    let mut out = String::with_capacity(text.len() + 16);
    out.push_str(&text[..first]);
    for character in text[first..].chars() {
        match is_hidden(character) {
            true => replace(&mut out, character),
            false => out.push(character),
        }
    }
    Cow::Owned(out)
}

/// Writes a character as a JSON escape.
fn push_unicode(out: &mut String, character: char) {
    for unit in character.encode_utf16(&mut [0; 2]) {
        let _infallible = write!(out, "\\u{unit:04x}");
    }
}

/// Control characters (C0, DEL, C1), and Unicode format and default-ignorable characters, except
/// the two variation selectors of emoji.
fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0d}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{13430}'..='\u{1343f}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Truncates text of a peer to [`LOGGED_BYTES_MAX`] bytes for a log line.
pub(crate) fn shown(text: &str) -> &str {
    &text[..text.floor_char_boundary(LOGGED_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invisible_characters_are_escaped_and_others_unchanged() {
        for plain in ["", "Grüße, 世界", "שלום", "👍🏽 ❤\u{fe0f}", "a\u{a0}b"] {
            assert!(matches!(visible(plain), Cow::Borrowed(text) if text == plain), "{plain:?}");
        }
        for (text, shown) in [
            ("\u{1b}[2J", "\\u001b[2J"),
            ("\u{9b}31m\u{7f}\0", "\\u009b31m\\u007f\\u0000"),
            ("a\u{202e}b\u{2066}c\u{200f}", "a\\u202eb\\u2066c\\u200f"),
            ("a\nb\tc\r", "a\\nb\\tc\\r"),
            ("\u{feff}x\u{200b}\u{2028}", "\\ufeffx\\u200b\\u2028"),
            ("\u{e0041}", "\\udb40\\udc41"),
        ] {
            assert_eq!(visible(text), shown);
        }
    }

    #[test]
    fn json_keeps_its_value_and_becomes_one_line() {
        let json = "{\n\t\"a\": \"\u{9b}31m\u{202e}\u{7f}\u{e0041}ü\"\r\n}";
        let shown = visible_json(json);
        assert!(!shown.contains(is_hidden), "{shown}");
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(value(&shown), value(json));
    }
}
