//! The methods that revoke users and tokens, and that lift revocations.

use engine::revocation::Subject;

use super::ApiState;
use super::methods::{Outcome, done};
use super::request::{BlockUser, InvalidateUserTokens, Revoke, RevokeToken, read};
use crate::service::error::ApiError;
use crate::service::revocations::{SubjectQuery, identifier};

impl ApiState {
    pub(super) async fn revoke(&self, params: &[u8]) -> Outcome {
        let request: Revoke = read(params)?;
        let expire_at = request.expire_at;
        let (subject, issued_before) = request.subject()?;
        self.revoke_until(subject, issued_before, expire_at).await
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
        let user = identifier("user", &user)?;
        self.service.revocations.invalidate(user, issued_before, expire_at, &channel).await?;
        Ok(done())
    }

    async fn revoke_until(&self, subject: Subject, issued_before: i64, expire_at: i64) -> Outcome {
        self.service.revocations.revoke(subject, issued_before, expire_at).await?;
        Ok(done())
    }

    async fn lift(&self, subject: Subject) -> Outcome {
        self.service.revocations.lift(subject).await?;
        Ok(done())
    }
}

impl Revoke {
    fn subject(self) -> Result<(Subject, i64), ApiError> {
        let Revoke { user, token_id, issued_before, all_users, .. } = self;
        SubjectQuery { user, token_id, issued_before, all_users }.subject()
    }
}
