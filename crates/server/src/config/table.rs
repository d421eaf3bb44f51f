//! The index of all keys: by path for files and flags, by variable for the environment.
//!
//! Invariant: it is built from the declarations in `options` and `absent`, and from nothing else.
//! No path is declared twice.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use serde_json::Value;

use super::absent::{ABSENT, AbsentKey, AbsentSection};
use super::kind::Kind;
use super::options::Options;
use super::schema::{FieldKind, Key, ListSchema, Schema, Section, join};

/// The meaning of a path.
#[derive(Clone, Copy, Debug)]
pub(super) enum Entry {
    /// A key of this server.
    Key(&'static Key),
    /// A list of sections of this server.
    List(&'static ListSchema),
    /// A key of the compatible server that has no effect here.
    Absent(&'static AbsentSection, &'static AbsentKey),
    /// A section with keys below it.
    Section,
}

struct Table {
    /// Entries by path. The items of a list have the path `channel.namespaces[]`.
    entries: HashMap<String, Entry>,
    /// Paths by the name of the variable without its prefix; without those in lists.
    variables: HashMap<String, String>,
    /// Names below each section, in the order of the reference.
    members: BTreeMap<String, Vec<String>>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut table =
        Table { entries: HashMap::new(), variables: HashMap::new(), members: BTreeMap::new() };
    declared("", Options::SCHEMA, &mut |path, entry| table.add(path, entry));
    for (path, section, key) in absent_keys() {
        table.add(path, Entry::Absent(section, key));
    }
    #[cfg(test)]
    declared("", super::tests::declarations::SCHEMA, &mut |path, entry| table.add(path, entry));
    table
});

/// Visits all keys and lists below a section.
fn declared(path: &str, schema: &'static Schema, visit: &mut impl FnMut(String, Entry)) {
    for field in schema.fields {
        let path = join(path, field.name);
        match &field.kind {
            FieldKind::Option(key) => visit(path, Entry::Key(key)),
            FieldKind::Section(schema) | FieldKind::Flat(schema) => declared(&path, schema, visit),
            FieldKind::List(list) => {
                visit(path.clone(), Entry::List(list));
                declared(&format!("{path}[]"), list.item, visit);
            }
        }
    }
}

impl Table {
    fn add(&mut self, path: String, entry: Entry) {
        let mut whole: &str = &path;
        loop {
            let (section, name) = whole.rsplit_once('.').unwrap_or(("", whole));
            let members = self.members.entry(section.to_owned()).or_default();
            if !members.iter().any(|member| member == name) {
                members.push(name.to_owned());
            }
            if section.is_empty() {
                break;
            }
            self.entries.entry(section.to_owned()).or_insert(Entry::Section);
            // The list itself has an entry of its own.
            if section.ends_with(']') {
                break;
            }
            whole = section;
        }
        if !path.contains('[') {
            self.variables.insert(variable(&path), path.clone());
        }
        debug_assert!(!self.entries.contains_key(&path), "{path} is declared twice");
        self.entries.insert(path, entry);
    }
}

/// All keys of this server with a fixed path, which is none in a list.
pub fn all_keys() -> impl Iterator<Item = (String, &'static Key)> {
    let mut keys = Vec::new();
    declared("", Options::SCHEMA, &mut |path, entry| match entry {
        Entry::Key(key) if !path.contains('[') => keys.push((path, key)),
        _ => {}
    });
    keys.into_iter()
}

/// All keys without effect, with their paths.
pub(super) fn absent_keys()
-> impl Iterator<Item = (String, &'static AbsentSection, &'static AbsentKey)> {
    ABSENT.iter().flat_map(|section| {
        section.below.iter().flat_map(move |below| {
            section.keys.iter().map(move |key| (join(below, key.name), section, key))
        })
    })
}

/// Whether a flag without effect takes a value; `None` if `path` is not such a flag.
pub fn absent_flag(path: &str) -> Option<TakesValue> {
    match entry(path)? {
        Entry::Absent(_, key) if matches!(key.default, "true" | "false") => {
            Some(TakesValue::Optionally)
        }
        Entry::Absent(..) | Entry::List(_) => Some(TakesValue::Always),
        Entry::Key(_) | Entry::Section => None,
    }
}

/// Whether a flag takes a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakesValue {
    /// The flag needs a value.
    Always,
    /// Without a value the flag means `true`.
    Optionally,
}

/// The entry of a path. The path of a namespace is `channel.namespaces[0]`.
pub(super) fn entry(path: &str) -> Option<Entry> {
    TABLE.entries.get(&*without_indexes(path)).copied()
}

/// The innermost list that contains a path.
pub(super) fn list_around(path: &str) -> Option<&'static ListSchema> {
    match entry(&path[..path.rfind('[')?])? {
        Entry::List(list) => Some(list),
        _ => None,
    }
}

/// The names below a section.
pub(super) fn members(section: &str) -> impl Iterator<Item = &'static str> {
    let section = without_indexes(section);
    TABLE.members.get(&*section).into_iter().flatten().map(|name| &**name)
}

/// The path of a variable; its name is given without the prefix.
pub(super) fn path_of(variable: &str) -> Option<&'static str> {
    TABLE.variables.get(variable).map(|path| &**path)
}

/// The paths of all options in an item of a list, from the item.
pub(super) fn paths_in_item(list: &str) -> impl Iterator<Item = &'static str> {
    let item = format!("{list}[].");
    TABLE.entries.iter().filter_map(move |(path, entry)| match entry {
        Entry::Section => None,
        _ => path.strip_prefix(&*item),
    })
}

/// The paths of all lists of sections that are in no list.
pub(super) fn lists() -> impl Iterator<Item = &'static str> {
    let lists = TABLE
        .entries
        .iter()
        .filter(|(path, entry)| matches!(entry, Entry::List(_)) && !path.contains('['));
    lists.map(|(path, _)| &**path)
}

/// The key that is probably meant by a name without its section, or with underscores for dots:
/// `client_insecure`, `api_key`. Older versions of the compatible server have such names.
pub(super) fn flat(name: &str) -> Option<&'static str> {
    let name = variable(name);
    let end = format!("_{name}");
    let fits = TABLE.variables.iter().filter(|(variable, _)| {
        **variable == name || (name.len() >= FLAT_MIN && variable.ends_with(&*end))
    });
    let rank = |path: &str| match entry(path) {
        // Names without their section, such as port, are those of HTTP.
        _ if path.starts_with("grpc_api.") => 3,
        // Older than the options of RPC with the same names are those of channels.
        Some(Entry::Key(_) | Entry::List(_)) if !path.starts_with("rpc.") => 0,
        Some(Entry::Key(_) | Entry::List(_)) => 1,
        _ => 2,
    };
    let nearest = fits.min_by_key(|(variable, path)| (rank(path), variable.len(), path.as_str()));
    nearest.map(|(_, path)| &**path)
}

/// The key that is probably meant by an unknown name or by the name of a section.
pub fn meant_key(name: &str) -> Option<String> {
    match entry(name) {
        Some(Entry::Section) => meant(name, &Value::Null),
        Some(_) => None,
        None => flat(name).map(str::to_owned),
    }
}

/// Minimum length in bytes of a name that is searched for in all sections.
const FLAT_MIN: usize = 4;

/// The names of all variables, without prefix.
pub(super) fn variables() -> impl Iterator<Item = &'static str> {
    TABLE.variables.keys().map(|variable| &**variable)
}

/// The section with the name of a variable, which has no value itself.
pub(super) fn section_of(variable_name: &str) -> Option<&'static str> {
    let mut sections = TABLE.entries.iter().filter(|(_, entry)| matches!(entry, Entry::Section));
    sections.find(|(path, _)| variable(path) == variable_name).map(|(path, _)| &**path)
}

/// The variable of a path, without prefix.
pub(super) fn variable(path: &str) -> String {
    path.replace('.', "_").to_uppercase()
}

/// Removes the indexes of lists: `channel.namespaces[0].presence` becomes
/// `channel.namespaces[].presence`.
fn without_indexes(path: &str) -> Cow<'_, str> {
    if !path.contains('[') {
        return path.into();
    }
    let mut is_index = false;
    let kept = path.chars().filter(|c| {
        is_index = *c == '[' || (is_index && c.is_ascii_digit());
        !(is_index && c.is_ascii_digit())
    });
    kept.collect::<String>().into()
}

/// The key below `section` that was probably meant by a value in place of the section.
pub(super) fn meant(section: &str, value: &Value) -> Option<String> {
    let takes = |name: &&str| match (entry(&format!("{section}.{name}")), value) {
        (Some(Entry::Key(key)), value) => match (key.kind, value) {
            (Kind::Bool, Value::Bool(_)) => *name == "enabled",
            (Kind::OneOf(choices), Value::String(text)) => choices.contains(&&**text),
            (Kind::Integer(_), Value::Number(_)) => true,
            (Kind::List, Value::Array(_)) => true,
            _ => false,
        },
        (Some(Entry::Absent(..)), Value::Bool(_)) => *name == "enabled",
        _ => false,
    };
    let usual = ["enabled", "type", "key", "address", "url", "level"];
    let by_value = members(section).find(takes);
    let by_name = || usual.iter().copied().find(|one| members(section).any(|name| name == *one));
    by_value
        .or_else(by_name)
        .or_else(|| members(section).next())
        .map(|name| format!("{section}.{name}"))
}
