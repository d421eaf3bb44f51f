//! Calls over HTTP: POST JSON, read JSON.
//!
//! Invariant: an answer is read up to a bound; redirects are not followed; an answer counts only
//! with status 200.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode, Uri, body::Incoming};
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::failure::{BackendError, FailureKind};
use crate::limits::{
    ANSWER_BYTES_MAX, HEAD_BYTES_MAX, IDLE_TIMEOUT, MAX_AGE_MAX, PING_INTERVAL, PING_TIMEOUT,
};
use crate::settings::BackendSettings;
use crate::tls::BackendTls;

/// The connections to a URL.
pub(crate) struct HttpEndpoint {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    uri: Uri,
    /// Headers of every request.
    headers: HeaderMap,
}

/// An answer before it is read.
#[derive(Debug)]
pub(crate) struct RawAnswer {
    pub(crate) body: Bytes,
    /// Time for which the backend allows to reuse it.
    pub(crate) max_age: Duration,
    /// Its content type, if that is another one than JSON.
    pub(crate) other_type: Option<String>,
}

/// Name and version of this server.
const USER_AGENT: &str = concat!("tidings/", env!("CARGO_PKG_VERSION"));

impl HttpEndpoint {
    pub(crate) fn new(
        settings: &BackendSettings,
        uri: &Uri,
        authorization: Option<&HeaderValue>,
    ) -> HttpEndpoint {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        if let Some(authorization) = authorization {
            headers.insert(header::AUTHORIZATION, authorization.clone());
        }
        replace(&mut headers, &settings.static_headers);
        let connector = connector(settings);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(settings.concurrency)
            .http1_max_buf_size(HEAD_BYTES_MAX)
            .http2_keep_alive_interval(PING_INTERVAL)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            .build(connector);
        HttpEndpoint { client, uri: uri.clone(), headers }
    }

    /// Sends a request and reads the answer.
    pub(crate) async fn call(
        &self,
        body: Bytes,
        forwarded: &HeaderMap,
    ) -> Result<RawAnswer, BackendError> {
        let mut request = Request::post(self.uri.clone())
            .body(Full::new(body))
            .map_err(|error| BackendError::new(FailureKind::Connect, error))?;
        let headers = request.headers_mut();
        headers.clone_from(&self.headers);
        replace(headers, forwarded);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let response = self.client.request(request).await.map_err(|error| failure_of(&error))?;
        if response.status() != StatusCode::OK {
            return Err(failure_of_status(&response));
        }
        let other_type = other_type(response.headers())?;
        let max_age = max_age(response.headers());
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| match error.downcast_ref::<LengthLimitError>() {
            Some(_) => {
                let detail = format!("the answer has more than {ANSWER_BYTES_MAX} bytes");
                BackendError::new(FailureKind::TooLarge, detail)
            }
            None => BackendError::new(FailureKind::Reset, error),
        })?;
        Ok(RawAnswer { body: body.to_bytes(), max_age, other_type })
    }
}

/// The connections of HTTP and gRPC: TCP, and TLS where the URL asks for it.
pub(crate) fn connector(settings: &BackendSettings) -> HttpsConnector<HttpConnector> {
    https_connector(settings.tls.clone(), settings.timeout)
}

/// Connects by TCP within a time, and by TLS where the URL asks for it. Without settings, TLS
/// trusts the public roots.
#[must_use]
pub fn https_connector(
    tls: Option<BackendTls>,
    timeout: Duration,
) -> HttpsConnector<HttpConnector> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(timeout));
    let BackendTls { config, server_name } = tls.unwrap_or_else(BackendTls::public);
    let builder = HttpsConnectorBuilder::new().with_tls_config(config).https_or_http();
    match server_name {
        Some(name) => builder
            .with_server_name_resolver(FixedServerNameResolver::new(name))
            .enable_all_versions()
            .wrap_connector(tcp),
        None => builder.enable_all_versions().wrap_connector(tcp),
    }
}

/// Inserts headers in place of those with the same name.
pub(crate) fn replace(headers: &mut HeaderMap, others: &HeaderMap) {
    for name in others.keys() {
        headers.remove(name);
        for value in others.get_all(name) {
            headers.append(name.clone(), value.clone());
        }
    }
}

/// The failure behind an error of the client.
#[must_use]
pub fn failure_of(error: &Error) -> BackendError {
    let kind = match error.is_connect() {
        true => kind_of_connect(error),
        false => FailureKind::Reset,
    };
    BackendError::new(kind, innermost(error))
}

fn kind_of_connect(error: &Error) -> FailureKind {
    let mut chain = std::iter::successors(error.source(), |error| inner(*error));
    match chain.any(|error| error.is::<rustls::Error>()) {
        true => FailureKind::Tls,
        false => FailureKind::Connect,
    }
}

/// The error that says most: the last of the chain.
fn innermost(error: &Error) -> String {
    let chain = std::iter::successors(error.source(), |error| inner(*error));
    chain.last().map_or_else(|| error.to_string(), ToString::to_string)
}

/// The error behind an error. The source of an [`io::Error`] is that of the error in it.
fn inner<'e>(
    error: &'e (dyn std::error::Error + 'static),
) -> Option<&'e (dyn std::error::Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}

fn failure_of_status(response: &Response<Incoming>) -> BackendError {
    let status = response.status();
    let retry_after = retry_after(response.headers());
    let is_pause = retry_after.is_some()
        && [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE].contains(&status);
    let kind = if is_pause { FailureKind::Throttled } else { FailureKind::Status };
    let detail = match status.is_redirection() {
        true => format!("status {status}; redirects are not followed"),
        false => format!("status {status}"),
    };
    BackendError {
        status: Some(status.as_u16()),
        retry_after: retry_after.filter(|_| is_pause),
        ..BackendError::new(kind, detail)
    }
}

/// The time of `Retry-After` in seconds. A date is not read: clocks differ, and the breaker does
/// its work without it.
#[must_use]
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}

/// The time of `Cache-Control: max-age`, unless the answer must not be stored.
pub(crate) fn max_age(headers: &HeaderMap) -> Duration {
    let mut age = Duration::ZERO;
    let values = headers.get_all(HeaderName::from_static("cache-control")).into_iter();
    for directive in values.filter_map(|value| value.to_str().ok()).flat_map(|v| v.split(',')) {
        let directive = directive.trim().to_ascii_lowercase();
        if ["no-store", "no-cache"].contains(&&*directive) {
            return Duration::ZERO;
        }
        if let Some(seconds) = directive.strip_prefix("max-age=") {
            age = seconds.trim_matches('"').parse().map_or(Duration::ZERO, Duration::from_secs);
        }
    }
    age.min(MAX_AGE_MAX)
}

/// Refuses types that cannot contain JSON. Frameworks send JSON as text of some kind when the
/// application sets no type; what that text is decides the reader.
fn other_type(headers: &HeaderMap) -> Result<Option<String>, BackendError> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(None) };
    let value = String::from_utf8_lossy(value.as_bytes());
    let kind = value.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    let is_json = kind.ends_with("/json") || kind.ends_with("+json") || kind.is_empty();
    let may_be_json = kind.starts_with("text/") || kind == "application/octet-stream";
    match (is_json, may_be_json) {
        (true, _) => Ok(None),
        (false, true) => Ok(Some(kind)),
        (false, false) => Err(BackendError::new(
            FailureKind::ContentType,
            format!("the answer has the content type {kind:?}, not application/json"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_read() {
        let age = |value: &'static str| {
            let value = HeaderValue::from_static(value);
            max_age(&[(header::CACHE_CONTROL, value)].into_iter().collect()).as_secs()
        };
        assert_eq!(age("max-age=30"), 30);
        assert_eq!(age("private, Max-Age=5"), 5);
        assert_eq!(age("max-age=30, no-store"), 0);
        assert_eq!(age("max-age=soon"), 0);
        assert_eq!(age("max-age=-1"), 0);
        assert_eq!(age("max-age=9999999"), MAX_AGE_MAX.as_secs());
        assert_eq!(max_age(&HeaderMap::new()), Duration::ZERO);
    }

    #[test]
    fn types_that_cannot_be_json_are_refused() {
        let read = |value: &'static str| {
            let value = HeaderValue::from_static(value);
            other_type(&[(header::CONTENT_TYPE, value)].into_iter().collect())
        };
        assert_eq!(read("application/json; charset=utf-8"), Ok(None));
        assert_eq!(read("application/problem+json"), Ok(None));
        assert_eq!(read("text/html; charset=UTF-8"), Ok(Some("text/html".to_owned())));
        assert_eq!(read("image/png").unwrap_err().kind, FailureKind::ContentType);
    }
}
