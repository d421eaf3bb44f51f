//! The keys of the server API as they hold now.
//!
//! Invariant: a caller is looked for among all keys, whichever it has, so that the time says
//! nothing; requests that are under way go on with the key that let them in.

use std::sync::{Arc, PoisonError, RwLock};

use crate::config::ApiKey;

/// See the module.
pub(crate) struct ApiKeys(RwLock<Vec<Arc<ApiKey>>>);

impl ApiKeys {
    pub(crate) fn new(keys: &[ApiKey]) -> ApiKeys {
        ApiKeys(RwLock::new(shared(keys)))
    }

    /// Other keys from now on.
    pub(crate) fn replace(&self, keys: &[ApiKey]) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = shared(keys);
    }

    /// Whose key this is.
    pub(super) fn find(&self, given: &[u8]) -> Option<Arc<ApiKey>> {
        let keys = self.0.read().unwrap_or_else(PoisonError::into_inner);
        keys.iter().fold(None, |found, key| if key.is(given) { Some(key.clone()) } else { found })
    }
}

fn shared(keys: &[ApiKey]) -> Vec<Arc<ApiKey>> {
    keys.iter().cloned().map(Arc::new).collect()
}
