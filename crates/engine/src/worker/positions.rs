//! Comparison of silent channels with the broker.
//!
//! Invariant: a comparison is a request like any other, and never takes room that clients' requests
//! need.

use super::Worker;
use crate::broker::{JoinRead, PublicationsRequest};
use crate::channel;
use crate::checks::CheckDelay;
use crate::limits::PENDING_MAX;
use crate::pending::PendingRead;
use crate::time::Now;

impl Worker {
    /// Requests the positions of channels that are due for a comparison.
    pub(super) fn check_positions(&mut self, now: Now) {
        let delay_ms = self.rules.client.position_check_delay_ms.max(1);
        for (tick, slot) in self.checks.due(now.monotonic_ms) {
            // The slot may have been reused by another channel, which has its own entry.
            let Some(channel) = self.hub.at(slot).filter(|channel| channel.check == Some(tick))
            else {
                continue;
            };
            channel.check = None;
            if !channel.subscribers.iter().any(|(_, subscriber)| subscriber.is_positioned) {
                continue;
            }
            let verified_at_ms = channel.verified_at_ms;
            let is_verified = verified_at_ms + delay_ms / 2 > now.monotonic_ms;
            let next_ms = if is_verified { verified_at_ms } else { now.monotonic_ms };
            let delay = CheckDelay { delay_ms, random: &mut self.random };
            self.checks.put(next_ms, slot, channel, delay);
            if is_verified {
                continue;
            }
            if self.out.pending.len() >= PENDING_MAX / 2 {
                // The broker is overloaded or unavailable; it sends positions after it recovers.
                continue;
            }
            let name = channel.name.clone();
            let id = self.out.pending.expect_read(PendingRead::Check { channel: name.clone() });
            // A channel of a removed namespace is no longer positioned.
            let namespace = channel::namespace(&self.rules.channels, &name);
            let meta_ttl_ms = namespace.map_or(0, |namespace| namespace.history_meta_ttl_ms);
            let read = JoinRead::Position { meta_ttl_ms };
            self.out.submit(PublicationsRequest::Subscribe { id, channel: name, read });
        }
    }
}
