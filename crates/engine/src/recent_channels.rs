//! Which channels a worker has seen lately, so that a client that makes up channels is told from
//! one that goes back to those it knows.
//!
//! A table of a fixed size with one hash a place: a channel that comes later takes the place of
//! another. Whoever is forgotten so is charged for a new channel once more; whoever makes up
//! channels pays for each. Places follow from a seed, so that no peer can aim at another's channel.

use std::hash::BuildHasher as _;

use crate::hash_keys::HashKeys;
use crate::limits::RECENT_CHANNELS;

/// See the module. Nothing is allocated before the first channel.
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
    fn what_was_added_is_there_until_others_take_its_place() {
        let mut recent = RecentChannels::new(HashKeys::new([1, 2]));
        assert!(!recent.has("a"));
        recent.add("a");
        assert!(recent.has("a") && !recent.has("b"));
        (0..100 * RECENT_CHANNELS).for_each(|number| recent.add(&format!("made-up:{number}")));
        assert!(!recent.has("a"));
        assert_eq!(recent.places.len(), RECENT_CHANNELS);
    }
}
