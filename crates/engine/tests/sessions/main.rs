//! Sessions' guarantees, as sequences of commands, events and expected output.

#![expect(clippy::disallowed_types, reason = "the world of a test records events")]

mod bytes;
mod calls;
mod checks;
mod floods;
mod joining;
mod lifecycles;
mod names;
mod not_json;
mod panics;
mod world;
