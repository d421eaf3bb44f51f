//! The rpc command: a method of a backend, or the built-in ping.

use bytes::Bytes;
use wire::protocol::{ErrorCode, ReplyBody};

use super::Session;
use super::waiting::Wait;
use crate::call::{CallRefusal, RpcCall, SessionCall};
use crate::refusal::Refusal;
use crate::turn::Turn;

/// Handles the rpc command.
pub(crate) fn begin(
    session: &mut Session,
    turn: &mut Turn<'_>,
    id: u32,
    (method, data): (String, Bytes),
) -> Result<(), Refusal> {
    let rules = &turn.rules.rpc;
    if rules.ping_method.as_ref() == Some(&method) {
        session.reply(turn, id, ReplyBody::Rpc { data: Bytes::new() });
        return Ok(());
    }
    let proxy = rules.proxy(&method)?.clone();
    let Some(caller) = session.caller() else {
        return Err(ErrorCode::NotAvailable.into());
    };
    let what = SessionCall::Rpc(Box::new(RpcCall { caller, proxy, method, data }));
    session.call(turn, Wait::Rpc { id }, what);
    Ok(())
}

/// Sends what the backend has answered.
pub(crate) fn handle_result(
    session: &mut Session,
    turn: &mut Turn<'_>,
    id: u32,
    result: Result<Bytes, CallRefusal>,
) -> Result<(), Refusal> {
    let data = result?;
    session.reply(turn, id, ReplyBody::Rpc { data });
    Ok(())
}
