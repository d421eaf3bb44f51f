//! Requests for the end of a temporary channel, and what follows when it has come.
//!
//! Invariant: the end is what NATS has stored; until NATS has answered, it is requested again.

use engine::broker::{BrokerError, BrokerEvent};

use super::{Next, Operation};
use crate::nats::channel::ChannelParts;
use crate::nats::channel::ending::DueEnd;
use crate::nats::channel_call::{CallAnswer, CallResult, ChannelCall, Step};
use crate::nats::channel_stream::{TopChange, TopChanging, top_record};
use crate::nats::node_state::NodeView;

/// A request to NATS for the end of a channel.
pub(in crate::nats::channel) struct Limiting {
    ttl_ms: u64,
    changing: TopChanging,
    /// Goes on when the request is answered.
    then: Option<Box<Operation>>,
}

/// The removal of an expired channel's messages, unless it was used again.
pub(in crate::nats::channel) struct Expiring {
    is_removing: bool,
    /// Lifetime that was requested while the channel expired, milliseconds.
    requested_ttl_ms: Option<u64>,
}

impl Limiting {
    /// Limits the lifetime of the channel; an earlier limit takes precedence.
    pub(super) fn begin_request(
        parts: &mut ChannelParts,
        view: &mut NodeView<'_>,
        ttl_ms: u64,
    ) -> Next {
        match parts.end.poll_due(view.now) {
            Some(DueEnd::Expired) => Expiring::begin(parts, Some(ttl_ms)),
            Some(DueEnd::Request { ttl_ms }) => Limiting::begin(parts, view, ttl_ms, None),
            None if parts.end.is_set() => Next::Done,
            None => Limiting::begin(parts, view, ttl_ms, None),
        }
    }

    pub(super) fn begin(
        parts: &ChannelParts,
        view: &NodeView<'_>,
        ttl_ms: u64,
        then: Option<Box<Operation>>,
    ) -> Next {
        let change = TopChange::Limit { ttl_ms };
        let (changing, call) = TopChanging::begin(view, &parts.channel, change);
        Next::Call(call, Operation::Limit(Limiting { ttl_ms, changing, then }))
    }

    pub(super) fn handle(
        mut self,
        parts: &mut ChannelParts,
        view: &mut NodeView<'_>,
        result: CallResult,
    ) -> Next {
        let result = match self.changing.handle(view, result) {
            Step::Call(call) => return Next::Call(call, Operation::Limit(self)),
            Step::Done(result) => result.map(|changed| changed.top),
        };
        if let Ok(top) = &result {
            parts.feed.learn_top(top);
        }
        parts.end.handle_limited(view, self.ttl_ms, &result);
        match self.then {
            Some(operation) => operation.handle(parts, view, Ok(CallAnswer::Done)),
            None => Next::Done,
        }
    }

    /// The answer is lost: the end is requested again.
    pub(super) fn abandon(self, parts: &mut ChannelParts, view: &NodeView<'_>) {
        parts.end.handle_limited(view, self.ttl_ms, &Err(BrokerError::Unavailable));
    }
}

impl Expiring {
    /// The channel's messages expire by their own age; an end that was requested is requested
    /// again.
    pub(super) fn abandon(self, parts: &mut ChannelParts, view: &NodeView<'_>) {
        if let Some(ttl_ms) = self.requested_ttl_ms {
            parts.end.handle_limited(view, ttl_ms, &Err(BrokerError::Unavailable));
        }
    }

    /// Begins what is due: notifies the subscribers of a confirmed end, or requests an unconfirmed
    /// one again.
    pub(super) fn begin_due(parts: &mut ChannelParts, view: &NodeView<'_>, due: DueEnd) -> Next {
        match due {
            DueEnd::Expired => Expiring::begin(parts, None),
            DueEnd::Request { ttl_ms } => Limiting::begin(parts, view, ttl_ms, None),
        }
    }

    fn begin(parts: &mut ChannelParts, requested_ttl_ms: Option<u64>) -> Next {
        parts.feed.notify_all(&BrokerEvent::Expired { channel: parts.channel.clone() });
        parts.feed.set_known_top(None);
        let expiring = Expiring { is_removing: false, requested_ttl_ms };
        Next::Call(ChannelCall::ReadTop, Operation::Expire(expiring))
    }

    pub(super) fn handle(
        mut self,
        parts: &ChannelParts,
        view: &NodeView<'_>,
        result: CallResult,
    ) -> Next {
        // On failure the messages expire by their own age.
        if !self.is_removing
            && let Ok(answer) = result
            && let Some(record) = top_record(answer.message())
            && !record.top.is_alive(view.now_ms)
        {
            self.is_removing = true;
            // The newest message stays, so that the next one is stored after it.
            let sequence = record.top.sequence;
            return Next::Call(ChannelCall::RemoveBefore { sequence }, Operation::Expire(self));
        }
        match self.requested_ttl_ms {
            Some(ttl_ms) => Limiting::begin(parts, view, ttl_ms, None),
            None => Next::Done,
        }
    }
}
