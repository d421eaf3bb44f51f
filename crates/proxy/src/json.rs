//! Requests and replies as JSON, as a backend reads and writes them over HTTP.
//!
//! Invariant: data that is JSON is copied as it is, in both directions. Unknown members of a reply
//! are ignored.

mod read;
mod write;

pub(crate) use read::read_reply;
pub(crate) use write::{NotJsonData, write_request};

#[cfg(test)]
mod tests;
