//! A client that can misbehave: raw bytes over one blocking socket.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::ops::Range;
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};
use wire::websocket::Role;
use wire::websocket::decoder::{Decoder, DecoderLimits, Message};
use wire::websocket::deflate::Inflater;
use wire::websocket::encoder::{self, FrameKind};

use crate::process::PATIENCE;

/// See the module.
pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    decoder: Decoder,
    inflater: Inflater,
    unread: Vec<u8>,
}

/// What a peer heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Text(String),
    Pong,
    Closed(u16),
    /// The socket ended without a close frame, or after it.
    Cut,
}

/// A handshake, with further headers.
pub(crate) fn upgrade(headers: &str) -> String {
    format!(
        "GET /connection/websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    )
}

/// A frame of a client. The mask that changes nothing is a mask, too.
pub(crate) fn frame(kind: FrameKind, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encoder::client_frame(kind, payload, [0; 4], &mut bytes);
    bytes
}

impl Peer {
    pub(crate) fn dial(address: SocketAddr) -> Peer {
        Peer::over(TcpStream::connect(address).unwrap())
    }

    /// From the `index`th of many loopback addresses, so that ports are not short.
    pub(crate) fn dial_as(address: SocketAddr, index: usize) -> Peer {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let source = Ipv4Addr::new(127, 0, 1, u8::try_from(index % 200 + 1).unwrap());
        socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
        socket.connect(&address.into()).unwrap();
        Peer::over(socket.into())
    }

    /// With as little room for what it does not read as the kernel allows.
    pub(crate) fn dial_narrow(address: SocketAddr) -> Peer {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(&address.into()).unwrap();
        Peer::over(socket.into())
    }

    fn over(stream: TcpStream) -> Peer {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let limits = DecoderLimits { message_size: 1 << 24, inflated_size: 1 << 24 };
        let decoder = Decoder::new(Role::Client, limits, true);
        Peer { stream, decoder, inflater: Inflater::default(), unread: Vec::new() }
    }

    /// A client whose handshake was accepted.
    pub(crate) fn upgraded(address: SocketAddr) -> Peer {
        Peer::dial(address).upgrade()
    }

    /// A client whose connect command was accepted.
    pub(crate) fn admitted(address: SocketAddr) -> Peer {
        Peer::dial(address).admit()
    }

    fn upgrade(mut self) -> Peer {
        self.send(upgrade("").as_bytes());
        self.accepted();
        self
    }

    /// Shakes hands and connects.
    pub(crate) fn admit(self) -> Peer {
        let mut peer = self.upgrade();
        peer.say(r#"{"id":1,"connect":{}}"#);
        let reply = peer.hear();
        assert!(reply.contains(r#""connect":{"#), "{reply}");
        peer
    }

    /// Reads the answer to a handshake, which must be 101; gives its head.
    pub(crate) fn accepted(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            let count = self.stream.read(&mut byte).expect("an answer in time");
            assert!(count > 0, "closed during the handshake");
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        head
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        // The server may have closed already; what it said is what counts.
        let _closed = self.stream.write_all(bytes);
    }

    /// Sends a text message.
    pub(crate) fn say(&mut self, text: &str) {
        self.send(&frame(FrameKind::Text, text.as_bytes()));
    }

    pub(crate) fn subscribe(&mut self, channel: &str) {
        self.say(&format!(r#"{{"id":2,"subscribe":{{"channel":"{channel}"}}}}"#));
        let reply = self.hear();
        assert!(reply.contains(r#""subscribe":{"#), "{reply}");
    }

    /// The next text message.
    pub(crate) fn hear(&mut self) -> String {
        match self.next() {
            Heard::Text(text) => text,
            other => panic!("expected a text message, heard {other:?}"),
        }
    }

    /// What ends the connection, whatever is said before: a close code, or [`Heard::Cut`].
    pub(crate) fn end(&mut self) -> Heard {
        loop {
            match self.next() {
                end @ (Heard::Closed(_) | Heard::Cut) => return end,
                Heard::Text(_) | Heard::Pong => {}
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
                Message::Pong(_) => Heard::Pong,
                Message::Close(close) => Heard::Closed(close.map_or(1005, |c| c.code.number())),
                other => panic!("nobody asked for {other:?}"),
            });
            let used = before - input.len();
            self.unread.drain(..used);
            if let Some(heard) = heard {
                return heard;
            }
            let mut part = [0; 64 * 1024];
            match self.stream.read(&mut part) {
                Ok(0) => return Heard::Cut,
                Ok(count) => self.unread.extend_from_slice(&part[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Heard::Cut,
                Err(error) => panic!("nothing heard: {error}"),
            }
        }
    }

    /// Sends the same again and again without reading: as long as the range begins with, then until it is over or for
    /// as long as the range ends with. Gives the bytes that were taken.
    pub(crate) fn flood(
        &mut self,
        bytes: &[u8],
        time: Range<Duration>,
        is_over: impl Fn() -> bool,
    ) -> u64 {
        const LOOK: Duration = Duration::from_millis(200);
        self.stream.set_write_timeout(Some(LOOK)).unwrap();
        let began = Instant::now();
        let mut looked = began;
        let mut sent = 0;
        // Where the last write broke off: the stream goes on there.
        let mut at = 0;
        while began.elapsed() < time.end {
            match self.stream.write(&bytes[at..]) {
                Ok(count) => {
                    sent += count as u64;
                    at = (at + count) % bytes.len();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
            if looked.elapsed() > LOOK && began.elapsed() >= time.start {
                looked = Instant::now();
                if is_over() {
                    break;
                }
            }
        }
        sent
    }

    /// Goes without a word: the kernel sends a reset.
    pub(crate) fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}
