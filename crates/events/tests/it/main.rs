//! Sinks against a receiver that the test starts, and that fails as the test says.

mod breaking;
mod http2;
mod receiver;
mod stopping;
mod support;
mod working;
