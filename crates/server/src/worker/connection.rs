//! The driver's side of one connection: its socket, its decoder, and its state in the closing
//! handshake.
//!
//! Invariant: after our close frame nothing is written, and after the peer's nothing is handled.

use std::sync::Arc;

use axum::http::HeaderMap;
use engine::encoding::Encoding;
use engine::{Opening, PingStyle, SessionKey};
use rustls::ServerConnection;
use wire::protocol::Codec;
use wire::websocket::Role;
use wire::websocket::decoder::{Decoder, DecoderLimits};
use wire::websocket::deflate::Window;

use super::socket::Socket;
use crate::admission::Admitted;
use crate::admission::unauthenticated::Unauthenticated;

/// A connection that has completed its handshake, on its way to a worker.
pub struct Arrival {
    /// Socket of the connection.
    pub stream: ArrivedStream,
    /// Bytes that were received after the handshake.
    pub early: Vec<u8>,
    /// Encoding of commands and replies.
    pub codec: Codec,
    /// Window of permessage-deflate; `None` if it was not negotiated.
    pub deflate: Option<Window>,
    /// Whether pings are protocol messages or WebSocket frames.
    pub ping_style: PingStyle,
    /// User id from a reverse proxy (`client.user_id_http_header`).
    pub user: Option<Box<str>>,
    /// Headers of the handshake that backends get.
    pub headers: Option<Arc<HeaderMap>>,
    /// Slot among unauthenticated connections, and the client's address.
    pub unauthenticated: Unauthenticated,
}

/// Socket of an [`Arrival`].
pub enum ArrivedStream {
    /// TCP or a Unix socket, without TLS.
    Plain(std::net::TcpStream),
    /// With TLS, after the TLS handshake.
    Tls(std::net::TcpStream, Box<ServerConnection>),
}

/// Socket, decoder and closing state of one connection.
pub(super) struct Connection {
    pub(super) key: SessionKey,
    pub(super) socket: Socket,
    pub(super) decoder: Decoder,
    pub(super) state: CloseState,
    pub(super) reading: ReadTurn,
    /// The kernel has reported the end of the peer's stream.
    pub(super) is_ending: bool,
    pub(super) standing: ConnectionStanding,
    /// Headers of the handshake that backends get.
    pub(super) headers: Option<Arc<HeaderMap>>,
}

/// When a connection will be read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadTurn {
    /// After a readiness event of the kernel.
    Ready,
    /// In the next turn: it has more input than one turn reads.
    Unread,
    /// When its session is no longer congested, that is, waits for fewer answers.
    Paused,
}

/// Which limit a connection counts towards.
pub(super) enum ConnectionStanding {
    /// The connect command has not been accepted yet.
    Unauthenticated(Box<Unauthenticated>),
    /// The session is admitted.
    Admitted { _permit: Admitted },
    /// The session has ended, and the connection counts towards no limit.
    Ended,
}

/// State of a connection in the closing handshake (RFC 6455 §7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CloseState {
    /// No close frame was sent or received.
    Open,
    /// Our close frame is sent or queued; the peer's has not arrived.
    Closing,
    /// Both close frames are sent: the socket is closed when everything is written.
    Closed,
    /// We have failed the connection without waiting for the peer's close frame: writing is shut
    /// down when everything is written.
    Failed,
    /// Everything is written. Input is discarded until the peer's stream ends or exceeds a bound.
    Lingering {
        /// Bytes that the peer may still send before the socket is closed.
        bytes_left: u32,
    },
}

impl CloseState {
    /// Whether input of the peer is still handled.
    pub(super) fn is_listening(self) -> bool {
        matches!(self, CloseState::Open | CloseState::Closing)
    }
}

impl Arrival {
    pub(super) fn opening(&self) -> Opening {
        Opening {
            encoding: Encoding { codec: self.codec, deflate: self.deflate },
            user: self.user.clone(),
            ping_style: self.ping_style,
        }
    }

    /// The connection, and the input that was read before it arrived.
    pub(super) fn into_connection(
        self,
        key: SessionKey,
        limits: DecoderLimits,
    ) -> (Connection, Vec<u8>) {
        let socket = match self.stream {
            ArrivedStream::Plain(tcp) => Socket::plain(tcp),
            ArrivedStream::Tls(tcp, tls) => Socket::tls(tcp, *tls),
        };
        let connection = Connection {
            key,
            socket,
            decoder: Decoder::new(Role::Server, limits, self.deflate),
            state: CloseState::Open,
            reading: ReadTurn::Ready,
            is_ending: false,
            standing: ConnectionStanding::Unauthenticated(Box::new(self.unauthenticated)),
            headers: self.headers,
        };
        (connection, self.early)
    }
}
