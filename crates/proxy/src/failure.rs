//! Why a call gave no usable answer.
//!
//! Invariant: the kinds are one closed set for log, metric and breaker.

use std::time::Duration;

use crate::limits::DETAIL_LENGTH_MAX;

/// A call without a usable answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", kind.name())]
pub struct BackendError {
    /// What failed.
    pub kind: FailureKind,
    /// What the system, library or backend said. Contains no secret and no answer.
    pub detail: String,
    /// Status of the HTTP answer, for configured transforms.
    pub(crate) status: Option<u16>,
    /// Time for which the backend wants no further calls.
    pub(crate) retry_after: Option<Duration>,
}

/// What failed in a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// No connection: refused, unreachable, or the name is unknown.
    Connect,
    /// No TLS: the certificate is invalid or expired, or the peer speaks another protocol.
    Tls,
    /// The connection ended before the answer.
    Reset,
    /// The deadline passed.
    Timeout,
    /// The answer has another status than success.
    Status,
    /// The backend asked for fewer calls.
    Throttled,
    /// The content type of the answer is not that of JSON or text.
    ContentType,
    /// The answer cannot be understood.
    Malformed,
    /// The answer is too large.
    TooLarge,
    /// The circuit breaker is open; the backend was not called.
    BreakerOpen,
    /// Too many calls are in flight or waiting; the backend was not called.
    Overloaded,
    /// The client's data is not JSON and `binary_encoding` is off; the backend was not called.
    NotJson,
}

/// Number of [`FailureKind`]s.
pub const FAILURE_KINDS: usize = FailureKind::ALL.len();

impl FailureKind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [FailureKind; 12] = [
        FailureKind::Connect,
        FailureKind::Tls,
        FailureKind::Reset,
        FailureKind::Timeout,
        FailureKind::Status,
        FailureKind::Throttled,
        FailureKind::ContentType,
        FailureKind::Malformed,
        FailureKind::TooLarge,
        FailureKind::BreakerOpen,
        FailureKind::Overloaded,
        FailureKind::NotJson,
    ];

    /// Its name in log and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            FailureKind::Connect => "connect",
            FailureKind::Tls => "tls",
            FailureKind::Reset => "reset",
            FailureKind::Timeout => "timeout",
            FailureKind::Status => "status",
            FailureKind::Throttled => "throttled",
            FailureKind::ContentType => "content_type",
            FailureKind::Malformed => "malformed",
            FailureKind::TooLarge => "too_large",
            FailureKind::BreakerOpen => "breaker_open",
            FailureKind::Overloaded => "overloaded",
            FailureKind::NotJson => "not_json",
        }
    }

    /// Whether the backend was not reached or gave no answer, so that the same question may be
    /// asked again.
    pub(crate) const fn is_before_answer(self) -> bool {
        matches!(self, FailureKind::Connect | FailureKind::Reset)
    }

    /// Whether it says that the backend does not work. The others are of this node, or the backend
    /// works and asks for fewer calls.
    pub(crate) const fn is_of_backend(self) -> bool {
        !matches!(
            self,
            FailureKind::Throttled
                | FailureKind::BreakerOpen
                | FailureKind::Overloaded
                | FailureKind::NotJson
        )
    }
}

impl BackendError {
    pub(crate) fn new(kind: FailureKind, detail: impl std::fmt::Display) -> BackendError {
        let mut detail = detail.to_string();
        if detail.len() > DETAIL_LENGTH_MAX {
            detail.truncate(detail.floor_char_boundary(DETAIL_LENGTH_MAX));
        }
        BackendError { kind, detail, status: None, retry_after: None }
    }
}
