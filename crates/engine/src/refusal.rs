//! Why a command is not executed. Invariant: each reason is one error reply or one disconnect code.

use wire::protocol::{DisconnectCode, ErrorCode};

use crate::rates::Limited;

/// Why a command is not executed: an error reply, or the end of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Error(ErrorCode),
    /// A rate limit was exceeded; the command may be retried later.
    Limited(Limited),
    Close(DisconnectCode),
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Refusal {
        Refusal::Error(code)
    }
}

impl From<DisconnectCode> for Refusal {
    fn from(code: DisconnectCode) -> Refusal {
        Refusal::Close(code)
    }
}
