//! Where a server is: a `ws://` or `wss://` address, taken apart.
//!
//! Invariant: a user name and a password in an address (`ws://user:password@host`) are neither kept
//! nor printed, in errors neither.

use std::net::Ipv6Addr;
use std::str::FromStr;

use thiserror::Error;

/// The address of a WebSocket endpoint. The scheme and the path may be left out: they are `ws` and
/// `/connection/websocket`.
///
/// ```
/// let url: client::ServerUrl = "wss://push.example".parse()?;
/// assert_eq!((url.host(), url.port(), url.is_tls()), ("push.example", 443, true));
/// assert_eq!(url.target(), "/connection/websocket");
/// # Ok::<(), client::UrlError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerUrl {
    is_tls: bool,
    host: String,
    port: u16,
    authority: String,
    target: String,
}

/// Host and port of an address, whatever its scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authority<'u> {
    /// Name or IP address, without brackets.
    pub host: &'u str,
    /// TCP port, where one is given.
    pub port: Option<u16>,
}

/// Why a text is no address of a server. The texts contain the address without its user name and
/// password.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UrlError {
    /// Nothing between the scheme and the path.
    #[error("{0}: missing host; expected one such as push.example or 127.0.0.1:8000")]
    NoHost(String),
    /// White space or control characters.
    #[error("{}: an address has no spaces", .0.escape_debug())]
    Space(String),
    /// A host that is none, among them an IPv6 address without brackets.
    #[error(
        "{url}: invalid host {host}; an IPv6 address is written in brackets, such as [::1]:8000"
    )]
    Host {
        /// The whole address.
        url: String,
        /// The invalid host.
        host: String,
    },
    /// A port that is no number from 1 to 65535.
    #[error("{url}: {port:?} is not a port (1 to 65535)")]
    Port {
        /// The whole address.
        url: String,
        /// The part of it that is no port.
        port: String,
    },
    /// A user name or password with a `/` or a `?`, at which the host would end.
    #[error("{0}: a / or a ? in a user name or password is written %2F or %3F")]
    UserInfo(String),
    /// `http` or `https`.
    #[error("{url}: a WebSocket address begins with ws:// or wss://; did you mean {meant}?")]
    Http {
        /// The whole address.
        url: String,
        /// The address with the other scheme.
        meant: String,
    },
    /// Any other scheme.
    #[error("{0}: expected an address that begins with ws:// or wss://")]
    Scheme(String),
}

impl<'u> Authority<'u> {
    /// Reads what stands between the scheme and the path of `url`, which is for messages. A user
    /// name and a password before the host are skipped.
    ///
    /// # Errors
    /// A host or a port that is none.
    pub fn parse(url: &str, text: &'u str) -> Result<Authority<'u>, UrlError> {
        let shown = || without_userinfo(url);
        let is_secret = is_secret(url, text);
        if has_spaces(url) {
            return Err(UrlError::Space(shown()));
        }
        let text = text.rsplit_once('@').map_or(text, |(_, host)| host);
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => match port.parse() {
                Ok(number @ 1..) => (host, Some(number)),
                _ if is_secret => return Err(UrlError::UserInfo(shown())),
                _ => return Err(UrlError::Port { url: shown(), port: port.to_owned() }),
            },
            _ => (text, None),
        };
        if host.is_empty() {
            return Err(UrlError::NoHost(shown()));
        }
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let is_host = match bare {
            Some(address) => address.parse::<Ipv6Addr>().is_ok(),
            None => !host.contains(['[', ']', ':']),
        };
        match is_host {
            true => Ok(Authority { host: bare.unwrap_or(host), port }),
            false if is_secret => Err(UrlError::UserInfo(shown())),
            false => Err(UrlError::Host { url: shown(), host: host.to_owned() }),
        }
    }
}

fn has_spaces(url: &str) -> bool {
    url.contains(|c: char| c.is_whitespace() || c.is_control())
}

/// Whether what looks like the host of `url` may be the beginning of a password.
fn is_secret(url: &str, authority: &str) -> bool {
    url.contains('@') && !authority.contains('@')
}

impl ServerUrl {
    /// Whether the connection uses TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Name or IP address, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port; 80 or 443 where the address names none.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host and port as written, for the `Host` header.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Path and query.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }
}

impl FromStr for ServerUrl {
    type Err = UrlError;

    fn from_str(url: &str) -> Result<ServerUrl, UrlError> {
        let shown = || without_userinfo(url);
        let (scheme, rest) = url.split_once("://").unwrap_or(("ws", url));
        let (given, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        // A name and a password are of no use to a WebSocket, and none of the server's business.
        let authority = given.rsplit_once('@').map_or(given, |(_, authority)| authority);
        let is_tls = match scheme {
            _ if has_spaces(url) => return Err(UrlError::Space(shown())),
            "ws" => false,
            "wss" => true,
            "http" | "https" if is_secret(url, given) => return Err(UrlError::UserInfo(shown())),
            "http" | "https" => {
                let scheme = scheme.replace("http", "ws");
                let meant = format!("{scheme}://{authority}/connection/websocket");
                return Err(UrlError::Http { url: shown(), meant });
            }
            _ => return Err(UrlError::Scheme(shown())),
        };
        let Authority { host, port } = Authority::parse(url, given)?;
        let port = port.unwrap_or(if is_tls { 443 } else { 80 });
        let target = match path.strip_prefix('/') {
            Some(_) => path.to_owned(),
            None => format!("/connection/websocket{path}"),
        };
        Ok(ServerUrl {
            is_tls,
            host: host.to_owned(),
            port,
            authority: authority.to_owned(),
            target,
        })
    }
}

/// The address as it may be printed. An address that cannot be read may have its password anywhere
/// before the last `@`.
fn without_userinfo(url: &str) -> String {
    let Some((before, host)) = url.rsplit_once('@') else { return url.to_owned() };
    let schemes = ["ws://", "wss://", "http://", "https://"];
    let scheme = schemes.into_iter().find(|scheme| before.starts_with(scheme));
    format!("{}…@{host}", scheme.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_usual_may_be_left_out() {
        for (url, host, port, target) in [
            ("127.0.0.1:8000", "127.0.0.1", 8000, "/connection/websocket"),
            ("ws://h", "h", 80, "/connection/websocket"),
            ("wss://h/own?a=b", "h", 443, "/own?a=b"),
            ("ws://h:1?cf_protocol=protobuf", "h", 1, "/connection/websocket?cf_protocol=protobuf"),
            ("wss://[::1]", "::1", 443, "/connection/websocket"),
            ("ws://user:word@h:1", "h", 1, "/connection/websocket"),
            ("ws://[::1]:8000/", "::1", 8000, "/"),
        ] {
            let parsed: ServerUrl = url.parse().unwrap();
            assert_eq!((parsed.host(), parsed.port(), parsed.target()), (host, port, target));
        }
    }

    #[test]
    fn hosts_and_ports_are_told_apart() {
        for (text, host, port) in [
            ("localhost", "localhost", None),
            ("127.0.0.1:8000", "127.0.0.1", Some(8000)),
            ("[::1]", "::1", None),
            ("[::1]:65535", "::1", Some(65535)),
            ("user:word@push.example:1", "push.example", Some(1)),
        ] {
            assert_eq!(Authority::parse(text, text), Ok(Authority { host, port }));
        }
    }

    #[test]
    fn a_user_name_and_a_password_are_never_printed() {
        for (url, wanted) in [
            ("ws://user:word@h:0", "ws://…@h:0: \"0\" is not a port"),
            ("wss://user:word@", "wss://…@: missing host"),
            ("ws://user:word@h h", "ws://…@h h: an address has no spaces"),
            ("ws://user:wo rd@h", "ws://…@h: an address has no spaces"),
            ("ws://user:word@::1", "ws://…@::1: invalid host :"),
            ("https://user:word@h:1/a", "https://…@h:1/a: a WebSocket"),
            ("https://user:word@h:1", "did you mean wss://h:1/connection/websocket?"),
            ("http://user:word/word@h", "http://…@h: a / or a ?"),
            ("ftp://user:word@h", "…@h: expected"),
            ("user:word@h:0", "…@h:0: \"0\" is not a port"),
            ("user://word@h:0", "…@h:0: expected"),
            ("ws://user:word/word@h", "ws://…@h: a / or a ? in a user name or password"),
            ("ws://[user/word@h", "ws://…@h: a / or a ? in a user name or password"),
            ("ws://user:word?user@h/a@b", "ws://…@b: a / or a ? in a user name or password"),
        ] {
            let error = url.parse::<ServerUrl>().unwrap_err();
            let printed = format!("{error} {error:?}");
            assert!(printed.contains(wanted), "{url}: {printed}");
            assert!(!printed.contains("user:") && !printed.contains("word@"), "{printed}");
            assert!(!printed.contains("word/"), "{printed}");
        }
        let parsed: ServerUrl = "ws://user:word@h:1/a@b".parse().unwrap();
        assert!(!format!("{parsed:?}").contains("word"));
        assert_eq!((parsed.authority(), parsed.target()), ("h:1", "/a@b"));
    }

    #[test]
    fn each_mistake_is_named() {
        for (url, wanted) in [
            ("ws://", "missing host"),
            ("ws://a b", "no spaces"),
            ("ws://h:80000", "\"80000\" is not a port"),
            ("ws://h:0", "\"0\" is not a port"),
            ("ws://:8000", "missing host"),
            ("ws://::1", "in brackets"),
            ("ws://[::1", "in brackets"),
            ("ws://[h]:1", "in brackets"),
            ("https://h:1", "did you mean wss://h:1/connection/websocket?"),
            ("ftp://h", "begins with ws:// or wss://"),
        ] {
            let error = url.parse::<ServerUrl>().unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
    }
}
