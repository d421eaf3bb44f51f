//! The nesting depth of JSON payloads.
//!
//! Invariant: a payload that passes has at most [`JSON_DEPTH_MAX`] levels, which the recursive
//! parsers of all client libraries can read. A payload too short to be too deep costs one
//! comparison, most others one pass without branches.

use crate::limits::JSON_DEPTH_MAX;

/// Returns whether `data` is JSON nested more deeply than [`JSON_DEPTH_MAX`]. Bytes that are not
/// JSON have no depth.
#[must_use]
pub fn is_nested_too_deep(data: &[u8]) -> bool {
    exceeds(data) && super::is_any_json(data)
}

/// Returns whether brackets outside of strings exceed the maximum depth. The result is meaningless
/// for bytes that are not JSON.
pub(super) fn exceeds(data: &[u8]) -> bool {
    // Each level takes an opening and a closing bracket.
    if data.len() <= 2 * JSON_DEPTH_MAX {
        return false;
    }
    let openings = data.iter().filter(|byte| matches!(byte, b'[' | b'{')).count();
    openings > JSON_DEPTH_MAX && deepest(data) > JSON_DEPTH_MAX
}

fn deepest(data: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0usize, 0);
    let mut bytes = data.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => skip_text(&mut bytes),
            _ => {}
        }
    }
    deepest
}

/// Advances behind the quote that ends a string.
fn skip_text(bytes: &mut std::slice::Iter<'_, u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => {
                bytes.next();
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::is_json;

    fn nested(levels: usize) -> String {
        let half = levels / 2;
        format!("{}1{}", r#"{"a":["#.repeat(half), "]}".repeat(half))
    }

    #[test]
    fn levels_count_and_texts_and_width_do_not() {
        let wide = format!("[{}[]]", "[],".repeat(10_000));
        let text = format!(r#"["{}\"{}"]"#, "[{".repeat(1_000), "[".repeat(1_000));
        for (data, is_too_deep) in [
            (nested(JSON_DEPTH_MAX), false),
            (nested(JSON_DEPTH_MAX + 2), true),
            (format!("[{}]", nested(JSON_DEPTH_MAX)), true),
            (nested(30_000), true),
            (wide, false),
            (text, false),
            (String::new(), false),
        ] {
            let start: String = data.chars().take(20).collect();
            assert_eq!(is_nested_too_deep(data.as_bytes()), is_too_deep, "{start}");
            assert_eq!(is_json(data.as_bytes()), !is_too_deep && !data.is_empty(), "{start}");
        }
    }

    #[test]
    fn bytes_that_are_not_json_have_no_depth() {
        for data in ["[".repeat(1_000).into_bytes(), vec![b'{'; 1_000], vec![0xFF; 1_000]] {
            assert!(!is_nested_too_deep(&data) && !is_json(&data));
        }
    }
}
