//! Calls of sessions to backends, and their results.
//!
//! Invariant: every call has one result.

use engine::CallOutcome;
use engine::SessionCall;
use engine::time::Now;
use wire::protocol::DisconnectCode;

use super::Driver;
use crate::admission::call_place::CallPlace;

impl Driver {
    /// Asks the backend. The answer arrives as an input.
    pub(super) fn call_backend(&mut self, place: CallPlace, call: SessionCall) {
        let headers = self.connection(place.key).and_then(|connection| connection.headers.clone());
        self.parts.backends.ask(place, call, headers, &self.inbox);
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
