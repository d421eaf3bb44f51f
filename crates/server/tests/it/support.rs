//! Fixture: a server on a free port, and operations on peers.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use server::Server;
use server::config::Config;
use server::token::{ConnectionTokenRequest, TokenRequest, sign_connection};
use tokio::runtime::{Builder, Runtime};
use wire::websocket::encoder::{self, FrameKind};

use crate::configuration::configuration;
use crate::peer::frame;
pub(crate) use crate::peer::{PATIENCE, Peer, Received, upgrade};

pub(crate) const SECRET: &str = "a secret for tests";
pub(crate) const API_KEY: &str = "an API key for tests";

const BASE: &str = r#"
[http_server]
address = "127.0.0.1"
port = 0
[http_api]
key = "an API key for tests"
[client]
allowed_origins = ["https://good.example"]
channel_limit = 3
[client.token]
hmac_secret_key = "a secret for tests"
[shutdown]
drain_window = "300ms"
timeout = "5s"
[[channel.namespaces]]
name = "open"
allow_subscribe_for_client = true
allow_publish_for_client = true
[[channel.namespaces]]
name = "closed"
[[channel.namespaces]]
name = "binary"
allow_subscribe_for_client = true
allow_publish_for_client = true
publication_data_format = "binary"
[[channel.namespaces]]
name = "kept"
allow_subscribe_for_client = true
allow_user_limited_channels = true
history_size = 10
history_ttl = "60s"
presence = true
"#;

/// A running server.
pub(crate) struct Fixture {
    pub(crate) runtime: Runtime,
    pub(crate) server: Option<Server>,
    pub(crate) address: SocketAddr,
}

impl Fixture {
    pub(crate) fn start() -> Fixture {
        Fixture::with(&[])
    }

    /// Starts with settings that override [`BASE`].
    pub(crate) fn with(settings: &[(&str, &str)]) -> Fixture {
        Fixture::run(Runtime::new().unwrap(), config(settings))
    }

    /// Starts with a configuration of its own, on a free port.
    pub(crate) fn of(text: &str) -> Fixture {
        let config = configuration(text, &[("http_server.port", "0")]);
        Fixture::run(Runtime::new().unwrap(), config)
    }

    /// Starts with so many threads for HTTP.
    pub(crate) fn with_threads(threads: usize) -> Fixture {
        let mut runtime = Builder::new_multi_thread();
        Fixture::run(runtime.worker_threads(threads).enable_all().build().unwrap(), config(&[]))
    }

    fn run(runtime: Runtime, config: Config) -> Fixture {
        let server = runtime.block_on(Server::start(config)).unwrap();
        let address = server.address().unwrap();
        Fixture { runtime, server: Some(server), address }
    }

    pub(crate) fn connect(&self) -> Peer {
        let mut peer = Peer::dial(self.address);
        let (status, head, _) = peer.ask(&upgrade(""));
        assert_eq!(status, 101, "{head}");
        peer
    }

    /// A client whose connect command was accepted.
    pub(crate) fn admitted(&self) -> Peer {
        let mut peer = self.connect();
        peer.say(&format!(r#"{{"id":1,"connect":{{"token":"{}"}}}}"#, token("ann")));
        let reply = peer.receive();
        assert!(reply.contains(r#""connect":{"#), "{reply}");
        peer
    }

    /// Sends a request in plain HTTP/1.1. Returns status, head and body.
    pub(crate) fn request(&self, request: &str) -> (u16, String, String) {
        Peer::dial(self.address).ask(request)
    }

    /// A call of the API with the right key.
    pub(crate) fn api(&self, method: &str, body: &str) -> (u16, String) {
        let request = post(&format!("/api/{method}"), &format!("X-API-Key: {API_KEY}\r\n"), body);
        let (status, _, body) = self.request(&request);
        (status, body)
    }
}

/// The configuration [`BASE`] with overrides.
pub(crate) fn config(settings: &[(&str, &str)]) -> Config {
    configuration(BASE, settings)
}

pub(crate) fn token(user: &str) -> String {
    let token = TokenRequest { user: user.to_owned(), ..TokenRequest::default() };
    let request = ConnectionTokenRequest { token, channels: Vec::new() };
    sign_connection(SECRET, &request, 0).unwrap()
}

/// A token with exactly these claims.
pub(crate) fn signed(claims: &serde_json::Value) -> String {
    let encode = |part: &[u8]| URL_SAFE_NO_PAD.encode(part);
    let head = encode(br#"{"alg":"HS256"}"#);
    let signed = format!("{head}.{}", encode(claims.to_string().as_bytes()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let signature = hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", encode(signature.as_ref()))
}

pub(crate) fn post(path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n{headers}\r\n{body}")
}

/// Operations that only these tests need.
impl Peer {
    /// Sends an HTTP request. Returns status, head and body.
    pub(crate) fn ask(&mut self, request: &str) -> (u16, String, String) {
        // The server may answer and close before it has read everything.
        self.send(request.as_bytes());
        let head = self.head();
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        let lower = head.to_lowercase();
        let length = lower.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
        let mut body = vec![0; length.map_or(0, |length| length.trim().parse().unwrap())];
        self.stream.read_exact(&mut body).unwrap();
        (status, lower, String::from_utf8(body).unwrap())
    }

    /// Sends a request repeatedly until the server stops reading.
    pub(crate) fn send_until_stuck(&mut self, request: &str) {
        let many = request.repeat(1_000);
        self.stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
        while self.stream.write_all(many.as_bytes()).is_ok() {}
    }

    /// Sends the same bytes until the server has reset the connection. Returns the number of bytes
    /// sent.
    pub(crate) fn send_until_cut(&mut self, bytes: &[u8]) -> usize {
        let mut sent = 0;
        while let Ok(count) = self.stream.write(bytes) {
            sent += count;
        }
        sent
    }

    pub(crate) fn frame(&mut self, kind: FrameKind, payload: &[u8]) {
        self.send(&frame(kind, payload));
    }

    /// Sends a close frame.
    pub(crate) fn close(&mut self, code: u16) {
        let mut frame = Vec::new();
        encoder::client_close(code, "", [1, 2, 3, 4], &mut frame);
        self.send(&frame);
    }

    /// Shuts down writing.
    pub(crate) fn end(&mut self) {
        self.stream.shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// The code of the server's close frame; messages before it are skipped.
    pub(crate) fn close_code(&mut self) -> u16 {
        loop {
            match self.next() {
                Received::Closed(code) => return code,
                Received::Cut => panic!("cut off without a close frame"),
                _ => {}
            }
        }
    }
}
