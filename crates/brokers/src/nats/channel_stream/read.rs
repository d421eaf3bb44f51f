//! Reading the stream of a channel, which is created if there is none.
//!
//! Invariant: the publications that a read returns are consecutive and end at the top; their epoch
//! is that of a store that was verified on the current connection.

use std::sync::Arc;

use engine::broker::BrokerError;
use engine::history::Stream;
use wire::protocol::Publication;

use super::change::{ChangedTop, TopChange, TopChanging};
use crate::nats::channel_call::{CallResult, ChannelCall, Step};
use crate::nats::node_state::NodeView;
use crate::nats::record::{Record, RecordKind, StreamTop};
use crate::nats::stored_message::StoredMessage;

/// What a read of a stream returns, and whether it creates the stream.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::nats) struct StreamRead {
    /// Lifetime of a stream that this read creates, milliseconds; zero creates none.
    pub(in crate::nats) meta_ttl_ms: u64,
    pub(in crate::nats) publications: Publications,
}

/// Which publications a read returns; later variants include the earlier ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::nats) enum Publications {
    #[default]
    None,
    Newest,
    All,
}

/// A read in progress.
#[derive(Debug)]
pub(in crate::nats) struct Reading {
    read: StreamRead,
    changing: TopChanging,
    wait: Wait,
}

/// The call whose answer is awaited.
#[derive(Debug)]
enum Wait {
    Top,
    Messages(StreamTop, ReadTime),
    VerifiedStore(StreamTop, Vec<Arc<Publication>>),
}

/// When the top was read, Unix milliseconds.
type ReadTime = u64;

/// A stream that was read, and its top.
#[derive(Debug)]
pub(in crate::nats) struct ReadStream {
    pub(in crate::nats) top: StreamTop,
    pub(in crate::nats) stream: Stream,
}

impl Reading {
    pub(in crate::nats) fn begin(
        view: &NodeView<'_>,
        channel: &Arc<str>,
        read: StreamRead,
    ) -> (Reading, ChannelCall) {
        let create = TopChange::Create { meta_ttl_ms: read.meta_ttl_ms };
        let (changing, call) = TopChanging::begin(view, channel, create);
        (Reading { read, changing, wait: Wait::Top }, call)
    }

    pub(in crate::nats) fn handle(
        &mut self,
        view: &mut NodeView<'_>,
        result: CallResult,
    ) -> Step<Result<ReadStream, BrokerError>> {
        match std::mem::replace(&mut self.wait, Wait::Top) {
            Wait::Top => match self.changing.handle(view, result) {
                Step::Call(call) => Step::Call(call),
                Step::Done(Err(error)) => Step::Done(Err(error)),
                Step::Done(Ok(changed)) => Step::Call(self.read_publications(view, changed)),
            },
            Wait::Messages(top, read_ms) => match result {
                Err(error) => Step::Done(Err(error)),
                Ok(answer) => {
                    let records = decode_all(&answer.messages());
                    let retained = retained_part(&top, read_ms, &records);
                    Step::Call(self.await_verified_store(top, retained))
                }
            },
            Wait::VerifiedStore(top, retained) => Step::Done(result.map(|_| {
                let stream = Stream::restore(&view.position(&top), retained);
                ReadStream { top, stream }
            })),
        }
    }

    fn read_publications(&mut self, view: &NodeView<'_>, changed: ChangedTop) -> ChannelCall {
        let ChangedTop { top, newest, .. } = changed;
        let is_empty = top.first_retained > top.offset;
        let records = match (self.read.publications, newest) {
            (Publications::None, _) => Vec::new(),
            _ if is_empty => Vec::new(),
            (Publications::Newest, Some(newest)) => vec![newest],
            (Publications::Newest | Publications::All, _) => {
                let newest = top.sequence;
                self.wait = Wait::Messages(top, view.now_ms);
                return ChannelCall::ReadMessages { newest };
            }
        };
        let retained = retained_part(&top, view.now_ms, &records);
        self.await_verified_store(top, retained)
    }

    /// The store may have lost messages that other nodes received: then the epoch is another.
    fn await_verified_store(
        &mut self,
        top: StreamTop,
        retained: Vec<Arc<Publication>>,
    ) -> ChannelCall {
        self.wait = Wait::VerifiedStore(top, retained);
        ChannelCall::AwaitVerifiedStore
    }
}

fn decode_all(messages: &[StoredMessage]) -> Vec<Record> {
    let records = messages.iter();
    records.filter_map(|message| Record::decode(&message.payload, message.sequence)).collect()
}

/// The publications among records that are retained: consecutive, and ending at the top.
fn retained_part(top: &StreamTop, now_ms: u64, read: &[Record]) -> Vec<Arc<Publication>> {
    let mut expected = top.offset;
    let mut retained = Vec::new();
    for record in read.iter().rev() {
        if record.kind != RecordKind::Retained || record.top.epoch != top.epoch {
            continue;
        }
        // Published while the stream was read.
        if record.top.offset > top.offset {
            continue;
        }
        if record.top.offset != expected || expected < top.first_retained || expected == 0 {
            break;
        }
        expected -= 1;
        retained.push(record);
    }
    retained.reverse();
    let is_fresh = |record: &&Record| record.top.publication_expires_ms > now_ms;
    let fresh = retained.iter().position(is_fresh).unwrap_or(retained.len());
    retained[fresh..].iter().filter_map(|record| record.publication()).collect()
}
