//! Keys of the server API. A key has a name and may be limited to some methods and channels.
//!
//! Invariant: names and keys are unique, so that a key identifies one caller. No key is logged or
//! printed.

use std::fmt;

use super::mistakes::KeyedMistakes;
use super::options::http::{ApiKeySection, ApiSection};
use crate::pattern::ChannelPattern;

/// A key of the server API with its name and scopes.
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

/// Resolves the keys of the list, and that of `http_api.key` with the name `default`.
pub(super) fn resolve(api: &ApiSection, mistakes: &mut KeyedMistakes) -> Vec<ApiKey> {
    let mut keys: Vec<ApiKey> = Vec::new();
    keys.extend(api.key.some().map(|key| ApiKey::unlimited(DEFAULT_NAME, &key)));
    for ApiKeySection { name, key, methods, channels } in &api.keys {
        let is_name = !name.is_empty()
            && name.len() <= NAME_LENGTH_MAX
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if !is_name {
            let text = "expected a name of letters, digits, '-', '_' or '.', not";
            mistakes.push(name.fault(format!("{text} {:?}", **name)));
        }
        if keys.iter().any(|other| other.name == **name) {
            let text =
                format!("{:?} is used twice; {DEFAULT_NAME} is the name of http_api.key", **name);
            mistakes.push(name.fault(text));
        }
        if key.is_empty() {
            let text = "is required: the caller cannot authenticate without a key";
            mistakes.push(key.fault(text));
        } else if keys.iter().any(|other| other.is(key.as_bytes())) {
            let text = "is also the key of another name: each caller needs its own";
            mistakes.push(key.fault(text));
        }
        for method in methods.iter() {
            if !crate::API_METHODS.contains(&&**method) {
                mistakes.push(methods.fault(format!("there is no method {method:?}")));
            }
        }
        let mut patterns = Vec::new();
        for pattern in channels.iter() {
            match ChannelPattern::new(pattern) {
                Ok(pattern) => patterns.push(pattern),
                Err(error) => mistakes.push(channels.fault(error.to_string())),
            }
        }
        keys.push(ApiKey {
            name: name.to_string(),
            key: key.as_bytes().to_vec(),
            methods: methods.to_vec(),
            channels: patterns,
        });
    }
    keys
}

/// Name of the key of `http_api.key`.
pub(crate) const DEFAULT_NAME: &str = "default";

/// Maximum length of a name in bytes: names are part of log lines and of labels of metrics.
const NAME_LENGTH_MAX: usize = 64;
