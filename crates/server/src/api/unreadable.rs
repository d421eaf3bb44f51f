//! Error text for parameters that cannot be decoded: the field, what was expected, and the
//! position.
//!
//! Invariant: the text repeats at most [`UNREADABLE_LENGTH_MAX`] bytes of the caller's value.

use crate::json::end_of_string;
use crate::limits::UNREADABLE_LENGTH_MAX;

/// Error text for `text`, which failed to decode with `error`.
pub(super) fn unreadable(text: &[u8], error: &serde_json::Error) -> String {
    let message = error.to_string();
    let before = &text[..offset(text, error)];
    // A value out of range is reported after the byte behind it was read.
    let before = match before {
        [value @ .., b',' | b'}' | b']'] if !message.starts_with("missing field") => value,
        before => before,
    };
    let field = if error.is_data() { field(before) } else { String::new() };
    let about = if field.is_empty() { field } else { format!("{}: ", short(&field)) };
    format!("the body cannot be understood: {about}{}", short(&message))
}

/// Byte offset at which decoding stopped.
fn offset(text: &[u8], error: &serde_json::Error) -> usize {
    let lines = text.split_inclusive(|byte| *byte == b'\n');
    let before: usize = lines.take(error.line().saturating_sub(1)).map(<[u8]>::len).sum();
    (before + error.column()).min(text.len())
}

/// Object or array that encloses a position.
enum Open {
    Object(Option<String>),
    Array(usize),
}

/// Path of the field in which `text`, a prefix of a JSON document, ends.
fn field(text: &[u8]) -> String {
    let mut open: Vec<Open> = Vec::new();
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match byte {
            b'{' => open.push(Open::Object(None)),
            b'[' => open.push(Open::Array(0)),
            b'}' | b']' => drop(open.pop()),
            b',' => match open.last_mut() {
                Some(Open::Object(name)) => *name = None,
                Some(Open::Array(index)) => *index += 1,
                None => {}
            },
            b'"' => {
                let end = end_of_string(text, at);
                if let Some(Open::Object(name @ None)) = open.last_mut() {
                    *name = Some(serde_json::from_slice(&text[at..end]).unwrap_or_default());
                }
                at = end;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    open.iter().fold(String::new(), |path, open| match open {
        Open::Object(Some(name)) if path.is_empty() => name.clone(),
        Open::Object(Some(name)) => format!("{path}.{name}"),
        Open::Object(None) => path,
        Open::Array(index) => format!("{path}[{index}]"),
    })
}

/// Shortens a message that may contain a caller's value. Its end is kept, which names what was
/// expected.
fn short(text: &str) -> String {
    if text.len() <= UNREADABLE_LENGTH_MAX {
        return text.to_owned();
    }
    let half = UNREADABLE_LENGTH_MAX / 2;
    let (begin, end) = (text.floor_char_boundary(half), text.ceil_char_boundary(text.len() - half));
    format!("{}…{}", &text[..begin], &text[end..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::request::{Batch, Publish, Subscribe};

    fn error_text<T: for<'de> serde::Deserialize<'de>>(text: &str) -> String {
        let error = serde_json::from_str::<T>(text).err().expect("it is not understood");
        unreadable(text.as_bytes(), &error)
    }

    #[test]
    fn the_field_that_is_wrong_is_named() {
        for (text, wanted) in [
            (r#"{"channel": true}"#, ": channel: invalid type: boolean `true`, expected a string"),
            (r#"{"data": {"a": ["}\""]}, "tags": {"a": 5}}"#, ": tags.a: invalid type: integer"),
            (r#"{"channels": ["a", "b", {}]}"#, ": channels[2]: invalid type: map"),
            ("{\"data\": 1,\n\"version\": -1}", ": version: -1 is out of range at line 2"),
            (r#"{"skip_history": "yes"}"#, ": skip_history: invalid type"),
            (r#"{"channel": "a", "channel": "b"}"#, ": channel: duplicate field"),
        ] {
            let text = error_text::<Publish>(text);
            assert!(text.contains(wanted), "{text}");
        }
        let text = error_text::<Subscribe>(r#"{"recover_since": {"offset": "x"}}"#);
        assert!(text.contains(": recover_since.offset: "), "{text}");
        let text = error_text::<Batch>(r#"{"commands": [{"info": {}}, 5]}"#);
        assert!(text.contains(": commands[1]: "), "{text}");
        let text = error_text::<Publish>("{\"channel\": ");
        assert!(text.contains("understood: EOF"), "{text}");
    }

    #[test]
    fn a_long_value_is_not_repeated() {
        let text = error_text::<Publish>(&format!(
            r#"{{"skip_history": "{}"}}"#,
            "\u{e4}".repeat(100_000)
        ));
        assert!(text.len() < 2 * UNREADABLE_LENGTH_MAX + 100, "{}", text.len());
        assert!(text.contains("skip_history") && text.contains("expected a boolean"), "{text}");
    }
}
