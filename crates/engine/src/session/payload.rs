//! What holds for every payload that a client sends, whatever it is for.
//!
//! Invariant: no JSON that is nested too deeply reaches a backend or another client.

use wire::protocol::{DisconnectCode, ErrorCode, Request, is_nested_too_deep};

use super::Refusal;

/// Whether the payloads of a command may go on.
pub(super) fn check(request: &Request) -> Result<(), Refusal> {
    if !request.payloads().any(|data| is_nested_too_deep(data)) {
        return Ok(());
    }
    match request {
        // It has no reply that could say so.
        Request::Send { .. } => Err(DisconnectCode::BadRequest.into()),
        _ => Err(ErrorCode::BadRequest.into()),
    }
}
