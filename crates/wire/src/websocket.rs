//! WebSocket without I/O: the handshake, frames and messages of RFC 6455 and compression of RFC
//! 7692, for both roles.
//!
//! Invariant: between messages a connection owns no memory here. A peer's announced length is never
//! allocated before its bytes arrive.

pub mod close;
pub mod decoder;
pub mod deflate;
pub mod encoder;
pub mod handshake;
mod header;
mod mask;
pub mod protocol_error;

/// The end of a connection: clients mask their frames, servers do not (RFC 6455 §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The end that accepts the connection.
    Server,
    /// The end that opens the connection.
    Client,
}
