//! The operations of a channel: one for each kind of input.
//!
//! Invariant: an operation waits for one call or one position, and answers its request exactly
//! once.

mod limiting;
mod publishing;
mod reading;
mod verifying;

use std::time::Instant;

use bytes::Bytes;
use engine::broker::{
    BrokerError, BrokerRequest, ChannelTtl, HistoryRemoved, Membership, PresenceRequest,
    PublicationsRequest,
};
use wire::protocol::PushEvent;

use self::limiting::{Expiring, Limiting};
use self::publishing::PublishOperation;
use self::reading::{GroupedRead, PresenceRead, StreamReader, Subscribing};
use self::verifying::Verifying;
use super::catch_up::CatchUp;
use super::ending::DueEnd;
use super::{ChannelInput, ChannelParts};
use crate::nats::channel_call::{CallResult, ChannelCall, Step};
use crate::nats::channel_stream::{Clearing, top_record};
use crate::nats::node_state::NodeView;
use crate::nats::record;
use crate::nats::request::{QueuedRequest, ReplyContext, ReplyHandle};

/// An operation that waits for the answer to a call, or until subscribers have received
/// everything up to a position.
pub(super) enum Operation {
    Subscribe(Subscribing),
    Read(GroupedRead),
    Publish(PublishOperation),
    PublishPlain(ReplyHandle<wire::protocol::StreamPosition>),
    RemoveHistory(ReplyHandle<HistoryRemoved>, Clearing),
    ReadTtl(ReplyHandle<Option<ChannelTtl>>),
    /// Without JetStream no channel has a TTL. The echo proves that messages sent before have
    /// arrived, as the read does with JetStream.
    NoTtl(ReplyHandle<Option<ChannelTtl>>),
    Limit(Limiting),
    Expire(Expiring),
    ReadPresence(PresenceRead),
    Verify(Verifying),
    /// Nothing follows the call: its requests have no reply.
    Last {
        /// They count until they are done.
        _requests: Vec<ReplyContext>,
    },
}

/// How an operation goes on.
pub(super) enum Next {
    Call(ChannelCall, Operation),
    CatchUp(CatchUp, Operation),
    Done,
}

impl Operation {
    pub(super) fn begin(
        parts: &mut ChannelParts,
        view: &mut NodeView<'_>,
        input: ChannelInput,
    ) -> Next {
        match input {
            // Dropping the request replies that the broker is unavailable.
            ChannelInput::Request(request) if request.is_late(view.now) => Next::Done,
            ChannelInput::Request(request) => Operation::begin_request(parts, view, request),
            ChannelInput::Detach(endpoint, _guard) => {
                parts.remove_subscriber(endpoint);
                Next::Done
            }
            ChannelInput::Verify => Verifying::begin(parts, view),
        }
    }

    fn begin_request(
        parts: &mut ChannelParts,
        view: &mut NodeView<'_>,
        request: QueuedRequest,
    ) -> Next {
        let (what, context) = request.open();
        match what {
            BrokerRequest::Publications(what) => match what {
                PublicationsRequest::Subscribe { id, read, .. } => {
                    let (endpoint, inbox) = (context.endpoint, context.inbox.clone());
                    let reply = context.reply(id);
                    Subscribing { endpoint, inbox, reply, read }.begin(parts, view)
                }
                PublicationsRequest::Unsubscribe { .. } => {
                    parts.remove_subscriber(context.endpoint);
                    Next::Done
                }
                PublicationsRequest::Publish { id, publication, options, .. } => {
                    PublishOperation::begin(parts, view, context.reply(id), (publication, options))
                }
                PublicationsRequest::Announce { info, change, .. } => {
                    let event = match change {
                        Membership::Join => PushEvent::Join(info),
                        Membership::Leave => PushEvent::Leave(info),
                    };
                    // It has no reply, and without a connection no node would receive it.
                    let message: Bytes = record::plain(&parts.channel, event);
                    Next::Call(ChannelCall::Publish(message), Operation::last(context))
                }
                PublicationsRequest::History { id, query, meta_ttl_ms, .. } => {
                    let reader = StreamReader::History(context.reply(id), query);
                    GroupedRead::begin_history(parts, view, reader, meta_ttl_ms)
                }
                PublicationsRequest::RemoveHistory { id, .. } if !view.link.has_jetstream => {
                    refused(context.reply(id), BrokerError::Unavailable)
                }
                PublicationsRequest::RemoveHistory { id, .. } => {
                    let (clearing, call) = Clearing::begin(view, &parts.channel);
                    Next::Call(call, Operation::RemoveHistory(context.reply(id), clearing))
                }
                PublicationsRequest::LimitTtl { .. } if !view.link.has_jetstream => Next::Done,
                PublicationsRequest::LimitTtl { ttl_ms, .. } => {
                    Limiting::begin_request(parts, view, ttl_ms)
                }
                PublicationsRequest::ChannelTtl { id, .. } => match view.link.has_jetstream {
                    true => Next::Call(ChannelCall::ReadTop, Operation::ReadTtl(context.reply(id))),
                    false => Next::Call(ChannelCall::Echo, Operation::NoTtl(context.reply(id))),
                },
            },
            BrokerRequest::Presence(what) => match what {
                PresenceRequest::Add { info, .. } => {
                    let added = vec![(context.endpoint, info)];
                    Next::Call(ChannelCall::AddPresence(added), Operation::last(context))
                }
                PresenceRequest::Remove { client, .. } => {
                    let endpoint = context.endpoint;
                    let call = ChannelCall::RemovePresence { endpoint, client };
                    Next::Call(call, Operation::last(context))
                }
                PresenceRequest::Clients { id, .. } => {
                    let read = PresenceRead::Clients(context.reply(id));
                    Next::Call(ChannelCall::ReadPresence, Operation::ReadPresence(read))
                }
                PresenceRequest::Stats { id, .. } => {
                    let read = PresenceRead::Stats(context.reply(id));
                    Next::Call(ChannelCall::ReadPresence, Operation::ReadPresence(read))
                }
            },
            BrokerRequest::NodeBus(_) | BrokerRequest::Registry(_) => {
                unreachable!("the node handles requests without a channel")
            }
        }
    }

    /// Begins what is due at the end of a temporary channel.
    pub(super) fn begin_due_end(
        parts: &mut ChannelParts,
        view: &NodeView<'_>,
        due: DueEnd,
    ) -> Next {
        Expiring::begin_due(parts, view, due)
    }

    /// Handles the answer to the call, or the arrival at the position, that is awaited.
    pub(super) fn handle(
        self,
        parts: &mut ChannelParts,
        view: &mut NodeView<'_>,
        result: CallResult,
    ) -> Next {
        match self {
            Operation::Subscribe(subscribing) => subscribing.handle(parts, view, &result),
            Operation::Read(read) => read.handle(parts, view, result),
            Operation::Publish(publication) => publication.handle(parts, view, result),
            Operation::PublishPlain(reply) => {
                match result {
                    Ok(_) => parts.unconfirmed.add(reply),
                    Err(error) => reply.send(Err(error)),
                }
                Next::Done
            }
            Operation::RemoveHistory(reply, mut clearing) => match clearing.handle(view, result) {
                Step::Call(call) => Next::Call(call, Operation::RemoveHistory(reply, clearing)),
                Step::Done(result) => {
                    parts.feed.set_known_top(result.as_ref().ok().cloned());
                    reply.send(result.map(|_| HistoryRemoved));
                    Next::Done
                }
            },
            Operation::ReadTtl(reply) => {
                reply.send(result.map(|answer| {
                    let record = top_record(answer.message());
                    let top = record.map(|record| record.top);
                    let top = top.filter(|top| top.is_ending(view.now_ms))?;
                    Some(ChannelTtl {
                        age_ms: view.now_ms.saturating_sub(top.channel_began_ms),
                        left_ms: top.channel_ends_ms - view.now_ms,
                    })
                }));
                Next::Done
            }
            Operation::NoTtl(reply) => {
                reply.send(result.map(|_| None));
                Next::Done
            }
            Operation::Limit(limiting) => limiting.handle(parts, view, result),
            Operation::Expire(expiring) => expiring.handle(parts, view, result),
            Operation::ReadPresence(read) => {
                read.answer(result);
                Next::Done
            }
            Operation::Verify(verifying) => verifying.handle(parts, view, result),
            // The request has no reply, and what it changed is retried by its owner.
            Operation::Last { .. } => Next::Done,
        }
    }

    fn last(request: ReplyContext) -> Operation {
        Operation::Last { _requests: vec![request] }
    }

    /// Its call was lost with the task of the channel. Its requests are answered when it is
    /// dropped; what has no reply is not forgotten.
    pub(super) fn abandon(self, parts: &mut ChannelParts, view: &NodeView<'_>) {
        match self {
            Operation::Limit(limiting) => limiting.abandon(parts, view),
            Operation::Expire(expiring) => expiring.abandon(parts, view),
            _ => {}
        }
    }

    /// When the requester does not wait any longer; `None` for an operation that ends by itself.
    pub(super) fn due(&self) -> Option<Instant> {
        match self {
            Operation::Read(read) => Some(read.due()),
            Operation::Publish(publication) => publication.due(),
            Operation::RemoveHistory(reply, _) => Some(reply.due()),
            Operation::ReadTtl(reply) | Operation::NoTtl(reply) => Some(reply.due()),
            Operation::ReadPresence(read) => Some(read.due()),
            Operation::Subscribe(_)
            | Operation::PublishPlain(_)
            | Operation::Limit(_)
            | Operation::Expire(_)
            | Operation::Verify(_)
            | Operation::Last { .. } => None,
        }
    }
}

/// The reply to a request that cannot be begun.
pub(super) fn refused<T: engine::broker::ReplyValue>(
    reply: ReplyHandle<T>,
    error: BrokerError,
) -> Next {
    reply.send(Err(error));
    Next::Done
}
