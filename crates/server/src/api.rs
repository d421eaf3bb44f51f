//! The server API over HTTP (docs/api.md): backends publish, query and control sessions, with one
//! POST per call.
//!
//! Invariant: no request passes [`ApiGate::authenticate`] without a key. Every response is JSON,
//! and no response contains a key.

mod batch;
mod commands;
mod error;
mod late_timeout;
mod methods;
mod request;
mod response;
mod revocations;
mod revoked_page;
mod unreadable;

use std::borrow::Cow;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, Request, State};
use axum::http::header::{
    ALLOW, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, WWW_AUTHENTICATE,
};
use axum::http::{HeaderName, HeaderValue, Method as HttpMethod, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, get};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use wire::protocol::ErrorCode;

use crate::config::ErrorMode;
use crate::json::Object;
use crate::limits::throttle::set_retry_after;
use crate::limits::{API_BODY_MAX, API_REPLY_FREE, BODY_TIMEOUT};
use crate::listener::RequestOrigin;
use crate::service::Service;
use crate::service::call::ApiCall;
use crate::service::error::ApiError;
use crate::service::gate::ApiGate;
use crate::service::keys::key_of_authorization;
use crate::service::method::{METHODS, Method};
pub(crate) use commands::{first_error, run_consumed};
use error::{MethodFailure, no_method};
use late_timeout::timeout_if_late;
use methods::Outcome;
use unreadable::unreadable;

/// State shared by all requests to the API.
pub(crate) struct ApiState {
    pub(crate) service: Arc<Service>,
    pub(crate) gate: ApiGate,
    /// Form of errors, unless a request names another.
    pub(crate) error_mode: ErrorMode,
}

static X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
static X_ERROR_MODE: HeaderName = HeaderName::from_static("x-centrifugo-error-mode");

/// Number of the error for requests that cannot be read.
const BAD_REQUEST: u32 = ErrorCode::BadRequest.number();

/// The description of this API for tools.
const OPENAPI: &str = include_str!("api/openapi.json");

/// One line of the legacy format of `POST /api`.
#[derive(Deserialize)]
struct LegacyCommand<'a> {
    method: String,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
}

/// The routes of the API below `path`.
pub(crate) fn routes(path: &str, api: Arc<ApiState>) -> Router {
    let mut router = Router::new()
        .route(&format!("{path}/openapi.json"), get(describe))
        .route(&format!("{path}/{{method}}"), any(call_by_name))
        .route(path, any(call_legacy));
    // A route without a parameter costs a call much less.
    for (name, method) in METHODS {
        let handler =
            |State(api): State<Arc<ApiState>>, request: Request| call(api, *method, request);
        router = router.route(&format!("{path}/{name}"), any(handler));
    }
    router.with_state(api)
}

async fn describe() -> Response {
    // The description is not copied for each request: it needs no key.
    ([(CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

/// `POST /api/<method>` with a name that has no route of its own: it is unknown, or
/// percent-encoded.
async fn call_by_name(
    State(api): State<Arc<ApiState>>,
    Path(name): Path<String>,
    request: Request,
) -> Response {
    if let Some(method) = Method::named(&name) {
        return call(api, method, request).await;
    }
    match api.read(request).await {
        Ok(_) => refuse(
            StatusCode::NOT_FOUND,
            ErrorCode::MethodNotFound.number(),
            &no_method(&name).message,
        ),
        Err(response) => response,
    }
}

/// `POST /api/<method>`: the parameters are the body.
async fn call(api: Arc<ApiState>, method: Method, request: Request) -> Response {
    let mode = api.error_mode(&request);
    let (call, body) = match api.read(request).await {
        Ok(read) => read,
        Err(response) => return response,
    };
    match api.run(&call, method, &body).await {
        Ok(result) if method == Method::Batch => answer(StatusCode::OK, result),
        Ok(result) => answer(StatusCode::OK, format!("{{\"result\":{result}}}")),
        Err(MethodFailure::Unreadable(text)) => refuse(StatusCode::BAD_REQUEST, BAD_REQUEST, &text),
        Err(MethodFailure::Api(error)) => match mode {
            ErrorMode::Body => {
                answer(StatusCode::OK, format!("{{\"error\":{}}}", error::json(&error)))
            }
            ErrorMode::Transport => answer(error::status(&error), error::json(&error)),
        },
    }
}

/// `POST /api`: lines of `{"method":…,"params":…}`, answered line by line.
async fn call_legacy(State(api): State<Arc<ApiState>>, request: Request) -> Response {
    let (call, body) = match api.read(request).await {
        Ok(read) => read,
        Err(response) => return response,
    };
    let lines = || body.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
    if let Err(error) = call.take_commands(lines().count()) {
        return refuse(StatusCode::BAD_REQUEST, error.code, &error.message);
    }
    let mut replies = String::new();
    for line in lines() {
        let Object(command): Object<LegacyCommand<'_>> = match serde_json::from_slice(line) {
            Ok(command) => command,
            Err(error) => {
                return refuse(StatusCode::BAD_REQUEST, BAD_REQUEST, &unreadable(line, &error));
            }
        };
        let params = command.params.map_or("{}", RawValue::get);
        let result = match Method::named(&command.method) {
            Some(method) => api.run(&call, method, params.as_bytes()).await,
            None => api.refuse_unknown(&call, &command.method).await,
        };
        let reply = match result {
            Ok(result) => format!("{{\"result\":{result}}}"),
            Err(MethodFailure::Api(error)) => error::reply(&call, &error, API_REPLY_FREE),
            Err(MethodFailure::Unreadable(text)) => {
                return refuse(StatusCode::BAD_REQUEST, BAD_REQUEST, &text);
            }
        };
        if !replies.is_empty() {
            replies.push('\n');
        }
        replies.push_str(&reply);
    }
    answer(StatusCode::OK, replies)
}

impl ApiState {
    /// Authenticates a request and reads its body.
    async fn read(&self, request: Request) -> Result<(ApiCall, Bytes), Response> {
        let origin = request.extensions().get::<RequestOrigin>();
        let key = self.gate.authenticate(&given_key(&request)).map_err(|refusal| {
            let address = origin.map(|origin| origin.client);
            self.gate.note_refused(request.uri().path(), address, refusal);
            let text = "the API key is missing or wrong (header X-API-Key)";
            let mut response =
                refuse(StatusCode::UNAUTHORIZED, ErrorCode::Unauthorized.number(), text);
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("apikey"));
            response
        })?;
        if let Some(origin) = origin {
            origin.peer.set_known();
        }
        if let Err(limited) = self.gate.take_token(&key) {
            let error = ApiError::from(limited);
            let mut response = refuse(StatusCode::TOO_MANY_REQUESTS, error.code, &error.message);
            set_retry_after(&mut response, limited);
            return Err(response);
        }
        if request.method() != HttpMethod::POST {
            let text = "the server API is called with POST";
            let mut response = refuse(StatusCode::METHOD_NOT_ALLOWED, BAD_REQUEST, text);
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            return Err(response);
        }
        let encoding = request.headers().get(CONTENT_ENCODING).map(HeaderValue::as_bytes);
        if encoding.is_some_and(|encoding| !matches!(encoding, b"" | b"identity")) {
            let text = "Content-Encoding is not supported; send the body uncompressed";
            return Err(refuse(StatusCode::BAD_REQUEST, BAD_REQUEST, text));
        }
        let too_large = || {
            let text = format!("the body may have {API_BODY_MAX} bytes at most");
            refuse(StatusCode::PAYLOAD_TOO_LARGE, BAD_REQUEST, &text)
        };
        let announced =
            request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
        if announced.and_then(|length| length.parse().ok()).is_some_and(|n: usize| n > API_BODY_MAX)
        {
            return Err(too_large());
        }
        match timeout_if_late(BODY_TIMEOUT, to_bytes(request.into_body(), API_BODY_MAX)).await {
            Ok(Ok(body)) => Ok((ApiCall::new(key), body)),
            Ok(Err(error)) if is_length_error(&error) => Err(too_large()),
            Ok(Err(_)) => {
                Err(refuse(StatusCode::BAD_REQUEST, BAD_REQUEST, "the body cannot be read"))
            }
            Err(_) => {
                Err(refuse(StatusCode::REQUEST_TIMEOUT, BAD_REQUEST, "the body took too long"))
            }
        }
    }

    fn error_mode(&self, request: &Request) -> ErrorMode {
        match request.headers().get(&X_ERROR_MODE) {
            Some(mode) if mode == "transport" => ErrorMode::Transport,
            _ => self.error_mode,
        }
    }

    /// Refuses a command whose method does not exist. It costs the caller as much as any other.
    async fn refuse_unknown(&self, call: &ApiCall, name: &str) -> Outcome {
        self.gate.take_rate_permit(call).await?;
        Err(no_method(name).into())
    }

    /// Runs a method and counts its result.
    async fn run(&self, call: &ApiCall, method: Method, params: &[u8]) -> Outcome {
        let mut result = match self.gate.begin(call, method).await {
            Ok(()) => self.dispatch(call, method, params).await,
            Err(error) => Err(error.into()),
        };
        // Other methods return little, or have reserved space.
        if let Ok(answer) = &result
            && method.is_read()
            && let Err(error) = call.take_room(answer.len(), API_REPLY_FREE)
        {
            result = Err(error.into());
        }
        let error = match &result {
            Ok(_) => None,
            Err(MethodFailure::Api(error)) => Some(error),
            Err(MethodFailure::Unreadable(_)) => Some(&ApiError::BAD_REQUEST),
        };
        self.gate.end(call, method, error);
        result
    }
}

/// The key of the caller: in the header `X-API-Key`, or `Authorization: apikey KEY`, or
/// `?api_key=KEY`.
fn given_key(request: &Request) -> Cow<'_, [u8]> {
    let header = |name: &HeaderName| {
        let text = request.headers().get(name).and_then(|value| value.to_str().ok());
        text.filter(|text| !text.is_empty())
    };
    let authorization = || key_of_authorization(header(&AUTHORIZATION)?);
    let query = request.uri().query().unwrap_or_default();
    let parameter = || query.split('&').find_map(|pair| pair.strip_prefix("api_key="));
    match header(&X_API_KEY).or_else(authorization) {
        Some(key) => Cow::Borrowed(key.as_bytes()),
        None => percent_decoded(parameter().unwrap_or_default()).into(),
    }
}

/// Decodes a query value as `application/x-www-form-urlencoded`. A percent sign without two
/// hexadecimal digits is kept as it is.
fn percent_decoded(value: &str) -> Vec<u8> {
    let digit = |byte: &u8| (*byte as char).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut decoded = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = after;
        match (byte, after) {
            (b'+', _) => decoded.push(b' '),
            (b'%', [high, low, after @ ..])
                if let (Some(high), Some(low)) = (digit(high), digit(low)) =>
            {
                decoded.push(high << 4 | low);
                rest = after;
            }
            _ => decoded.push(*byte),
        }
    }
    decoded
}

fn is_length_error(error: &axum::Error) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(one) = source {
        if one.is::<http_body_util::LengthLimitError>() {
            return true;
        }
        source = one.source();
    }
    false
}

fn refuse(status: StatusCode, code: u32, text: &str) -> Response {
    let error = ApiError { code, message: text.to_owned().into() };
    answer(status, format!("{{\"error\":{}}}", error::json(&error)))
}

fn answer(status: StatusCode, json: String) -> Response {
    let mut response = Response::new(Body::from(json));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}
