//! Values that a tool should have replaced before the server read them: `${SECRET}`, `$(SECRET)`,
//! `{{ secret }}`.
//!
//! Invariant: of such a value only the name is shown.

use serde_json::Value;

use super::environment::PREFIX;
use super::found::Found;
use super::table::{Entry, entry, variable};

/// Characters of a name that are shown.
const SHOWN_MAX: usize = 40;

/// Tells each value that still holds a placeholder.
pub(super) fn check_placeholders(found: &mut Found) {
    let mut unreplaced = Vec::new();
    look("", &found.tree, &mut unreplaced);
    for (path, placeholder) in unreplaced {
        let set = match entry(&path) {
            Some(Entry::Key(_) | Entry::Absent(..)) => {
                format!("set {PREFIX}{} instead", variable(&path))
            }
            _ => "set it in the environment instead".to_owned(),
        };
        let text = format!(
            "holds {placeholder}, which nothing has replaced: values are taken as they are written, so {set}, or replace it \
             before the start, as envsubst does"
        );
        found.mistake(path, text);
    }
}

fn look(path: &str, value: &Value, unreplaced: &mut Vec<(String, String)>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                look(&path, value, unreplaced);
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

/// The first placeholder of a value, without a default that may stand in it.
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
        // The address of a key set may have such parts of its own.
        let is_template = text.contains("{{") && text.contains("}}");
        (is_template && !path.ends_with("jwks_public_endpoint")).then(|| {
            let name = named(text, "{{", |c| c != '}').unwrap_or_default();
            format!("{{{{{name}}}}}")
        })
    };
    in_braces.or_else(in_parentheses).or_else(in_template)
}

/// What the compatible server replaces in headers of proxies.
const OF_OTHER_VALUES: &str = "CENTRIFUGO_VAR_";

/// The name behind a mark.
fn named<'t>(text: &'t str, mark: &str, is_part: fn(char) -> bool) -> Option<&'t str> {
    let rest = &text[text.find(mark)? + mark.len()..];
    let end = rest.char_indices().find(|(at, c)| *at >= SHOWN_MAX || !is_part(*c));
    Some(end.map_or(rest, |(end, _)| &rest[..end]))
}
