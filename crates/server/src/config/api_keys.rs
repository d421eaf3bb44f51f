//! Keys of the server API: each has a name, and may be for some methods and some channels only.
//!
//! Invariant: names and keys are different, so that a caller is one of them, and no key is ever
//! shown.

use std::fmt;

use serde_json::{Map, Value};

use super::coerce::coerce;
use super::found::Found;
use super::keys::API_KEY_KEYS;
use super::mistakes::KeyedMistakes;
use super::table::API_KEYS;
use super::values::Values;
use crate::pattern::ChannelPattern;

/// See the module.
#[derive(Clone)]
pub struct ApiKey {
    /// Stands in logs and metrics.
    pub name: String,
    key: Vec<u8>,
    /// Empty for all.
    methods: Vec<String>,
    /// Empty for all.
    channels: Vec<ChannelPattern>,
}

/// Shows no key.
impl fmt::Debug for ApiKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ApiKey").field("name", &self.name).finish_non_exhaustive()
    }
}

impl ApiKey {
    /// One for every method and channel.
    pub(crate) fn unlimited(name: &str, key: &str) -> ApiKey {
        ApiKey {
            name: name.to_owned(),
            key: key.as_bytes().to_vec(),
            methods: Vec::new(),
            channels: Vec::new(),
        }
    }

    /// Whether this is the key that a caller gave. Takes as long for one that is nearly right as
    /// for one that is all wrong.
    pub(crate) fn is(&self, given: &[u8]) -> bool {
        let is_same = aws_lc_rs::constant_time::verify_slices_are_equal(given, &self.key);
        !self.key.is_empty() && is_same.is_ok()
    }

    pub(crate) fn allows_method(&self, method: &str) -> bool {
        self.methods.is_empty() || self.methods.iter().any(|one| one == method)
    }

    pub(crate) fn allows_channel(&self, channel: &str) -> bool {
        self.channels.is_empty() || self.channels.iter().any(|one| one.matches(channel))
    }
}

/// Looks at a list of keys as it was written; what is understood stays in the tree.
pub(super) fn check(found: &mut Found, value: Value) -> Option<Value> {
    let list = match value {
        Value::Null => return None,
        Value::Array(list) => list,
        _ => {
            found.mistake(API_KEYS, "expected a list of keys, each with a name and a key");
            return None;
        }
    };
    let checked = list.into_iter().enumerate().map(|(index, one)| {
        let path = format!("{API_KEYS}[{index}]");
        match one {
            Value::Object(members) => check_one(found, &path, &members),
            _ => {
                found.mistake(path, "expected a group with a name and a key");
                Value::Null
            }
        }
    });
    Some(checked.collect())
}

fn check_one(found: &mut Found, path: &str, members: &Map<String, Value>) -> Value {
    let mut checked = Map::new();
    for (name, value) in members {
        let path = format!("{path}.{name}");
        // Whoever limits a key counts on it: a limit that is not understood is never left out.
        let Some(key) = API_KEY_KEYS.iter().find(|key| key.path == name) else {
            let known: Vec<&str> = API_KEY_KEYS.iter().map(|key| key.path).collect();
            found.mistake(path, format!("there is no such option; there are {}", known.join(", ")));
            continue;
        };
        match coerce(key.kind, value) {
            Ok(value) => drop(checked.insert(name.clone(), value.unwrap_or_default())),
            Err(text) => found.misread(&path, text),
        }
    }
    Value::Object(checked)
}

/// The keys of the list, and that of `http_api.key` under the name `default`.
pub(super) fn resolve(values: &Values<'_>, mistakes: &mut KeyedMistakes) -> Vec<ApiKey> {
    let mut keys: Vec<ApiKey> = Vec::new();
    let single = values.text("http_api.key");
    if !single.is_empty() {
        keys.push(ApiKey::unlimited(DEFAULT_NAME, &single));
    }
    let list = values.found.value(API_KEYS).and_then(Value::as_array);
    for index in 0..list.map_or(0, Vec::len) {
        let at = |name: &str| format!("{API_KEYS}[{index}].{name}");
        let (name, key) = (values.text(&at("name")), values.text(&at("key")));
        let mut refuse = |option: &str, text: String| mistakes.push((at(option), text));
        let is_name = !name.is_empty()
            && name.len() <= NAME_LENGTH_MAX
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if !is_name {
            let text = format!("expected a name of letters, digits, '-', '_' or '.', not {name:?}");
            refuse("name", text);
        }
        if keys.iter().any(|other| other.name == name) {
            refuse(
                "name",
                format!("{name:?} is there twice; {DEFAULT_NAME} is that of http_api.key"),
            );
        }
        if key.is_empty() {
            refuse("key", "is needed: without it nobody is this caller".to_owned());
        } else if keys.iter().any(|other| other.is(key.as_bytes())) {
            refuse("key", "is the key of another name: nobody could tell them apart".to_owned());
        }
        let methods = values.list(&at("methods"));
        for method in &methods {
            if !crate::API_METHODS.contains(&&**method) {
                refuse("methods", format!("there is no method {method:?}"));
            }
        }
        let mut channels = Vec::new();
        for pattern in values.list(&at("channels")) {
            match ChannelPattern::new(&pattern) {
                Ok(pattern) => channels.push(pattern),
                Err(error) => refuse("channels", error.to_string()),
            }
        }
        keys.push(ApiKey { name, key: key.into_bytes(), methods, channels });
    }
    keys
}

/// What the key of `http_api.key` is called.
pub(crate) const DEFAULT_NAME: &str = "default";

/// Bytes of a name: it stands in every line of the log and in labels of metrics.
const NAME_LENGTH_MAX: usize = 64;
