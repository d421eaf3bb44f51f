//! Errors of the server API and the HTTP status of each (§3.1).

use std::borrow::Cow;

use axum::http::StatusCode;
use engine::broker::BrokerError;
use engine::rates::Limited;
use serde::Serialize;
use wire::protocol::{ErrorCode, ErrorReply};

use crate::limits::API_ANSWER_MAX;
use crate::telemetry::shown;

/// Error object of a response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct ApiError {
    pub(super) code: u32,
    pub(super) message: Cow<'static, str>,
}

/// Reason for which a method has no result.
#[derive(Debug)]
pub(super) enum MethodFailure {
    /// The parameters are no JSON, or not of the form that the method takes: status 400 in both
    /// error modes.
    Unreadable(String),
    /// All other errors, which have a code of the API.
    Api(ApiError),
}

impl ApiError {
    pub(super) const BAD_REQUEST: ApiError =
        ApiError { code: 107, message: Cow::Borrowed("bad request") };

    /// A bad request, with what is wrong.
    pub(super) fn bad(text: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError { code: 107, message: text.into() }
    }

    /// No method has this name.
    pub(super) fn no_method(name: &str) -> ApiError {
        ApiError::not_found(format!("there is no method {}; see openapi.json", shown(name)))
    }

    /// A command that names no method, or one that cannot be run here.
    pub(super) fn not_found(text: impl Into<Cow<'static, str>>) -> ApiError {
        ApiError { code: ErrorCode::MethodNotFound.number(), message: text.into() }
    }

    /// The caller's key does not permit the call.
    pub(super) fn denied(text: String) -> ApiError {
        ApiError { code: ErrorCode::PermissionDenied.number(), message: text.into() }
    }

    /// The response would exceed [`API_ANSWER_MAX`].
    pub(super) fn answer_too_large() -> ApiError {
        ApiError::bad(format!(
            "the answer would have more than {API_ANSWER_MAX} bytes: ask for less (limit, since, pattern) or in several requests"
        ))
    }

    pub(super) fn json(&self) -> String {
        serde_json::to_string(self).expect("a number and a text are JSON")
    }

    pub(super) fn status(&self) -> StatusCode {
        match self.code {
            103 => StatusCode::FORBIDDEN,
            102 | 104 => StatusCode::NOT_FOUND,
            110 => StatusCode::CONFLICT,
            106..=108 => StatusCode::BAD_REQUEST,
            111 => StatusCode::TOO_MANY_REQUESTS,
            112 => StatusCode::RANGE_NOT_SATISFIABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
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

impl From<ApiError> for MethodFailure {
    fn from(error: ApiError) -> MethodFailure {
        MethodFailure::Api(error)
    }
}

impl From<ErrorCode> for MethodFailure {
    fn from(code: ErrorCode) -> MethodFailure {
        MethodFailure::Api(code.into())
    }
}

impl From<BrokerError> for MethodFailure {
    fn from(error: BrokerError) -> MethodFailure {
        MethodFailure::Api(error.into())
    }
}
