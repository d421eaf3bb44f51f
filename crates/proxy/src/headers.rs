//! Headers of clients that a backend gets.
//!
//! Invariant: only listed names are forwarded. What a client wrote into its connect command
//! (emulated headers) is forwarded only under the names listed for that, and never replaces a
//! header of the HTTP request. Headers about the connection itself are never forwarded.

use std::sync::Arc;

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::limits::FORWARDED_BYTES_MAX;

/// Headers of the client's request.
#[derive(Clone, Debug, Default)]
pub struct CallerHeaders {
    /// Headers of its HTTP request, or metadata of its gRPC call.
    pub transport: TransportHeaders,
    /// Headers in its connect command, names in lower case.
    pub emulated: Vec<(String, String)>,
}

/// Headers of the request that began a connection.
#[derive(Clone, Debug)]
pub enum TransportHeaders {
    /// Headers of an HTTP request.
    Http(Arc<HeaderMap>),
    /// Metadata of a gRPC call.
    Grpc(Arc<HeaderMap>),
}

impl Default for TransportHeaders {
    fn default() -> TransportHeaders {
        TransportHeaders::Http(Arc::default())
    }
}

/// Names of headers that are forwarded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forwarding {
    /// Headers of HTTP requests.
    pub http_headers: Vec<HeaderName>,
    /// Metadata of gRPC calls.
    pub grpc_metadata: Vec<HeaderName>,
    /// Headers in connect commands.
    pub emulated_headers: Vec<HeaderName>,
}

impl Forwarding {
    /// The headers to forward.
    pub(crate) fn select(&self, headers: &CallerHeaders) -> HeaderMap {
        let mut selected = HeaderMap::new();
        let mut free = FORWARDED_BYTES_MAX;
        let mut fits = |name: &HeaderName, value: &HeaderValue| {
            let size = name.as_str().len() + value.len();
            let fits = size <= free;
            free -= if fits { size } else { 0 };
            fits
        };
        let (listed, transport) = match &headers.transport {
            TransportHeaders::Http(all) => (&self.http_headers, all),
            TransportHeaders::Grpc(all) => (&self.grpc_metadata, all),
        };
        for name in listed.iter().filter(|name| may_be_forwarded(name)) {
            for value in transport.get_all(name) {
                if fits(name, value) {
                    selected.append(name.clone(), value.clone());
                }
            }
        }
        for (name, value) in &headers.emulated {
            let listed = self.emulated_headers.iter().find(|listed| *listed.as_str() == **name);
            let Some(name) = listed.filter(|name| may_be_forwarded(name)) else { continue };
            let Ok(value) = HeaderValue::from_str(value) else { continue };
            if !selected.contains_key(name) && fits(name, &value) {
                selected.insert(name.clone(), value);
            }
        }
        selected
    }
}

/// Whether a header is about the client and not about the connection or body that carries it.
#[must_use]
pub fn may_be_forwarded(name: &HeaderName) -> bool {
    let of_connection = [
        header::ACCEPT_ENCODING,
        header::CONNECTION,
        header::CONTENT_ENCODING,
        header::CONTENT_LENGTH,
        header::CONTENT_TYPE,
        header::EXPECT,
        header::HOST,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ];
    let is_of_grpc = name.as_str().starts_with("grpc-");
    !of_connection.contains(name) && !is_of_grpc && name != "keep-alive"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter();
        pairs.map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
    }

    fn names(names: &[&'static str]) -> Vec<HeaderName> {
        names.iter().map(|name| HeaderName::from_static(name)).collect()
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn only_listed_headers_pass() {
        let forwarding = Forwarding {
            http_headers: names(&["cookie", "x-trusted", "content-length", "authorization"]),
            grpc_metadata: names(&["x-meta"]),
            emulated_headers: names(&["authorization", "x-app"]),
        };
        let all = map(&[("cookie", "a"), ("x-other", "b"), ("content-length", "7")]);
        let mut headers = CallerHeaders {
            transport: TransportHeaders::Http(Arc::new(all)),
            emulated: vec![
                pair("authorization", "emulated"),
                pair("x-trusted", "forged"),
                pair("x-app", "line\nbreak"),
            ],
        };
        let selected = forwarding.select(&headers);
        assert_eq!(selected, map(&[("cookie", "a"), ("authorization", "emulated")]));
        // The header of the request is preferred.
        headers.transport = TransportHeaders::Http(Arc::new(map(&[("authorization", "real")])));
        assert_eq!(forwarding.select(&headers), map(&[("authorization", "real")]));
        let metadata = map(&[("x-meta", "m"), ("cookie", "no")]);
        headers = CallerHeaders {
            transport: TransportHeaders::Grpc(Arc::new(metadata)),
            emulated: Vec::new(),
        };
        assert_eq!(forwarding.select(&headers), map(&[("x-meta", "m")]));
    }

    #[test]
    fn forwarded_headers_are_bounded() {
        let forwarding =
            Forwarding { http_headers: names(&["cookie", "x-trusted"]), ..Forwarding::default() };
        let mut all = map(&[("x-trusted", "t")]);
        let long = "c".repeat(FORWARDED_BYTES_MAX);
        all.insert("cookie", HeaderValue::from_str(&long).unwrap());
        let transport = TransportHeaders::Http(Arc::new(all));
        let headers = CallerHeaders { transport, emulated: Vec::new() };
        assert_eq!(forwarding.select(&headers), map(&[("x-trusted", "t")]));
    }
}
