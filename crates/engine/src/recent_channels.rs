//! Which channels a worker has seen lately, so that a client that makes up channels is told from one that goes back to
//! those it knows.
//!
//! A table of a fixed size with one hash a place: a channel that comes later takes the place of another. Whoever is
//! forgotten so is charged for a new channel once more; whoever makes up channels pays for each. Places follow from a
//! seed, so that no peer can aim at another's channel.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::limits::RECENT_CHANNELS;

/// See the module. Nothing is allocated before the first channel.
#[derive(Debug)]
pub(crate) struct RecentChannels {
    seed: u64,
    places: Vec<u32>,
}

impl RecentChannels {
    pub(crate) fn new(seed: u64) -> RecentChannels {
        RecentChannels { seed, places: Vec::new() }
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
        let mut hasher = DefaultHasher::new();
        (self.seed, channel).hash(&mut hasher);
        let hash = hasher.finish();
        (hash as usize % RECENT_CHANNELS, (hash >> 32) as u32 | 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_there_until_others_take_its_place() {
        let mut recent = RecentChannels::new(1);
        assert!(!recent.has("a"));
        recent.add("a");
        assert!(recent.has("a") && !recent.has("b"));
        (0..100 * RECENT_CHANNELS).for_each(|number| recent.add(&format!("made-up:{number}")));
        assert!(!recent.has("a"));
        assert_eq!(recent.places.len(), RECENT_CHANNELS);
    }
}
