//! Results of calls, and how a session that waits for one continues.

use super::Worker;
use crate::call::{CallOutcome, SessionCallId};
use crate::refusal::Refusal;
use crate::session::waiting::Wait;
use crate::session::{Session, connect, queries, refresh, renewal, rpc, subscribe};
use crate::session_key::SessionKey;
use crate::time::Now;
use crate::turn::Turn;

impl Worker {
    /// Applies the result of a call, requested by [`crate::Effect::Call`].
    pub fn handle_call_result(
        &mut self,
        now: Now,
        key: SessionKey,
        call: SessionCallId,
        result: CallOutcome,
    ) {
        self.with_session(now, key, |session, turn| {
            let Some(wait) = session.waiting_mut().and_then(|waiting| waiting.end_call(call))
            else {
                return;
            };
            let (is_connect, id) = match &wait {
                Wait::Connect(connecting) => (true, connecting.id),
                Wait::ConnectJoins(joins) => (true, joins.id),
                Wait::Subscribe { id, .. }
                | Wait::Publish { id, .. }
                | Wait::Rpc { id }
                | Wait::Refresh { id }
                | Wait::SubRefresh { id, .. }
                | Wait::Leave { id, .. } => (false, *id),
                Wait::OwnRefresh | Wait::OwnSubRefresh { .. } => (false, 0),
            };
            let applied = apply(session, turn, wait, result);
            match applied {
                Ok(()) => {}
                Err(refusal) if is_connect => connect::refuse(session, turn, id, refusal),
                Err(refusal) => session.refuse(turn, id, refusal),
            }
        });
        self.settle(now, key);
    }
}

/// Continues the command that waits for the result.
fn apply(
    session: &mut Session,
    turn: &mut Turn<'_>,
    wait: Wait,
    result: CallOutcome,
) -> Result<(), Refusal> {
    match (wait, result) {
        (_, CallOutcome::Close(code)) => Err(code.into()),
        (Wait::Connect(connecting), CallOutcome::Connection(verdict)) => {
            connect::handle_verdict(session, turn, *connecting, verdict)
        }
        (Wait::Connect(connecting), CallOutcome::Connect(result)) => {
            connect::handle_result(session, turn, *connecting, result)
        }
        (Wait::Subscribe { id, request }, CallOutcome::Subscription(verdict)) => {
            subscribe::handle_verdict(session, turn, id, &request, verdict)
        }
        (Wait::Subscribe { id, request }, CallOutcome::Subscribe(result)) => {
            subscribe::start(session, turn, id, &request, result?)
        }
        (Wait::Publish { id, request }, CallOutcome::Publish(result)) => {
            queries::publish_as(session, turn, id, *request, *result?)
        }
        (Wait::Rpc { id }, CallOutcome::Rpc(result)) => {
            rpc::handle_result(session, turn, id, result)
        }
        (Wait::Refresh { id }, CallOutcome::Connection(verdict)) => {
            refresh::handle_verdict(session, turn, id, verdict)
        }
        (Wait::OwnRefresh, CallOutcome::Refresh(result)) => {
            renewal::handle_result(session, turn, result)
        }
        (Wait::SubRefresh { id, channel }, CallOutcome::Subscription(verdict)) => {
            refresh::handle_sub_verdict(session, turn, id, &channel, verdict)
        }
        (Wait::OwnSubRefresh { channel }, CallOutcome::SubRefresh(result)) => {
            renewal::handle_sub_result(session, turn, &channel, result)
        }
        _ => unreachable!("a driver answers with the kind of result that was asked for"),
    }
}
