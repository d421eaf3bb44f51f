//! A model of Redis: the commands that the broker and its scripts use, in memory, with Redis'
//! semantics. The product's scripts run in a real Lua 5.1.
//!
//! Invariant: time is an argument. A command that the model does not know is a panic, so that the
//! broker cannot begin to use one unnoticed.

pub(super) mod reply;
pub(super) mod scripts;
pub(super) mod server;
pub(super) mod store;

mod hashes;
mod sets;
mod streams;
mod strings;
