//! Checks that apply to every payload of a client.
//!
//! Invariant: JSON that is nested too deeply reaches neither a backend nor another client.

use wire::protocol::{DisconnectCode, ErrorCode, Request, is_nested_too_deep};

use super::Refusal;

/// Checks the payloads of a command.
pub(super) fn check(request: &Request) -> Result<(), Refusal> {
    if !request.payloads().any(|data| is_nested_too_deep(data)) {
        return Ok(());
    }
    match request {
        // `send` has no reply that could carry an error.
        Request::Send { .. } => Err(DisconnectCode::BadRequest.into()),
        _ => Err(ErrorCode::BadRequest.into()),
    }
}
