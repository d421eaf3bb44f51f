//! The cached key set of one URL.
//!
//! Invariants: at most one fetch runs at a time, and other threads wait for its result. Between two
//! fetches passes at least [`KEY_SET_PAUSE_S`], whatever key ids tokens have. A failed fetch does
//! not remove keys that are still fresh.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::algorithm::Algorithm;
use super::cause::Cause;
use super::fetch::{Fetch, FetchFailure};
use super::key_set::KeySet;
use super::limits::{KEY_SET_ATTEMPTS, KEY_SET_PAUSE_S, KEY_SET_TTL_S};
use super::public_key::PublicKey;

/// The key set of one URL. May block for a fetch, so that worker threads must not use it.
pub(super) struct Jwks {
    address: String,
    fetch: Arc<dyn Fetch>,
    cache: Mutex<Cache>,
    /// Locked during a fetch. `cache` is not locked then, so that cached keys stay available.
    flight: Mutex<()>,
}

#[derive(Default)]
struct Cache {
    keys: KeySet,
    fetched_at: Option<i64>,
    attempted_at: Option<i64>,
    failed: bool,
    /// Number of fetches, so that a thread which waited detects that another thread has fetched.
    fetches: u64,
}

/// Result of looking up a key in the cache.
enum CacheLookup {
    Answer(Result<Arc<PublicKey>, Cause>),
    Fetch { seen: u64 },
}

impl Jwks {
    pub(super) fn new(address: String, fetch: Arc<dyn Fetch>) -> Self {
        Self { address, fetch, cache: Mutex::default(), flight: Mutex::default() }
    }

    /// Returns the key with this id for this algorithm. Fetches the set if needed and allowed.
    pub(super) fn find(
        &self,
        key_id: &str,
        algorithm: Algorithm,
        now_unix: i64,
    ) -> Result<Arc<PublicKey>, Cause> {
        let seen = match lock(&self.cache).look(key_id, algorithm, now_unix) {
            CacheLookup::Answer(answer) => return answer,
            CacheLookup::Fetch { seen } => seen,
        };
        let _flight = lock(&self.flight);
        if lock(&self.cache).fetches == seen {
            let outcome = self.fetch_keys();
            lock(&self.cache).record(outcome, now_unix);
        }
        lock(&self.cache).answer_of_fetch(key_id, algorithm)
    }

    /// Whether [`Jwks::find`] would fetch, or wait for the fetch of another thread.
    pub(super) fn needs_fetch(&self, key_id: &str, algorithm: Algorithm, now_unix: i64) -> bool {
        matches!(lock(&self.cache).look(key_id, algorithm, now_unix), CacheLookup::Fetch { .. })
    }

    fn fetch_keys(&self) -> Result<KeySet, FetchFailure> {
        let attempt = || self.fetch.fetch(&self.address).and_then(|text| KeySet::parse(&text));
        let mut outcome = attempt();
        for _ in 1..KEY_SET_ATTEMPTS {
            if outcome.is_ok() {
                break;
            }
            outcome = attempt();
        }
        outcome
    }
}

impl Cache {
    fn look(&self, key_id: &str, algorithm: Algorithm, now_unix: i64) -> CacheLookup {
        if within(self.fetched_at, KEY_SET_TTL_S, now_unix)
            && let Some(answer) = self.keys.find(key_id, algorithm)
        {
            return CacheLookup::Answer(answer);
        }
        // The key may have been published since the last fetch. The refusal is therefore a
        // temporary one, after which the client tries again.
        if within(self.attempted_at, KEY_SET_PAUSE_S, now_unix) {
            return CacheLookup::Answer(Err(Cause::KeysUnavailable));
        }
        CacheLookup::Fetch { seen: self.fetches }
    }

    fn record(&mut self, outcome: Result<KeySet, FetchFailure>, now_unix: i64) {
        self.fetches += 1;
        self.attempted_at = Some(now_unix);
        self.failed = outcome.is_err();
        match outcome {
            Ok(keys) => {
                self.keys = keys;
                self.fetched_at = Some(now_unix);
            }
            Err(failure) => tracing::warn!(%failure, "token key set could not be fetched"),
        }
    }

    fn answer_of_fetch(&self, key_id: &str, algorithm: Algorithm) -> Result<Arc<PublicKey>, Cause> {
        if self.failed {
            return Err(Cause::KeysUnavailable);
        }
        self.keys.find(key_id, algorithm).unwrap_or(Err(Cause::UnknownKeyId))
    }
}

/// Whether `since` is less than `seconds` before or after now. Times in the future count too,
/// because otherwise every token would cause a fetch after the clock is set back.
fn within(since: Option<i64>, seconds: i64, now_unix: i64) -> bool {
    since.is_some_and(|since| now_unix.abs_diff(since) < seconds.unsigned_abs())
}

/// Locks a mutex, also after a panic of another thread: the cache is consistent between statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
