//! Publications into a channel: with the stream, or only to those who are subscribed now.
//!
//! Invariant: the subscribers of this node have received a publication before its publisher gets
//! the reply.

use std::sync::Arc;
use std::time::Instant;

use engine::broker::{BrokerError, PublishOptions};
use wire::protocol::{Publication, PushEvent, StreamPosition};

use super::{Next, Operation, refused};
use crate::limits::TRIM_EVERY;
use crate::nats::channel::catch_up::CatchUp;
use crate::nats::channel::{ChannelAction, ChannelParts};
use crate::nats::channel_call::{CallResult, ChannelCall, Step};
use crate::nats::channel_stream::{PublishOutcome, Publishing};
use crate::nats::node_state::NodeView;
use crate::nats::record::{self, StreamTop};
use crate::nats::request::ReplyHandle;

/// A publication into the stream.
pub(in crate::nats::channel) struct PublishOperation {
    reply: ReplyHandle<StreamPosition>,
    history_size: u64,
    wait: Wait,
}

/// What a publication waits for.
#[expect(clippy::large_enum_variant, reason = "the larger one is in every publication")]
enum Wait {
    Stored(Publishing),
    /// The subscribers of this node to receive it.
    CaughtUp(PublishOutcome),
}

impl PublishOperation {
    pub(super) fn begin(
        parts: &mut ChannelParts,
        view: &mut NodeView<'_>,
        reply: ReplyHandle<StreamPosition>,
        (publication, options): (Publication, PublishOptions),
    ) -> Next {
        if parts.feed.is_slow() || view.link.is_congested {
            return refused(reply, BrokerError::Overloaded);
        }
        let publication = Arc::new(publication);
        let needs_stream =
            options.history_size > 0 || options.version > 0 || !options.idempotency_key.is_empty();
        if !needs_stream {
            let message = record::plain(&parts.channel, PushEvent::Publication(publication));
            return Next::Call(ChannelCall::Publish(message), Operation::PublishPlain(reply));
        }
        if !view.link.has_jetstream {
            return refused(reply, BrokerError::Unavailable);
        }
        let history_size = options.history_size.into();
        let known = parts.feed.take_known_top();
        let names = (&parts.channel, &*parts.token);
        let (publishing, step) = Publishing::begin(view, names, known, publication, options);
        let publishing = PublishOperation { reply, history_size, wait: Wait::Stored(publishing) };
        publishing.proceed(parts, step)
    }

    pub(super) fn handle(
        mut self,
        parts: &mut ChannelParts,
        view: &mut NodeView<'_>,
        result: CallResult,
    ) -> Next {
        match &mut self.wait {
            Wait::Stored(publishing) => {
                let step = publishing.handle(view, result);
                self.proceed(parts, step)
            }
            Wait::CaughtUp(_) => {
                self.finish(parts);
                Next::Done
            }
        }
    }

    /// When the publisher does not wait any longer; `None` once the outcome is known.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.wait {
            Wait::Stored(_) => Some(self.reply.due()),
            Wait::CaughtUp(_) => None,
        }
    }

    fn proceed(mut self, parts: &mut ChannelParts, step: Step<PublishOutcome>) -> Next {
        let published = match step {
            Step::Call(call) => return Next::Call(call, Operation::Publish(self)),
            Step::Done(published) => published,
        };
        // A repeated idempotency key may be answered with a position of an earlier epoch, to which
        // the feed must not return. Its message was delivered long ago, so nothing is awaited.
        let top = published.top.as_ref().filter(|_| parts.feed.is_subscribed());
        let catch_up = top.and_then(|top| {
            let position = published.result.as_ref().ok()?;
            Some(CatchUp::new(position.clone(), top.sequence))
        });
        self.wait = Wait::CaughtUp(published);
        match catch_up {
            Some(catch_up) => Next::CatchUp(catch_up, Operation::Publish(self)),
            None => {
                self.finish(parts);
                Next::Done
            }
        }
    }

    fn finish(self, parts: &mut ChannelParts) {
        let Wait::CaughtUp(PublishOutcome { result, top }) = self.wait else { return };
        if let Some(top) = &top {
            parts.trim(top, self.history_size);
        }
        parts.feed.set_known_top(top);
        self.reply.send(result);
    }
}

impl ChannelParts {
    /// Removes messages beyond the history size, every [`TRIM_EVERY`] publications.
    fn trim(&mut self, top: &StreamTop, history_size: u64) {
        let is_due = history_size > 0 && top.offset.is_multiple_of(history_size.max(TRIM_EVERY));
        // One removal at a time; the next one makes up for those left out.
        if is_due && !std::mem::replace(&mut self.is_trimming, true) {
            self.actions.push_back(ChannelAction::Trim { newest: history_size + TRIM_EVERY });
        }
    }
}
