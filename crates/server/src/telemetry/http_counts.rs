//! Counters of the HTTP side: refused handshakes, API calls, exceeded rate limits.
//!
//! Invariant: keys are bounded; they are statuses, methods and codes of our own tables, and names
//! of configured API keys.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use engine::rates::{BUCKETS, Bucket};

use super::refusals::Refusals;

/// Counters of refused handshakes, API calls and exceeded rate limits.
#[derive(Debug, Default)]
pub struct HttpCounts {
    pub(super) refused: Mutex<BTreeMap<u16, u64>>,
    calls: Mutex<ApiCalls>,
    pub(crate) refusals: Refusals,
    /// Exceeded rate limits by bucket, in the order of [`Bucket::ALL`].
    pub(super) limited: [AtomicU64; BUCKETS],
}

/// Counters of API calls.
#[derive(Debug, Default)]
struct ApiCalls {
    /// By method and error code.
    by_code: BTreeMap<(&'static str, u32), u64>,
    /// By name of the API key, then by method.
    by_key: BTreeMap<String, BTreeMap<&'static str, u64>>,
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

    /// API calls by method and error code.
    pub(super) fn calls_by_code(&self) -> Vec<((&'static str, u32), u64)> {
        self.calls().by_code.iter().map(|(call, count)| (*call, *count)).collect()
    }

    /// API calls by name of the API key and by method.
    pub(super) fn calls_by_key(&self) -> Vec<(String, &'static str, u64)> {
        let calls = self.calls();
        let of_key = |(key, methods): (&String, &BTreeMap<&'static str, u64>)| {
            let counts = methods.iter().map(|(method, count)| (key.clone(), *method, *count));
            counts.collect::<Vec<_>>()
        };
        calls.by_key.iter().flat_map(of_key).collect()
    }

    /// Counts a call by its error code, which is 0 for success, and by the configured name of its
    /// API key.
    pub(crate) fn called(&self, key: &str, method: &'static str, code: u32) {
        let mut calls = self.calls();
        *calls.by_code.entry((method, code)).or_default() += 1;
        let of_key = match calls.by_key.get_mut(key) {
            Some(of_key) => of_key,
            None => calls.by_key.entry(key.to_owned()).or_default(),
        };
        *of_key.entry(method).or_default() += 1;
    }

    fn calls(&self) -> MutexGuard<'_, ApiCalls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
