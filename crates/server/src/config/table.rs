//! The index of all keys: by path for files and flags, by variable for the environment.
//!
//! Invariant: namespaces have the same options as `channel.without_namespace`, so that only these
//! are in the index.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use super::keys::{
    ABSENT, ABSENT_LISTS, AbsentKey, AbsentList, KEYS, Key, Kind, NAMESPACE_KEYS, Section,
    TOKEN_KEYS,
};

/// The meaning of a path.
#[derive(Clone, Copy, Debug)]
pub(super) enum Entry {
    /// A key of this server.
    Key(&'static Key),
    /// A key of the compatible server that has no effect here.
    Absent(&'static Section, &'static AbsentKey),
    /// A list of the compatible server that has no effect here.
    AbsentList(&'static AbsentList),
    /// The list of namespaces, `channel.namespaces`.
    Namespaces,
    /// The list of keys of the server API, `http_api.keys`.
    ApiKeys,
    /// A section with keys below it.
    Section,
}

/// The list of keys of the server API.
pub(super) const API_KEYS: &str = "http_api.keys";
/// The list of namespaces.
pub(super) const NAMESPACES: &str = "channel.namespaces";
/// Options of channels without a namespace; those of a namespace have the same names.
pub(super) const WITHOUT_NAMESPACE: &str = "channel.without_namespace";

struct Table {
    entries: HashMap<String, Entry>,
    /// Paths by the name of the variable without its prefix.
    variables: HashMap<String, String>,
    /// Names below each section, in the order of the reference.
    members: BTreeMap<String, Vec<String>>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut table =
        Table { entries: HashMap::new(), variables: HashMap::new(), members: BTreeMap::new() };
    for (path, key) in all_keys() {
        table.add(path, Entry::Key(key));
    }
    for (path, section, key) in absent_keys() {
        table.add(path, Entry::Absent(section, key));
    }
    for list in ABSENT_LISTS {
        table.add(list.path.to_owned(), Entry::AbsentList(list));
    }
    table.add(NAMESPACES.to_owned(), Entry::Namespaces);
    table.add(API_KEYS.to_owned(), Entry::ApiKeys);
    table
});

impl Table {
    fn add(&mut self, path: String, entry: Entry) {
        let mut whole: &str = &path;
        while let Some((section, name)) = whole.rsplit_once('.') {
            self.entries.entry(section.to_owned()).or_insert(Entry::Section);
            let members = self.members.entry(section.to_owned()).or_default();
            if !members.iter().any(|member| member == name) {
                members.push(name.to_owned());
            }
            whole = section;
        }
        let top = self.members.entry(String::new()).or_default();
        if !top.iter().any(|member| member == whole) {
            top.push(whole.to_owned());
        }
        self.variables.insert(variable(&path), path.clone());
        self.entries.insert(path, entry);
    }
}

/// All keys of this server with a fixed path.
pub fn all_keys() -> impl Iterator<Item = (String, &'static Key)> {
    let below = |prefix: &'static str, keys: &'static [Key]| {
        keys.iter().map(move |key| (format!("{prefix}.{}", key.path), key))
    };
    KEYS.iter()
        .map(|key| (key.path.to_owned(), key))
        .chain(below("client.token", TOKEN_KEYS))
        .chain(below("client.subscription_token", TOKEN_KEYS))
        .chain(below(WITHOUT_NAMESPACE, NAMESPACE_KEYS))
}

/// All keys without effect, with their paths.
pub(super) fn absent_keys() -> impl Iterator<Item = (String, &'static Section, &'static AbsentKey)>
{
    ABSENT.iter().flat_map(|section| {
        section.below.iter().flat_map(move |below| {
            let path = move |name: &str| match below.is_empty() {
                true => name.to_owned(),
                false => format!("{below}.{name}"),
            };
            section.keys.iter().map(move |key| (path(key.name), section, key))
        })
    })
}

/// Whether a flag without effect takes a value; `None` if `path` is not such a flag.
pub fn absent_flag(path: &str) -> Option<TakesValue> {
    match entry(path)? {
        Entry::Absent(_, key) if matches!(key.default, "true" | "false") => {
            Some(TakesValue::Optionally)
        }
        Entry::Absent(..) | Entry::AbsentList(_) | Entry::Namespaces | Entry::ApiKeys => {
            Some(TakesValue::Always)
        }
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
    TABLE.entries.get(&*as_without_namespace(path)).copied()
}

/// The names below a section.
pub(super) fn members(section: &str) -> impl Iterator<Item = &'static str> {
    let section = as_without_namespace(section);
    TABLE.members.get(&*section).into_iter().flatten().map(|name| &**name)
}

/// The path of a variable; its name is given without the prefix.
pub(super) fn path_of(variable: &str) -> Option<&'static str> {
    TABLE.variables.get(variable).map(|path| &**path)
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
        Some(Entry::Key(_) | Entry::Namespaces | Entry::ApiKeys) => 0,
        _ => 1,
    };
    let nearest = fits.min_by_key(|(variable, path)| (rank(path), variable.len(), path.as_str()));
    nearest.map(|(_, path)| &**path)
}

/// The key that is probably meant by an unknown name or by the name of a section.
pub fn meant_key(name: &str) -> Option<String> {
    match entry(name) {
        Some(Entry::Section) => meant(name, &serde_json::Value::Null),
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

fn as_without_namespace(path: &str) -> std::borrow::Cow<'_, str> {
    let of_item = path.strip_prefix(NAMESPACES).and_then(|rest| rest.strip_prefix('['));
    match of_item.and_then(|rest| rest.split_once(']')) {
        Some((_, rest)) => format!("{WITHOUT_NAMESPACE}{rest}").into(),
        None => path.into(),
    }
}

/// The key below `section` that was probably meant by a value in place of the section.
pub(super) fn meant(section: &str, value: &serde_json::Value) -> Option<String> {
    let takes = |name: &&str| match (entry(&format!("{section}.{name}")), value) {
        (Some(Entry::Key(key)), value) => match (key.kind, value) {
            (Kind::Bool, serde_json::Value::Bool(_)) => *name == "enabled",
            (Kind::OneOf(choices), serde_json::Value::String(text)) => choices.contains(&&**text),
            (Kind::Integer(_), serde_json::Value::Number(_)) => true,
            (Kind::List, serde_json::Value::Array(_)) => true,
            _ => false,
        },
        (Some(Entry::Absent(..)), serde_json::Value::Bool(_)) => *name == "enabled",
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
