//! The result of a token's verification.
//!
//! Invariant: a refusal carries its cause, which is logged and never sent to the client.

use engine::claims::TokenRefusal;
use engine::{CallOutcome, TokenKind};

use crate::token::Cause;

/// Result of the verification of a token, with the cause of a refusal.
pub struct TokenResult {
    /// Result that the engine handles.
    pub result: CallOutcome,
    /// Cause of a refusal, for logs; `None` if the token is valid.
    pub cause: Option<Cause>,
}

impl TokenResult {
    pub(super) fn of<T>(
        result: Result<T, Cause>,
        outcome: impl FnOnce(Result<T, TokenRefusal>) -> CallOutcome,
    ) -> TokenResult {
        let cause = result.as_ref().err().copied();
        TokenResult { result: outcome(result.map_err(Cause::refusal)), cause }
    }

    pub(crate) fn refuse(kind: TokenKind, cause: Cause) -> TokenResult {
        match kind {
            TokenKind::Connection => TokenResult::of(Err(cause), CallOutcome::Connection),
            TokenKind::Subscription => TokenResult::of(Err(cause), CallOutcome::Subscription),
        }
    }
}
