//! Publishing into the stream of a channel.
//!
//! Invariant: a publication is stored at most once. After a conflict the top is read again; a
//! known idempotency key and a stale version are answered with the position that was accepted
//! before.

use std::sync::Arc;
use std::time::Instant;

use engine::broker::{BrokerError, PublishOptions};
use engine::limits::IDEMPOTENCY_TTL_MS;
use wire::protocol::{Publication, PushEvent, StreamPosition};

use super::{StoringRecord, top_record};
use crate::limits::ANSWER_TIMEOUT;
use crate::nats::channel_call::{CallResult, ChannelCall, Step};
use crate::nats::node_state::NodeView;
use crate::nats::record::{Record, RecordKind, StreamTop};
use crate::nats::stored_message::{Ack, StoredMessage};
use crate::nats::subject;

/// A publication on its way into the stream.
#[derive(Debug)]
pub(in crate::nats) struct Publishing {
    channel: Arc<str>,
    publication: Arc<Publication>,
    options: PublishOptions,
    /// By which JetStream finds a repetition; empty for none.
    identifier: String,
    /// No further attempt begins after it.
    deadline: Instant,
    wait: Wait,
}

/// The call whose answer is awaited.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "the larger one is in every publication")]
enum Wait {
    Top,
    Store(StoringRecord),
    /// A message with the same identifier was stored with this sequence.
    Accepted(u64),
    /// The message that was accepted is not stored any more.
    TopInstead,
}

/// The outcome of a publication.
#[derive(Debug)]
pub(in crate::nats) struct PublishOutcome {
    pub(in crate::nats) result: Result<StreamPosition, BrokerError>,
    /// The top of the stream, if known.
    pub(in crate::nats) top: Option<StreamTop>,
}

impl Publishing {
    /// `token` is the channel's. `known` is the top of the stream as far as it is known: a wrong
    /// one costs a conflict.
    pub(in crate::nats) fn begin(
        view: &mut NodeView<'_>,
        (channel, token): (&Arc<str>, &str),
        known: Option<StreamTop>,
        publication: Arc<Publication>,
        options: PublishOptions,
    ) -> (Publishing, Step<PublishOutcome>) {
        let mut publishing = Publishing {
            channel: channel.clone(),
            publication,
            identifier: identifier(token, &options),
            options,
            deadline: view.now + ANSWER_TIMEOUT,
            wait: Wait::Top,
        };
        let step = match known {
            Some(top) => publishing.store_after(view, &top),
            None => Step::Call(ChannelCall::ReadTop),
        };
        (publishing, step)
    }

    pub(in crate::nats) fn handle(
        &mut self,
        view: &mut NodeView<'_>,
        result: CallResult,
    ) -> Step<PublishOutcome> {
        let answer = match result {
            Ok(answer) => answer,
            Err(error) => return failed(error),
        };
        match std::mem::replace(&mut self.wait, Wait::Top) {
            Wait::Top => {
                let top = top_record(answer.message()).map(|record| record.top);
                self.store_after(view, &top.unwrap_or_default())
            }
            Wait::Store(storing) => match storing.finish(view, answer.ack()) {
                Ok(record) => {
                    let result = Ok(record_position(view, &record));
                    Step::Done(PublishOutcome { result, top: Some(record.top) })
                }
                Err(Ack::Duplicate(sequence)) => {
                    self.wait = Wait::Accepted(sequence);
                    Step::Call(ChannelCall::ReadMessage { sequence })
                }
                Err(_) => self.try_again(view),
            },
            Wait::Accepted(sequence) => self.handle_accepted(view, sequence, answer.message()),
            Wait::TopInstead => {
                // The position of the publication is not stored any more: return the top.
                let top = top_record(answer.message()).map(|record| record.top);
                let result = Ok(top_position(view, &top.unwrap_or_default()));
                Step::Done(PublishOutcome { result, top: None })
            }
        }
    }

    fn try_again(&mut self, view: &NodeView<'_>) -> Step<PublishOutcome> {
        if view.now >= self.deadline {
            return failed(BrokerError::Unavailable);
        }
        self.wait = Wait::Top;
        Step::Call(ChannelCall::ReadTop)
    }

    fn store_after(&mut self, view: &mut NodeView<'_>, top: &StreamTop) -> Step<PublishOutcome> {
        if top.is_alive(view.now_ms) && top.is_stale(&self.options) {
            // A known idempotency key would return its own position; the top serves as well.
            let result = Ok(top_position(view, top));
            return Step::Done(PublishOutcome { result, top: Some(top.clone()) });
        }
        let record = next_record(view, top, &self.publication, &self.options);
        let payload = record.encode(&self.channel);
        let (storing, call) = StoringRecord::begin(view, record, payload, &self.identifier);
        self.wait = Wait::Store(storing);
        Step::Call(call)
    }

    /// Handles the message that was stored with the same identifier.
    fn handle_accepted(
        &mut self,
        view: &mut NodeView<'_>,
        sequence: u64,
        stored: Option<StoredMessage>,
    ) -> Step<PublishOutcome> {
        let record = stored.and_then(|stored| Record::decode(&stored.payload, sequence));
        let Some(record) = record else {
            self.wait = Wait::TopInstead;
            return Step::Call(ChannelCall::ReadTop);
        };
        if record.top.accepted_ms + IDEMPOTENCY_TTL_MS <= view.now_ms {
            // The key has expired, and may be used for another publication.
            self.identifier.push_str(&format!(" {sequence}"));
            return self.try_again(view);
        }
        let result = Ok(record_position(view, &record));
        Step::Done(PublishOutcome { result, top: None })
    }
}

fn failed(error: BrokerError) -> Step<PublishOutcome> {
    Step::Done(PublishOutcome { result: Err(error), top: None })
}

fn identifier(token: &str, options: &PublishOptions) -> String {
    if options.idempotency_key.is_empty() {
        return String::new();
    }
    format!("{token} {}", subject::token(&options.idempotency_key))
}

fn record_position(view: &NodeView<'_>, record: &Record) -> StreamPosition {
    match record.kind {
        RecordKind::Retained => view.position(&record.top),
        RecordKind::Plain | RecordKind::VersionOnly | RecordKind::StateOnly => {
            StreamPosition::default()
        }
    }
}

/// The position of the top; the default for a stream without publications.
fn top_position(view: &NodeView<'_>, top: &StreamTop) -> StreamPosition {
    if top.offset == 0 { StreamPosition::default() } else { view.position(top) }
}

/// The record that follows `top`.
fn next_record(
    view: &mut NodeView<'_>,
    top: &StreamTop,
    publication: &Arc<Publication>,
    options: &PublishOptions,
) -> Record {
    let now_ms = view.now_ms;
    let mut top = top.current_or_new(now_ms, || view.state.new_epoch());
    top.extend_stream(now_ms, options.history_meta_ttl_ms);
    let kind = if options.history_size > 0 {
        top.offset += 1;
        let first = (top.offset + 1).saturating_sub(options.history_size.into());
        top.first_retained = top.first_retained.max(first);
        top.publication_expires_ms = now_ms.saturating_add(options.history_ttl_ms);
        RecordKind::Retained
    } else {
        RecordKind::VersionOnly
    };
    if options.version > 0 {
        top.version = options.version;
        top.version_epoch.clone_from(&options.version_epoch);
        top.extend_stream(now_ms, IDEMPOTENCY_TTL_MS);
    }
    Record { kind, top, event: Some(PushEvent::Publication(publication.clone())) }
}
