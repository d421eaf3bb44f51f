//! The channels that a worker has seen recently, to distinguish a client that invents channels from
//! one that returns to known ones.
//!
//! A table of fixed size with one hash per slot. A later channel may displace another one. A client
//! whose channel was displaced is charged for a new channel once more; a client that invents
//! channels is charged for each. Slots depend on a seed, so that a peer cannot displace a chosen
//! channel.

use std::hash::BuildHasher as _;

use crate::hash_keys::HashKeys;
use crate::limits::RECENT_CHANNELS;

/// The table of recently seen channels. Allocates nothing before the first channel.
#[derive(Debug)]
pub(crate) struct RecentChannels {
    hasher: HashKeys,
    places: Vec<u32>,
}

impl RecentChannels {
    pub(crate) fn new(hasher: HashKeys) -> RecentChannels {
        RecentChannels { hasher, places: Vec::new() }
    }

    pub(crate) fn has(&self, channel: &str) -> bool {
        let (place, mark) = self.find(channel);
        self.places.get(place) == Some(&mark)
    }

    pub(crate) fn add(&mut self, channel: &str) {
        if self.places.is_empty() {
            self.places = vec![0; RECENT_CHANNELS];
        }
        let (place, mark) = self.find(channel);
        self.places[place] = mark;
    }

    fn find(&self, channel: &str) -> (usize, u32) {
        let hash = self.hasher.hash_one(channel);
        (hash as usize % RECENT_CHANNELS, (hash >> 32) as u32 | 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_is_recent_until_another_displaces_it() {
        let mut recent = RecentChannels::new(HashKeys::new([1, 2]));
        assert!(!recent.has("a"));
        recent.add("a");
        assert!(recent.has("a") && !recent.has("b"));
        (0..100 * RECENT_CHANNELS).for_each(|number| recent.add(&format!("made-up:{number}")));
        assert!(!recent.has("a"));
        assert_eq!(recent.places.len(), RECENT_CHANNELS);
    }
}
