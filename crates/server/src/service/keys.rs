//! The current keys of the server API.
//!
//! Invariant: a look-up compares the given key with all keys, so that its duration does not depend
//! on the key. Requests under way keep the key that admitted them.

use std::sync::{Arc, PoisonError, RwLock};

use crate::config::ApiKey;

/// Keys that can be replaced while requests are served.
pub(crate) struct ApiKeys(RwLock<Vec<Arc<ApiKey>>>);

impl ApiKeys {
    pub(crate) fn new(keys: &[ApiKey]) -> ApiKeys {
        ApiKeys(RwLock::new(shared(keys)))
    }

    /// Replaces the keys for requests from now on.
    pub(crate) fn replace(&self, keys: &[ApiKey]) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = shared(keys);
    }

    /// Returns the configured key that `given` equals.
    pub(crate) fn find(&self, given: &[u8]) -> Option<Arc<ApiKey>> {
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        keys.iter().fold(None, |found, key| if key.is(given) { Some(key.clone()) } else { found })
    }
}

/// The key in a value of `Authorization`: `apikey KEY`.
pub(crate) fn key_of_authorization(value: &str) -> Option<&str> {
    let (scheme, key) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("apikey").then_some(key.trim())
}

fn shared(keys: &[ApiKey]) -> Vec<Arc<ApiKey>> {
    keys.iter().cloned().map(Arc::new).collect()
}
