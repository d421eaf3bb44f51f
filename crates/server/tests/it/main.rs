//! The server from outside: real sockets on a free port, raw bytes, and what comes back.
//!
//! What official clients and browsers see stands in `tests/e2e`; here is what they never send.

mod api;
mod commands;
mod ends;
mod frames;
mod handshake;
mod http;
mod keys;
mod limits;
mod names;
mod peer;
mod proxied;
mod rates;
mod redis;
mod refusals;
mod revocations;
mod roles;
mod stop;
mod support;
mod tls;
mod tokens;
