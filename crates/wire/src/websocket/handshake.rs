//! The opening handshake (RFC 6455 §4): what a server accepts or refuses, and what a client sends
//! and expects.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use thiserror::Error;

use super::deflate::{self, Negotiated};

/// The head of an HTTP request, as far as a handshake needs it.
#[derive(Clone, Debug)]
pub struct RequestHead<'a> {
    /// Method of the request.
    pub method: &'a str,
    /// Whether the version is HTTP/1.1 or above.
    pub is_http_1_1: bool,
    /// Names in lower case with values, in the order of the request.
    pub headers: Vec<(&'a str, &'a [u8])>,
}

/// The content of the response with status 101.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Value of `Sec-WebSocket-Accept`.
    pub accept: String,
    /// Subprotocols that the client offers, in its order.
    pub subprotocols: Vec<String>,
    /// Compression, if offered; its header is `Sec-WebSocket-Extensions`. A server without
    /// compression clears it.
    pub deflate: Option<Negotiated>,
}

/// Why the server refuses a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HandshakeRefusal {
    /// The method is not GET.
    #[error("a WebSocket handshake must be a GET request")]
    Method,
    /// The version is HTTP/1.0.
    #[error("a WebSocket handshake needs HTTP/1.1")]
    HttpVersion,
    /// No `Upgrade: websocket`: a plain HTTP request.
    #[error(
        "this is a WebSocket endpoint: the request needs Upgrade: websocket and Connection: Upgrade"
    )]
    NotAnUpgrade,
    /// `Upgrade` without `Connection: Upgrade`.
    #[error("the Connection header must contain Upgrade")]
    Connection,
    /// The WebSocket version is not 13.
    #[error("only version 13 of the WebSocket protocol is supported")]
    Version,
    /// The key is missing or not 16 bytes in base64.
    #[error("Sec-WebSocket-Key must be 16 bytes in base64")]
    Key,
}

impl HandshakeRefusal {
    /// Returns the HTTP status of the response.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            HandshakeRefusal::Method => 405,
            HandshakeRefusal::NotAnUpgrade | HandshakeRefusal::Version => 426,
            HandshakeRefusal::HttpVersion
            | HandshakeRefusal::Connection
            | HandshakeRefusal::Key => 400,
        }
    }
}

/// Accepts or refuses a handshake (RFC 6455 §4.2).
///
/// # Errors
/// [`HandshakeRefusal`], with the status of the response.
pub fn accept(head: &RequestHead<'_>) -> Result<Accepted, HandshakeRefusal> {
    if head.method != "GET" {
        return Err(HandshakeRefusal::Method);
    }
    if !head.is_http_1_1 {
        return Err(HandshakeRefusal::HttpVersion);
    }
    if !head.has_token("upgrade", "websocket") {
        return Err(HandshakeRefusal::NotAnUpgrade);
    }
    if !head.has_token("connection", "upgrade") {
        return Err(HandshakeRefusal::Connection);
    }
    if head.only("sec-websocket-version") != Some("13") {
        return Err(HandshakeRefusal::Version);
    }
    let key = head.only("sec-websocket-key").ok_or(HandshakeRefusal::Key)?;
    if !BASE64.decode(key).is_ok_and(|bytes| bytes.len() == 16) {
        return Err(HandshakeRefusal::Key);
    }
    let subprotocols = head.tokens("sec-websocket-protocol").map(str::to_owned).collect();
    let offers: Vec<&str> = head.values("sec-websocket-extensions").collect();
    let deflate = deflate::negotiate(&offers.join(","));
    Ok(Accepted { accept: accept_for(key), subprotocols, deflate })
}

impl RequestHead<'_> {
    fn values<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s str> {
        let named = self.headers.iter().filter(move |(header, _)| *header == name);
        named.filter_map(|(_, value)| std::str::from_utf8(value).ok().map(str::trim))
    }

    /// Returns the value of a header that must occur exactly once.
    fn only(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(header, _)| *header == name);
        let value = std::str::from_utf8(values.next()?.1).ok()?;
        values.next().is_none().then_some(value.trim())
    }

    fn tokens<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s str> {
        self.values(name)
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .filter(|token| !token.is_empty())
    }

    fn has_token(&self, name: &str, wanted: &str) -> bool {
        self.tokens(name).any(|token| token.eq_ignore_ascii_case(wanted))
    }
}

/// Computes `Sec-WebSocket-Accept` for a key (RFC 6455 §4.2.2).
fn accept_for(key: &str) -> String {
    let mut sha1 = sha1_smol::Sha1::new();
    sha1.update(key.as_bytes());
    sha1.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    BASE64.encode(sha1.digest().bytes())
}

/// Parameters of a client's handshake.
#[derive(Clone, Copy, Debug)]
pub struct ClientRequest<'a> {
    /// Value of the `Host` header.
    pub host: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// Requested subprotocol; empty for none.
    pub subprotocol: &'a str,
    /// Additional headers.
    pub headers: &'a [(&'a str, &'a str)],
    /// Random bytes for `Sec-WebSocket-Key`.
    pub key: [u8; 16],
}

/// The client's side of a handshake. Compression is not offered.
#[derive(Debug)]
pub struct ClientHandshake {
    expected_accept: String,
}

/// Why a client rejects the response.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ClientRefused {
    /// The bytes are not an HTTP response.
    #[error("the response is not HTTP")]
    NotHttp,
    /// The server answered with another status than 101.
    #[error("the server refused the WebSocket with status {0}")]
    Status(u16),
    /// `Sec-WebSocket-Accept` does not match the key.
    #[error("the server's Sec-WebSocket-Accept is wrong")]
    Accept,
}

/// Maximum number of headers in a response.
const HEADERS_MAX: usize = 64;

impl ClientHandshake {
    /// Creates the request to send and the state to check the response with.
    #[must_use]
    pub fn new(request: ClientRequest<'_>) -> (ClientHandshake, Vec<u8>) {
        let key = BASE64.encode(request.key);
        let mut text = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n",
            request.target, request.host
        );
        let subprotocol = ("Sec-WebSocket-Protocol", request.subprotocol);
        let subprotocol = Some(&subprotocol).filter(|(_, value)| !value.is_empty());
        for (name, value) in request.headers.iter().chain(subprotocol) {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        (ClientHandshake { expected_accept: accept_for(&key) }, text.into_bytes())
    }

    /// Reads the response. Returns its length in bytes; `None` if it is incomplete.
    ///
    /// # Errors
    /// [`ClientRefused`].
    pub fn handle_response(&self, bytes: &[u8]) -> Result<Option<usize>, ClientRefused> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        let length = match response.parse(bytes).map_err(|_| ClientRefused::NotHttp)? {
            httparse::Status::Partial => return Ok(None),
            httparse::Status::Complete(length) => length,
        };
        match response.code {
            Some(101) => {}
            code => return Err(ClientRefused::Status(code.unwrap_or(0))),
        }
        let accept = response
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case("sec-websocket-accept"));
        if accept.is_none_or(|header| header.value != self.expected_accept.as_bytes()) {
            return Err(ClientRefused::Accept);
        }
        Ok(Some(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    fn head<'a>(method: &'a str, headers: &[(&'a str, &'a str)]) -> RequestHead<'a> {
        let headers = headers.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        RequestHead { method, is_http_1_1: true, headers }
    }

    fn good() -> Vec<(&'static str, &'static str)> {
        vec![
            ("upgrade", "WebSocket"),
            ("connection", "keep-alive, Upgrade"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", KEY),
        ]
    }

    #[test]
    fn the_example_of_the_rfc_is_accepted() {
        let mut headers = good();
        headers.push(("sec-websocket-protocol", "one, two"));
        headers.push(("sec-websocket-extensions", "permessage-deflate"));
        let accepted = accept(&head("GET", &headers)).unwrap();
        assert_eq!(accepted.accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(accepted.subprotocols, ["one", "two"]);
        assert!(accepted.deflate.is_some());
    }

    #[test]
    fn each_mistake_has_its_status() {
        type Headers = Vec<(&'static str, &'static str)>;
        let refused = |change: &dyn Fn(&mut Headers)| {
            let mut headers = good();
            change(&mut headers);
            accept(&head("GET", &headers)).unwrap_err().status()
        };
        assert_eq!(accept(&head("POST", &good())).unwrap_err().status(), 405);
        let old = RequestHead { is_http_1_1: false, ..head("GET", &[]) };
        assert_eq!(accept(&old).unwrap_err().status(), 400);
        assert_eq!(refused(&|headers| headers.truncate(0)), 426);
        assert_eq!(refused(&|headers| headers[0].1 = "h2c"), 426);
        assert_eq!(refused(&|headers| headers[1].1 = "close"), 400);
        assert_eq!(refused(&|headers| headers[2].1 = "8"), 426);
        assert_eq!(refused(&|headers| headers.truncate(3)), 400);
        assert_eq!(refused(&|headers| headers[3].1 = "c2hvcnQ="), 400);
        assert_eq!(refused(&|headers| headers[3].1 = "not base64!"), 400);
        assert_eq!(refused(&|headers| headers.push(("sec-websocket-key", KEY))), 400);
    }

    #[test]
    fn client_and_server_agree() {
        let request = ClientRequest {
            host: "localhost",
            target: "/x",
            subprotocol: "p",
            headers: &[("Origin", "null")],
            key: [7; 16],
        };
        let (handshake, bytes) = ClientHandshake::new(request);
        let text = String::from_utf8(bytes).unwrap();
        let key = text.split("Sec-WebSocket-Key: ").nth(1).unwrap().split('\r').next().unwrap();
        let response = |accept: &str| {
            format!("HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {accept}\r\n\r\n")
        };
        let right = response(&accept_for(key));
        assert_eq!(handshake.handle_response(right.as_bytes()), Ok(Some(right.len())));
        assert_eq!(handshake.handle_response(&right.as_bytes()[..20]), Ok(None));
        let wrong = response("nonsense");
        assert_eq!(handshake.handle_response(wrong.as_bytes()), Err(ClientRefused::Accept));
        let refused = b"HTTP/1.1 403 Forbidden\r\n\r\n";
        assert_eq!(handshake.handle_response(refused), Err(ClientRefused::Status(403)));
        assert_eq!(handshake.handle_response(b"\x16\x03\x01"), Err(ClientRefused::NotHttp));
    }
}
