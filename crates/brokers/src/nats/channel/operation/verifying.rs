//! The verification of a channel after messages may have been lost: its subscribers get the
//! position that the stream has now.
//!
//! Invariant: the position follows every message that arrived before it, so that a subscriber sees
//! what it has missed.

use engine::broker::BrokerEvent;
use wire::protocol::StreamPosition;

use super::limiting::Limiting;
use super::{Next, Operation};
use crate::nats::channel::catch_up::CatchUp;
use crate::nats::channel::{ChannelAction, ChannelParts};
use crate::nats::channel_call::{CallResult, ChannelCall};
use crate::nats::channel_stream::top_record;
use crate::nats::node_state::NodeView;

/// A verification, by what it waits for.
pub(in crate::nats::channel) enum Verifying {
    Subscription,
    Permit,
    /// The end of the channel to be confirmed.
    End,
    Echo,
    Top,
    CaughtUp(StreamPosition),
}

impl Verifying {
    pub(super) fn begin(parts: &mut ChannelParts, view: &NodeView<'_>) -> Next {
        parts.feed.set_known_top(None);
        if !parts.feed.is_subscribed() && parts.feed.has_subscribers() {
            return Next::Call(ChannelCall::Subscribe, Operation::Verify(Verifying::Subscription));
        }
        Verifying::await_permit(parts, view)
    }

    fn await_permit(parts: &ChannelParts, view: &NodeView<'_>) -> Next {
        if !parts.feed.has_subscribers() || !is_positioned(parts, view) && !parts.end.is_set() {
            return Next::Done;
        }
        Next::Call(ChannelCall::AwaitPermit, Operation::Verify(Verifying::Permit))
    }

    pub(super) fn handle(
        self,
        parts: &mut ChannelParts,
        view: &mut NodeView<'_>,
        result: CallResult,
    ) -> Next {
        match self {
            Verifying::Subscription => {
                // Without a connection this fails; the next connection verifies again.
                if result.is_ok() {
                    parts.feed.handle_subscription();
                }
                Verifying::await_permit(parts, view)
            }
            Verifying::Permit => {
                let then = Operation::Verify(Verifying::End);
                match parts.end.lifetime_to_confirm(view.now) {
                    Some(ttl_ms) => Limiting::begin(parts, view, ttl_ms, Some(Box::new(then))),
                    None => then.handle(parts, view, result),
                }
            }
            Verifying::End if is_positioned(parts, view) => {
                Next::Call(ChannelCall::Echo, Operation::Verify(Verifying::Echo))
            }
            Verifying::Echo if result.is_ok() => {
                Next::Call(ChannelCall::ReadTop, Operation::Verify(Verifying::Top))
            }
            Verifying::Top => match result {
                Ok(answer) => {
                    parts.actions.push_back(ChannelAction::ReleasePermit);
                    let record = top_record(answer.message());
                    let top = record.map(|record| record.top).unwrap_or_default();
                    let sequence = top.sequence;
                    // An expired stream has a new epoch.
                    let top = top.current_or_new(view.now_ms, || view.state.new_epoch());
                    let top = view.position(&top);
                    let catch_up = CatchUp::new(top.clone(), sequence);
                    Next::CatchUp(catch_up, Operation::Verify(Verifying::CaughtUp(top)))
                }
                Err(_) => end(parts),
            },
            Verifying::End | Verifying::Echo => end(parts),
            Verifying::CaughtUp(top) => {
                let channel = parts.channel.clone();
                parts.feed.notify_all(&BrokerEvent::Position { channel, top });
                Next::Done
            }
        }
    }
}

fn is_positioned(parts: &ChannelParts, view: &NodeView<'_>) -> bool {
    parts.feed.has_position() && view.link.has_jetstream
}

/// Ends a verification without a position; the next one tries again.
fn end(parts: &mut ChannelParts) -> Next {
    parts.actions.push_back(ChannelAction::ReleasePermit);
    Next::Done
}
