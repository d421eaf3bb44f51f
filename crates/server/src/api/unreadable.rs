//! Why parameters cannot be understood: the field that is wrong, what was expected there, and where
//! that is.
//!
//! Invariant: however long a value is that a caller sends, little of it is repeated.

use crate::limits::UNREADABLE_LENGTH_MAX;

/// What a caller is told about the text that gave this error.
pub(super) fn unreadable(text: &[u8], error: &serde_json::Error) -> String {
    let message = error.to_string();
    let before = &text[..offset(text, error)];
    // A value that is out of range is told once what is behind it has been read.
    let before = match before {
        [value @ .., b',' | b'}' | b']'] if !message.starts_with("missing field") => value,
        before => before,
    };
    let field = if error.is_data() { field(before) } else { String::new() };
    let about = if field.is_empty() { field } else { format!("{}: ", short(&field)) };
    format!("the body cannot be understood: {about}{}", short(&message))
}

/// Where reading ended.
fn offset(text: &[u8], error: &serde_json::Error) -> usize {
    let lines = text.split_inclusive(|byte| *byte == b'\n');
    let before: usize = lines.take(error.line().saturating_sub(1)).map(<[u8]>::len).sum();
    (before + error.column()).min(text.len())
}

/// What a place in JSON is in.
enum Open {
    Object(Option<String>),
    Array(usize),
}

/// The path of the field in which a text ends that is JSON as far as it goes.
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

/// The place behind the string that begins here.
fn end_of_string(text: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}

/// A text that may hold a caller's value: its beginning, and its end, which says what was expected.
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

    fn told<T: for<'de> serde::Deserialize<'de>>(text: &str) -> String {
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
            let text = told::<Publish>(text);
            assert!(text.contains(wanted), "{text}");
        }
        let text = told::<Subscribe>(r#"{"recover_since": {"offset": "x"}}"#);
        assert!(text.contains(": recover_since.offset: "), "{text}");
        let text = told::<Batch>(r#"{"commands": [{"info": {}}, 5]}"#);
        assert!(text.contains(": commands[1]: "), "{text}");
        let text = told::<Publish>("{\"channel\": ");
        assert!(text.contains("understood: EOF"), "{text}");
    }

    #[test]
    fn a_long_value_is_not_repeated() {
        let text =
            told::<Publish>(&format!(r#"{{"skip_history": "{}"}}"#, "\u{e4}".repeat(100_000)));
        assert!(text.len() < 2 * UNREADABLE_LENGTH_MAX + 100, "{}", text.len());
        assert!(text.contains("skip_history") && text.contains("expected a boolean"), "{text}");
    }
}
