//! Keys of the server API. A key has a name and may be limited to some methods and channels.
//!
//! Invariant: names and keys are unique, so that a key identifies one caller. No key is logged or
//! printed.

use std::fmt;

use serde_json::{Map, Value};

use super::coerce::coerce;
use super::keys::API_KEY_KEYS;
use super::mistakes::KeyedMistakes;
use super::raw_config::RawConfig;
use super::table::API_KEYS;
use super::values::Values;
use crate::pattern::ChannelPattern;

/// See the module.
#[derive(Clone)]
pub struct ApiKey {
    /// Name of the caller in logs and metrics.
    pub name: String,
    key: Vec<u8>,
    /// Methods that the key allows; empty for all.
    methods: Vec<String>,
    /// Channels that the key allows; empty for all.
    channels: Vec<ChannelPattern>,
}

/// Omits the key.
impl fmt::Debug for ApiKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ApiKey").field("name", &self.name).finish_non_exhaustive()
    }
}

impl ApiKey {
    /// A key for all methods and channels.
    pub(crate) fn unlimited(name: &str, key: &str) -> ApiKey {
        ApiKey {
            name: name.to_owned(),
            key: key.as_bytes().to_vec(),
            methods: Vec::new(),
            channels: Vec::new(),
        }
    }

    /// Returns whether a caller sent this key. Compares in constant time.
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

/// Checks the list `http_api.keys` as it was written, and returns its valid options.
pub(super) fn check(raw: &mut RawConfig, value: Value) -> Option<Value> {
    let list = match value {
        Value::Null => return None,
        Value::Array(list) => list,
        _ => {
            raw.mistake(API_KEYS, "expected a list of keys, each with a name and a key");
            return None;
        }
    };
    let checked = list.into_iter().enumerate().map(|(index, one)| {
        let path = format!("{API_KEYS}[{index}]");
        match one {
            Value::Object(members) => check_one(raw, &path, &members),
            _ => {
                raw.mistake(path, "expected a group with a name and a key");
                Value::Null
            }
        }
    });
    Some(checked.collect())
}

fn check_one(raw: &mut RawConfig, path: &str, members: &Map<String, Value>) -> Value {
    let mut checked = Map::new();
    for (name, value) in members {
        let path = format!("{path}.{name}");
        // Always a mistake, also without `--strict`: ignoring a misspelled limit would leave the
        // key unlimited.
        let Some(key) = API_KEY_KEYS.iter().find(|key| key.path == name) else {
            let known: Vec<&str> = API_KEY_KEYS.iter().map(|key| key.path).collect();
            raw.mistake(
                path,
                format!("there is no such option; the options are {}", known.join(", ")),
            );
            continue;
        };
        match coerce(key.kind, value) {
            Ok(value) => drop(checked.insert(name.clone(), value.unwrap_or_default())),
            Err(text) => raw.misread(&path, text),
        }
    }
    Value::Object(checked)
}

/// Resolves the keys of the list, and that of `http_api.key` with the name `default`.
pub(super) fn resolve(values: &Values<'_>, mistakes: &mut KeyedMistakes) -> Vec<ApiKey> {
    let mut keys: Vec<ApiKey> = Vec::new();
    let single = values.text("http_api.key");
    if !single.is_empty() {
        keys.push(ApiKey::unlimited(DEFAULT_NAME, &single));
    }
    let list = values.raw.value(API_KEYS).and_then(Value::as_array);
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
                format!("{name:?} is used twice; {DEFAULT_NAME} is the name of http_api.key"),
            );
        }
        if key.is_empty() {
            refuse("key", "is needed: the caller cannot authenticate without a key".to_owned());
        } else if keys.iter().any(|other| other.is(key.as_bytes())) {
            refuse("key", "is also the key of another name: each caller needs its own".to_owned());
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

/// Name of the key of `http_api.key`.
pub(crate) const DEFAULT_NAME: &str = "default";

/// Maximum length of a name in bytes: names are part of log lines and of labels of metrics.
const NAME_LENGTH_MAX: usize = 64;
