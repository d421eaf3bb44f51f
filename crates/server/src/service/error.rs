//! Errors of the server API.

use std::borrow::Cow;

use engine::broker::BrokerError;
use engine::rates::Limited;
use serde::Serialize;
use wire::protocol::{ErrorCode, ErrorReply};

use crate::cluster::survey::WorkerTimeout;
use crate::limits::API_RESPONSE_MAX;

/// Error code and message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ApiError {
    pub(crate) code: u32,
    pub(crate) message: Cow<'static, str>,
}

impl ApiError {
    pub(crate) const BAD_REQUEST: ApiError =
        ApiError { code: 107, message: Cow::Borrowed("bad request") };

    /// A bad request, with what is wrong.
    pub(crate) fn bad(text: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError { code: 107, message: text.into() }
    }

    /// Whether the same call may succeed later: the broker is not reachable, or overloaded.
    pub(crate) fn is_transient(&self) -> bool {
        let transient = [ErrorCode::Internal, ErrorCode::TooManyRequests];
        transient.iter().any(|code| code.number() == self.code)
    }

    /// The caller's key does not permit the call.
    pub(crate) fn denied(text: String) -> ApiError {
        ApiError { code: ErrorCode::PermissionDenied.number(), message: text.into() }
    }

    /// No such method, or none that can be run here.
    pub(crate) fn not_found(text: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError { code: ErrorCode::MethodNotFound.number(), message: text.into() }
    }

    /// An error whose text has no room in the response.
    pub(crate) fn reason_left_out(code: u32) -> ApiError {
        let message = "the reason is left out: the answer has too many bytes".into();
        ApiError { code, message }
    }

    /// The response would exceed [`API_RESPONSE_MAX`].
    pub(crate) fn answer_too_large() -> ApiError {
        ApiError::bad(format!(
            "the answer would have more than {API_RESPONSE_MAX} bytes: ask for less (limit, since, pattern) or in several requests"
        ))
    }
}

impl From<Limited> for ApiError {
    fn from(limited: Limited) -> ApiError {
        let ErrorReply { code, message, .. } = limited.into();
        ApiError { code, message: message.into() }
    }
}

impl From<ErrorCode> for ApiError {
    fn from(code: ErrorCode) -> ApiError {
        ApiError { code: code.number(), message: Cow::Borrowed(code.message()) }
    }
}

impl From<BrokerError> for ApiError {
    fn from(error: BrokerError) -> ApiError {
        match error {
            BrokerError::NameTooLong => ApiError::bad(
                "the channel name is longer than the broker can carry (channel.max_length): use a shorter one",
            ),
            BrokerError::TooLarge => ApiError::bad(
                "the publication is larger than the broker can carry (max_payload of NATS): publish less at once",
            ),
            error => engine::broker_error_code(error).into(),
        }
    }
}

impl From<WorkerTimeout> for ApiError {
    fn from(_: WorkerTimeout) -> ApiError {
        ErrorCode::Internal.into()
    }
}
