//! Revoking users and tokens, and lifting that again.
//!
//! Invariant: when the caller is answered, the broker keeps the change and this node refuses whom it names.

use std::sync::Arc;

use engine::limits::REVOKED_ID_BYTES_MAX;
use engine::revocation::{Revocation, State, Subject};
use wire::protocol::ErrorCode;

use super::Api;
use super::error::ApiError;
use super::methods::Outcome;
use super::request::{BlockUser, InvalidateUserTokens, Revoke, RevokeToken, read};
use crate::limits::{REVOCATION_TTL_MAX_S, REVOCATION_TTL_S};
use crate::revocation_sync;

impl Api {
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
        // No token is issued later than now; whoever writes milliseconds locks nobody out for ever.
        let issued_before = issued_before.min(now_s);
        let ends_at = if expire_at > 0 { expire_at } else { now_s + REVOCATION_TTL_S };
        if ends_at <= now_s {
            return Err(ErrorCode::Expired.into());
        }
        let ends_at = ends_at.min(now_s + REVOCATION_TTL_MAX_S);
        if let Err(error) = self.node.revoked.check_room(&subject) {
            let code = ErrorCode::LimitExceeded.number();
            return Err(ApiError { code, message: error.to_string().into() }.into());
        }
        // Two calls about one subject on this node take effect one after the other.
        let _turn = self.revoking.lock().await;
        let (issued_before, ends_at) = match self.node.revoked.get(&subject) {
            Some(known) => extended(&known, (issued_before, ends_at)),
            None => (issued_before, ends_at),
        };
        self.change(subject, State::Revoked { issued_before }, ends_at).await
    }

    async fn lift(&self, subject: Subject) -> Outcome {
        let _turn = self.revoking.lock().await;
        match self.node.revoked.get(&subject) {
            Some(known) => self.change(subject, State::Lifted, known.ends_at).await,
            // Of what nobody has revoked there is nothing to keep.
            None => Ok("{}".to_owned()),
        }
    }

    async fn change(&self, subject: Subject, state: State, ends_at: i64) -> Outcome {
        // Behind whatever is known, also when another node's clock is ahead.
        let known_ms = self.node.revoked.get(&subject).map_or(0, |known| known.changed_at_ms);
        let changed_at_ms = self.clock.now().unix_ms.max(known_ms + 1);
        let change = Arc::new(Revocation { subject, state, ends_at, changed_at_ms });
        revocation_sync::keep(&self.members.asker, change.clone()).await?;
        self.node.revoke(&change);
        Ok("{}".to_owned())
    }

    fn now_s(&self) -> i64 {
        self.clock.now().unix_ms / 1000
    }
}

/// What holds after a call about a subject that is revoked already: how far an earlier call reached by time of issue, and
/// until when, holds on. To shorten it is for `unrevoke`.
fn extended(known: &Revocation, (issued_before, ends_at): (i64, i64)) -> (i64, i64) {
    let State::Revoked { issued_before: reached } = known.state else {
        return (issued_before, ends_at);
    };
    let ends_at = match &known.subject {
        Subject::IssuedTo(_) | Subject::IssuedToAll => ends_at.max(known.ends_at),
        Subject::User(_) | Subject::Token(_) => ends_at,
    };
    (issued_before.max(reached), ends_at)
}

impl Revoke {
    /// What is named, and the time before which tokens were issued.
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
        length if length > REVOKED_ID_BYTES_MAX => {
            Err(ApiError::bad(format!("{name} has more than {REVOKED_ID_BYTES_MAX} bytes")))
        }
        _ => Ok(id.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_call_shortens_nothing_that_was_revoked_by_time_of_issue() {
        let known = |subject, state| Revocation { subject, state, ends_at: 900, changed_at_ms: 1 };
        let revoked = State::Revoked { issued_before: 50 };
        for (known, expected) in [
            (known(Subject::IssuedTo("ann".into()), revoked), (50, 900)),
            (known(Subject::IssuedToAll, revoked), (50, 900)),
            (known(Subject::IssuedTo("ann".into()), State::Lifted), (40, 100)),
            (known(Subject::User("ann".into()), State::Revoked { issued_before: 0 }), (40, 100)),
        ] {
            assert_eq!(extended(&known, (40, 100)), expected, "{known:?}");
        }
    }
}
