//! Messages as JetStream stores and returns them, and the outcome of storing one.
//!
//! Invariant: these are values; the requests that yield them are in [`super::jetstream`].

use bytes::Bytes;

/// A message as JetStream returns it.
#[derive(Clone, Debug)]
pub(super) struct StoredMessage {
    pub(super) subject: String,
    pub(super) sequence: u64,
    pub(super) payload: Bytes,
    /// When it was stored, Unix milliseconds by the clock of NATS; zero in single reads.
    pub(super) at_ms: u64,
}

/// The outcome of storing a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ack {
    /// Stored with this sequence.
    Stored(u64),
    /// A message with the same identifier was stored before, with this sequence.
    Duplicate(u64),
    /// The newest message of the subject is not the expected one.
    Conflict,
}
