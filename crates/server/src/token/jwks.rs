//! The cached key set of one address.
//!
//! Invariants: at most one fetch is under way, whoever else needs its outcome waits for it; and
//! between two fetches lies [`KEY_SET_PAUSE_S`], whatever the tokens ask for. A fetch that fails
//! never throws away keys that are still fresh.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::algorithm::Algorithm;
use super::cause::Cause;
use super::fetch::{Fetch, FetchFailure};
use super::key_set::KeySet;
use super::limits::{KEY_SET_ATTEMPTS, KEY_SET_PAUSE_S, KEY_SET_TTL_S};
use super::public_key::PublicKey;

/// The key set of one address. May block for a fetch; not for the threads of workers.
pub(super) struct Jwks {
    address: String,
    fetch: Arc<dyn Fetch>,
    cache: Mutex<Cache>,
    /// Held by the one that fetches, while `cache` stays open to those who need no fetch.
    flight: Mutex<()>,
}

#[derive(Default)]
struct Cache {
    keys: KeySet,
    fetched_at: Option<i64>,
    attempted_at: Option<i64>,
    failed: bool,
    /// Counts fetches, so that one who waited sees that another fetched for him.
    fetches: u64,
}

/// What the cache can say about a key.
enum Found {
    Answer(Result<Arc<PublicKey>, Cause>),
    Fetch { seen: u64 },
}

impl Jwks {
    pub(super) fn new(address: String, fetch: Arc<dyn Fetch>) -> Self {
        Self { address, fetch, cache: Mutex::default(), flight: Mutex::default() }
    }

    /// The key with this id for this algorithm, fetched if need be and allowed.
    pub(super) fn find(
        &self,
        key_id: &str,
        algorithm: Algorithm,
        now_unix: i64,
    ) -> Result<Arc<PublicKey>, Cause> {
        let seen = match lock(&self.cache).look(key_id, algorithm, now_unix) {
            Found::Answer(answer) => return answer,
            Found::Fetch { seen } => seen,
        };
        let _flight = lock(&self.flight);
        if lock(&self.cache).fetches == seen {
            let outcome = self.fetch_keys();
            lock(&self.cache).record(outcome, now_unix);
        }
        lock(&self.cache).answer_of_fetch(key_id, algorithm)
    }

    /// Whether [`Jwks::find`] would fetch, or wait for somebody who does.
    pub(super) fn needs_fetch(&self, key_id: &str, algorithm: Algorithm, now_unix: i64) -> bool {
        matches!(lock(&self.cache).look(key_id, algorithm, now_unix), Found::Fetch { .. })
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
    fn look(&self, key_id: &str, algorithm: Algorithm, now_unix: i64) -> Found {
        if within(self.fetched_at, KEY_SET_TTL_S, now_unix)
            && let Some(answer) = self.keys.find(key_id, algorithm)
        {
            return Found::Answer(answer);
        }
        // The key may have been published since the last fetch: the honest answer is "not now",
        // with which a client tries again, and not "never".
        if within(self.attempted_at, KEY_SET_PAUSE_S, now_unix) {
            return Found::Answer(Err(Cause::KeysUnavailable));
        }
        Found::Fetch { seen: self.fetches }
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

/// Whether `since` lies less than `seconds` away from now. On either side: a clock that was set
/// back must not make every token fetch.
fn within(since: Option<i64>, seconds: i64, now_unix: i64) -> bool {
    since.is_some_and(|since| now_unix.abs_diff(since) < seconds.unsigned_abs())
}

/// A panic of another thread leaves the cache as it was before or after a whole step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
