//! Expiry of temporary channels with subscribers on this node.
//!
//! Redis stores when a channel began; each subscribed node expires it by its own clock. Invariant:
//! a channel has one expiry, the last that Redis returned.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use engine::broker::BrokerEvent;

use super::clock::MonotonicTime;
use super::link::Purpose;
use super::resp::Frame;
use super::servers::CoreTurn;
use super::subscriptions::ChannelSubscriptions;

/// Expiry times of subscribed channels.
#[derive(Default)]
pub(super) struct Expirations {
    /// TTL of each subscribed channel, and when it expires once Redis has answered.
    limited: HashMap<Arc<str>, (u64, Option<MonotonicTime>)>,
    queue: BTreeSet<(MonotonicTime, Arc<str>)>,
}

/// Margin after which Redis has removed the key of an expired channel.
const EXPIRY_MARGIN: Duration = Duration::from_millis(5);

impl Expirations {
    /// The channel has subscribers and a TTL.
    pub(super) fn limit(&mut self, channel: &Arc<str>, ttl_ms: u64) {
        self.limited.entry(channel.clone()).or_insert((ttl_ms, None)).0 = ttl_ms;
    }

    /// The channel's TTL, when it is temporary.
    pub(super) fn ttl_ms(&self, channel: &str) -> Option<u64> {
        self.limited.get(channel).map(|(ttl_ms, _)| *ttl_ms)
    }

    /// The channel has no subscribers on this node any more.
    pub(super) fn forget(&mut self, channel: &Arc<str>) {
        if let Some((_, Some(end))) = self.limited.remove(channel) {
            self.queue.remove(&(end, channel.clone()));
        }
    }

    fn set(&mut self, channel: &Arc<str>, end: MonotonicTime) {
        let Some((_, known)) = self.limited.get_mut(channel) else { return };
        if let Some(before) = known.replace(end) {
            self.queue.remove(&(before, channel.clone()));
        }
        self.queue.insert((end, channel.clone()));
    }

    fn take_ended(&mut self, now: MonotonicTime) -> Option<Arc<str>> {
        let (end, _) = self.queue.first()?;
        if *end > now {
            return None;
        }
        let (_, channel) = self.queue.pop_first()?;
        self.limited.remove(&channel);
        Some(channel)
    }

    /// Redis has answered with the remaining TTL of a channel.
    pub(super) fn handle_ttl(&mut self, now: MonotonicTime, channel: &Arc<str>, frame: &Frame) {
        if let Some([_, left]) = frame.list()
            && let Some(left) = left.u64()
        {
            self.set(channel, now + Duration::from_millis(left) + EXPIRY_MARGIN);
        }
    }

    /// Expires channels: notifies their subscribers and removes the retained history.
    pub(super) fn expire(&mut self, turn: &mut CoreTurn<'_>, subscriptions: &ChannelSubscriptions) {
        let now = turn.now.time;
        while let Some(channel) = self.take_ended(now) {
            let index = turn.servers.route(&channel);
            let event = BrokerEvent::Expired { channel: channel.clone() };
            subscriptions.notify(index, &channel, &event, turn.outputs);
            // If the command cannot be sent, the keys expire in Redis.
            let _later = turn.servers.write(now, index, Purpose::Ignored, |_, target, out| {
                target.end(&channel, out);
            });
        }
    }
}
