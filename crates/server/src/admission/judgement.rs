//! The result of a token's verification.
//!
//! Invariant: a refusal carries its cause, which is logged and never sent to the client.

use engine::TokenKind;
use engine::claims::TokenRefusal;
use engine::worker::Verdict;

use crate::token::Cause;

/// A verdict on a token, with the cause of a refusal.
pub struct Judgement {
    /// Verdict that the engine handles.
    pub verdict: Verdict,
    /// Cause of a refusal, for logs; `None` if the token is valid.
    pub cause: Option<Cause>,
}

impl Judgement {
    pub(super) fn of<T>(
        result: Result<T, Cause>,
        verdict: impl FnOnce(Result<T, TokenRefusal>) -> Verdict,
    ) -> Judgement {
        let cause = result.as_ref().err().copied();
        Judgement { verdict: verdict(result.map_err(Cause::refusal)), cause }
    }

    pub(crate) fn refuse(kind: TokenKind, cause: Cause) -> Judgement {
        match kind {
            TokenKind::Connection => Judgement::of(Err(cause), Verdict::Connection),
            TokenKind::Subscription => Judgement::of(Err(cause), Verdict::Subscription),
        }
    }
}
