//! The result of a token's verification.
//!
//! Invariant: a refusal carries its cause, which is logged and never sent to the client.

use engine::claims::TokenRefusal;
use engine::{CallOutcome, TokenKind};

use crate::token::Cause;

/// A verdict on a token, with the cause of a refusal.
pub struct Judgement {
    /// Result that the engine handles.
    pub result: CallOutcome,
    /// Cause of a refusal, for logs; `None` if the token is valid.
    pub cause: Option<Cause>,
}

impl Judgement {
    pub(super) fn of<T>(
        result: Result<T, Cause>,
        verdict: impl FnOnce(Result<T, TokenRefusal>) -> CallOutcome,
    ) -> Judgement {
        let cause = result.as_ref().err().copied();
        Judgement { result: verdict(result.map_err(Cause::refusal)), cause }
    }

    pub(crate) fn refuse(kind: TokenKind, cause: Cause) -> Judgement {
        match kind {
            TokenKind::Connection => Judgement::of(Err(cause), CallOutcome::Connection),
            TokenKind::Subscription => Judgement::of(Err(cause), CallOutcome::Subscription),
        }
    }
}
