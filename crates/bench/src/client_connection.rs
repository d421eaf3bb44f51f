//! One WebSocket connection of the generator: a socket that never blocks, and what the server says
//! on it.
//!
//! Invariant: every publication of the generator is found as a tag, whatever else shares its
//! message.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Socket, Type};
use wire::protocol::{self, Codec, Command, ErrorCode, PushEvent, Reply, ReplyBody, Request};
use wire::websocket::Role;
use wire::websocket::decoder::{Decoder, DecoderLimits, Message};
use wire::websocket::deflate::Inflater;
use wire::websocket::encoder::{self, FrameKind};
use wire::websocket::handshake::{ClientHandshake, ClientRequest};

use super::clock;
use super::plan::ServerTarget;
use super::publication_tag::{PublicationTag, TagReader};
use super::transport::{self, Transport};

/// A WebSocket connection of the load generator; the socket never blocks.
pub(crate) struct ClientConnection {
    /// When its socket was dialled.
    pub(crate) dialled: u64,
    stream: Transport,
    opening: Option<Box<Opening>>,
    decoder: Decoder,
    codec: Codec,
    /// What the kernel has not taken yet.
    out: Vec<u8>,
}

/// What a connection needs until it is open.
struct Opening {
    is_connected: bool,
    request: Vec<u8>,
    handshake: ClientHandshake,
    head: Vec<u8>,
    /// Commands to send at once.
    first_commands: Vec<u8>,
}

/// What has come.
pub(crate) enum ClientConnectionEvent {
    /// The handshake is done.
    Open,
    Delivery(PublicationTag),
    Reply(Reply),
}

/// What all connections of a process share.
pub(crate) struct ReadBuffers {
    buffer: Vec<u8>,
    inflater: Inflater,
    reader: TagReader,
    pub(crate) bytes: u64,
}

const MESSAGE_SIZE_MAX: u32 = 64 * 1024 * 1024;
const RESPONSE_HEAD_MAX: usize = 16 * 1024;
const EINPROGRESS: i32 = 115;

impl ReadBuffers {
    pub(crate) fn new() -> ReadBuffers {
        let (inflater, reader) = (Inflater::default(), TagReader::new());
        ReadBuffers { buffer: vec![0; 256 * 1024], inflater, reader, bytes: 0 }
    }
}

/// A socket on its way to the server, from this address where one is given.
pub(crate) fn dial(to: SocketAddr, from: Option<IpAddr>) -> Result<TcpStream, String> {
    let connect = || -> std::io::Result<TcpStream> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        if let Some(from) = from {
            // Ports whose last connection has only just ended are good for another server.
            socket.set_reuse_address(true)?;
            socket.bind(&SocketAddr::from((from, 0)).into())?;
        }
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&to.into()) {
            Err(error) if error.raw_os_error() != Some(EINPROGRESS) => Err(error),
            _ => Ok(TcpStream::from_std(socket.into())),
        }
    };
    connect().map_err(|error| format!("cannot connect to {to}: {error}"))
}

/// Whether a socket that was dialled is connected by now.
pub(crate) fn is_connected(stream: &TcpStream) -> std::io::Result<bool> {
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    match stream.peer_addr() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
        Err(error) => Err(error),
    }
}

impl ClientConnection {
    /// Connects; once open, it sends these commands.
    pub(crate) fn dial(
        target: &ServerTarget,
        from: Option<IpAddr>,
        first_commands: &[Command],
        registry: &Registry,
        token: Token,
    ) -> Result<ClientConnection, String> {
        let (handshake, request) = ClientHandshake::new(ClientRequest {
            host: &target.authority,
            target: &target.path,
            subprotocol: target.encoding.subprotocol(),
            headers: &[],
            key: fastrand::u128(..).to_le_bytes(),
        });
        let codec = target.encoding.codec();
        let mut opening = Opening {
            is_connected: false,
            request,
            handshake,
            head: Vec::new(),
            first_commands: Vec::new(),
        };
        if !first_commands.is_empty() {
            frame(codec, first_commands, &mut opening.first_commands);
        }
        let limits =
            DecoderLimits { message_size: MESSAGE_SIZE_MAX, inflated_size: MESSAGE_SIZE_MAX };
        let decoder = Decoder::new(Role::Client, limits, None);
        let security = target.security.as_ref();
        transport::prepare(security)?;
        // Last of all: what the generator itself takes is no part of the server's time.
        let dialled = clock::now();
        let mut stream = dial(target.address, from)?;
        registry
            .register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)
            .map_err(|error| format!("the poller takes no more sockets: {error}"))?;
        let (stream, opening) = (Transport::new(stream, security)?, Some(Box::new(opening)));
        Ok(ClientConnection { dialled, stream, opening, decoder, codec, out: Vec::new() })
    }

    /// Sends a command, as soon as the kernel takes it.
    pub(crate) fn send(&mut self, command: Command) -> Result<(), String> {
        frame(self.codec, &[command], &mut self.out);
        self.flush()
    }

    /// Leaves without a goodbye, so that no port waits for the peer's.
    pub(crate) fn reset(self) {
        self.stream.reset();
    }

    /// The socket may be read or written.
    pub(crate) fn handle(
        &mut self,
        buffers: &mut ReadBuffers,
        mut handle: impl FnMut(ClientConnectionEvent),
    ) -> Result<(), String> {
        if let Some(opening) = &mut self.opening
            && !opening.is_connected
        {
            match is_connected(self.stream.tcp()) {
                Ok(true) => opening.is_connected = true,
                Ok(false) => return Ok(()),
                Err(error) => return Err(format!("cannot connect to the server: {error}")),
            }
            self.out = std::mem::take(&mut opening.request);
        }
        self.flush()?;
        loop {
            let count = match self.stream.read(&mut buffers.buffer) {
                Ok(0) => return Err("the server closed a connection without a word".to_owned()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(format!("a connection was cut: {error}")),
            };
            buffers.bytes += count as u64;
            self.take(count, buffers, &mut handle)?;
            // A short read has emptied the socket; what comes later is an event of its own.
            if count < buffers.buffer.len() && self.opening.is_none() && self.stream.is_plain() {
                return Ok(());
            }
        }
    }

    fn take(
        &mut self,
        count: usize,
        buffers: &mut ReadBuffers,
        handle: &mut impl FnMut(ClientConnectionEvent),
    ) -> Result<(), String> {
        let Some(opening) = &mut self.opening else {
            let ReadBuffers { buffer, inflater, reader, .. } = buffers;
            return self.decode(&mut buffer[..count], inflater, reader, handle);
        };
        opening.head.extend_from_slice(&buffers.buffer[..count]);
        let length = match opening.handshake.handle_response(&opening.head) {
            Ok(Some(length)) => length,
            Ok(None) if opening.head.len() > RESPONSE_HEAD_MAX => {
                return Err("the server's answer to the handshake is too long".to_owned());
            }
            Ok(None) => return Ok(()),
            Err(refused) => return Err(refused.to_string()),
        };
        let mut early = opening.head.split_off(length);
        self.out.append(&mut opening.first_commands);
        self.opening = None;
        handle(ClientConnectionEvent::Open);
        self.flush()?;
        self.decode(&mut early, &mut buffers.inflater, &buffers.reader, handle)
    }

    fn decode(
        &mut self,
        mut input: &mut [u8],
        inflater: &mut Inflater,
        reader: &TagReader,
        handle: &mut impl FnMut(ClientConnectionEvent),
    ) -> Result<(), String> {
        let wrong = |error: &dyn std::fmt::Display| format!("the server speaks wrong: {error}");
        while let Some(message) =
            self.decoder.next(inflater, &mut input).map_err(|error| wrong(&error))?
        {
            match message {
                Message::Text(payload) | Message::Binary(payload) => {
                    for part in parts(self.codec, &payload) {
                        if is_push(self.codec, part)
                            && let Some(tag) = reader.find(part)
                        {
                            handle(ClientConnectionEvent::Delivery(tag));
                            continue;
                        }
                        let replies = protocol::decode_replies(self.codec, part);
                        for reply in replies.map_err(|error| wrong(&error))? {
                            self.handle_reply(reply, reader, handle)?;
                        }
                    }
                }
                Message::Ping(payload) => {
                    encoder::client_frame(FrameKind::Pong, &payload, KEY, &mut self.out);
                    self.flush()?;
                }
                Message::Pong(_) => {}
                Message::Close(close) => {
                    let (code, reason) = close.map_or((1005, String::new()), |close| {
                        (close.code.number(), close.reason.to_string())
                    });
                    return Err(format!("the server closed a connection: {code} {reason}"));
                }
            }
        }
        Ok(())
    }

    fn handle_reply(
        &mut self,
        reply: Reply,
        reader: &TagReader,
        handle: &mut impl FnMut(ClientConnectionEvent),
    ) -> Result<(), String> {
        match &reply.body {
            ReplyBody::Ping => return self.send(Command { id: 0, request: Request::Pong }),
            ReplyBody::Error(error) if error.code == ErrorCode::TooManyRequests.number() => {
                return Err(format!(
                    "the server refused: {} ({}); for a load test raise its limits.connection.* or take them off",
                    error.message, error.code
                ));
            }
            ReplyBody::Error(error) => {
                return Err(format!("the server refused: {} ({})", error.message, error.code));
            }
            ReplyBody::Push(push) => match &push.event {
                PushEvent::Publication(publication) => {
                    if let Some(tag) = reader.find(&publication.data) {
                        handle(ClientConnectionEvent::Delivery(tag));
                    }
                    return Ok(());
                }
                PushEvent::Unsubscribe { code, reason } => {
                    return Err(format!("the server ended a subscription: {code} {reason}"));
                }
                PushEvent::Disconnect { code, reason, .. } => {
                    return Err(format!("the server closed a connection: {code} {reason}"));
                }
                _ => return Ok(()),
            },
            _ => {}
        }
        handle(ClientConnectionEvent::Reply(reply));
        Ok(())
    }

    fn flush(&mut self) -> Result<(), String> {
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(count) => drop(self.out.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("a connection was cut: {error}")),
            }
        }
        self.stream.flush().map_err(|error| format!("a connection was cut: {error}"))?;
        if self.out.capacity() > 0 && self.opening.is_some() {
            self.out = Vec::new();
        }
        Ok(())
    }
}

/// Masks protect proxies (RFC 6455 §10.3); between a generator and its server there is none.
const KEY: [u8; 4] = *b"mask";

fn frame(codec: Codec, commands: &[Command], out: &mut Vec<u8>) {
    let mut payload = Vec::new();
    for command in commands {
        protocol::encode_command(codec, command, &mut payload);
    }
    let kind = if codec == Codec::Json { FrameKind::Text } else { FrameKind::Binary };
    encoder::client_frame(kind, &payload, KEY, out);
}

/// The replies of one message, each still encoded as a message of its own.
fn parts(codec: Codec, mut message: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        if message.is_empty() {
            return None;
        }
        let length = match codec {
            Codec::Json => memchr::memchr(b'\n', message).map(|at| at + 1),
            Codec::Protobuf => prefix(message).map(|(start, length)| start.saturating_add(length)),
        };
        // What is cut short is left for the decoder to refuse.
        let (part, rest) = message.split_at(length.unwrap_or(message.len()).min(message.len()));
        message = rest;
        Some(part)
    })
}

fn is_push(codec: Codec, part: &[u8]) -> bool {
    match codec {
        Codec::Json => part.starts_with(b"{\"push\":"),
        // Field 4, with a length.
        Codec::Protobuf => prefix(part).is_some_and(|(start, _)| part.get(start) == Some(&0x22)),
    }
}

/// A length as a varint: how many bytes it has, and its value.
fn prefix(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(5).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((index + 1, value));
        }
    }
    None
}
