//! Calls of sessions to backends, and their results.
//!
//! Invariant: every call has one result.

use engine::CallOutcome;
use engine::SessionCall;
use engine::call::CallRefusal;
use engine::time::Now;
use wire::protocol::{DisconnectCode, ErrorCode};

use super::Driver;
use crate::admission::call_place::CallPlace;

impl Driver {
    /// Asks the backend. No rules lead here as long as no proxies can be configured.
    pub(super) fn call_backend(&mut self, place: CallPlace, what: &SessionCall) {
        let refusal = CallRefusal::Error(ErrorCode::NotAvailable.into());
        let result = match what {
            SessionCall::Verify { .. } => return,
            SessionCall::Connect(_) => CallOutcome::Connect(Err(refusal)),
            SessionCall::Refresh(_) => CallOutcome::Refresh(Err(refusal)),
            SessionCall::Subscribe(_) => CallOutcome::Subscribe(Err(refusal)),
            SessionCall::Publish(_) => CallOutcome::Publish(Err(refusal)),
            SessionCall::SubRefresh(_) => CallOutcome::SubRefresh(Err(refusal)),
            SessionCall::Rpc(_) => CallOutcome::Rpc(Err(refusal)),
        };
        self.handle_backend_result(self.parts.clock.now(), place, result);
    }

    /// Handles the answer of a backend. A user who is revoked is refused, whatever it answers.
    pub(super) fn handle_backend_result(
        &mut self,
        now: Now,
        place: CallPlace,
        result: CallOutcome,
    ) {
        let result = match result {
            CallOutcome::Connect(Ok(Some(claims)))
                if self.parts.revoked.refuses_user(&claims.user) =>
            {
                CallOutcome::Close(DisconnectCode::InvalidToken)
            }
            result => result,
        };
        self.handle_call_result(now, place, result);
    }
}
