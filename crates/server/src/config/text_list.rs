//! Lists that are written as one text, as in environment variables and flags.
//!
//! Invariant: items are separated by commas and white space; braces keep their content together.

use serde_json::Value;

/// Splits a text into its items. A comma inside braces, as in `https://{a,b}.example`, does not
/// separate.
pub(super) fn items(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_usize;
    let pieces = text.split(move |c: char| {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        (c == ',' && depth == 0) || c.is_whitespace()
    });
    pieces.filter(|item| !item.is_empty())
}

/// Reads a list of texts: a JSON array, or items as in [`items`].
pub(super) fn list_of(text: &str) -> Option<Value> {
    match text.trim_start().starts_with('[') {
        true => serde_json::from_str(text).ok().filter(Value::is_array),
        false => Some(items(text).map(Value::from).collect()),
    }
}
