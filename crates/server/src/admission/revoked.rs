//! Revocations that this node knows. They are checked at each connect, subscribe and refresh.
//!
//! Invariant: a change is applied here before workers close sessions, so that a session whose token
//! is still under verification is refused afterwards.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use engine::revocation::{
    Holder, Revocation, RevocationState, Revocations, Subject, TooManyRevocations,
};
use engine::{CallOutcome, TokenKind};
use tokio::sync::Notify;

use crate::admission::token_result::TokenResult;
use crate::clock::ServerClock;
use crate::token::Cause;

/// Known revocations of this node.
pub struct Revoked {
    known: RwLock<Revocations>,
    clock: ServerClock,
    /// Notified when changes may have been missed.
    pub(crate) is_stale: Notify,
}

impl Revoked {
    /// Starts without revocations.
    #[must_use]
    pub fn new(clock: ServerClock) -> Revoked {
        Revoked { known: RwLock::default(), clock, is_stale: Notify::new() }
    }

    /// Replaces a valid result by a refusal if the token or its user is revoked.
    pub(crate) fn refuse_if_revoked(&self, token_result: TokenResult) -> TokenResult {
        let (kind, user, token_id, issued_at) = match &token_result.result {
            CallOutcome::Connection(Ok(claims)) => {
                (TokenKind::Connection, &claims.user, &claims.token_id, claims.issued_at)
            }
            CallOutcome::Subscription(Ok(claims)) => {
                (TokenKind::Subscription, &claims.user, &claims.token_id, claims.issued_at)
            }
            _ => return token_result,
        };
        // A token without a time of issue counts as issued before all others.
        let issued_at = issued_at.unwrap_or(i64::MIN);
        match self.refuses(Holder { user, token_id, issued_at }) {
            true => TokenResult::refuse(kind, Cause::Revoked),
            false => token_result,
        }
    }

    /// Whether a user that a reverse proxy has authenticated is revoked.
    pub(crate) fn refuses_user(&self, user: &str) -> bool {
        self.refuses(Holder { user, token_id: "", issued_at: i64::MAX })
    }

    fn refuses(&self, holder: Holder<'_>) -> bool {
        self.read().find(self.now_s(), holder).is_some()
    }

    /// Applies a change. Returns whether it revokes anything that was not revoked before.
    pub(crate) fn apply(&self, change: &Arc<Revocation>) -> bool {
        let is_new = self.write().apply(self.now_s(), change);
        is_new && change.state != RevocationState::Lifted
    }

    /// Latest known change of a subject.
    pub(crate) fn get(&self, subject: &Subject) -> Option<Arc<Revocation>> {
        self.read().get(subject).cloned()
    }

    /// Up to `count` revocations in force of the subjects after `after`, in order.
    pub(crate) fn page(&self, after: Option<&Subject>, count: usize) -> Vec<Arc<Revocation>> {
        let now_s = self.now_s();
        let is_in_force = |change: &&Arc<Revocation>| {
            change.state != RevocationState::Lifted && change.ends_at > now_s
        };
        self.read().after(after).filter(is_in_force).take(count).cloned().collect()
    }

    pub(crate) fn check_room(&self, subject: &Subject) -> Result<(), TooManyRevocations> {
        self.read().check_room(subject)
    }

    /// Changes that are known here and missing in `kept`, the changes that a broker stores.
    pub(crate) fn missing(&self, kept: &[Arc<Revocation>]) -> Vec<Arc<Revocation>> {
        let mut of_broker = Revocations::default();
        for change in kept {
            of_broker.apply(self.now_s(), change);
        }
        let is_missing = |change: &&Arc<Revocation>| {
            let kept = of_broker.get(&change.subject);
            kept.is_none_or(|kept| kept.changed_at_ms < change.changed_at_ms)
        };
        self.read().iter().filter(is_missing).cloned().collect()
    }

    /// Removes expired revocations.
    pub(crate) fn expire(&self) {
        self.write().expire(self.now_s());
    }

    fn now_s(&self) -> i64 {
        self.clock.unix_ms() / 1000
    }

    /// Poisoning is ignored: a panic never interrupts a change halfway.
    fn read(&self) -> RwLockReadGuard<'_, Revocations> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Revocations> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }
}
