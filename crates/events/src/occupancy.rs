//! Channels with active subscriptions on this node.
//!
//! Invariant: a channel without subscriptions has no entry, so the size is bounded by the
//! subscriptions of the node.

use std::collections::HashMap;
use std::sync::Arc;

/// Number of active subscriptions by channel.
#[derive(Debug, Default)]
pub(crate) struct Occupancy(HashMap<Arc<str>, u32>);

impl Occupancy {
    /// Adds a subscription. Returns whether it is the first one of the channel.
    pub(crate) fn enter(&mut self, channel: &Arc<str>) -> bool {
        if let Some(count) = self.0.get_mut(channel) {
            *count += 1;
            return false;
        }
        self.0.insert(channel.clone(), 1);
        true
    }

    /// Removes a subscription. Returns whether it was the last one of the channel.
    pub(crate) fn leave(&mut self, channel: &Arc<str>) -> bool {
        let Some(count) = self.0.get_mut(channel) else { return false };
        *count -= 1;
        let is_last = *count == 0;
        if is_last {
            self.0.remove(channel);
            if self.0.capacity() > 4 * self.0.len().max(256) {
                self.0.shrink_to(2 * self.0.len());
            }
        }
        is_last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_and_the_last_subscription_count() {
        let mut occupancy = Occupancy::default();
        let (news, chat): (Arc<str>, Arc<str>) = ("news".into(), "chat".into());
        assert!(occupancy.enter(&news) && !occupancy.enter(&news) && occupancy.enter(&chat));
        assert!(!occupancy.leave(&news) && occupancy.leave(&news) && !occupancy.leave(&news));
        assert!(occupancy.enter(&news));
    }
}
