//! Checks that every key is known and that every value is of its kind, and converts the values.
//!
//! Invariant: afterwards the tree contains only keys of this server, each with a value of its kind.

use serde_json::{Map, Value, json};

use super::Unknown;
use super::absent::{AbsentKey, AbsentRole, AbsentSection};
use super::coerce::{coerce, shown};
use super::feature::Feature;
use super::kind::Kind;
use super::mistakes::{WarningKind, closest};
use super::raw_config::RawConfig;
use super::schema::{Key, ListSchema, join};
use super::table::{Entry, entry, flat, list_around, meant, members};

/// Checks keys and values of a configuration tree, and converts the values to their types.
pub(super) fn check_keys(raw: &mut RawConfig, unknown: Unknown) {
    let tree = std::mem::take(&mut raw.tree);
    let mut walk = Walk { raw, unknown, switched_on: Vec::new() };
    let Value::Object(members) = tree else { return };
    let tree = walk.section("", members);
    let switched_on = std::mem::take(&mut walk.switched_on);
    raw.tree = Value::Object(tree);
    for (path, section, feature) in switched_on {
        let holds = |(path, wanted): &(&str, &str)| match raw.value(path) {
            Some(Value::Bool(flag)) => flag.to_string() == *wanted,
            Some(Value::String(text)) => text == wanted,
            _ => false,
        };
        let item = path.find(']').map(|end| &path[..=end]);
        let holds = |(key, wanted): &(&str, &str)| {
            let of_item =
                item.zip(key.split_once("[]")).map(|(item, (_, key))| format!("{item}{key}"));
            holds(&(of_item.as_deref().unwrap_or(key), wanted))
        };
        if section.when.iter().all(holds) {
            raw.mistake(path, feature.refusal());
        }
    }
}

struct Walk<'f> {
    raw: &'f mut RawConfig,
    unknown: Unknown,
    /// Unsupported features that were switched on: key, section and feature.
    switched_on: Vec<(String, &'static AbsentSection, Feature)>,
}

impl Walk<'_> {
    fn section(&mut self, path: &str, members: Map<String, Value>) -> Map<String, Value> {
        let mut checked = Map::new();
        for (name, value) in members {
            let path = join(path, &name);
            if let Some(value) = self.member(&path, value) {
                checked.insert(name, value);
            }
        }
        checked
    }

    /// Returns the value to keep in the tree, if any.
    fn member(&mut self, path: &str, value: Value) -> Option<Value> {
        match entry(path) {
            None => self.unknown(path),
            Some(Entry::Key(key)) => return self.key(path, key, &value),
            Some(Entry::Absent(section, key)) => self.absent(path, section, key, &value),
            Some(Entry::List(list)) => return self.list(path, list, value),
            Some(Entry::Section) => match value {
                Value::Object(members) => return Some(Value::Object(self.section(path, members))),
                Value::Null => {}
                value => self.no_section(path, &value),
            },
        }
        None
    }

    fn key(&mut self, path: &str, key: &Key, value: &Value) -> Option<Value> {
        match coerce(key.kind, value) {
            Ok(value) => {
                let is_empty = value.as_ref().is_none_or(|value| *value == json!([]));
                let is_strict = || list_around(path).is_some_and(|list| list.is_strict);
                if key.kind == Kind::List && is_empty && is_strict() {
                    let text = "is written and empty, which means the same as absent: remove it, or list what is allowed";
                    self.raw.warn(WarningKind::Insecure, path, text);
                }
                value
            }
            Err(text) => {
                self.raw.misread(path, text);
                None
            }
        }
    }

    fn no_section(&mut self, path: &str, value: &Value) {
        let meant = meant(path, value).map(|key| format!("; did you mean {key}?"));
        self.raw.mistake(path, format!("is a section{}", meant.unwrap_or_default()));
    }

    fn unknown(&mut self, path: &str) {
        let (section, name) = path.rsplit_once('.').unwrap_or(("", path));
        let noun = if section.ends_with(']') { "option" } else { "key" };
        if list_around(path).is_some_and(|list| list.is_strict) {
            let known: Vec<&str> = members(section).collect();
            let text = format!("there is no such {noun}; the {noun}s are {}", known.join(", "));
            return self.raw.mistake(path, text);
        }
        let near = closest(name, members(section)).map(str::to_owned);
        let elsewhere = || match section {
            "" => flat(name).map(str::to_owned),
            "channel" => {
                let path = join(WITHOUT_NAMESPACE, name);
                matches!(entry(&path), Some(Entry::Key(_))).then_some(path)
            }
            _ => None,
        };
        let near = near.or_else(elsewhere).map(|near| format!("; did you mean {near}?"));
        let text = format!("there is no such {noun}{}", near.unwrap_or_default());
        match self.unknown {
            Unknown::Warning => self.raw.warn(WarningKind::UnknownKey, path, text),
            Unknown::Mistake => self.raw.mistake(path, text),
        }
    }

    /// A key of an unsupported feature is accepted while the feature is off. Switching it on is
    /// always a mistake, because the operator relies on the feature.
    fn absent(
        &mut self,
        path: &str,
        section: &'static AbsentSection,
        key: &AbsentKey,
        value: &Value,
    ) {
        match key.role {
            AbsentRole::Detail => {}
            AbsentRole::Ignored if is_default(value, key.default) => {}
            AbsentRole::Ignored => {
                self.raw.warn(WarningKind::NoEffect, path, "has no effect here");
            }
            AbsentRole::Switch(feature) => match is_off(value, key.default) {
                Some(true) => {}
                Some(false) => self.switched_on.push((path.to_owned(), section, feature)),
                None => {
                    let text = format!("expected true or false, not {}", shown(value));
                    self.raw.mistake(path, text);
                }
            },
        }
    }

    fn list(&mut self, path: &str, list: &ListSchema, value: Value) -> Option<Value> {
        let items = match value {
            Value::Array(items) => items,
            value if is_default(&value, "") => return None,
            _ => {
                self.raw.mistake(path, format!("expected {}", list.expected_list));
                return None;
            }
        };
        let checked = items.into_iter().enumerate().map(|(index, item)| {
            let path = format!("{path}[{index}]");
            match item {
                Value::Object(members) => Value::Object(self.section(&path, members)),
                // Keeps the indexes of the items after it.
                _ => {
                    self.raw.mistake(path, format!("expected {}", list.expected_item));
                    Value::Null
                }
            }
        });
        Some(checked.collect())
    }
}

/// Options that are written in `channel` are meant for this section.
const WITHOUT_NAMESPACE: &str = "channel.without_namespace";

/// Whether the value of a key without effect equals its default, so that ignoring it is safe.
fn is_default(value: &Value, default: &str) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty() || is_same(text, default),
        Value::Bool(flag) => flag.to_string() == default,
        Value::Number(number) => number.as_f64() == Some(0.0) || number.to_string() == default,
        Value::Array(list) => {
            list.is_empty() || matches!(&list[..], [Value::String(one)] if one == default)
        }
        Value::Object(members) => members.is_empty(),
    }
}

fn is_same(text: &str, default: &str) -> bool {
    let ms = super::duration::parse_ms;
    text == default || (ms(text).is_some() && ms(text) == ms(default))
}

/// Whether a switch is off; `None` if the value is neither on nor off.
fn is_off(value: &Value, default: &str) -> Option<bool> {
    if !matches!(default, "true" | "false") {
        return Some(is_default(value, default));
    }
    match coerce(Kind::Bool, value) {
        Ok(None | Some(Value::Bool(false))) => Some(true),
        Ok(_) => Some(false),
        Err(_) => None,
    }
}
