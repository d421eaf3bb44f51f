//! A worker's index from channel to subscribers.
//!
//! Invariant: adding and removing a subscriber take the same time in a channel of ten subscribers
//! and of ten thousand. A channel without subscribers has no entry.

use std::hash::BuildHasher as _;
use std::sync::Arc;

use hashbrown::HashTable;
use slab::Slab;
use wire::protocol::StreamPosition;

use crate::capacity::{Kept, spare};
use crate::check_at::CheckAt;
use crate::hash_keys::HashKeys;
use crate::subscribers::{Subscriber, SubscriberPhase, Subscribers};

/// The channels to which sessions of one worker are subscribed.
#[derive(Debug)]
pub struct Hub {
    /// Slots by channel name. The names are stored only in the slots.
    index: HashTable<u32>,
    hasher: HashKeys,
    channels: Slab<Channel>,
    no_epoch: Arc<str>,
}

/// State of one channel on this worker.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) name: Arc<str>,
    pub(crate) subscribers: Subscribers,
    /// Whether the broker has confirmed this worker's subscription.
    pub(crate) is_subscribed: bool,
    /// Epoch of the stream; empty until it is known.
    pub(crate) epoch: Arc<str>,
    /// Highest offset that this worker has received or learned from the broker.
    offset: u64,
    /// Monotonic milliseconds at which a publication or a reply last verified that nothing is
    /// missing.
    pub(crate) verified_at_ms: u64,
    /// The current entry in [`crate::checks::Checks`].
    pub(crate) check: Option<CheckAt>,
}

/// Identifies a subscriber: slot of the channel, and number within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SubscriberKey {
    pub(crate) channel: u32,
    pub(crate) index: u32,
}

/// The position of a publication that the broker has delivered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReceivedPosition<'p> {
    pub(crate) epoch: &'p Arc<str>,
    pub(crate) offset: u64,
}

impl Channel {
    /// Applies the position of a received publication. Subscribers with a position of another epoch
    /// have a gap, except joining ones, which compare by themselves.
    pub(crate) fn handle_publication(
        &mut self,
        now_ms: u64,
        slot: u32,
        position: ReceivedPosition<'_>,
        gaps: &mut Vec<(u32, SubscriberKey)>,
    ) {
        let ReceivedPosition { epoch, offset } = position;
        self.verified_at_ms = now_ms;
        if self.epoch == *epoch {
            self.offset = self.offset.max(offset);
            return;
        }
        gaps.extend(self.positioned_subscribers(slot, |_| true));
        self.epoch = epoch.clone();
        self.offset = offset;
    }

    /// Applies a top position that the broker reported behind every publication up to it. Verifies
    /// that nothing is missing, or returns the subscribers with a gap. Visits all subscribers only
    /// if something is missing.
    pub(crate) fn handle_position(
        &mut self,
        now_ms: u64,
        slot: u32,
        top: &StreamPosition,
        gaps: &mut Vec<(u32, SubscriberKey)>,
    ) {
        self.verified_at_ms = now_ms;
        let is_same_epoch = *self.epoch == *top.epoch;
        if is_same_epoch && top.offset <= self.offset {
            return;
        }
        let is_behind = |subscriber: &Subscriber| !is_same_epoch || subscriber.offset < top.offset;
        gaps.extend(self.positioned_subscribers(slot, is_behind));
        if !is_same_epoch {
            self.epoch = top.epoch.as_str().into();
        }
        self.offset = top.offset;
    }

    /// Returns the active subscribers with a position, each with its session's slot.
    fn positioned_subscribers(
        &self,
        channel: u32,
        of: impl Fn(&Subscriber) -> bool,
    ) -> impl Iterator<Item = (u32, SubscriberKey)> {
        let is_positioned = |subscriber: &Subscriber| {
            subscriber.phase == SubscriberPhase::Live && subscriber.is_positioned
        };
        let subscribers = self.subscribers.iter();
        let positioned =
            subscribers.filter(move |(_, subscriber)| is_positioned(subscriber) && of(subscriber));
        positioned.map(move |(index, subscriber)| {
            (subscriber.session, SubscriberKey { channel, index: slot_number(index) })
        })
    }
}

impl Hub {
    /// Creates an empty index.
    #[must_use]
    pub fn new(hasher: HashKeys) -> Hub {
        Hub { index: HashTable::new(), hasher, channels: Slab::new(), no_epoch: "".into() }
    }

    /// Adds a subscriber in phase [`SubscriberPhase::Joining`]. Creates the channel's entry if
    /// needed.
    pub(crate) fn enter(&mut self, name: &str, session: u32) -> SubscriberKey {
        let slot = self.slot(name).unwrap_or_else(|| self.create(name));
        let subscriber = Subscriber {
            session,
            phase: SubscriberPhase::Joining,
            is_positioned: false,
            wants_membership: false,
            offset: 0,
        };
        let index = self.channels[slot as usize].subscribers.insert(subscriber);
        SubscriberKey { channel: slot, index: slot_number(index) }
    }

    /// Removes a subscriber. Returns the channel's name if it was the last one and the entry was
    /// removed.
    pub(crate) fn leave(&mut self, key: SubscriberKey) -> Option<Arc<str>> {
        let channel = &mut self.channels[key.channel as usize];
        channel.subscribers.remove(key.index as usize);
        if channel.subscribers.is_empty() {
            let channel = self.channels.remove(key.channel as usize);
            let hash = self.hasher.hash_one(&*channel.name);
            if let Ok(entry) = self.index.find_entry(hash, |slot| *slot == key.channel) {
                entry.remove();
            }
            self.shrink();
            return Some(channel.name);
        }
        None
    }

    fn shrink(&mut self) {
        let Hub { index, hasher, channels, .. } = self;
        if channels.is_empty() {
            (*channels, *index) = (Slab::new(), HashTable::new());
        }
        if let Some(capacity) = spare(index.len(), index.capacity(), Kept::OfOne) {
            index.shrink_to(capacity, |slot| hasher.hash_one(&*channels[*slot as usize].name));
            // Slots cannot move, so that only slots after the last channel are freed.
            channels.shrink_to_fit();
        }
    }

    /// Returns the channel of this name and its slot, if it has subscribers.
    pub(crate) fn find(&mut self, name: &str) -> Option<(u32, &mut Channel)> {
        let slot = self.slot(name)?;
        Some((slot, &mut self.channels[slot as usize]))
    }

    pub(crate) fn channel(&self, key: SubscriberKey) -> &Channel {
        &self.channels[key.channel as usize]
    }

    pub(crate) fn channel_mut(&mut self, key: SubscriberKey) -> &mut Channel {
        &mut self.channels[key.channel as usize]
    }

    pub(crate) fn subscriber_mut(&mut self, key: SubscriberKey) -> &mut Subscriber {
        let subscribers = &mut self.channels[key.channel as usize].subscribers;
        subscribers.get_mut(key.index as usize).expect("a subscriber key names an entry")
    }

    /// Returns all subscribers of a session by a full scan, for a session whose own list may be
    /// corrupt.
    pub(crate) fn subscribers_of(&self, session: u32) -> Vec<SubscriberKey> {
        let subscribers = self.channels.iter().flat_map(|(slot, channel)| {
            let subscribers =
                channel.subscribers.iter().filter(|(_, subscriber)| subscriber.session == session);
            subscribers.map(move |(index, _)| (slot, index))
        });
        let key =
            |(slot, index)| SubscriberKey { channel: slot_number(slot), index: slot_number(index) };
        subscribers.map(key).collect()
    }

    /// Returns the subscribers of a channel whose position is before the newest publication.
    pub(crate) fn lagging(&self, slot: u32) -> Vec<(u32, SubscriberKey)> {
        let Some(channel) = self.channels.get(slot as usize) else {
            return Vec::new();
        };
        channel
            .positioned_subscribers(slot, |subscriber| subscriber.offset < channel.offset)
            .collect()
    }

    /// The channel in this slot.
    pub(crate) fn at(&mut self, slot: u32) -> Option<&mut Channel> {
        self.channels.get_mut(slot as usize)
    }

    /// Slots of the sessions that are subscribed to a channel.
    pub(crate) fn sessions_of(&self, name: &str) -> impl Iterator<Item = u32> {
        let channel = self.slot(name).map(|slot| &self.channels[slot as usize]);
        let subscribers = channel.into_iter().flat_map(|channel| channel.subscribers.iter());
        subscribers.map(|(_, subscriber)| subscriber.session)
    }

    /// Every channel with its number of subscribers.
    pub fn channel_counts(&self) -> impl Iterator<Item = (&Arc<str>, usize)> {
        self.channels.iter().map(|(_, channel)| (&channel.name, channel.subscribers.len()))
    }

    /// Number of channels with subscribers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.channels.len()
    }

    /// Returns whether there are no channels.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }

    fn slot(&self, name: &str) -> Option<u32> {
        let has_name = |slot: &u32| *self.channels[*slot as usize].name == *name;
        self.index.find(self.hasher.hash_one(name), has_name).copied()
    }

    fn create(&mut self, name: &str) -> u32 {
        let slot = slot_number(self.channels.insert(Channel {
            name: name.into(),
            subscribers: Subscribers::None,
            is_subscribed: false,
            epoch: self.no_epoch.clone(),
            offset: 0,
            verified_at_ms: 0,
            check: None,
        }));
        let Hub { index, hasher, channels, .. } = self;
        let rehash = |slot: &u32| hasher.hash_one(&*channels[*slot as usize].name);
        index.insert_unique(hasher.hash_one(name), slot, rehash);
        slot
    }
}

fn slot_number(index: usize) -> u32 {
    u32::try_from(index).expect("a worker has fewer than 2^32 channels and sessions")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscribers_keep_their_keys_and_an_empty_channel_is_removed() {
        let mut hub = Hub::new(HashKeys::new([1, 2]));
        let (one, two) = (hub.enter("a", 1), hub.enter("a", 2));
        assert_eq!(hub.len(), 1);
        assert_eq!(hub.leave(one), None);
        assert_eq!(hub.subscriber_mut(two).session, 2);
        let three = hub.enter("a", 3);
        assert_eq!(three, one);
        assert_eq!(hub.leave(three), None);
        assert_eq!(hub.leave(two).as_deref(), Some("a"));
        assert!(hub.is_empty() && hub.index.is_empty());
    }
}
