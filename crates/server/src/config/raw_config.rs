//! The options of all sources as one tree of values, with the mistakes and warnings about them.
//!
//! Invariant: the place where each value was written is known, so that messages can name it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::lines::Lines;
use super::mistakes::{Mistake, Place, Warning, WarningKind};
use super::schema::join;
use super::table::{Entry, entry};
use super::text_list::items;

/// The options as written, and the mistakes and warnings found so far.
pub(super) struct RawConfig {
    pub(super) tree: Value,
    pub(super) has_file: bool,
    /// Paths that a variable or a flag has set.
    set: BTreeMap<String, Place>,
    pub(super) lines: Lines,
    /// Paths with an invalid value. Further messages about them would be about the default value.
    misread: BTreeSet<String>,
    mistakes: Vec<Mistake>,
    warnings: Vec<Warning>,
}

impl RawConfig {
    /// The options of a file with this content.
    pub(super) fn of(tree: Value) -> RawConfig {
        RawConfig {
            tree,
            has_file: true,
            set: BTreeMap::new(),
            lines: Lines::default(),
            misread: BTreeSet::new(),
            mistakes: Vec::new(),
            warnings: Vec::new(),
        }
    }

    pub(super) fn mistake(&mut self, key: impl Into<String>, text: impl Into<String>) {
        let key = key.into();
        let is_reported = self.mistakes.iter().any(|one| one.key == key);
        if is_reported && self.misread.contains(&key) {
            return;
        }
        self.mistakes.push(Mistake { place: self.place(&key), key, text: text.into() });
    }

    /// Adds a mistake about an invalid value, and suppresses further messages about its key.
    pub(super) fn misread(&mut self, key: &str, text: impl Into<String>) {
        if self.misread.insert(key.to_owned()) {
            self.mistake(key, text);
        }
    }

    pub(super) fn warn(
        &mut self,
        kind: WarningKind,
        key: impl Into<String>,
        text: impl Into<String>,
    ) {
        let key = key.into();
        self.warnings.push(Warning { kind, place: self.place(&key), key, text: text.into() });
    }

    /// Returns all warnings and mistakes.
    pub(super) fn into_messages(mut self) -> (Vec<Warning>, Vec<Mistake>) {
        self.warnings.retain(|warning| !self.misread.contains(&warning.key));
        (self.warnings, self.mistakes)
    }

    /// The value at a path; `None` if it was not written.
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

    /// Whether any option is set that ends development mode. A port and options of the log do not.
    pub(super) fn is_configured(&self) -> bool {
        let is_neutral = |path: &String| path == "http_server.port" || path.starts_with("log.");
        self.has_file || !self.set.keys().all(is_neutral)
    }

    /// Sets an option to the text of a variable or a flag.
    pub(super) fn set(&mut self, path: &str, place: Place, text: &str) {
        let value = match entry(path) {
            Some(Entry::List(_)) => match groups(text) {
                Ok(list) => KeyForms::default().canonical_list(path, list),
                Err(error) => {
                    self.set.insert(path.to_owned(), place);
                    return self.mistake(path, error);
                }
            },
            _ => Value::from(text),
        };
        put(&mut self.tree, path, value);
        self.set.insert(path.to_owned(), place);
    }

    fn place(&self, path: &str) -> Place {
        let mut whole = path;
        loop {
            if let Some(place) = self.set.get(whole) {
                return place.clone();
            }
            // The line of a section is not helpful for a key that is missing in it.
            let line = self.lines.of(whole).filter(|_| whole == path || whole.ends_with(']'));
            if let Some(line) = line {
                return Place::Line(line);
            }
            match whole.rfind(['.', '[']) {
                Some(end) => whole = &whole[..end],
                None => return Place::Nowhere,
            }
        }
    }
}

/// The keys of a file, and those of them that are written in several forms.
#[derive(Debug, Default)]
pub(super) struct KeyForms {
    pub(super) twice: Vec<String>,
}

impl KeyForms {
    /// Converts the keys of a tree to the form of the table: keys with dots, such as
    /// `"client.insecure": true`, become sections, and upper case becomes lower case.
    pub(super) fn canonical(&mut self, path: &str, value: Value) -> Value {
        let Value::Object(members) = value else { return value };
        let mut tree = Value::Object(Map::new());
        for (name, value) in members {
            let at = |name: &str| join(path, name);
            let lower = name.to_ascii_lowercase();
            let is_known = |name: &str| entry(&at(name)).is_some();
            let name = if !is_known(&name) && is_known(&lower) { lower } else { name };
            let value = match (entry(&at(&name)), value) {
                (Some(Entry::Section), value) => self.canonical(&at(&name), value),
                (Some(Entry::List(_)), value) => self.canonical_list(&at(&name), value),
                (_, value) => value,
            };
            // An unknown name with dots is not changed, so that it is reported as written.
            let place = match entry(&at(&name)) {
                Some(_) => place_of(&mut tree, &name),
                None => &mut tree[&name],
            };
            self.merge(&at(&name), place, value);
        }
        tree
    }

    /// The same for the items of a list. A single item is accepted without the list.
    fn canonical_list(&mut self, path: &str, list: Value) -> Value {
        let items = match list {
            Value::Array(items) => items,
            Value::Object(_) => {
                let one = self.canonical(&format!("{path}[0]"), list);
                let is_item = one.get("name").is_some();
                return if is_item { Value::Array(vec![one]) } else { one };
            }
            other => return other,
        };
        let indexed = items.into_iter().enumerate();
        indexed.map(|(index, item)| self.canonical(&format!("{path}[{index}]"), item)).collect()
    }

    /// Puts a value at the place of a key, where another form of that key may have put one.
    fn merge(&mut self, path: &str, place: &mut Value, value: Value) {
        match (place, value) {
            (Value::Object(old), Value::Object(new)) => {
                for (name, value) in new {
                    let path = join(path, &name);
                    self.merge(&path, old.entry(name).or_insert(Value::Null), value);
                }
            }
            (place, value) => {
                if !place.is_null() {
                    self.twice.push(path.to_owned());
                }
                *place = value;
            }
        }
    }
}

/// Parses a list of items that is written as one text: JSON, or names separated by commas and white
/// space.
fn groups(text: &str) -> Result<Value, String> {
    if text.trim_start().starts_with(['[', '{']) {
        return serde_json::from_str(text).map_err(|error| format!("is not JSON: {error}"));
    }
    let named = |name: &str| Value::from_iter([("name", Value::from(name))]);
    Ok(items(text).map(named).collect())
}

fn put(tree: &mut Value, path: &str, value: Value) {
    *place_of(tree, path) = value;
}

fn place_of<'t>(tree: &'t mut Value, path: &str) -> &'t mut Value {
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
    place
}
