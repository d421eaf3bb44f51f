//! The client against the real server: both codecs, TLS, tokens, refusals, codes, recovery over
//! a network that is cut; and against servers that break the protocol.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a real server has sockets, and a test a clock"
)]

mod basics;
mod codes;
#[path = "../../../server/tests/it/configuration.rs"]
mod configuration;
mod hostile;
mod proxy;
mod recovery;
mod support;
mod tls;
mod tokens;
#[path = "../../../server/tests/it/trust.rs"]
mod trust;
