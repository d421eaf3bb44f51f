//! Revoked tokens and users, with their expiry.
//!
//! The broker stores a change under its subject and sends it to all nodes; each node stores all of
//! them. Of two changes of one subject the later one applies, whatever order they arrive in, so
//! that nodes converge. Invariant: stored revocations are bounded in bytes, and the bound never
//! drops one that is in force.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::limits::{REVOCATION_COST, REVOCATIONS_BYTES_MAX};

/// A change: a subject is revoked, or its revocation is lifted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revocation {
    /// What is revoked.
    pub subject: Subject,
    /// Whether the subject is revoked. A change that lifts a revocation is stored as long as the
    /// revocation would be.
    pub state: RevocationState,
    /// Unix time in seconds at which the change is deleted.
    pub ends_at: i64,
    /// Unix time in milliseconds at which the change was made.
    pub changed_at_ms: i64,
}

/// What can be revoked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// A user, with all tokens and connections.
    User(Arc<str>),
    /// The token with this id (`jti`).
    Token(Arc<str>),
    /// Tokens of a user issued before a given time.
    IssuedTo(Arc<str>),
    /// Tokens of all users issued before a given time.
    IssuedToAll,
}

/// Whether a subject is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevocationState {
    /// The subject is revoked.
    Revoked {
        /// Unix time in seconds; tokens issued before it are revoked. 0 for other subjects.
        issued_before: i64,
    },
    /// The revocation is lifted.
    Lifted,
}

/// What a broker did with a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RevokeOutcome {
    /// The change is stored, and every node is notified.
    Stored,
    /// The change is not later than this stored change of its subject, and is dropped.
    Superseded(Arc<Revocation>),
    /// The change has expired by the broker's clock, and is dropped.
    Expired,
}

/// The holder of a token, as revocations see it.
#[derive(Clone, Copy, Debug)]
pub struct Holder<'a> {
    /// User id; empty for anonymous.
    pub user: &'a str,
    /// Claim `jti`; empty when absent.
    pub token_id: &'a str,
    /// Unix time in seconds of claim `iat`; 0 for a token without it.
    pub issued_at: i64,
}

/// The limit of stored revocations is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the limit of stored revocations is reached ({REVOCATIONS_BYTES_MAX} bytes)")]
pub struct TooManyRevocations;

impl Subject {
    /// Bytes of a stored revocation of this subject.
    fn cost(&self) -> usize {
        let id = match self {
            Subject::User(id) | Subject::Token(id) | Subject::IssuedTo(id) => id.len(),
            Subject::IssuedToAll => 0,
        };
        id + REVOCATION_COST
    }
}

impl Revocation {
    /// Returns whether the subject includes this holder.
    #[must_use]
    pub fn is_about(&self, holder: Holder<'_>) -> bool {
        let RevocationState::Revoked { issued_before } = self.state else { return false };
        match &self.subject {
            Subject::User(user) => **user == *holder.user,
            Subject::Token(id) => **id == *holder.token_id,
            Subject::IssuedTo(user) => **user == *holder.user && holder.issued_at < issued_before,
            Subject::IssuedToAll => holder.issued_at < issued_before,
        }
    }
}

/// The stored revocations of a node or a broker.
#[derive(Debug, Default)]
pub struct Revocations {
    by_subject: BTreeMap<Subject, Arc<Revocation>>,
    bytes: usize,
}

impl Revocations {
    /// Stores a change, unless it has expired or a later one of its subject is stored. Returns
    /// whether it was stored.
    pub fn apply(&mut self, now_s: i64, change: &Arc<Revocation>) -> bool {
        let known = self.by_subject.get(&change.subject);
        let is_later = known.is_none_or(|known| known.changed_at_ms < change.changed_at_ms);
        if !is_later || change.ends_at <= now_s {
            return false;
        }
        if known.is_none() {
            self.bytes += change.subject.cost();
        }
        self.by_subject.insert(change.subject.clone(), change.clone());
        true
    }

    /// Checks whether a change of this subject fits into the limit.
    ///
    /// # Errors
    /// If it does not.
    pub fn check_room(&self, subject: &Subject) -> Result<(), TooManyRevocations> {
        let is_known = self.by_subject.contains_key(subject);
        match is_known || self.bytes + subject.cost() <= REVOCATIONS_BYTES_MAX {
            true => Ok(()),
            false => Err(TooManyRevocations),
        }
    }

    /// Returns the revocation that denies access to this holder; `None` if access is granted.
    #[must_use]
    pub fn find(&self, now_s: i64, holder: Holder<'_>) -> Option<&Arc<Revocation>> {
        if self.by_subject.is_empty() {
            return None;
        }
        let of = |subject: Subject| {
            let revocation = self.by_subject.get(&subject)?;
            (revocation.ends_at > now_s && revocation.is_about(holder)).then_some(revocation)
        };
        of(Subject::User(holder.user.into()))
            .or_else(|| of(Subject::IssuedTo(holder.user.into())))
            .or_else(|| of(Subject::IssuedToAll))
            .or_else(|| {
                let has_id = !holder.token_id.is_empty();
                has_id.then(|| of(Subject::Token(holder.token_id.into()))).flatten()
            })
    }

    /// Returns the stored change of a subject.
    #[must_use]
    pub fn get(&self, subject: &Subject) -> Option<&Arc<Revocation>> {
        self.by_subject.get(subject)
    }

    /// Returns the stored changes of all subjects after this one, in order.
    pub fn after<'a>(
        &'a self,
        subject: Option<&'a Subject>,
    ) -> impl Iterator<Item = &'a Arc<Revocation>> {
        let start = subject.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_subject.range::<Subject, _>((start, Bound::Unbounded)).map(|(_, change)| change)
    }

    /// Returns every stored change.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Revocation>> {
        self.by_subject.values()
    }

    /// Deletes expired changes.
    pub fn expire(&mut self, now_s: i64) {
        let bytes = &mut self.bytes;
        self.by_subject.retain(|subject, revocation| {
            let stays = revocation.ends_at > now_s;
            if !stays {
                *bytes -= subject.cost();
            }
            stays
        });
    }

    /// Bytes of the stored changes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revocation(subject: Subject, changed_at_ms: i64) -> Arc<Revocation> {
        let state = RevocationState::Revoked { issued_before: 500 };
        Arc::new(Revocation { subject, state, ends_at: 2_000, changed_at_ms })
    }

    fn holder<'a>(user: &'a str, token_id: &'a str, issued_at: i64) -> Holder<'a> {
        Holder { user, token_id, issued_at }
    }

    #[test]
    fn each_subject_includes_the_holders_it_names() {
        for (subject, refused, admitted) in [
            (Subject::User("ann".into()), holder("ann", "", 900), holder("bob", "ann", 0)),
            (Subject::Token("t1".into()), holder("ann", "t1", 900), holder("t1", "t2", 0)),
            (Subject::IssuedTo("ann".into()), holder("ann", "", 499), holder("ann", "", 500)),
            (Subject::IssuedToAll, holder("bob", "t", 0), holder("bob", "t", 500)),
        ] {
            let mut revocations = Revocations::default();
            assert!(revocations.find(1_000, refused).is_none());
            assert!(revocations.apply(1_000, &revocation(subject.clone(), 1)));
            assert!(revocations.find(1_000, refused).is_some(), "{subject:?}");
            assert!(revocations.find(1_000, admitted).is_none(), "{subject:?}");
            assert!(revocations.find(2_000, refused).is_none(), "it is over");
            revocations.expire(2_000);
            assert_eq!((revocations.iter().count(), revocations.bytes()), (0, 0));
        }
    }

    #[test]
    fn the_later_change_applies_whatever_the_order_of_arrival() {
        let subject = Subject::User("ann".into());
        let first = revocation(subject.clone(), 1);
        let lifted = Arc::new(Revocation {
            state: RevocationState::Lifted,
            changed_at_ms: 2,
            ..(*first).clone()
        });
        for changes in [[&first, &lifted], [&lifted, &first]] {
            let mut revocations = Revocations::default();
            for change in changes {
                revocations.apply(1_000, change);
            }
            assert!(revocations.find(1_000, holder("ann", "", 0)).is_none());
            assert_eq!(revocations.get(&subject), Some(&lifted));
        }
    }

    #[test]
    fn stored_revocations_are_bounded_and_none_in_force_is_dropped() {
        let mut revocations = Revocations::default();
        let mut count = 0;
        loop {
            let subject = Subject::Token(format!("{count:0200}").into());
            if revocations.check_room(&subject).is_err() {
                break;
            }
            revocations.apply(1_000, &revocation(subject, 1));
            count += 1;
        }
        assert!(revocations.bytes() <= REVOCATIONS_BYTES_MAX);
        assert_eq!(revocations.iter().count(), count);
        let known = Subject::Token(format!("{:0200}", 0).into());
        assert_eq!(revocations.check_room(&known), Ok(()), "it can still be lifted");
    }
}
