//! Black-box tests of the server: real sockets on a free port, and raw bytes.
//!
//! Official clients and browsers are tested in `tests/e2e`; these tests send what they never send.

mod api;
mod backends;
mod commands;
mod configuration;
mod ends;
mod events;
mod examples;
mod frames;
mod grpc;
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
mod trust;
