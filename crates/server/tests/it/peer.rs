//! A WebSocket client for tests that sends raw bytes over one blocking socket. All tests that need
//! single frames share it; tests of the client protocol use the client crate.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use wire::websocket::Role;
use wire::websocket::decoder::{Decoder, DecoderLimits, Message};
use wire::websocket::deflate::{Inflater, Window};
use wire::websocket::encoder::{self, FrameKind};

/// Timeout of reads.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// One TCP connection, and after a handshake one WebSocket.
pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    decoder: Decoder,
    inflater: Inflater,
    unread: Vec<u8>,
}

/// What a peer received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    Text(String),
    Binary(Vec<u8>),
    Pong(Vec<u8>),
    Closed(u16),
    /// The stream ended, with or without a close frame before.
    Cut,
}

/// A handshake request with additional headers.
pub(crate) fn upgrade(headers: &str) -> String {
    format!(
        "GET /connection/websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    )
}

/// A masked frame of a client. A mask of zeroes leaves the payload unchanged.
pub(crate) fn frame(kind: FrameKind, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encoder::client_frame(kind, payload, [0; 4], &mut bytes);
    bytes
}

impl Peer {
    pub(crate) fn dial(address: SocketAddr) -> Peer {
        Peer::over(TcpStream::connect(address).unwrap())
    }

    /// Wraps a connected socket.
    pub(crate) fn over(stream: TcpStream) -> Peer {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let limits = DecoderLimits { message_size: 1 << 24, inflated_size: 1 << 24 };
        let decoder = Decoder::new(Role::Client, limits, Some(Window::Full));
        Peer { stream, decoder, inflater: Inflater::default(), unread: Vec::new() }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        // The server may have closed already; the tests check what it sent.
        let _closed = self.stream.write_all(bytes);
    }

    /// Sends a text message.
    pub(crate) fn say(&mut self, text: &str) {
        self.send(&frame(FrameKind::Text, text.as_bytes()));
    }

    /// Reads the head of the answer to a request.
    pub(crate) fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if self.stream.read(&mut byte).expect("an answer in time") == 0 {
                break;
            }
            head.push(byte[0]);
        }
        String::from_utf8(head).unwrap()
    }

    /// The next text message.
    pub(crate) fn receive(&mut self) -> String {
        match self.next() {
            Received::Text(text) => text,
            other => panic!("expected a text message, received {other:?}"),
        }
    }

    pub(crate) fn next(&mut self) -> Received {
        loop {
            let mut input = &mut self.unread[..];
            let before = input.len();
            let message = self.decoder.next(&mut self.inflater, &mut input).expect("RFC 6455");
            let received = message.map(|message| match message {
                Message::Text(text) => Received::Text(String::from_utf8(text.to_vec()).unwrap()),
                Message::Binary(bytes) => Received::Binary(bytes.to_vec()),
                Message::Ping(_) => panic!("unexpected WebSocket ping"),
                Message::Pong(payload) => Received::Pong(payload.to_vec()),
                Message::Close(close) => Received::Closed(close.map_or(1005, |c| c.code.number())),
            });
            let used = before - input.len();
            self.unread.drain(..used);
            if let Some(received) = received {
                return received;
            }
            let mut part = [0; 64 * 1024];
            match self.stream.read(&mut part) {
                Ok(0) => return Received::Cut,
                Ok(count) => self.unread.extend_from_slice(&part[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Received::Cut,
                Err(error) => panic!("nothing received: {error}"),
            }
        }
    }
}
