//! Reading: file, environment and flags become one tree of values, whatever form they were written in.

use std::path::Path;

use serde_json::{Map, Value};

use super::Source;
use super::keys::{KEYS, Key, Kind, NAMESPACE_KEYS, TOKEN_KEYS};
use super::mistakes::{Mistake, Mistakes, closest};

/// What was written, and what is wrong with it so far.
pub(super) struct Found {
    pub(super) tree: Value,
    pub(super) has_file: bool,
    mistakes: Vec<Mistake>,
    warnings: Vec<Mistake>,
}

impl Found {
    /// What a file with this in it would say.
    pub(super) fn of(tree: Value) -> Found {
        Found { tree, has_file: true, mistakes: Vec::new(), warnings: Vec::new() }
    }

    pub(super) fn mistake(&mut self, place: impl Into<String>, text: impl Into<String>) {
        self.mistakes.push(Mistake { place: place.into(), text: text.into() });
    }

    pub(super) fn warn(&mut self, place: impl Into<String>, text: impl Into<String>) {
        self.warnings.push(Mistake { place: place.into(), text: text.into() });
    }

    /// Warnings and mistakes.
    pub(super) fn judge(self) -> (Vec<Mistake>, Vec<Mistake>) {
        (self.warnings, self.mistakes)
    }

    /// The value at a path, when written.
    pub(super) fn value(&self, path: &str) -> Option<&Value> {
        let mut value = &self.tree;
        for part in path.split('.') {
            value = match part.split_once('[') {
                Some((name, index)) => {
                    let index: usize = index.trim_end_matches(']').parse().ok()?;
                    value.get(name)?.get(index)?
                }
                None => value.get(part)?,
            };
        }
        Some(value).filter(|value| !value.is_null())
    }
}

/// Reads everything; a file that cannot be read ends it.
pub(super) fn read(source: &Source) -> Result<Found, Mistakes> {
    let tree = match &source.file {
        Some(path) => read_file(path)
            .map_err(|text| Mistakes(vec![Mistake { place: path.display().to_string(), text }]))?,
        None => Value::Object(Map::new()),
    };
    let has_file = source.file.is_some();
    let mut found = Found { tree, has_file, mistakes: Vec::new(), warnings: Vec::new() };
    read_environment(&mut found, &source.environment, source.allow_unknown_keys);
    for (path, text) in &source.flags {
        match all_keys().find(|(known, _)| known == path) {
            Some((path, key)) => set_text(&mut found, &path, &format!("--{path}"), key.kind, text),
            None => found.mistake(format!("--{path}"), "there is no such setting"),
        }
    }
    Ok(found)
}

/// Every key that has one fixed path.
pub fn all_keys() -> impl Iterator<Item = (String, &'static Key)> {
    let below = |prefix: &'static str, keys: &'static [Key]| {
        keys.iter().map(move |key| (format!("{prefix}.{}", key.path), key))
    };
    KEYS.iter()
        .map(|key| (key.path.to_owned(), key))
        .chain(below("client.token", TOKEN_KEYS))
        .chain(below("client.subscription_token", TOKEN_KEYS))
        .chain(below("channel.without_namespace", NAMESPACE_KEYS))
}

fn read_file(path: &Path) -> Result<Value, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    let tree: Value = match ending {
        "toml" => toml::from_str(&text).map_err(|error| not_toml(&text, &error))?,
        "yaml" | "yml" => serde_saphyr::from_str(&text)
            .map_err(|error| format!("is not YAML: {}", error.without_snippet()))?,
        "json" => serde_json::from_str(&text).map_err(|error| format!("is not JSON: {error}"))?,
        _ => return Err("the name must end in .toml, .yaml, .yml or .json".to_owned()),
    };
    match tree {
        Value::Object(_) => Ok(tree),
        Value::Null => Ok(Value::Object(Map::new())),
        _ => Err("must hold keys and values".to_owned()),
    }
}

/// The library's own text quotes the line, which may hold a secret.
fn not_toml(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("is not TOML: line {line}, column {column}: {}", error.message())
}

const PREFIX: &str = "TIDINGS_";
/// The command's own: the token of `tidings subscribe`.
const COMMAND_TOKEN: &str = "TIDINGS_TOKEN";
const NAMESPACES: &str = "TIDINGS_CHANNEL_NAMESPACES";

fn variable(path: &str) -> String {
    format!("{PREFIX}{}", path.replace('.', "_").to_uppercase())
}

fn read_environment(found: &mut Found, environment: &[(String, String)], allow_unknown: bool) {
    let ours: Vec<_> = environment.iter().filter(|(name, _)| name.starts_with(PREFIX)).collect();
    if let Some((name, text)) = ours.iter().find(|(name, _)| name == NAMESPACES) {
        set_namespaces(found, name, text);
    }
    for (name, text) in ours {
        if name == NAMESPACES || name == COMMAND_TOKEN || set_namespace_option(found, name, text) {
            continue;
        }
        if name == "TIDINGS_PORT"
            || name.starts_with("TIDINGS_PORT_")
            || name.starts_with("TIDINGS_SERVICE_")
        {
            found.warn(
                name,
                "is no setting and ignored; Kubernetes sets it for a service of this name",
            );
            continue;
        }
        match all_keys().find(|(path, _)| variable(path) == *name) {
            Some((path, key)) => set_text(found, &path, name, key.kind, text),
            None => {
                let names: Vec<String> = all_keys().map(|(path, _)| variable(&path)).collect();
                let near = closest(name, names.iter().map(|name| &**name));
                let hint = near.map_or(String::new(), |near| format!("; did you mean {near}?"));
                let text = format!("there is no such setting{hint}");
                if allow_unknown {
                    found.warn(name, text);
                } else {
                    found.mistake(name, text);
                }
            }
        }
    }
}

/// A JSON list of namespaces, or their names.
fn set_namespaces(found: &mut Found, name: &str, text: &str) {
    let list = if text.trim_start().starts_with('[') {
        match serde_json::from_str(text) {
            Ok(list) => list,
            Err(error) => return found.mistake(name, format!("is not JSON: {error}")),
        }
    } else {
        let named = |name: &str| Value::from_iter([("name", Value::from(name))]);
        Value::Array(items(text).map(named).collect())
    };
    put(&mut found.tree, "channel.namespaces", list);
}

/// `TIDINGS_CHANNEL_NAMESPACES_<NAME>_<OPTION>`.
fn set_namespace_option(found: &mut Found, variable: &str, text: &str) -> bool {
    let Some(rest) = variable.strip_prefix(NAMESPACES).and_then(|rest| rest.strip_prefix('_'))
    else {
        return false;
    };
    let Some(list) = found.value("channel.namespaces").and_then(Value::as_array) else {
        return false;
    };
    let names = list.iter().map(|one| one.get("name").and_then(Value::as_str).unwrap_or_default());
    let matching = names.enumerate().find_map(|(index, name)| {
        let name = name.replace(['-', '.'], "_").to_uppercase();
        let option = rest.strip_prefix(&*name)?.strip_prefix('_')?.to_lowercase();
        let key = NAMESPACE_KEYS.iter().find(|key| key.path == option)?;
        Some((index, key))
    });
    let Some((index, key)) = matching else {
        return false;
    };
    let path = format!("channel.namespaces[{index}].{}", key.path);
    set_text(found, &path, variable, key.kind, text);
    true
}

/// Puts a value that was written as text where a file would have a typed one.
fn set_text(found: &mut Found, path: &str, place: &str, kind: Kind, text: &str) {
    let value = match kind {
        Kind::Bool => text.parse().ok().map(Value::Bool),
        Kind::Integer(_) => text.parse::<u64>().ok().map(Value::from),
        Kind::List if text.trim_start().starts_with('[') => serde_json::from_str(text).ok(),
        Kind::List => Some(items(text).map(Value::from).collect()),
        Kind::Duration | Kind::Text | Kind::Secret | Kind::OneOf(_) => Some(Value::from(text)),
    };
    match value {
        Some(value) => put(&mut found.tree, path, value),
        None => found.mistake(place, format!("expected {}", kind.expectation())),
    }
}

/// The items of a list that was written as text: between commas and white space.
fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c == ',' || c.is_whitespace()).filter(|item| !item.is_empty())
}

fn put(tree: &mut Value, path: &str, value: Value) {
    let mut place = tree;
    for part in path.split('.') {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        place = match part.split_once('[') {
            Some((name, index)) => {
                let index: usize = index.trim_end_matches(']').parse().unwrap_or(0);
                &mut place[name][index]
            }
            None => &mut place[part],
        };
    }
    *place = value;
}

impl Kind {
    /// What a value of this kind looks like.
    pub(super) fn expectation(self) -> String {
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
        }
    }
}
