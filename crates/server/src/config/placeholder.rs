//! Placeholders that a tool should have replaced before the start: `${SECRET}`, `$(SECRET)`,
//! `{{ secret }}`.
//!
//! Invariant: a message contains only the name of the placeholder, not the rest of the value.

use serde_json::Value;

use super::environment::PREFIX;
use super::raw_config::RawConfig;
use super::schema::join;
use super::table::{Entry, entry, variable};

/// Maximum number of characters of a name that a message quotes.
const SHOWN_MAX: usize = 40;

/// Adds a mistake for each value that contains a placeholder.
pub(super) fn check_placeholders(raw: &mut RawConfig) {
    let mut unreplaced = Vec::new();
    look("", &raw.tree, &mut unreplaced);
    for (path, placeholder) in unreplaced {
        let set = match entry(&path) {
            Some(Entry::Key(_) | Entry::Absent(..)) if !path.contains('[') => {
                format!("set {PREFIX}{} instead", variable(&path))
            }
            _ => "set it in the environment instead".to_owned(),
        };
        let text = format!(
            "contains {placeholder}, which has not been replaced; the server does not replace placeholders: {set}, or replace \
             it before the start, for example with envsubst"
        );
        raw.mistake(path, text);
    }
}

fn look(path: &str, value: &Value, unreplaced: &mut Vec<(String, String)>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                look(&join(path, name), value, unreplaced);
            }
        }
        Value::Array(items) => {
            for (index, value) in items.iter().enumerate() {
                look(&format!("{path}[{index}]"), value, unreplaced);
            }
        }
        Value::String(text) => {
            if let Some(placeholder) = placeholder(path, text) {
                unreplaced.push((path.to_owned(), placeholder));
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The first placeholder of a value, without its default value.
fn placeholder(path: &str, text: &str) -> Option<String> {
    let is_of_shell = |name: &str| {
        name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
    };
    let in_braces = named(text, "${", |c| c.is_ascii_alphanumeric() || c == '_')
        .filter(|name| is_of_shell(name) && !name.starts_with(OF_OTHER_VALUES))
        .map(|name| format!("${{{name}}}"));
    let in_parentheses = || {
        let name = named(text, "$(", |c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')?;
        let is_whole = text.contains(&format!("$({name})"));
        (is_of_shell(name) && is_whole).then(|| format!("$({name})"))
    };
    let in_template = || {
        // The URL of a key set may contain its own placeholders.
        let is_template = text.contains("{{") && text.contains("}}");
        (is_template && !path.ends_with("jwks_public_endpoint")).then(|| {
            let name = named(text, "{{", |c| c != '}').unwrap_or_default();
            format!("{{{{{name}}}}}")
        })
    };
    in_braces.or_else(in_parentheses).or_else(in_template)
}

/// Prefix of variables that the compatible server inserts into headers of proxies.
const OF_OTHER_VALUES: &str = "CENTRIFUGO_VAR_";

/// The name after the first `mark`.
fn named<'t>(text: &'t str, mark: &str, is_part: fn(char) -> bool) -> Option<&'t str> {
    let rest = &text[text.find(mark)? + mark.len()..];
    let end = rest.char_indices().find(|(at, c)| *at >= SHOWN_MAX || !is_part(*c));
    Some(end.map_or(rest, |(end, _)| &rest[..end]))
}
