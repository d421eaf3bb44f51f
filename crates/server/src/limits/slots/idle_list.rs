//! A list of idle connections, the oldest first. Neighbours are stored in the entries, so that a
//! connection enters and leaves in constant time and without an allocation.
//!
//! Invariant: an entry is in at most one list, and a list contains each of its entries once.

use slab::Slab;

use super::Entry;

/// List of entries of one slab.
#[derive(Debug, Default)]
pub(super) struct IdleList {
    oldest: Option<usize>,
    newest: Option<usize>,
    length: usize,
}

/// Neighbours of an entry in its list.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Neighbours {
    older: Option<usize>,
    newer: Option<usize>,
}

impl IdleList {
    pub(super) fn oldest(&self) -> Option<usize> {
        self.oldest
    }

    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// Adds an entry that is in no list.
    pub(super) fn push(&mut self, entries: &mut Slab<Entry>, index: usize) {
        entries[index].neighbours = Neighbours { older: self.newest, newer: None };
        match self.newest {
            Some(newest) => entries[newest].neighbours.newer = Some(index),
            None => self.oldest = Some(index),
        }
        self.newest = Some(index);
        self.length += 1;
    }

    /// Removes an entry that is in this list.
    pub(super) fn remove(&mut self, entries: &mut Slab<Entry>, index: usize) {
        let Neighbours { older, newer } = entries[index].neighbours;
        match older {
            Some(older) => entries[older].neighbours.newer = newer,
            None => self.oldest = newer,
        }
        match newer {
            Some(newer) => entries[newer].neighbours.older = older,
            None => self.newest = older,
        }
        self.length -= 1;
    }
}
