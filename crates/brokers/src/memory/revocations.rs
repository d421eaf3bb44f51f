//! What is revoked, as the broker of one process keeps it.
//!
//! Invariant: a change is told to all parties before anybody is answered that it is kept.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use engine::broker::BrokerReply;
use engine::revocation::{Revocation, Revocations};

/// See the module.
#[derive(Default)]
pub(super) struct Kept(Mutex<Revocations>);

impl Kept {
    /// Keeps a change unless a later one is kept; says whether it is new.
    pub(super) fn keep(&self, revocation: &Arc<Revocation>) -> bool {
        self.lock().apply(now_s(), revocation)
    }

    pub(super) fn read(&self) -> BrokerReply {
        let mut kept = self.lock();
        kept.expire(now_s());
        BrokerReply::Revocations(kept.iter().cloned().collect())
    }

    /// Forgets what is over.
    pub(super) fn expire(&self) {
        self.lock().expire(now_s());
    }

    fn lock(&self) -> MutexGuard<'_, Revocations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Revocations end by the time of day, unlike everything else here.
fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
