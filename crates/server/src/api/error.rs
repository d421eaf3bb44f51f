//! Errors of the server API in HTTP responses: status and JSON.

use std::borrow::Cow;

use axum::http::StatusCode;
use engine::broker::BrokerError;
use wire::protocol::ErrorCode;

use crate::service::call::ApiCall;
use crate::service::error::ApiError;
use crate::telemetry::shown;

/// Reason for which a method has no result.
#[derive(Debug)]
pub(super) enum MethodFailure {
    /// The parameters are no JSON, or not of the form that the method takes: status 400 in both
    /// error modes.
    Unreadable(String),
    /// All other errors, which have a code of the API.
    Api(ApiError),
}

/// No method has this name.
pub(super) fn no_method(name: &str) -> ApiError {
    ApiError::not_found(format!("there is no method {}; see openapi.json", shown(name)))
}

/// The error object of a response.
pub(super) fn json(error: &ApiError) -> String {
    serde_json::to_string(error).expect("a number and a text are JSON")
}

/// The member `error` of a reply of which `free` bytes are reserved, without its reason where that
/// has no room.
pub(super) fn reply(call: &ApiCall, error: &ApiError, free: usize) -> String {
    let written = |error| format!("{{\"error\":{}}}", json(error));
    let whole = written(error);
    match call.fitting(error, whole.len(), free) {
        Cow::Borrowed(_) => whole,
        Cow::Owned(short) => written(&short),
    }
}

/// The HTTP status in error mode `transport`.
pub(super) fn status(error: &ApiError) -> StatusCode {
    match error.code {
        103 => StatusCode::FORBIDDEN,
        102 | 104 => StatusCode::NOT_FOUND,
        110 => StatusCode::CONFLICT,
        106..=108 => StatusCode::BAD_REQUEST,
        111 => StatusCode::TOO_MANY_REQUESTS,
        112 => StatusCode::RANGE_NOT_SATISFIABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
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
