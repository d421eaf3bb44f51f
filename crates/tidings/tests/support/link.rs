//! A client's socket, as one of many on one poller: dialled, shaken hands with, read to the end of what is there.
//!
//! Invariant: whatever the peer does comes out as [`Said`], in order; after [`Said::Ended`] nothing more comes.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Socket, Type};
use wire::protocol::{self, Codec, Command, Reply};
use wire::websocket::Role;
use wire::websocket::decoder::{Decoder, DecoderLimits, Message};
use wire::websocket::deflate::Inflater;
use wire::websocket::encoder::{self, FrameKind};

/// See the module.
pub(crate) struct Link {
    pub(crate) stream: TcpStream,
    stage: Stage,
    head: Vec<u8>,
    decoder: Decoder,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Dialling,
    ShakingHands,
    Open,
}

/// What came over a link.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Said {
    /// Commands may be sent now.
    Open,
    Reply(Reply),
    /// The server, or the kernel, ended it, with the code of the close frame where there was one.
    Ended {
        code: u16,
        reason: String,
    },
}

impl Link {
    /// Dials from one of many loopback addresses, so that ports are not short.
    pub(crate) fn dial(
        address: SocketAddr,
        number: u64,
        registry: &Registry,
        token: Token,
    ) -> std::io::Result<Link> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        let source = Ipv4Addr::new(127, 0, 2, u8::try_from(number % 200 + 1).unwrap_or(1));
        socket.bind(&SocketAddr::from((source, 0)).into())?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&address.into()) {
            Err(error) if error.raw_os_error() != Some(EINPROGRESS) => return Err(error),
            _ => {}
        }
        let mut stream = TcpStream::from_std(socket.into());
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        let limits = DecoderLimits { message_size: 1 << 24, inflated_size: 1 << 24 };
        let decoder = Decoder::new(Role::Client, limits, false);
        Ok(Link { stream, stage: Stage::Dialling, head: Vec::new(), decoder })
    }

    pub(crate) fn send(&mut self, commands: &[Command]) -> std::io::Result<()> {
        let mut payload = Vec::new();
        for command in commands {
            protocol::encode_command(Codec::Json, command, &mut payload);
        }
        let mut bytes = Vec::new();
        encoder::client_frame(FrameKind::Text, &payload, [0; 4], &mut bytes);
        self.stream.write_all(&bytes)
    }

    /// The socket may be written or read: everything that is there.
    pub(crate) fn read(&mut self, buffer: &mut [u8], inflater: &mut Inflater) -> Vec<Said> {
        let mut said = Vec::new();
        if let Err(error) = self.read_all(buffer, inflater, &mut said) {
            said.push(Said::Ended { code: 0, reason: error.to_string() });
        }
        said
    }

    fn read_all(
        &mut self,
        buffer: &mut [u8],
        inflater: &mut Inflater,
        said: &mut Vec<Said>,
    ) -> std::io::Result<()> {
        if self.stage == Stage::Dialling {
            if let Some(error) = self.stream.take_error()? {
                return Err(error);
            }
            match self.stream.peer_addr() {
                Err(error) if error.kind() == ErrorKind::NotConnected => return Ok(()),
                result => result?,
            };
            self.stage = Stage::ShakingHands;
            self.stream.write_all(HANDSHAKE)?;
        }
        while !matches!(said.last(), Some(Said::Ended { .. })) {
            match self.stream.read(buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.handle_bytes(&mut buffer[..count], inflater, said),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn handle_bytes(&mut self, input: &mut [u8], inflater: &mut Inflater, said: &mut Vec<Said>) {
        let mut rest;
        let mut input = &mut *input;
        if self.stage == Stage::ShakingHands {
            self.head.extend_from_slice(input);
            let Some(end) = self.head.windows(4).position(|four| four == b"\r\n\r\n") else {
                return;
            };
            if !self.head.starts_with(b"HTTP/1.1 101") {
                let reason = String::from_utf8_lossy(&self.head).into_owned();
                said.push(Said::Ended { code: 0, reason });
                return;
            }
            rest = self.head.split_off(end + 4);
            input = &mut rest;
            self.stage = Stage::Open;
            said.push(Said::Open);
        }
        while let Some(message) = self.decoder.next(inflater, &mut input).expect("RFC 6455") {
            match message {
                Message::Text(payload) => {
                    let replies = protocol::decode_replies(Codec::Json, &payload).expect("replies");
                    said.extend(replies.into_iter().map(Said::Reply));
                }
                Message::Close(frame) => {
                    let (code, reason) = frame
                        .map_or((0, String::new()), |frame| (frame.code.number(), frame.reason));
                    said.push(Said::Ended { code, reason });
                    return;
                }
                other => panic!("the server sends no {other:?}"),
            }
        }
    }
}

const HANDSHAKE: &[u8] = b"GET /connection/websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A connect that does not wait says so.
const EINPROGRESS: i32 = 115;
