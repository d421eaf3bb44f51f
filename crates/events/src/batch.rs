//! Events that are sent together.
//!
//! Invariant: a batch is a copy of the first events of the queue, which stay there until the batch
//! is acknowledged.

use bytes::Bytes;

/// A batch; never empty.
#[derive(Clone, Debug)]
pub(crate) struct EventBatch {
    /// The same for every attempt to send these events.
    pub(crate) id: String,
    pub(crate) events: Vec<Bytes>,
}

impl EventBatch {
    /// `{"events":[…]}`.
    pub(crate) fn body(&self) -> Bytes {
        const BEGIN: &[u8] = br#"{"events":["#;
        let size: usize = self.events.iter().map(|event| event.len() + 1).sum();
        let mut body = Vec::with_capacity(size + BEGIN.len() + 2);
        body.extend_from_slice(BEGIN);
        for (index, event) in self.events.iter().enumerate() {
            if index > 0 {
                body.push(b',');
            }
            body.extend_from_slice(event);
        }
        body.extend_from_slice(b"]}");
        body.into()
    }
}
