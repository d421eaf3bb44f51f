//! Methods that revoke users and tokens, and that lift revocations.
//!
//! Invariant: when a call succeeds, the broker has stored the change and this node has applied it.
//! A change that the broker drops because it has stored a later one is retried with a later time.

use std::sync::Arc;

use engine::limits::ID_BYTES_MAX;
use engine::revocation::{self, Revocation, RevocationState, Subject, TooManyRevocations};
use engine::time::Now;
use wire::protocol::ErrorCode;

use super::ApiState;
use super::error::ApiError;
use super::methods::Outcome;
use super::request::{BlockUser, InvalidateUserTokens, Revoke, RevokeToken, read};
use crate::cluster::revocation_sync;
use crate::limits::{REVOCATION_ATTEMPTS_MAX, REVOCATION_TTL_MAX_S, REVOCATION_TTL_S};

impl ApiState {
    pub(super) async fn revoke(&self, params: &[u8]) -> Outcome {
        let request: Revoke = read(params)?;
        let (subject, issued_before) = request.subject()?;
        self.revoke_until(subject, issued_before, request.expire_at).await
    }

    pub(super) async fn unrevoke(&self, params: &[u8]) -> Outcome {
        let request: Revoke = read(params)?;
        self.lift(request.subject()?.0).await
    }

    pub(super) async fn block_user(&self, params: &[u8]) -> Outcome {
        let BlockUser { user, expire_at } = read(params)?;
        self.revoke_until(Subject::User(identifier("user", &user)?), 0, expire_at).await
    }

    pub(super) async fn unblock_user(&self, params: &[u8]) -> Outcome {
        let BlockUser { user, .. } = read(params)?;
        self.lift(Subject::User(identifier("user", &user)?)).await
    }

    pub(super) async fn revoke_token(&self, params: &[u8]) -> Outcome {
        let RevokeToken { uid, expire_at } = read(params)?;
        self.revoke_until(Subject::Token(identifier("uid", &uid)?), 0, expire_at).await
    }

    pub(super) async fn invalidate_user_tokens(&self, params: &[u8]) -> Outcome {
        let InvalidateUserTokens { user, issued_before, expire_at, channel } = read(params)?;
        if !channel.is_empty() {
            return Err(ErrorCode::NotAvailable.into());
        }
        let issued_before = if issued_before == 0 { self.now_s() } else { issued_before };
        let subject = Subject::IssuedTo(identifier("user", &user)?);
        self.revoke_until(subject, issued_before, expire_at).await
    }

    async fn revoke_until(&self, subject: Subject, issued_before: i64, expire_at: i64) -> Outcome {
        let now_s = self.now_s();
        // No token is issued later than now. The bound also limits the damage of a time in
        // milliseconds.
        let issued_before = issued_before.min(now_s);
        let ends_at = if expire_at > 0 { expire_at } else { now_s + REVOCATION_TTL_S };
        if ends_at <= now_s {
            return Err(ErrorCode::Expired.into());
        }
        let ends_at = ends_at.min(now_s + REVOCATION_TTL_MAX_S);
        let asked = (issued_before, ends_at);
        self.change(subject, |known| {
            let (issued_before, ends_at) = known.map_or(asked, |known| extended(known, asked));
            Some((RevocationState::Revoked { issued_before }, ends_at))
        })
        .await
    }

    async fn lift(&self, subject: Subject) -> Outcome {
        // A subject that is not revoked needs no change.
        let is_revoked = |known: &&Revocation| known.state != RevocationState::Lifted;
        self.change(subject, |known| {
            known.filter(is_revoked).map(|known| (RevocationState::Lifted, known.ends_at))
        })
        .await
    }

    /// Stores the change that `next` derives from the current revocation of a subject; `None`
    /// changes nothing.
    async fn change(
        &self,
        subject: Subject,
        next: impl Fn(Option<&Revocation>) -> Option<(RevocationState, i64)>,
    ) -> Outcome {
        // Calls about one subject on this node take effect one after the other.
        let _turn = self.revoking.lock().await;
        let service = &self.members.service;
        // Another node may have changed it without this one having been notified yet.
        let mut known = revocation_sync::find(service, &self.node, &subject).await?;
        for _ in 0..REVOCATION_ATTEMPTS_MAX {
            let Now { unix_ms, .. } = self.clock.now();
            let in_force = known.as_deref().filter(|known| known.ends_at > unix_ms / 1000);
            let Some((state, ends_at)) = next(in_force) else { return Ok("{}".to_owned()) };
            if in_force.is_none() {
                self.node.revoked.check_room(&subject).map_err(full)?;
            }
            // Later than what is known, also when the clock of another node is ahead.
            let known_ms = known.as_ref().map_or(i64::MIN, |known| known.changed_at_ms);
            let changed_at_ms = unix_ms.max(known_ms.saturating_add(1));
            let change =
                Arc::new(Revocation { subject: subject.clone(), state, ends_at, changed_at_ms });
            match revocation_sync::store(service, change.clone()).await? {
                revocation::RevokeOutcome::Stored => {
                    self.node.revoke(&change);
                    return Ok("{}".to_owned());
                }
                revocation::RevokeOutcome::Superseded(later) => known = Some(later),
                revocation::RevokeOutcome::Expired => return Err(ErrorCode::Expired.into()),
            }
        }
        Err(contended().into())
    }

    fn now_s(&self) -> i64 {
        self.clock.unix_ms() / 1000
    }
}

fn full(error: TooManyRevocations) -> ApiError {
    let code = ErrorCode::LimitExceeded.number();
    ApiError { code, message: error.to_string().into() }
}

fn contended() -> ApiError {
    let code = ErrorCode::Internal.number();
    let message = format!(
        "nothing is changed: other nodes have changed the same revocation {REVOCATION_ATTEMPTS_MAX} \
         times meanwhile; try again"
    );
    ApiError { code, message: message.into() }
}

/// Merges a call with an existing revocation. A call never shortens an earlier revocation by time
/// of issue, neither its `issued_before` nor its end; only `unrevoke` does.
fn extended(known: &Revocation, (issued_before, ends_at): (i64, i64)) -> (i64, i64) {
    let RevocationState::Revoked { issued_before: reached } = known.state else {
        return (issued_before, ends_at);
    };
    let ends_at = match &known.subject {
        Subject::IssuedTo(_) | Subject::IssuedToAll => ends_at.max(known.ends_at),
        Subject::User(_) | Subject::Token(_) => ends_at,
    };
    (issued_before.max(reached), ends_at)
}

impl Revoke {
    /// The subject, and the time before which its revoked tokens were issued.
    fn subject(&self) -> Result<(Subject, i64), ApiError> {
        let Revoke { user, token_id, issued_before, all_users, .. } = self;
        match (user, token_id, issued_before, all_users) {
            (None, Some(id), None, false) => Ok((Subject::Token(identifier("token_id", id)?), 0)),
            (Some(user), None, None, false) => Ok((Subject::User(identifier("user", user)?), 0)),
            (Some(user), None, Some(before), false) => {
                Ok((Subject::IssuedTo(identifier("user", user)?), *before))
            }
            (None, None, Some(before), true) => Ok((Subject::IssuedToAll, *before)),
            _ => Err(ApiError::bad(
                "name one of these: user; token_id; user and issued_before; all_users and issued_before",
            )),
        }
    }
}

/// The id of a user or of a token.
fn identifier(name: &str, id: &str) -> Result<Arc<str>, ApiError> {
    match id.len() {
        0 => Err(ApiError::bad(format!("{name} is empty"))),
        length if length > ID_BYTES_MAX => {
            Err(ApiError::bad(format!("{name} has more than {ID_BYTES_MAX} bytes")))
        }
        _ => Ok(id.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_call_does_not_shorten_a_revocation_by_time_of_issue() {
        let known = |subject, state| Revocation { subject, state, ends_at: 900, changed_at_ms: 1 };
        let revoked = RevocationState::Revoked { issued_before: 50 };
        for (known, expected) in [
            (known(Subject::IssuedTo("ann".into()), revoked), (50, 900)),
            (known(Subject::IssuedToAll, revoked), (50, 900)),
            (known(Subject::IssuedTo("ann".into()), RevocationState::Lifted), (40, 100)),
            (
                known(Subject::User("ann".into()), RevocationState::Revoked { issued_before: 0 }),
                (40, 100),
            ),
        ] {
            assert_eq!(extended(&known, (40, 100)), expected, "{known:?}");
        }
    }
}
