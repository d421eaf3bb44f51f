//! Bytes ↔ frames ↔ commands: RFC 6455, RFC 7692 and the client protocol, without I/O.
//!
//! Everything here is a function of its input: no socket, clock, randomness, log or thread. What
//! comes from a peer and is wrong becomes a typed error that maps to exactly one code; nothing here
//! panics on input.
//!
//! Reading order: [`websocket`] (bytes to messages), then [`protocol`] (messages to commands and
//! back).

pub mod limits;
pub mod protocol;
pub mod websocket;
