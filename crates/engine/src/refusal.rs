//! Why a command is not executed.
//!
//! Invariant: each reason is one error reply or one disconnect code.

use wire::protocol::{DisconnectCode, ErrorCode};

use crate::call::CallRefusal;
use crate::rates::Limited;

/// Why a command is not executed: an error reply, or the end of the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Error(ErrorCode),
    /// A rate limit was exceeded; the command may be retried later.
    Limited(Limited),
    Close(DisconnectCode),
    /// A backend has refused.
    Backend(Box<CallRefusal>),
}

impl Refusal {
    /// Returns whether the connection closes.
    pub(crate) fn closes(&self) -> bool {
        match self {
            Refusal::Close(_) => true,
            Refusal::Backend(refusal) => matches!(**refusal, CallRefusal::Disconnect(_)),
            Refusal::Error(_) | Refusal::Limited(_) => false,
        }
    }
}

impl From<CallRefusal> for Refusal {
    fn from(refusal: CallRefusal) -> Refusal {
        Refusal::Backend(Box::new(refusal))
    }
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
