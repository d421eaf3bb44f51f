//! The driver's side of one connection: its socket, its decoder, and where it stands in closing.
//!
//! Invariant: after our close frame nothing is written, and after the peer's nothing is handled.

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

/// A connection that has completed its handshake and is to live on a worker.
pub struct Arrival {
    /// The socket.
    pub stream: ArrivedStream,
    /// Bytes that came behind the handshake.
    pub early: Vec<u8>,
    /// JSON or Protobuf.
    pub codec: Codec,
    /// Whether and how permessage-deflate was negotiated.
    pub deflate: Option<Window>,
    /// Who pings.
    pub ping_style: PingStyle,
    /// User id that a reverse proxy has authenticated.
    pub user: Option<Box<str>>,
    /// Its slot among those that are not authenticated, and where the client is.
    pub unauthenticated: Unauthenticated,
}

/// A socket on its way to a worker.
pub enum ArrivedStream {
    /// As it is.
    Plain(std::net::TcpStream),
    /// With TLS, whose handshake is complete.
    Tls(std::net::TcpStream, Box<ServerConnection>),
}

/// See the module.
pub(super) struct Connection {
    pub(super) key: SessionKey,
    pub(super) socket: Socket,
    pub(super) decoder: Decoder,
    pub(super) state: CloseState,
    pub(super) reading: ReadTurn,
    /// The kernel has said that the peer sends no more.
    pub(super) is_ending: bool,
    pub(super) standing: ConnectionStanding,
}

/// When a connection is read next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadTurn {
    /// When the kernel says that there is something.
    Ready,
    /// In the next turn: it had more than one turn takes.
    Unread,
    /// When so much of what it sent does not wait for answers from elsewhere any more.
    Paused,
}

/// What a connection counts as.
pub(super) enum ConnectionStanding {
    /// Its connect command was not accepted yet.
    Unauthenticated(Box<Unauthenticated>),
    /// Its session is admitted.
    Admitted { _permit: Admitted },
    /// Its session has ended.
    Ended,
}

/// How far a connection is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CloseState {
    /// Both sides talk.
    Open,
    /// We have sent, or queued, our close frame and wait for the peer's.
    Closing,
    /// Both have sent their close frames: as soon as everything is written the socket goes.
    Closed,
    /// We have said our last word, and the peer may not know yet: as soon as everything is written,
    /// writing is shut down.
    Failed,
    /// What follows on [`CloseState::Failed`]: what the peer still sends is discarded, until it
    /// ends or has sent too much.
    Lingering {
        /// Bytes that it may still send.
        bytes_left: u32,
    },
}

impl CloseState {
    /// Whether what the peer sends still counts.
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

    /// The connection, and what has been read of it already.
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
            decoder: Decoder::new(Role::Server, limits, self.deflate.is_some()),
            state: CloseState::Open,
            reading: ReadTurn::Ready,
            is_ending: false,
            standing: ConnectionStanding::Unauthenticated(Box::new(self.unauthenticated)),
        };
        (connection, self.early)
    }
}
