//! Checks that every key is known and that every value is of its kind, and converts the values.
//!
//! Invariant: afterwards the tree contains only keys of this server, each with a value of its kind.

use serde_json::{Map, Value};

use super::Unknown;
use super::api_keys;
use super::coerce::{coerce, shown};
use super::keys::{AbsentKey, AbsentList, AbsentRole, Feature, Key, Kind, NAMESPACE_KEYS, Section};
use super::mistakes::{WarningKind, closest};
use super::raw_config::RawConfig;
use super::table::{Entry, WITHOUT_NAMESPACE, entry, flat, meant, members};

/// See the module.
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
        if section.is_none_or(|section| section.when.iter().all(holds)) {
            raw.mistake(path, feature.refusal());
        }
    }
}

struct Walk<'f> {
    raw: &'f mut RawConfig,
    unknown: Unknown,
    /// Unsupported features that were switched on: key, section and feature.
    switched_on: Vec<(String, Option<&'static Section>, Feature)>,
}

impl Walk<'_> {
    fn section(&mut self, path: &str, members: Map<String, Value>) -> Map<String, Value> {
        let mut checked = Map::new();
        for (name, value) in members {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
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
            Some(Entry::AbsentList(list)) => self.absent_list(list, &value),
            Some(Entry::Namespaces) => return self.namespaces(path, value),
            Some(Entry::ApiKeys) => return api_keys::check(self.raw, value),
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
            Ok(value) => value,
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
        let of_namespace = section.ends_with(']');
        let near = closest(name, members(section)).map(str::to_owned);
        let elsewhere = || match section {
            "" => flat(name).map(str::to_owned),
            "channel" => {
                let known = NAMESPACE_KEYS.iter().any(|key| key.path == name);
                known.then(|| format!("{WITHOUT_NAMESPACE}.{name}"))
            }
            _ => None,
        };
        let near = near.or_else(elsewhere).map(|near| format!("; did you mean {near}?"));
        let near = near.unwrap_or_default();
        let noun = if of_namespace { "option" } else { "key" };
        let text = format!("there is no such {noun}{near}");
        match self.unknown {
            Unknown::Warning => self.raw.warn(WarningKind::UnknownKey, path, text),
            Unknown::Mistake => self.raw.mistake(path, text),
        }
    }

    /// A key of an unsupported feature is accepted while the feature is off. Switching it on is
    /// always a mistake, because the operator relies on the feature.
    fn absent(&mut self, path: &str, section: &'static Section, key: &AbsentKey, value: &Value) {
        match key.role {
            AbsentRole::Detail => {}
            AbsentRole::Ignored if is_default(value, key.default) => {}
            AbsentRole::Ignored => {
                self.raw.warn(WarningKind::NoEffect, path, "has no effect here");
            }
            AbsentRole::Switch(feature) => match is_off(value, key.default) {
                Some(true) => {}
                Some(false) => self.switched_on.push((path.to_owned(), Some(section), feature)),
                None => {
                    let text = format!("expected true or false, not {}", shown(value));
                    self.raw.mistake(path, text);
                }
            },
        }
    }

    fn absent_list(&mut self, list: &AbsentList, value: &Value) {
        let Some(groups) = value.as_array() else {
            if !is_default(value, "") {
                self.raw.mistake(list.path, "expected a list of items with a name each");
            }
            return;
        };
        let Some((option, feature)) = list.switch else { return };
        for (index, group) in groups.iter().enumerate() {
            let switch = group.get(option).unwrap_or(&Value::Null);
            if is_off(switch, "false") == Some(false) {
                self.switched_on.push((format!("{}[{index}].{option}", list.path), None, feature));
            }
        }
    }

    fn namespaces(&mut self, path: &str, value: Value) -> Option<Value> {
        let list = match value {
            Value::Array(list) => list,
            value if is_default(&value, "") => return None,
            // One namespace without the list.
            Value::Object(members) if members.contains_key("name") => vec![Value::Object(members)],
            _ => {
                let text = "expected a list of namespaces with a name each, such as [{\"name\": \"chat\"}]";
                self.raw.mistake(path, text);
                return None;
            }
        };
        let mut checked = Vec::new();
        for (index, namespace) in list.into_iter().enumerate() {
            let path = format!("{path}[{index}]");
            match namespace {
                Value::Object(members) => checked.push(self.namespace(&path, members)),
                // Keeps the indexes of the namespaces after it.
                _ => {
                    self.raw.mistake(path, "expected a namespace with a name and options");
                    checked.push(Value::Null);
                }
            }
        }
        Some(Value::Array(checked))
    }

    fn namespace(&mut self, path: &str, mut members: Map<String, Value>) -> Value {
        let name = members.remove("name");
        let mut checked = self.section(path, members);
        match coerce(Kind::Text, &name.unwrap_or_default()) {
            Ok(name) => drop(checked.insert("name".to_owned(), name.unwrap_or_default())),
            Err(text) => self.raw.misread(&format!("{path}.name"), text),
        }
        Value::Object(checked)
    }
}

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
