//! Converts a value as it was written to the kind of its option: a number written as text, one text
//! for a list, an empty value for the default.
//!
//! Invariant: an accepted value has exactly one meaning. A secret is never part of a message.

use serde_json::Value;

use super::duration::parse_ms;
use super::kind::Kind;
use super::text_list::list_of;

/// Maximum number of characters of a value that a message quotes.
const SHOWN_MAX: usize = 60;

/// Converts a value to this kind; `None` means that the default applies.
///
/// # Errors
/// The expected form, with the value if it is not secret.
pub(super) fn coerce(kind: Kind, value: &Value) -> Result<Option<Value>, String> {
    let is_empty =
        value.is_null() || matches!(value, Value::String(text) if text.trim().is_empty());
    let takes_empty_text = match kind {
        Kind::Text | Kind::Secret => true,
        Kind::OneOf(choices) => choices.contains(&""),
        Kind::Bool | Kind::Integer(_) | Kind::Duration | Kind::List | Kind::Map => false,
    };
    if is_empty && !(takes_empty_text && value.is_string()) {
        return Ok(None);
    }
    let coerced = match kind {
        Kind::Bool => boolean(value),
        Kind::Integer(max) => integer(value).filter(|number| *number <= max).map(Value::from),
        Kind::Duration => duration(value),
        Kind::Text | Kind::Secret => text(value),
        Kind::OneOf(choices) => text(value).and_then(|value| one_of(choices, &value)),
        Kind::List => list(value),
        Kind::Map => map(value),
    };
    coerced.map(Some).ok_or_else(|| expected(kind, value))
}

fn boolean(value: &Value) -> Option<Value> {
    let flag = match value {
        Value::Bool(flag) => *flag,
        Value::Number(number) if number.as_u64().is_some_and(|number| number < 2) => {
            number.as_u64() == Some(1)
        }
        Value::String(text) => match text.trim() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
            "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
            _ => return None,
        },
        _ => return None,
    };
    Some(Value::Bool(flag))
}

fn integer(value: &Value) -> Option<u64> {
    match value {
        Value::String(text) => {
            let text = text.trim();
            match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
                Some(digits) => u64::from_str_radix(digits, 16).ok(),
                // Underscores are allowed between digits, as in Go and TOML.
                None if text.starts_with('_') || text.ends_with('_') => None,
                None => text.replace('_', "").parse().ok(),
            }
        }
        Value::Number(number) => number.as_u64().or_else(|| {
            let whole = number.as_f64().filter(|number| number.fract() == 0.0 && *number >= 0.0)?;
            (whole < 9e15).then_some(whole as u64)
        }),
        _ => None,
    }
}

fn duration(value: &Value) -> Option<Value> {
    match value {
        Value::Number(number) if number.as_f64() == Some(0.0) => Some(Value::from("0s")),
        Value::String(text) => parse_ms(text.trim()).map(|_| Value::from(text.trim())),
        _ => None,
    }
}

fn text(value: &Value) -> Option<Value> {
    match value {
        Value::String(_) => Some(value.clone()),
        Value::Number(number) => Some(Value::from(number.to_string())),
        _ => None,
    }
}

fn one_of(choices: &[&str], value: &Value) -> Option<Value> {
    let text = value.as_str()?.trim();
    let choice = choices.iter().find(|choice| choice.eq_ignore_ascii_case(text))?;
    Some(Value::from(*choice))
}

fn list(value: &Value) -> Option<Value> {
    let items = match value {
        Value::String(text) => list_of(text)?,
        value => value.clone(),
    };
    // An item without a value would otherwise leave a list that allows more than was meant.
    items.as_array()?.iter().map(text).collect()
}

fn map(value: &Value) -> Option<Value> {
    let members = match value {
        Value::String(json) => serde_json::from_str(json).ok()?,
        value => value.clone(),
    };
    let members = members.as_object()?.iter();
    members.map(|(name, value)| Some((name.clone(), text(value)?))).collect()
}

fn expected(kind: Kind, value: &Value) -> String {
    // Lists may contain addresses with passwords, and maps headers with tokens.
    let may_be_secret = matches!(kind, Kind::Secret | Kind::List | Kind::Map);
    let not = match may_be_secret && !value.is_object() && !value.is_array() {
        true => String::new(),
        false => format!(", not {}", shown(value)),
    };
    let number = match value {
        Value::Number(number) if number.as_f64().is_none_or(|number| number < 0.0) => None,
        Value::Number(number) if number.as_f64().is_some_and(|number| number >= 1e6) => {
            Some(format!("{:.0}", number.as_f64().unwrap_or_default()))
        }
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => text.trim().parse::<u64>().ok().map(|number| number.to_string()),
        _ => None,
    };
    let is_nanoseconds = |number: &String| number.len() > 6;
    let hint = match (kind, number) {
        (Kind::Duration, Some(number)) if is_nanoseconds(&number) => {
            format!("; for nanoseconds write \"{number}ns\"")
        }
        (Kind::Duration, Some(number)) => format!("; for seconds write \"{number}s\""),
        (Kind::OneOf(choices), _) if *value == "nats" && choices.contains(&"redis") => {
            "; NATS is a broker: broker.enabled = true and broker.type = \"nats\"".to_owned()
        }
        _ if value.is_boolean() && matches!(kind, Kind::Text | Kind::Secret) => {
            "; write words such as yes or true in quotes".to_owned()
        }
        _ => String::new(),
    };
    format!("expected {}{not}{hint}", kind.expectation())
}

/// Quotes a value in a message, shortened to [`SHOWN_MAX`] characters.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Object(_) => "a section with keys of its own".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        value => {
            let text = value.to_string();
            match text.char_indices().nth(SHOWN_MAX) {
                Some((end, _)) => format!("{}…", &text[..end]),
                None => text,
            }
        }
    }
}

impl Kind {
    /// The form of a value of this kind, for "expected …".
    fn expectation(self) -> String {
        match self {
            Kind::Bool => "true or false".to_owned(),
            Kind::Integer(max) => format!("a whole number from 0 to {max}"),
            Kind::Duration => "a time such as \"10s\", \"1m30s\" or \"250ms\"".to_owned(),
            Kind::Text | Kind::Secret => "a text".to_owned(),
            Kind::OneOf(choices) => {
                let quoted: Vec<String> = choices.iter().map(|one| format!("\"{one}\"")).collect();
                format!("one of {}", quoted.join(", "))
            }
            Kind::List => "a list of texts".to_owned(),
            Kind::Map => "names with a text each, such as {\"name\": \"text\"}".to_owned(),
        }
    }
}
