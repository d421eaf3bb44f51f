//! A server on a free port, and a client that can misbehave.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use server::Server;
use server::config::{Config, Source, load};
use server::token::{ConnectionTokenRequest, TokenRequest, sign_connection};
use tokio::runtime::Runtime;
use wire::websocket::Role;
use wire::websocket::decoder::{Decoder, DecoderLimits, Message};
use wire::websocket::deflate::Inflater;
use wire::websocket::encoder::{self, FrameKind};

pub(crate) const SECRET: &str = "a secret for tests";
pub(crate) const API_KEY: &str = "an API key for tests";
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

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

    /// With settings that differ from the base.
    pub(crate) fn with(settings: &[(&str, &str)]) -> Fixture {
        let config = config(settings);
        let runtime = Runtime::new().unwrap();
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
        let reply = peer.hear();
        assert!(reply.contains(r#""connect":{"#), "{reply}");
        peer
    }

    /// A request in plain HTTP/1.1: status, head, body.
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

/// The base with settings that differ from it.
pub(crate) fn config(settings: &[(&str, &str)]) -> Config {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
    file.write_all(BASE.as_bytes()).unwrap();
    let flags = settings.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    let source = Source { file: Some(file.path().to_path_buf()), flags, ..Source::default() };
    let (config, _) = load(&source).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    config
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

/// A handshake, with further headers.
pub(crate) fn upgrade(headers: &str) -> String {
    format!(
        "GET /connection/websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    )
}

pub(crate) fn post(path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n{headers}\r\n{body}")
}

/// One TCP connection, and after a handshake one WebSocket.
pub(crate) struct Peer {
    stream: TcpStream,
    decoder: Decoder,
    inflater: Inflater,
    unread: Vec<u8>,
}

/// What a peer heard.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Text(String),
    Binary(Vec<u8>),
    Pong(Vec<u8>),
    Closed(u16),
    /// The socket ended without a close frame.
    Cut,
}

impl Peer {
    pub(crate) fn dial(address: SocketAddr) -> Peer {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let limits = DecoderLimits { message_size: 1 << 24, inflated_size: 1 << 24 };
        let decoder = Decoder::new(Role::Client, limits, true);
        Peer { stream, decoder, inflater: Inflater::default(), unread: Vec::new() }
    }

    /// Sends an HTTP request; gives status, head and body.
    pub(crate) fn ask(&mut self, request: &str) -> (u16, String, String) {
        // A server may answer and close before it has read everything.
        let _refused = self.stream.write_all(request.as_bytes());
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if self.stream.read(&mut byte).expect("an answer in time") == 0 {
                break;
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        let lower = head.to_lowercase();
        let length = lower.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
        let mut body = vec![0; length.map_or(0, |length| length.trim().parse().unwrap())];
        self.stream.read_exact(&mut body).unwrap();
        (status, lower, String::from_utf8(body).unwrap())
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        // The server may have closed already; what it said is what counts.
        let _closed = self.stream.write_all(bytes);
    }

    /// Sends a request again and again until the server reads no more.
    pub(crate) fn send_until_stuck(&mut self, request: &str) {
        let many = request.repeat(1_000);
        self.stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
        while self.stream.write_all(many.as_bytes()).is_ok() {}
    }

    /// Sends the same bytes until the server has reset the connection; gives how many it took.
    pub(crate) fn send_until_cut(&mut self, bytes: &[u8]) -> usize {
        let mut sent = 0;
        while let Ok(count) = self.stream.write(bytes) {
            sent += count;
        }
        sent
    }

    pub(crate) fn frame(&mut self, kind: FrameKind, payload: &[u8]) {
        let mut frame = Vec::new();
        encoder::client_frame(kind, payload, [1, 2, 3, 4], &mut frame);
        self.send(&frame);
    }

    /// Sends a close frame.
    pub(crate) fn close(&mut self, code: u16) {
        let mut frame = Vec::new();
        encoder::client_close(code, "", [1, 2, 3, 4], &mut frame);
        self.send(&frame);
    }

    /// Sends nothing any more.
    pub(crate) fn end(&mut self) {
        self.stream.shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// Sends a text message.
    pub(crate) fn say(&mut self, text: &str) {
        self.frame(FrameKind::Text, text.as_bytes());
    }

    /// The next text message.
    pub(crate) fn hear(&mut self) -> String {
        match self.next() {
            Heard::Text(text) => text,
            other => panic!("expected a text message, heard {other:?}"),
        }
    }

    /// The code with which the server closes, whatever it says before.
    pub(crate) fn close_code(&mut self) -> u16 {
        loop {
            match self.next() {
                Heard::Closed(code) => return code,
                Heard::Cut => panic!("cut off without a close frame"),
                _ => {}
            }
        }
    }

    pub(crate) fn next(&mut self) -> Heard {
        loop {
            let mut input = &mut self.unread[..];
            let before = input.len();
            let message = self.decoder.next(&mut self.inflater, &mut input).expect("RFC 6455");
            let heard = message.map(|message| match message {
                Message::Text(text) => Heard::Text(String::from_utf8(text.to_vec()).unwrap()),
                Message::Binary(bytes) => Heard::Binary(bytes.to_vec()),
                Message::Ping(_) => panic!("nobody asked for WebSocket pings"),
                Message::Pong(payload) => Heard::Pong(payload.to_vec()),
                Message::Close(close) => Heard::Closed(close.map_or(1005, |c| c.code.number())),
            });
            let used = before - input.len();
            self.unread.drain(..used);
            if let Some(heard) = heard {
                return heard;
            }
            let mut part = [0; 16 * 1024];
            match self.stream.read(&mut part) {
                Ok(0) => return Heard::Cut,
                Ok(count) => self.unread.extend_from_slice(&part[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                    return Heard::Cut;
                }
                Err(error) => panic!("nothing heard: {error}"),
            }
        }
    }
}
