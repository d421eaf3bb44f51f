//! The client against the real server: both codecs, TLS, tokens, refusals, codes, and recovery over
//! a network that is cut.

mod basics;
mod codes;
mod proxy;
mod recovery;
mod support;
mod tls;
mod tokens;
