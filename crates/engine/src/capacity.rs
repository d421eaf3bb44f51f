//! Giving memory back: collections that were large once and are nearly empty now.
//!
//! Invariant: a collection that only grows and shrinks between two sizes is not moved again and
//! again. It gives memory back when three quarters of it are empty, and keeps twice what it needs.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hash};

use hashbrown::HashMap;

/// Entries for which a collection keeps capacity, used or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// One of many, such as those of a session or a channel.
    OfMany,
    /// One that a worker or a broker has once: it is filled and emptied in every turn.
    OfOne,
}

impl Kept {
    const fn entries(self) -> usize {
        match self {
            Kept::OfMany => 16,
            Kept::OfOne => 1_024,
        }
    }
}

/// The capacity to which a collection of this length and capacity should shrink; `None` when it
/// should stay.
#[must_use]
pub fn spare(length: usize, capacity: usize, kept: Kept) -> Option<usize> {
    let is_spacious = capacity > kept.entries() && length < capacity / 4;
    is_spacious.then_some((2 * length).max(kept.entries() / 2))
}

/// See the module.
pub(crate) fn shrink_map<K, V, S>(map: &mut HashMap<K, V, S>, kept: Kept)
where
    K: Eq + Hash,
    S: BuildHasher,
{
    if let Some(capacity) = spare(map.len(), map.capacity(), kept) {
        map.shrink_to(capacity);
    }
}

/// See the module.
pub fn shrink_vec<T>(vec: &mut Vec<T>, kept: Kept) {
    if let Some(capacity) = spare(vec.len(), vec.capacity(), kept) {
        vec.shrink_to(capacity);
    }
}

/// See the module.
pub fn shrink_queue<T>(queue: &mut VecDeque<T>, kept: Kept) {
    if let Some(capacity) = spare(queue.len(), queue.capacity(), kept) {
        queue.shrink_to(capacity);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nearly_empty_collection_shrinks_and_a_used_one_does_not() {
        let mut vec: Vec<u32> = (0..10_000).collect();
        let mut moves = 0;
        while vec.pop().is_some() {
            let before = vec.capacity();
            shrink_vec(&mut vec, Kept::OfMany);
            moves += usize::from(vec.capacity() != before);
        }
        assert!(vec.capacity() <= 16 && moves < 14, "{} {moves}", vec.capacity());
        assert_eq!(spare(1, 16, Kept::OfMany), None);
        assert_eq!(spare(250, 1_000, Kept::OfMany), None);
        assert_eq!(spare(249, 1_000, Kept::OfMany), Some(498));
        assert_eq!(spare(0, 1_000, Kept::OfOne), None);
    }
}
