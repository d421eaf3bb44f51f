//! From user to sessions, with constant work to enter and to leave: a mass disconnect must not be
//! quadratic.
//!
//! Invariant: each slot is in at most one list, and a user without sessions has no entry.

use hashbrown::HashMap;

use crate::capacity::{Kept, shrink_map};
use crate::hash_keys::HashKeys;

/// An index from user id to session slots, as doubly linked lists through one table.
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
    /// An index without users.
    #[must_use]
    pub fn new(hasher: HashKeys) -> Users {
        Users { heads: HashMap::with_hasher(hasher), links: Vec::new() }
    }

    /// Notes that the session in `slot` is of `user`.
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

    /// Forgets the session in `slot`, which was inserted for `user`.
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

    /// Forgets the session in `slot`, whoever its user is. Slow: for sessions whose user cannot be
    /// trusted any more.
    pub fn forget(&mut self, slot: u32) {
        let user = self.heads.keys().find(|user| self.slots(user).any(|one| one == slot)).cloned();
        if let Some(user) = user {
            self.remove(&user, slot);
        }
    }

    /// The sessions of a user.
    pub fn slots<'a>(&'a self, user: &str) -> impl Iterator<Item = u32> + 'a {
        let first = self.heads.get(user).copied();
        std::iter::successors(first, |slot| {
            Some(self.links[*slot as usize].next).filter(|next| *next != NONE)
        })
    }

    /// All user ids with a session.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.heads.keys().map(|user| &**user)
    }

    /// Users with a session.
    #[must_use]
    pub fn len(&self) -> usize {
        self.heads.len()
    }

    /// Whether there is none.
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
