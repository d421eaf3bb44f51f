//! An index from user to sessions. Adding and removing take constant time, so that a mass
//! disconnect is not quadratic.
//!
//! Invariant: each slot is in at most one list. A user without sessions has no entry.

use hashbrown::HashMap;

use crate::capacity::{Kept, shrink_map};
use crate::hash_keys::HashKeys;

/// Session slots by user id, as doubly linked lists within one table.
#[derive(Debug)]
pub struct Users {
    heads: HashMap<Box<str>, u32, HashKeys>,
    links: Vec<Link>,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    previous: u32,
    next: u32,
}

const NONE: u32 = u32::MAX;

impl Users {
    /// Creates an empty index.
    #[must_use]
    pub fn new(hasher: HashKeys) -> Users {
        Users { heads: HashMap::with_hasher(hasher), links: Vec::new() }
    }

    /// Adds the session in `slot` to `user`.
    pub fn insert(&mut self, user: &str, slot: u32) {
        let index = slot as usize;
        if self.links.len() <= index {
            self.links.resize(index + 1, Link { previous: NONE, next: NONE });
        }
        let next = match self.heads.get_mut(user) {
            Some(head) => std::mem::replace(head, slot),
            None => {
                self.heads.insert(user.into(), slot);
                NONE
            }
        };
        self.links[index] = Link { previous: NONE, next };
        if next != NONE {
            self.links[next as usize].previous = slot;
        }
    }

    /// Removes the session in `slot`, which was added to `user`.
    pub fn remove(&mut self, user: &str, slot: u32) {
        let Link { previous, next } = self.links[slot as usize];
        if next != NONE {
            self.links[next as usize].previous = previous;
        }
        if previous != NONE {
            self.links[previous as usize].next = next;
        } else if next != NONE {
            if let Some(head) = self.heads.get_mut(user) {
                *head = next;
            }
        } else {
            self.heads.remove(user);
            shrink_map(&mut self.heads, Kept::OfOne);
            if self.heads.is_empty() {
                self.links = Vec::new();
            }
        }
    }

    /// Removes the session in `slot` by a full scan, for a session whose user may be corrupt.
    pub fn forget(&mut self, slot: u32) {
        let user = self.heads.keys().find(|user| self.slots(user).any(|one| one == slot)).cloned();
        if let Some(user) = user {
            self.remove(&user, slot);
        }
    }

    /// Slots of the user's sessions.
    pub fn slots<'a>(&'a self, user: &str) -> impl Iterator<Item = u32> + 'a {
        let first = self.heads.get(user).copied();
        std::iter::successors(first, |slot| {
            Some(self.links[*slot as usize].next).filter(|next| *next != NONE)
        })
    }

    /// Ids of all users with a session.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.heads.keys().map(|user| &**user)
    }

    /// Number of users with a session.
    #[must_use]
    pub fn len(&self) -> usize {
        self.heads.len()
    }

    /// Returns whether there are no users.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_a_plain_list(operations in proptest::collection::vec((0u32..12, 0usize..3), 0..200)) {
            let names = ["", "ann", "bob"];
            let mut users = Users::new(HashKeys::new([1, 2]));
            let mut model: BTreeMap<u32, usize> = BTreeMap::new();
            for (slot, name) in operations {
                match model.remove(&slot) {
                    Some(_) if name == 0 => users.forget(slot),
                    Some(old) => users.remove(names[old], slot),
                    None => {
                        users.insert(names[name], slot);
                        model.insert(slot, name);
                    }
                }
                for (index, name) in names.iter().enumerate() {
                    let mut listed: Vec<u32> = users.slots(name).collect();
                    listed.sort_unstable();
                    let mut expected: Vec<u32> =
                        model.iter().filter(|(_, n)| **n == index).map(|(slot, _)| *slot).collect();
                    expected.sort_unstable();
                    prop_assert_eq!(listed, expected);
                }
            }
            prop_assert_eq!(users.len(), model.values().collect::<BTreeSet<_>>().len());
        }
    }
}
