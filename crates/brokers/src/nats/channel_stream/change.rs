//! Changes of a stream's state without a publication: create it, clear it, limit its lifetime.
//!
//! Invariant: the changed state is stored only after the state that it was made from; after a
//! conflict the newest state is read and changed again.

use std::sync::Arc;
use std::time::Instant;

use engine::broker::BrokerError;

use super::{StoringRecord, top_record};
use crate::limits::ANSWER_TIMEOUT;
use crate::nats::channel_call::{CallResult, ChannelCall, Step};
use crate::nats::node_state::NodeView;
use crate::nats::record::{Record, RecordKind, StreamTop};

/// A change of the state of a stream.
#[derive(Clone, Copy, Debug)]
pub(in crate::nats) enum TopChange {
    /// Creates the stream if there is none, for this time; zero only names an epoch.
    Create { meta_ttl_ms: u64 },
    /// Removes the retained publications; offset and epoch stay.
    Clear,
    /// Lets the channel expire after this time, unless it has an end already.
    Limit { ttl_ms: u64 },
}

/// A change in progress.
#[derive(Debug)]
pub(in crate::nats) struct TopChanging {
    channel: Arc<str>,
    change: TopChange,
    /// No further attempt begins after it.
    deadline: Instant,
    /// `None` while the top is read.
    storing: Option<StoringRecord>,
}

/// The state of a stream after a change.
#[derive(Debug)]
pub(in crate::nats) struct ChangedTop {
    pub(in crate::nats) top: StreamTop,
    /// The newest record, if it is a publication of the stream and was not changed.
    pub(in crate::nats) newest: Option<Record>,
    /// The changed state was stored by this operation.
    pub(in crate::nats) is_stored: bool,
}

type Changed = Result<ChangedTop, BrokerError>;

impl TopChanging {
    pub(in crate::nats) fn begin(
        view: &NodeView<'_>,
        channel: &Arc<str>,
        change: TopChange,
    ) -> (TopChanging, ChannelCall) {
        let deadline = view.now + ANSWER_TIMEOUT;
        let changing = TopChanging { channel: channel.clone(), change, deadline, storing: None };
        (changing, ChannelCall::ReadTop)
    }

    pub(in crate::nats) fn handle(
        &mut self,
        view: &mut NodeView<'_>,
        result: CallResult,
    ) -> Step<Changed> {
        let answer = match result {
            Ok(answer) => answer,
            Err(error) => return Step::Done(Err(error)),
        };
        let Some(storing) = self.storing.take() else {
            return self.change(view, top_record(answer.message()));
        };
        match storing.finish(view, answer.ack()) {
            Ok(record) => {
                Step::Done(Ok(ChangedTop { top: record.top, newest: None, is_stored: true }))
            }
            Err(_) if view.now >= self.deadline => Step::Done(Err(BrokerError::Unavailable)),
            Err(_) => Step::Call(ChannelCall::ReadTop),
        }
    }

    fn change(&mut self, view: &mut NodeView<'_>, record: Option<Record>) -> Step<Changed> {
        let now_ms = view.now_ms;
        let top = record.as_ref().map(|record| record.top.clone()).unwrap_or_default();
        let changed = match self.change {
            TopChange::Create { .. } if top.is_alive(now_ms) => {
                let newest = record.filter(|record| record.kind == RecordKind::Retained);
                return unchanged(top, newest);
            }
            TopChange::Create { meta_ttl_ms } => {
                let mut top = top.current_or_new(now_ms, || view.state.new_epoch());
                top.extend_stream(now_ms, meta_ttl_ms);
                if meta_ttl_ms == 0 {
                    return unchanged(StreamTop { sequence: 0, ..top }, None);
                }
                top
            }
            TopChange::Clear if !top.is_alive(now_ms) => return unchanged(top, None),
            TopChange::Clear => StreamTop {
                first_retained: top.offset + 1,
                publication_expires_ms: 0,
                accepted_ms: now_ms,
                ..top
            },
            TopChange::Limit { .. } if top.is_ending(now_ms) => return unchanged(top, None),
            TopChange::Limit { ttl_ms } => {
                let mut top = top.current_or_new(now_ms, || view.state.new_epoch());
                top.channel_began_ms = now_ms;
                top.channel_ends_ms = now_ms.saturating_add(ttl_ms);
                top.extend_stream(now_ms, ttl_ms);
                top
            }
        };
        let record = Record { kind: RecordKind::StateOnly, top: changed, event: None };
        let payload = record.encode(&self.channel);
        let (storing, call) = StoringRecord::begin(view, record, payload, "");
        self.storing = Some(storing);
        Step::Call(call)
    }
}

fn unchanged(top: StreamTop, newest: Option<Record>) -> Step<Changed> {
    Step::Done(Ok(ChangedTop { top, newest, is_stored: false }))
}

/// Removes the retained publications of a stream: from its state, then from the store.
#[derive(Debug)]
pub(in crate::nats) struct Clearing {
    changing: TopChanging,
    /// The changed state, while the messages before it are removed.
    cleared: Option<StreamTop>,
}

impl Clearing {
    pub(in crate::nats) fn begin(
        view: &NodeView<'_>,
        channel: &Arc<str>,
    ) -> (Clearing, ChannelCall) {
        let (changing, call) = TopChanging::begin(view, channel, TopChange::Clear);
        (Clearing { changing, cleared: None }, call)
    }

    pub(in crate::nats) fn handle(
        &mut self,
        view: &mut NodeView<'_>,
        result: CallResult,
    ) -> Step<Result<StreamTop, BrokerError>> {
        if let Some(top) = self.cleared.take() {
            return Step::Done(result.map(|_| top));
        }
        match self.changing.handle(view, result) {
            Step::Call(call) => Step::Call(call),
            Step::Done(Ok(changed)) if changed.is_stored => {
                let sequence = changed.top.sequence;
                self.cleared = Some(changed.top);
                Step::Call(ChannelCall::RemoveBefore { sequence })
            }
            Step::Done(changed) => Step::Done(changed.map(|changed| changed.top)),
        }
    }
}
