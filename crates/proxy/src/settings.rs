//! The settings of a backend, resolved from the configuration.
//!
//! Invariant: header values, credentials and user information in a URL are secrets; no output of
//! these types contains them.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Uri;
use hyper::header::{HeaderMap, HeaderValue};

use crate::answers::Share;
use crate::breaker::BreakerSettings;
use crate::headers::Forwarding;
use crate::tls::BackendTls;

/// The settings of a backend.
#[derive(Clone)]
pub struct BackendSettings {
    /// Its name in logs and metrics: the path of its section in the configuration.
    pub name: String,
    /// Where it is.
    pub address: BackendAddress,
    /// Maximum duration of a call, with all attempts and waiting.
    pub timeout: Duration,
    /// Headers of clients that it gets.
    pub forwarding: Forwarding,
    /// Headers, or metadata, of every call.
    pub static_headers: HeaderMap,
    /// Form of the data of clients.
    pub data: BinaryData,
    /// Send the meta of the connection.
    pub includes_meta: bool,
    /// What statuses of HTTP answers mean.
    pub transforms: Vec<StatusTransform>,
    /// Compress gRPC calls.
    pub compression: bool,
    /// TLS; `None` uses the public roots where the address asks for TLS.
    pub tls: Option<BackendTls>,
    /// When to stop calling.
    pub breaker: BreakerSettings,
    /// Number of concurrent calls.
    pub concurrency: usize,
    /// Number of calls that wait for a place among them.
    pub queue: usize,
    /// Which questions are the same.
    pub share: Share,
    /// What happens while the breaker is open.
    pub when_open: WhenOpen,
}

impl fmt::Debug for BackendSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendSettings")
            .field("name", &self.name)
            .field("address", &self.address)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// Form of data in requests and replies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BinaryData {
    /// Data is JSON and part of the message.
    #[default]
    Json,
    /// Data is any bytes, in base64 in fields of their own.
    Base64,
}

/// What happens to connect and subscribe commands while the breaker is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenOpen {
    /// They are refused.
    #[default]
    Deny,
    /// The last answer to the same question holds.
    Allow {
        /// Maximum age of that answer.
        stale_max_age: Duration,
    },
}

/// The meaning of a status of an HTTP answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusTransform {
    /// The status.
    pub status: u16,
    /// The reply in its place.
    pub target: TransformTarget,
}

/// The reply in place of a status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransformTarget {
    /// An error reply.
    Error {
        /// Code for the client.
        code: u32,
        /// Message for the client.
        message: String,
        /// Whether the client may try again.
        temporary: bool,
    },
    /// A disconnect.
    Disconnect {
        /// Code for the client.
        code: u32,
        /// Reason for the client.
        reason: String,
    },
}

/// The address of a backend.
#[derive(Clone, PartialEq, Eq)]
pub enum BackendAddress {
    /// POST JSON to this URL.
    Http {
        /// The URL, without user information.
        uri: Uri,
        /// `Authorization` for the user information in the URL.
        authorization: Option<HeaderValue>,
    },
    /// Call the gRPC service on this host and port.
    Grpc {
        /// Host and port.
        authority: String,
    },
}

/// Why an address is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressFault {
    /// The address is empty.
    #[error("is required, such as \"http://localhost:3000/connect\" or \"grpc://localhost:3000\"")]
    Missing,
    /// The scheme is unknown.
    #[error("must begin with http://, https:// or grpc://")]
    Scheme,
    /// The URL is invalid.
    #[error("is not a URL with a host")]
    Url,
    /// A gRPC address with a path, or without a port.
    #[error("must be grpc://host:port")]
    Grpc,
}

impl fmt::Debug for BackendAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Without user information and query, which may contain secrets.
impl fmt::Display for BackendAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BackendAddress::Http { uri, .. } => {
                let (scheme, authority) = (uri.scheme_str(), uri.authority());
                let authority = authority.map_or("", |authority| authority.as_str());
                write!(f, "{}://{authority}{}", scheme.unwrap_or("http"), uri.path())
            }
            BackendAddress::Grpc { authority } => write!(f, "grpc://{authority}"),
        }
    }
}

impl BackendAddress {
    /// Reads an address. Without a scheme it is that of a gRPC service.
    ///
    /// # Errors
    /// [`AddressFault`].
    pub fn parse(text: &str) -> Result<BackendAddress, AddressFault> {
        match text.split_once("://") {
            _ if text.is_empty() => Err(AddressFault::Missing),
            Some(("http" | "https", _)) => Self::parse_http(text),
            Some(("grpc", authority)) => Self::parse_grpc(authority),
            Some(_) => Err(AddressFault::Scheme),
            None => Self::parse_grpc(text),
        }
    }

    fn parse_http(text: &str) -> Result<BackendAddress, AddressFault> {
        let uri: Uri = text.parse().map_err(|_| AddressFault::Url)?;
        let authority = uri.authority().ok_or(AddressFault::Url)?.as_str().to_owned();
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, &*authority),
        };
        let mut parts = uri.into_parts();
        parts.authority = Some(host.parse().map_err(|_| AddressFault::Url)?);
        let uri = Uri::from_parts(parts).map_err(|_| AddressFault::Url)?;
        if uri.host().is_none_or(str::is_empty) || has_bad_port(&uri) {
            return Err(AddressFault::Url);
        }
        let authorization = user.map(basic).transpose()?;
        Ok(BackendAddress::Http { uri, authorization })
    }

    fn parse_grpc(authority: &str) -> Result<BackendAddress, AddressFault> {
        let authority = authority.trim_end_matches('/');
        let uri: Uri = format!("http://{authority}").parse().map_err(|_| AddressFault::Grpc)?;
        let is_whole = uri.path() == "/" && uri.query().is_none() && !authority.contains('@');
        match uri.port_u16() {
            Some(_) if is_whole && uri.host().is_some_and(|host| !host.is_empty()) => {
                Ok(BackendAddress::Grpc { authority: authority.to_owned() })
            }
            _ => Err(AddressFault::Grpc),
        }
    }
}

/// Whether text stands where the port should be.
fn has_bad_port(uri: &Uri) -> bool {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let after_host = authority.rsplit_once(']').map_or(authority, |(_, rest)| rest);
    after_host.contains(':') && uri.port_u16().is_none()
}

/// The value of `Authorization` for `user:password`, in which other characters are escaped.
fn basic(user: &str) -> Result<HeaderValue, AddressFault> {
    let mut bytes = Vec::with_capacity(user.len());
    let mut rest = user.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let (Some(high), Some(low)) = (digit(rest.next()), digit(rest.next())) else {
            return Err(AddressFault::Url);
        };
        bytes.push(u8::try_from(high * 16 + low).map_err(|_| AddressFault::Url)?);
    }
    let value = format!("Basic {}", STANDARD.encode(bytes));
    let mut value = HeaderValue::from_str(&value).map_err(|_| AddressFault::Url)?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let shown = |text| BackendAddress::parse(text).map(|address| address.to_string());
        for (text, expected) in [
            ("http://api/s", "http://api/s"),
            ("https://api.example:8443", "https://api.example:8443/"),
            ("http://u:p%40q@api:1/a?key=secret", "http://api:1/a"),
            ("http://[::1]:80/a", "http://[::1]:80/a"),
            ("grpc://api:10000", "grpc://api:10000"),
            ("api:10000", "grpc://api:10000"),
        ] {
            assert_eq!(shown(text).as_deref(), Ok(expected));
        }
        for (text, fault) in [
            ("", AddressFault::Missing),
            ("ftp://a/b", AddressFault::Scheme),
            ("http://", AddressFault::Url),
            ("http://a b/", AddressFault::Url),
            ("http://a:99999/", AddressFault::Url),
            ("http://a:port/", AddressFault::Url),
            ("http:///path", AddressFault::Url),
            ("http://u%zz@a/", AddressFault::Url),
            ("grpc://api", AddressFault::Grpc),
            ("grpc://api:1/path", AddressFault::Grpc),
            ("api", AddressFault::Grpc),
            ("/connect", AddressFault::Grpc),
        ] {
            assert_eq!(shown(text), Err(fault), "{text}");
        }
    }

    #[test]
    fn user_information_becomes_a_header() {
        let address = BackendAddress::parse("http://u:p%40q@api/a").unwrap();
        let BackendAddress::Http { authorization: Some(value), .. } = &address else { panic!() };
        assert_eq!(value.as_bytes(), format!("Basic {}", STANDARD.encode("u:p@q")).as_bytes());
        assert_eq!(format!("{address:?}"), "http://api/a");
    }
}
