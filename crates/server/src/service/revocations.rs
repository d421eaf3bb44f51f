//! Revocations of users and tokens.
//!
//! Invariant: when a call succeeds, the broker has stored the change and this node has applied it.
//! A change that the broker drops because it has stored a later one is retried with a later time.
//! Pages read with the cursors of their predecessors contain each revocation once that was in force
//! from the first page to the last.

use std::sync::Arc;

use engine::limits::ID_BYTES_MAX;
use engine::revocation::{self, Revocation, RevocationState, Subject, TooManyRevocations};
use tokio::sync::Mutex;
use wire::protocol::ErrorCode;

use super::ServiceContext;
use super::error::ApiError;
use crate::cluster::revocation_sync;
use crate::limits::{
    REVOCATION_ATTEMPTS_MAX, REVOCATION_TTL_MAX_S, REVOCATION_TTL_S, REVOCATIONS_PER_PAGE,
    REVOCATIONS_PER_PAGE_MAX,
};

/// Methods that revoke users and tokens.
pub(crate) struct RevocationService {
    context: ServiceContext,
    /// Serializes changes.
    changing: Mutex<()>,
}

/// Some revocations.
pub(crate) struct RevocationPage {
    pub(crate) revocations: Vec<Arc<Revocation>>,
    /// Start of the next page; `None` on the last page.
    pub(crate) cursor: Option<String>,
}

/// What a request to revoke names.
pub(crate) struct SubjectQuery {
    pub(crate) user: Option<String>,
    pub(crate) token_id: Option<String>,
    /// Unix time in seconds.
    pub(crate) issued_before: Option<i64>,
    pub(crate) all_users: bool,
}

impl SubjectQuery {
    /// The subject, and the time before which its revoked tokens were issued.
    pub(crate) fn subject(&self) -> Result<(Subject, i64), ApiError> {
        let SubjectQuery { user, token_id, issued_before, all_users } = self;
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

impl RevocationService {
    pub(super) fn new(context: ServiceContext) -> RevocationService {
        RevocationService { context, changing: Mutex::default() }
    }

    /// Revokes a subject.
    ///
    /// `issued_before` (Unix time in seconds) selects tokens; 0 stands for all. `expire_at` is the
    /// Unix time in seconds at which the revocation ends; 0 stands for the default.
    pub(crate) async fn revoke(
        &self,
        subject: Subject,
        issued_before: i64,
        expire_at: i64,
    ) -> Result<(), ApiError> {
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

    /// Lifts the revocation of a subject.
    pub(crate) async fn lift(&self, subject: Subject) -> Result<(), ApiError> {
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
    ) -> Result<(), ApiError> {
        // Calls about one subject on this node take effect one after the other.
        let _turn = self.changing.lock().await;
        let (service, node) = (&self.context.members.service, &self.context.node);
        // Another node may have changed it without this one having been notified yet.
        let mut known = revocation_sync::find(service, node, &subject).await?;
        for _ in 0..REVOCATION_ATTEMPTS_MAX {
            let unix_ms = self.context.clock.unix_ms();
            let in_force = known.as_deref().filter(|known| known.ends_at > unix_ms / 1000);
            let Some((state, ends_at)) = next(in_force) else { return Ok(()) };
            if in_force.is_none() {
                node.revoked.check_room(&subject).map_err(full)?;
            }
            // Later than what is known, also when the clock of another node is ahead.
            let known_ms = known.as_ref().map_or(i64::MIN, |known| known.changed_at_ms);
            let changed_at_ms = unix_ms.max(known_ms.saturating_add(1));
            let change =
                Arc::new(Revocation { subject: subject.clone(), state, ends_at, changed_at_ms });
            match revocation_sync::store(service, change.clone()).await? {
                revocation::RevokeOutcome::Stored => {
                    node.revoke(&change);
                    return Ok(());
                }
                revocation::RevokeOutcome::Superseded(later) => known = Some(later),
                revocation::RevokeOutcome::Expired => return Err(ErrorCode::Expired.into()),
            }
        }
        Err(contended())
    }

    /// Revokes the tokens of a user that were issued before a time; 0 means now. Tokens of one
    /// channel cannot be told from others.
    pub(crate) async fn invalidate(
        &self,
        user: Arc<str>,
        issued_before: i64,
        expire_at: i64,
        channel: &str,
    ) -> Result<(), ApiError> {
        if !channel.is_empty() {
            return Err(ErrorCode::NotAvailable.into());
        }
        let issued_before = if issued_before == 0 { self.now_s() } else { issued_before };
        self.revoke(Subject::IssuedTo(user), issued_before, expire_at).await
    }

    /// Returns a page of revocations in a fixed order. A limit of 0 stands for the default, an
    /// empty cursor for the beginning.
    pub(crate) fn page(&self, limit: i64, cursor: &str) -> Result<RevocationPage, ApiError> {
        let limit = match usize::try_from(limit) {
            Ok(0) => REVOCATIONS_PER_PAGE,
            Ok(limit) => limit.min(REVOCATIONS_PER_PAGE_MAX),
            Err(_) => return Err(ApiError::bad("limit is negative")),
        };
        let after = match cursor {
            "" => None,
            text => Some(subject(text).ok_or_else(|| {
                ApiError::bad(
                    "cursor is none that this method has answered with: leave it out to begin",
                )
            })?),
        };
        let mut revocations = self.context.node.revoked.page(after.as_ref(), limit + 1);
        let has_more = revocations.len() > limit;
        revocations.truncate(limit);
        let cursor = revocations.last().filter(|_| has_more).map(|last| text(&last.subject));
        Ok(RevocationPage { revocations, cursor })
    }

    /// Unix time in seconds.
    fn now_s(&self) -> i64 {
        self.context.clock.unix_ms() / 1000
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

/// A subject as a cursor.
fn text(subject: &Subject) -> String {
    match subject {
        Subject::User(user) => format!("user:{user}"),
        Subject::Token(id) => format!("token:{id}"),
        Subject::IssuedTo(user) => format!("issued:{user}"),
        Subject::IssuedToAll => "all:".to_owned(),
    }
}

fn subject(cursor: &str) -> Option<Subject> {
    match cursor.split_once(':')? {
        ("user", user) => Some(Subject::User(user.into())),
        ("token", id) => Some(Subject::Token(id.into())),
        ("issued", user) => Some(Subject::IssuedTo(user.into())),
        ("all", "") => Some(Subject::IssuedToAll),
        _ => None,
    }
}

/// The id of a user or of a token.
pub(crate) fn identifier(name: &str, id: &str) -> Result<Arc<str>, ApiError> {
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
