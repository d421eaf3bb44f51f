//! Operations on the stream of one channel: publish, read, change. Each is a pure state machine
//! that yields calls and takes their answers.
//!
//! Invariant: every record is stored under the condition that no other one was stored since the top
//! was read, so that offsets grow by one, whichever node publishes.

mod change;
mod publish;
mod read;

use bytes::Bytes;

use super::channel_call::ChannelCall;
use super::node_state::NodeView;
use super::record::{Record, RecordKind, StreamTop};
use super::stored_message::{Ack, StoredMessage};

pub(super) use change::{Clearing, TopChange, TopChanging};
pub(super) use publish::{PublishOutcome, Publishing};
pub(super) use read::{Publications, ReadStream, Reading, StreamRead};

/// A record on its way into the store.
#[derive(Debug)]
struct StoringRecord {
    record: Record,
    payload: Bytes,
    /// Highest known sequence of the store before: the record gets a higher one.
    above: u64,
}

impl StoringRecord {
    fn begin(
        view: &NodeView<'_>,
        record: Record,
        payload: Bytes,
        identifier: &str,
    ) -> (StoringRecord, ChannelCall) {
        let call = ChannelCall::Store {
            after: record.top.sequence,
            identifier: identifier.to_owned(),
            payload: payload.clone(),
        };
        let above = view.state.generations.high_water_sequence();
        (StoringRecord { record, payload, above }, call)
    }

    /// The record with its sequence; the acknowledgement if it was not stored.
    fn finish(self, view: &mut NodeView<'_>, ack: Ack) -> Result<Record, Ack> {
        let Ack::Stored(sequence) = ack else { return Err(ack) };
        view.record(self.above, sequence, &self.payload);
        let top = StreamTop { sequence, ..self.record.top };
        Ok(Record { top, ..self.record })
    }
}

/// Decodes the newest message of a stream. A message in another format is skipped: a new stream
/// begins after it.
pub(super) fn top_record(stored: Option<StoredMessage>) -> Option<Record> {
    let stored = stored?;
    let foreign = Record {
        kind: RecordKind::StateOnly,
        top: StreamTop { sequence: stored.sequence, ..StreamTop::default() },
        event: None,
    };
    Some(Record::decode(&stored.payload, stored.sequence).unwrap_or(foreign))
}
