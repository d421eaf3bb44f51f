//! The revocations of the memory broker.
//!
//! Invariant: a change is delivered to all endpoints before its request is answered.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use engine::revocation::{Revocation, Revocations, RevokeOutcome, Subject};

/// The stored revocations.
#[derive(Default)]
pub(super) struct KeptRevocations(Mutex<Revocations>);

impl KeptRevocations {
    /// Stores a change unless the stored change of its subject is as late or later.
    pub(super) fn store(&self, revocation: &Arc<Revocation>) -> RevokeOutcome {
        let (now_s, mut kept) = (now_s(), self.lock());
        if revocation.ends_at <= now_s {
            return RevokeOutcome::Expired;
        }
        kept.apply(now_s, revocation);
        match kept.get(&revocation.subject) {
            Some(known) if known != revocation => RevokeOutcome::Superseded(known.clone()),
            _ => RevokeOutcome::Stored,
        }
    }

    pub(super) fn find(&self, subject: &Subject) -> Option<Arc<Revocation>> {
        self.lock().get(subject).cloned()
    }

    pub(super) fn read(&self) -> Vec<Arc<Revocation>> {
        let mut kept = self.lock();
        kept.expire(now_s());
        kept.iter().cloned().collect()
    }

    /// Deletes expired changes.
    pub(super) fn expire(&self) {
        self.lock().expire(now_s());
    }

    fn lock(&self) -> MutexGuard<'_, Revocations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Revocations expire by Unix time, unlike everything else in this broker.
fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
