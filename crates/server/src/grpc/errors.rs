//! Errors of the service in gRPC: in the response, or as a status.
//!
//! Invariant: each code of the API has one status, in one table.

use std::borrow::Cow;

use bytes::Bytes;
use prost::Message as _;
use tonic::{Code, Response, Status};

use super::descriptions::{compatible, own};
use crate::config::ErrorMode;
use crate::service::call::ApiCall;
use crate::service::error::ApiError;

/// `google.rpc.Status`: how a status carries a message.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<AnyMessage>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, prost::Message)]
struct AnyMessage {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

const ERROR_TYPE: &str = "type.googleapis.com/centrifugal.centrifugo.api.Error";

impl From<&ApiError> for compatible::Error {
    fn from(error: &ApiError) -> compatible::Error {
        compatible::Error { code: error.code, message: error.message.to_string() }
    }
}

impl From<&ApiError> for own::Error {
    fn from(error: &ApiError) -> own::Error {
        own::Error { code: error.code, message: error.message.to_string() }
    }
}

/// The error of a reply of which `free` bytes are reserved, without its reason where that has no
/// room.
pub(super) fn fitting(call: &ApiCall, error: &ApiError, free: usize) -> compatible::Error {
    let whole = compatible::Error::from(error);
    match call.fitting(error, whole.encoded_len(), free) {
        Cow::Borrowed(_) => whole,
        Cow::Owned(short) => (&short).into(),
    }
}

/// A response with an error or a result; in the other error mode an error is a status.
pub(super) fn answer<T, E, R>(
    outcome: Result<T, ApiError>,
    mode: ErrorMode,
    response: impl Fn(Option<E>, Option<T>) -> R,
) -> Result<Response<R>, Status>
where
    E: for<'e> From<&'e ApiError>,
{
    match (outcome, mode) {
        (Ok(result), _) => Ok(Response::new(response(None, Some(result)))),
        (Err(error), ErrorMode::Body) => Ok(Response::new(response(Some((&error).into()), None))),
        (Err(error), ErrorMode::Transport) => Err(status(&error)),
    }
}

/// The error as a status, with itself as details.
pub(super) fn status(error: &ApiError) -> Status {
    let code = code(error.code);
    let value = compatible::Error::from(error).encode_to_vec().into();
    let details = vec![AnyMessage { type_url: ERROR_TYPE.to_owned(), value }];
    let message = error.message.to_string();
    let details = RpcStatus { code: code.into(), message: message.clone(), details };
    Status::with_details(code, message, details.encode_to_vec().into())
}

fn code(code: u32) -> Code {
    match code {
        101 => Code::Unauthenticated,
        103 => Code::PermissionDenied,
        102 | 104 => Code::NotFound,
        106 | 111 => Code::ResourceExhausted,
        107 | 108 => Code::InvalidArgument,
        110 => Code::FailedPrecondition,
        112 => Code::OutOfRange,
        113 => Code::AlreadyExists,
        _ => Code::Internal,
    }
}
