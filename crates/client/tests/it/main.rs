//! The client against the real server: both codecs, TLS, tokens, refusals, codes, and recovery over
//! a network that is cut.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a real server has sockets, and a test a clock"
)]

mod basics;
mod codes;
mod proxy;
mod recovery;
mod support;
mod tls;
mod tokens;
