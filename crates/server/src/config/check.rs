//! Is every key that was written known, and is its value of its kind?

use serde_json::{Map, Value};

use super::duration::parse_ms;
use super::keys::{
    ABSENT, ABSENT_IN_NAMESPACE, INERT_IN_NAMESPACE, Key, Kind, NAMESPACE_KEYS, WITHOUT_EFFECT,
};
use super::mistakes::closest;
use super::source::{Found, all_keys};

/// Looks at every key that was written: is it known, and is its value of its kind?
pub(super) fn check_keys(found: &mut Found, allow_unknown: bool) {
    let known: Vec<(String, &'static Key)> = all_keys().collect();
    let tree = std::mem::take(&mut found.tree);
    let mut walk = Walk { found, known, allow_unknown };
    walk.object("", &tree);
    found.tree = tree;
}

struct Walk<'f> {
    found: &'f mut Found,
    known: Vec<(String, &'static Key)>,
    allow_unknown: bool,
}

impl Walk<'_> {
    fn object(&mut self, prefix: &str, value: &Value) {
        let Some(members) = value.as_object() else {
            return;
        };
        for (name, value) in members {
            let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            if path == "channel.namespaces" {
                self.namespaces(value);
            } else if WITHOUT_EFFECT.contains(&&*path) {
                self.found.warn(&path, "has no effect here");
            } else if ABSENT.contains(&&*path) {
                self.absent(&path, value);
            } else if let Some((_, key)) = self.known.iter().find(|(known, _)| *known == path) {
                let kind = key.kind;
                self.kind(&path, kind, value);
            } else if self.is_prefix(&path) && (value.is_object() || value.is_null()) {
                self.object(&path, value);
            } else if let Some(name) = path.strip_prefix("channel.without_namespace.")
                && (ABSENT_IN_NAMESPACE.contains(&name) || INERT_IN_NAMESPACE.contains(&name))
            {
                self.absent_in_namespace(&path, name, value);
            } else {
                self.unknown(&path);
            }
        }
    }

    fn is_prefix(&self, path: &str) -> bool {
        let is_within =
            |known: &str| known.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
        self.known.iter().any(|(known, _)| is_within(known))
            || ABSENT.iter().chain(WITHOUT_EFFECT).any(|known| is_within(known))
    }

    fn unknown(&mut self, path: &str) {
        let (parent, name) = path.rsplit_once('.').unwrap_or(("", path));
        let siblings = self.known.iter().filter_map(|(known, _)| {
            let rest = if parent.is_empty() {
                known
            } else {
                known.strip_prefix(parent)?.strip_prefix('.')?
            };
            rest.split('.').next()
        });
        let near = closest(name, siblings).map(|near| format!("; did you mean {near}?"));
        self.complain(path, format!("there is no such key{}", near.unwrap_or_default()));
    }

    fn complain(&mut self, path: &str, text: String) {
        if self.allow_unknown {
            self.found.warn(path, text);
        } else {
            self.found.mistake(path, text);
        }
    }

    /// A part that this version does not have may be written as long as it is off. Nothing makes a mistake of this kind a
    /// warning: whoever switched a feature on counts on it.
    fn absent(&mut self, path: &str, value: &Value) {
        for switch in switches(path, value) {
            self.found.mistake(switch, "is not available in this version; leave it out");
        }
    }

    fn absent_in_namespace(&mut self, path: &str, name: &str, value: &Value) {
        if !INERT_IN_NAMESPACE.contains(&name) {
            self.absent(path, value);
        }
    }

    fn namespaces(&mut self, value: &Value) {
        let Some(list) = value.as_array() else {
            return self.found.mistake("channel.namespaces", "expected a list of namespaces");
        };
        for (index, namespace) in list.iter().enumerate() {
            let path = format!("channel.namespaces[{index}]");
            let Some(members) = namespace.as_object() else {
                self.found.mistake(path, "expected a namespace with a name and options");
                continue;
            };
            for (name, value) in members {
                let path = format!("{path}.{name}");
                if name == "name" {
                    continue;
                }
                if ABSENT_IN_NAMESPACE.contains(&&**name) || INERT_IN_NAMESPACE.contains(&&**name) {
                    self.absent_in_namespace(&path, name, value);
                } else if let Some(key) = NAMESPACE_KEYS.iter().find(|key| key.path == name) {
                    self.kind(&path, key.kind, value);
                } else {
                    let near = closest(name, NAMESPACE_KEYS.iter().map(|key| key.path));
                    let near = near.map(|near| format!("; did you mean {near}?"));
                    let text = format!("there is no such option{}", near.unwrap_or_default());
                    self.complain(&path, text);
                }
            }
        }
    }

    fn kind(&mut self, path: &str, kind: Kind, value: &Value) {
        let is_fine = match (kind, value) {
            (_, Value::Null) | (Kind::Bool, Value::Bool(_)) => true,
            (Kind::Integer(max), value) => value.as_u64().is_some_and(|number| number <= max),
            (Kind::Duration, Value::String(text)) => parse_ms(text).is_some(),
            (Kind::Text | Kind::Secret, Value::String(_)) => true,
            (Kind::OneOf(choices), Value::String(text)) => choices.contains(&&**text),
            (Kind::List, Value::Array(items)) => items.iter().all(Value::is_string),
            _ => false,
        };
        if is_fine {
            return;
        }
        let hint = match (kind, value.as_u64()) {
            (Kind::Duration, Some(number)) => format!("; for seconds write \"{number}s\""),
            _ => String::new(),
        };
        let shown = if kind == Kind::Secret { String::new() } else { format!(", not {value}") };
        self.found.mistake(path, format!("expected {}{shown}{hint}", kind.expectation()));
    }
}

/// The paths of what switches an absent part on. Of a part that stands alone that is any value but an empty one; within a
/// group, `enabled`, a `type` and every other boolean switch it on, and the rest tunes it.
fn switches(path: &str, value: &Value) -> Vec<String> {
    let is_on = match value {
        Value::Object(members) => return switches_of_group(path, members),
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::String(text) => !is_default(text),
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::Array(items) => !items.iter().all(is_disabled),
    };
    is_on.then(|| path.to_owned()).into_iter().collect()
}

fn switches_of_group(path: &str, members: &Map<String, Value>) -> Vec<String> {
    if members.get("enabled") == Some(&Value::Bool(false)) {
        return Vec::new();
    }
    let mut switches = Vec::new();
    for (name, value) in members {
        let path = format!("{path}.{name}");
        match value {
            Value::Bool(true) if name != "disabled" => switches.push(path),
            Value::String(text) if name == "type" && !is_default(text) => switches.push(path),
            // Settings of Redis and the like stand beside the type that chooses among them.
            Value::Object(inner)
                if !members.contains_key("type") && !CHOSEN_BY_TYPE.contains(&&**name) =>
            {
                switches.extend(switches_of_group(&path, inner));
            }
            Value::Array(items) => {
                let groups = items
                    .iter()
                    .enumerate()
                    .filter_map(|(index, item)| Some((index, item.as_object()?)));
                switches.extend(groups.flat_map(|(index, item)| {
                    switches_of_group(&format!("{path}[{index}]"), item)
                }));
            }
            _ => {}
        }
    }
    switches
}

fn is_default(text: &str) -> bool {
    matches!(text, "" | "memory" | "stream" | "default")
}

fn is_disabled(item: &Value) -> bool {
    item.get("enabled") == Some(&Value::Bool(false))
}

const CHOSEN_BY_TYPE: &[&str] = &["redis", "nats", "postgresql"];
