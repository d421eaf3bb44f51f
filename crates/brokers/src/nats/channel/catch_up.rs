//! Waiting until a channel's messages up to a position that was read have arrived.
//!
//! Invariant: the wait ends with the last message, or [`REORDER_WAIT`] after the history stream has
//! republished everything; what has not arrived then was lost, and shows as a gap.

use std::time::Instant;

use wire::protocol::StreamPosition;

use super::feed::ChannelFeed;
use crate::limits::REORDER_WAIT;
use crate::nats::node_state::NodeView;

/// A position that the subscribers must reach before an operation goes on.
#[derive(Debug)]
pub(super) struct CatchUp {
    top: StreamPosition,
    /// JetStream sequence of the message at this position.
    sequence: u64,
    /// `None` until the history stream has republished everything.
    until: Option<Instant>,
}

impl CatchUp {
    pub(super) fn new(top: StreamPosition, sequence: u64) -> CatchUp {
        CatchUp { top, sequence, until: None }
    }

    /// Returns whether messages may be on their way, so that the stream must be asked.
    pub(super) fn needs_barrier(&self, feed: &ChannelFeed) -> bool {
        self.is_needed(feed) && feed.has_position() && feed.is_behind(&self.top)
    }

    /// The stream has republished everything, or cannot be asked: then no more messages come, and
    /// the position that was read still holds.
    pub(super) fn handle_barrier(&mut self, now: Instant) {
        self.until = Some(now + REORDER_WAIT);
    }

    /// Returns whether the wait is over.
    pub(super) fn is_over(&self, now: Instant, feed: &ChannelFeed) -> bool {
        self.until.is_some_and(|until| until <= now || !feed.is_behind(&self.top))
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.until
    }

    /// Delivers what has arrived and takes the position over.
    pub(super) fn finish(self, view: &mut NodeView<'_>, feed: &mut ChannelFeed) {
        if !self.is_needed(feed) {
            return;
        }
        if self.until.is_some() {
            feed.deliver_up_to(view, &self.top);
        }
        feed.skip_to(view, &self.top, self.sequence);
    }

    fn is_needed(&self, feed: &ChannelFeed) -> bool {
        feed.is_subscribed() && !self.top.epoch.is_empty()
    }
}
