//! A blocking WebSocket connection of a client: replies in, commands out.
//!
//! Invariant: waiting is bounded by a deadline that every byte from the server moves.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use wire::protocol::{self, Codec, Command, Reply};
use wire::websocket::Role;
use wire::websocket::decoder::{Decoder, DecoderLimits, Message};
use wire::websocket::deflate::Inflater;
use wire::websocket::encoder::{self, FrameKind};
use wire::websocket::handshake::{ClientHandshake, ClientRefused, ClientRequest};

use crate::authority::Authority;
use crate::http::{Answer, Progress};
use crate::misuse::misuse;
use crate::random;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const RESPONSE_HEAD_MAX: usize = 16 * 1024;
/// Bytes of a refusal's body that are looked at.
const REASON_MAX: usize = 1024;
/// What a server may send in one message: its own bound for a client's queue, and more.
const MESSAGE_SIZE_MAX: u32 = 64 * 1024 * 1024;

trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

/// See the module.
pub(crate) struct Link {
    stream: Box<dyn Stream>,
    tcp: TcpStream,
    decoder: Decoder,
    inflater: Inflater,
    early: Vec<u8>,
    /// The server's goodbye, while what it said before is still to be told.
    goodbye: Option<Goodbye>,
}

/// What the server did.
pub(crate) enum Heard {
    /// It sent these.
    Replies(Vec<Reply>),
    /// It closed the connection.
    Closed(Goodbye),
}

/// A close frame.
pub(crate) struct Goodbye {
    /// Close code (§1.18).
    pub code: u16,
    /// Text for people.
    pub reason: String,
}

/// The server answered the handshake, but not with a WebSocket.
#[derive(Debug)]
pub(crate) struct NoWebSocket {
    /// Status of its answer.
    pub status: u16,
    /// First line of its answer's body.
    reason: String,
}

impl std::fmt::Display for NoWebSocket {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let NoWebSocket { status, reason } = self;
        match (status, &**reason) {
            (200..=399, _) => write!(
                formatter,
                "there is no WebSocket at this address (status {status}); by default it is at /connection/websocket"
            ),
            (_, "") => write!(formatter, "the server refused the WebSocket ({status})"),
            (_, reason) => {
                write!(formatter, "the server refused the WebSocket: {reason} ({status})")
            }
        }
    }
}

impl std::error::Error for NoWebSocket {}

/// The name leads nowhere: a mistake, unless it did before.
#[derive(Debug)]
pub(crate) struct NoAddress {
    host: String,
    reason: String,
}

impl std::fmt::Display for NoAddress {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} has no address: {}", self.host, self.reason)
    }
}

impl std::error::Error for NoAddress {}

/// The peer is something that no waiting makes a WebSocket server of: not TLS, not HTTP, a certificate that nobody trusts.
#[derive(Debug)]
pub(crate) struct Incompatible(String);

impl std::fmt::Display for Incompatible {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Incompatible {}

/// A `ws://` or `wss://` address, taken apart.
struct Address {
    is_tls: bool,
    host: String,
    port: u16,
    authority: String,
    target: String,
}

impl Link {
    /// Connects to a WebSocket endpoint.
    pub(crate) fn connect(url: &str) -> anyhow::Result<Link> {
        let address = Address::parse(url)?;
        let resolved = match (address.host.as_str(), address.port).to_socket_addrs() {
            Ok(mut addresses) => addresses.next(),
            Err(error) => bail!(NoAddress { host: address.host, reason: error.to_string() }),
        };
        let Some(resolved) = resolved else {
            bail!(NoAddress {
                host: address.host,
                reason: "there is none for this name".to_owned()
            });
        };
        let tcp = TcpStream::connect_timeout(&resolved, CONNECT_TIMEOUT)
            .with_context(|| format!("cannot connect to {resolved}"))?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(CONNECT_TIMEOUT))?;
        tcp.set_write_timeout(Some(CONNECT_TIMEOUT))?;
        let stream: Box<dyn Stream> = match address.is_tls {
            false => Box::new(tcp.try_clone()?),
            true => Box::new(StreamOwned::new(address.tls()?, tcp.try_clone()?)),
        };
        let limits =
            DecoderLimits { message_size: MESSAGE_SIZE_MAX, inflated_size: MESSAGE_SIZE_MAX };
        let decoder = Decoder::new(Role::Client, limits, false);
        let inflater = Inflater::default();
        let mut link = Link { stream, tcp, decoder, inflater, early: Vec::new(), goodbye: None };
        link.shake_hands(&address)?;
        Ok(link)
    }

    fn shake_hands(&mut self, address: &Address) -> anyhow::Result<()> {
        let (handshake, request) = ClientHandshake::new(ClientRequest {
            host: &address.authority,
            target: &address.target,
            subprotocol: "centrifuge-json",
            headers: &[],
            key: random()?,
        });
        self.stream.write_all(&request).map_err(|error| explain(error, address))?;
        let mut head = Vec::new();
        loop {
            match handshake.handle_response(&head) {
                Ok(Some(length)) => {
                    self.early = head.split_off(length);
                    return Ok(());
                }
                Ok(None) => {}
                Err(ClientRefused::Status(status)) => {
                    let reason = self.reason(&head);
                    bail!(NoWebSocket { status, reason });
                }
                Err(refused @ ClientRefused::NotHttp) if !address.is_tls => bail!(Incompatible(
                    format!("{refused}; if the server speaks TLS, the address begins with wss://")
                )),
                Err(refused) => bail!(Incompatible(refused.to_string())),
            }
            if head.len() > RESPONSE_HEAD_MAX {
                bail!("the server's answer to the handshake is too long");
            }
            let mut part = [0; 4096];
            let count = self.stream.read(&mut part).map_err(|error| explain(error, address))?;
            if count == 0 {
                bail!("the server closed during the handshake");
            }
            head.extend_from_slice(&part[..count]);
        }
    }

    /// The first line of the body of a response whose head is there; pages are not for a terminal.
    fn reason(&mut self, response: &[u8]) -> String {
        let mut answer = Answer::new();
        let mut part = [0; REASON_MAX];
        let mut taken = response.len();
        let mut state = answer.feed(response);
        // Whatever has come is better than nothing.
        while state == Ok(Progress::More) && taken < RESPONSE_HEAD_MAX + REASON_MAX {
            match self.stream.read(&mut part) {
                Ok(count) if count > 0 => {
                    taken += count;
                    state = answer.feed(&part[..count]);
                }
                _ => break,
            }
        }
        let text = String::from_utf8_lossy(answer.body());
        let line = text.trim().lines().next().unwrap_or_default();
        if line.starts_with('<') { String::new() } else { line.to_owned() }
    }

    /// Sends one command.
    pub(crate) fn send(&mut self, command: &Command) -> anyhow::Result<()> {
        let mut payload = Vec::new();
        protocol::encode_command(Codec::Json, command, &mut payload);
        let mut frame = Vec::new();
        encoder::client_frame(FrameKind::Text, &payload, random()?, &mut frame);
        self.stream.write_all(&frame).context("the connection was cut")
    }

    /// Says goodbye; nobody waits for the answer.
    pub(crate) fn close(&mut self) {
        let mut frame = Vec::new();
        encoder::client_close(1000, "", random().unwrap_or_default(), &mut frame);
        let _gone = self.stream.write_all(&frame);
    }

    /// Waits for what the server says next.
    ///
    /// # Errors
    /// When the connection is cut, or silent for longer than `patience`.
    pub(crate) fn hear(&mut self, patience: Duration) -> anyhow::Result<Heard> {
        self.tcp.set_read_timeout(Some(patience))?;
        let mut buffer = vec![0; 64 * 1024];
        while self.goodbye.is_none() {
            let mut input = match std::mem::take(&mut self.early) {
                early if early.is_empty() => {
                    let count = self.read(&mut buffer, patience)?;
                    buffer[..count].to_vec()
                }
                early => early,
            };
            let replies = self.decode(&mut input)?;
            if !replies.is_empty() {
                return Ok(Heard::Replies(replies));
            }
        }
        Ok(Heard::Closed(self.goodbye.take().expect("the loop ends with it")))
    }

    /// Takes input in; what comes before a goodbye is told before it.
    fn decode(&mut self, mut input: &mut [u8]) -> anyhow::Result<Vec<Reply>> {
        let mut replies = Vec::new();
        let mut pong = Vec::new();
        while let Some(message) = self.decoder.next(&mut self.inflater, &mut input)? {
            match message {
                Message::Text(payload) | Message::Binary(payload) => {
                    replies.extend(protocol::decode_replies(Codec::Json, &payload)?);
                }
                Message::Ping(payload) => {
                    encoder::client_frame(FrameKind::Pong, &payload, random()?, &mut pong);
                }
                Message::Pong(_) => {}
                Message::Close(close) => {
                    let (code, reason) = close.map_or((1005, String::new()), |close| {
                        (close.code.number(), close.reason.to_string())
                    });
                    self.goodbye = Some(Goodbye { code, reason });
                    return Ok(replies);
                }
            }
        }
        // A cut shows at the next read, after what was heard before.
        let _cut = self.stream.write_all(&pong);
        Ok(replies)
    }

    fn read(&mut self, buffer: &mut [u8], patience: Duration) -> anyhow::Result<usize> {
        match self.stream.read(buffer) {
            Ok(0) => bail!("the server went away"),
            Ok(count) => Ok(count),
            Err(error)
                if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) =>
            {
                bail!("the server was silent for {} s", patience.as_secs())
            }
            Err(error) => Err(error).context("the connection was cut"),
        }
    }
}

/// What a failed exchange means: an error of TLS stays, one of the network may pass.
fn explain(error: io::Error, address: &Address) -> anyhow::Error {
    let of_tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match of_tls {
        Some(rustls::Error::InvalidMessage(_)) => Incompatible(format!(
            "{} does not speak TLS: if that is meant, the address begins with ws://",
            address.authority
        ))
        .into(),
        Some(fault) => Incompatible(format!("TLS with {}: {fault}", address.authority)).into(),
        None if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
            let seconds = CONNECT_TIMEOUT.as_secs();
            anyhow::anyhow!("{} gave no answer for {seconds} s", address.authority)
        }
        None => anyhow::Error::new(error).context("the connection was cut during the handshake"),
    }
}

impl Address {
    fn parse(url: &str) -> anyhow::Result<Address> {
        let (scheme, rest) = url.split_once("://").unwrap_or(("ws", url));
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let is_tls = match scheme {
            "ws" => false,
            "wss" => true,
            "http" | "https" => misuse!(
                "{url}: a WebSocket address begins with ws:// or wss://; did you mean {}://{authority}/connection/websocket?",
                scheme.replace("http", "ws")
            ),
            _ => misuse!("{url}: expected an address that begins with ws:// or wss://"),
        };
        let Authority { host, port } = Authority::parse(url, authority)?;
        let target = match path.strip_prefix('/') {
            Some(_) => path.to_owned(),
            None => format!("/connection/websocket{path}"),
        };
        Ok(Address {
            is_tls,
            host: host.to_owned(),
            port: port.unwrap_or(if is_tls { 443 } else { 80 }),
            authority: authority.to_owned(),
            target,
        })
    }

    fn tls(&self) -> anyhow::Result<ClientConnection> {
        let roots = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let Ok(name) = ServerName::try_from(self.host.clone()) else {
            misuse!("{}: is no name for a certificate", self.host);
        };
        Ok(ClientConnection::new(Arc::new(config), name)?)
    }
}
