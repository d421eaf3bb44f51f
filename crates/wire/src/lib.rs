//! Bytes ↔ frames ↔ commands: RFC 6455, RFC 7692 and the client protocol, without I/O.
//!
//! Everything is a function of its input: no sockets, clocks, randomness, logs or threads. Invalid
//! input of a peer becomes a typed error that maps to exactly one code. No input causes a panic.
//!
//! Reading order: [`websocket`] (bytes to messages), then [`protocol`] (messages to commands and
//! back).

pub mod limits;
pub mod protocol;
pub mod websocket;
