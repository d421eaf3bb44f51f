//! Returns memory of collections that were large and are now nearly empty.
//!
//! Invariant: a collection whose length varies between two sizes is not reallocated again and
//! again. It shrinks when three quarters of its capacity are unused, and keeps twice its length.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hash};

use hashbrown::HashMap;

/// The capacity that a collection keeps, used or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Little: one of many collections, such as those of a session or a channel.
    OfMany,
    /// More: a collection that exists once for each worker or broker, filled and drained in every
    /// turn.
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

/// Returns the capacity to which a collection should shrink; `None` if it should not.
#[must_use]
pub fn spare(length: usize, capacity: usize, kept: Kept) -> Option<usize> {
    let is_spacious = capacity > kept.entries() && length < capacity / 4;
    is_spacious.then_some((2 * length).max(kept.entries() / 2))
}

/// Shrinks a map if it is mostly empty.
pub(crate) fn shrink_map<K, V, S>(map: &mut HashMap<K, V, S>, kept: Kept)
where
    K: Eq + Hash,
    S: BuildHasher,
{
    if let Some(capacity) = spare(map.len(), map.capacity(), kept) {
        map.shrink_to(capacity);
    }
}

/// Shrinks a vector if it is mostly empty.
pub fn shrink_vec<T>(vec: &mut Vec<T>, kept: Kept) {
    if let Some(capacity) = spare(vec.len(), vec.capacity(), kept) {
        vec.shrink_to(capacity);
    }
}

/// Shrinks a queue if it is mostly empty.
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
