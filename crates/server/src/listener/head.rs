//! Validation of the head of a request before it is handled (RFC 9112).
//!
//! Invariant: a request that a proxy in front may have parsed differently is refused, and the
//! connection is closed after the response. hyper refuses heads that it cannot parse.

use axum::http::header::{CONNECTION, HOST, TRANSFER_ENCODING};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Version};
use axum::response::{IntoResponse as _, Response};
use hyper::Request;
use thiserror::Error;

use crate::limits::HEAD_SIZE_MAX;

/// Reason for which the head of a request is refused.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(super) enum HeadRefusal {
    /// Larger than [`HEAD_SIZE_MAX`]; hyper refuses heads that exceed its buffer, which is a little
    /// larger.
    #[error("the head of a request may have {HEAD_SIZE_MAX} bytes at most")]
    TooLarge,
    /// Missing, duplicate or invalid Host header (RFC 9112, section 3.2).
    #[error("exactly one valid Host header is required")]
    Host,
    /// Unsupported transfer coding (RFC 9112, section 6.1).
    #[error("unsupported Transfer-Encoding (only chunked is supported)")]
    TransferEncoding,
}

impl HeadRefusal {
    pub(super) fn response(self) -> Response {
        let status = match self {
            HeadRefusal::TooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            HeadRefusal::Host => StatusCode::BAD_REQUEST,
            HeadRefusal::TransferEncoding => StatusCode::NOT_IMPLEMENTED,
        };
        let close = [(CONNECTION, HeaderValue::from_static("close"))];
        (status, close, format!("{self}\n")).into_response()
    }
}

/// Checks the head of a request, which has `size` bytes.
pub(super) fn check<B>(request: &Request<B>, size: usize) -> Result<(), HeadRefusal> {
    let headers = request.headers();
    if size > HEAD_SIZE_MAX {
        return Err(HeadRefusal::TooLarge);
    }
    if !names_one_host(headers, request.version()) {
        return Err(HeadRefusal::Host);
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let is_chunked = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(coding), None) if is_chunked(coding) => Ok(()),
        (Some(_), _) => Err(HeadRefusal::TransferEncoding),
    }
}

/// Bytes of a head without separators.
pub(super) fn size<B>(request: &Request<B>) -> usize {
    let headers = request.headers().iter();
    let of_headers: usize = headers.map(|(name, value)| name.as_str().len() + value.len()).sum();
    of_headers + request.uri().path_and_query().map_or(0, |path| path.as_str().len())
}

/// HTTP/1.0 has no Host header. An empty one belongs to a target without a host.
fn names_one_host(headers: &HeaderMap, version: Version) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) => version < Version::HTTP_11,
        (Some(host), None) => host.is_empty() || is_host(host.as_bytes()),
        (Some(_), Some(_)) => false,
    }
}

fn is_host(host: &[u8]) -> bool {
    is_plain_host(host) || !host.contains(&b'@') && Authority::try_from(host).is_ok()
}

/// Whether a host is a name or an IPv4 address, with or without a port. Most hosts are, and this
/// costs much less than parsing an authority.
fn is_plain_host(host: &[u8]) -> bool {
    let is_of_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    let name = host.iter().take_while(|byte| is_of_name(byte)).count();
    match &host[name..] {
        [] => name > 0,
        [b':', port @ ..] => {
            name > 0 && (1..=5).contains(&port.len()) && port.iter().all(u8::is_ascii_digit)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(version: Version, headers: &[(&'static str, &str)]) -> Option<HeadRefusal> {
        let mut request = Request::new(());
        *request.version_mut() = version;
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        check(&request, size(&request)).err()
    }

    #[test]
    fn one_host_is_named() {
        let of = |hosts: &[&str]| {
            let headers: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
            refusal(Version::HTTP_11, &headers)
        };
        for good in ["x", "app.example:8000", "[::1]:8000", "127.0.0.1", "", "a_b.local"] {
            assert_eq!(of(&[good]), None, "{good}");
        }
        for bad in ["a b", "x/y", "user@x", "[::1", "x?y", "x, y"] {
            assert_eq!(of(&[bad]), Some(HeadRefusal::Host), "{bad}");
        }
        assert_eq!(of(&[]), Some(HeadRefusal::Host));
        assert_eq!(of(&["x", "x"]), Some(HeadRefusal::Host));
        assert_eq!(refusal(Version::HTTP_10, &[]), None);
    }

    #[test]
    fn a_plain_host_is_an_authority() {
        for host in ["x", "x:1", "a-b.example:65535", "127.0.0.1:99999", "-", ".", "1:1"] {
            assert!(is_plain_host(host.as_bytes()), "{host}");
            assert!(Authority::try_from(host.as_bytes()).is_ok(), "{host}");
        }
        for host in ["", ":1", "x:", "x:123456", "x:1a", "[::1]:1", "a_b", "x@y", "a b", "x:1:2"] {
            assert!(!is_plain_host(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn chunked_is_the_only_coding() {
        let of = |codings: &[&str]| {
            let headers = codings.iter().map(|coding| ("transfer-encoding", *coding));
            refusal(
                Version::HTTP_11,
                &std::iter::once(("host", "x")).chain(headers).collect::<Vec<_>>(),
            )
        };
        assert_eq!(of(&["chunked"]), None);
        assert_eq!(of(&["Chunked"]), None);
        for bad in
            [&["gzip, chunked"][..], &["chunked, chunked"], &["chunked", "chunked"], &["gzip"]]
        {
            assert_eq!(of(bad), Some(HeadRefusal::TransferEncoding), "{bad:?}");
        }
    }
}
