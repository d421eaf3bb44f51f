//! Reasons why this node is unavailable on NATS: at most one for each cause.
//!
//! Invariant: the node is ready exactly while there is no reason, and causes are logged when they
//! are set and cleared.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing::{debug, info};

use super::subject::Store;
use crate::Health;

/// See the module.
#[derive(Default)]
pub(super) struct Availability(Mutex<BTreeMap<UnavailableCause, String>>);

/// Causes in order of precedence: the reason of the first one is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum UnavailableCause {
    /// A task of the broker has failed.
    Task,
    /// NATS does not answer.
    Link,
    /// The server refuses a right that this node needs.
    Rights,
    /// The API of JetStream does not answer, or reports that it is unavailable.
    Api,
    /// A stream is missing and cannot be created, or belongs to another application.
    Streams,
    /// A stream stores no messages.
    Store(Store),
    /// Messages of the history stream cannot be read.
    Read,
    /// The lease of this node cannot be renewed.
    Lease,
}

impl Availability {
    /// Sets or replaces the reason of a cause.
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

    /// Removes a cause.
    pub(super) fn clear(&self, cause: UnavailableCause) {
        let was_set = self.lock().remove(&cause).is_some();
        if was_set {
            info!(?cause, "NATS: the cause of unavailability is cleared");
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
