//! Why this node is not available on NATS: at most one reason of each cause.
//!
//! Invariant: the node is ready exactly while there is no reason, and a cause that comes or goes is
//! logged.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing::{debug, info};

use super::subject::Store;
use crate::Health;

/// See the module.
#[derive(Default)]
pub(super) struct Availability(Mutex<BTreeMap<UnavailableCause, String>>);

/// What a reason is about, the gravest first: that one is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum UnavailableCause {
    /// A task of the broker has failed.
    Task,
    /// NATS does not answer.
    Link,
    /// The server does not let this node do what it must.
    Rights,
    /// The API of JetStream does not answer.
    Api,
    /// A stream is missing and cannot be made, or is not ours.
    Streams,
    /// A stream takes no messages.
    Store(Store),
    /// What the history stream has cannot be read.
    Read,
    /// The lease of this node is not renewed.
    Lease,
}

impl Availability {
    /// There is a reason, perhaps another than before.
    pub(super) fn set(&self, cause: UnavailableCause, reason: &str) {
        let mut reasons = self.lock();
        let last = reasons.get_mut(&cause);
        if last.as_ref().is_some_and(|last| *last == reason) {
            return;
        }
        let is_new = last.is_none();
        reasons.insert(cause, reason.to_owned());
        drop(reasons);
        match is_new {
            true => info!(?cause, reason, "NATS: this node is unavailable"),
            false => debug!(?cause, reason, "NATS: still unavailable"),
        }
    }

    /// The cause is gone.
    pub(super) fn clear(&self, cause: UnavailableCause) {
        let was_set = self.lock().remove(&cause).is_some();
        if was_set {
            info!(?cause, "NATS: this cause is gone");
        }
    }

    pub(super) fn has(&self, cause: UnavailableCause) -> bool {
        self.lock().contains_key(&cause)
    }

    pub(super) fn health(&self) -> Health {
        match self.lock().first_key_value() {
            None => Health::Ready,
            Some((cause, reason)) => Health::Unready {
                is_lasting: matches!(cause, UnavailableCause::Rights),
                reason: reason.clone(),
            },
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<UnavailableCause, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
