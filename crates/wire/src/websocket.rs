//! WebSocket without I/O: the handshake, frames and messages of RFC 6455, compression of RFC 7692,
//! both roles.
//!
//! Invariant: a connection that is between messages owns no memory here; what a peer announces is
//! never allocated before it has been received.

pub mod close;
pub mod decoder;
pub mod deflate;
pub mod encoder;
pub mod handshake;
mod header;
mod mask;

/// Which end of a connection one is: clients mask their frames, servers do not (RFC 6455 §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Accepts connections.
    Server,
    /// Opens connections.
    Client,
}
