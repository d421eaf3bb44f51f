//! Counters of the HTTP side: refused handshakes, API calls, exceeded rate limits.
//!
//! Invariant: keys are bounded; they are statuses, methods and codes of our own tables, and names
//! of configured API keys.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use engine::rates::{BUCKETS, Bucket};

use super::refusals::Refusals;

/// Counters of refused handshakes, API calls and exceeded rate limits.
#[derive(Debug, Default)]
pub struct HttpCounts {
    pub(super) refused: Mutex<BTreeMap<u16, u64>>,
    pub(super) api: Mutex<BTreeMap<(&'static str, u32), u64>>,
    pub(super) by_key: Mutex<BTreeMap<(String, &'static str), u64>>,
    pub(crate) refusals: Refusals,
    /// Exceeded rate limits by bucket, in the order of [`Bucket::ALL`].
    pub(super) limited: [AtomicU64; BUCKETS],
}

impl HttpCounts {
    /// Counts a refused handshake by its HTTP status.
    pub(crate) fn refused(&self, status: u16) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        *refused.entry(status).or_default() += 1;
    }

    /// Counts an exceeded rate limit.
    pub(crate) fn limited(&self, bucket: Bucket) {
        self.limited[bucket as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn calls_by_key(&self) -> Vec<((String, &'static str), u64)> {
        let by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        by_key.iter().map(|(key, count)| (key.clone(), *count)).collect()
    }

    /// Counts a call by the configured name of its API key.
    pub(crate) fn called_by(&self, key: &str, method: &'static str) {
        let mut by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        *by_key.entry((key.to_owned(), method)).or_default() += 1;
    }

    /// Counts a call by its error code; 0 is success.
    pub(crate) fn called(&self, method: &'static str, code: u32) {
        let mut api = self.api.lock().unwrap_or_else(PoisonError::into_inner);
        *api.entry((method, code)).or_default() += 1;
    }
}
