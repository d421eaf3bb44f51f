//! The subscribers of one channel. Most channels of a worker have one, stored without an
//! allocation.
//!
//! Invariant: a subscriber keeps its number until it is removed.

use slab::Slab;

/// One session's subscription, as the hub stores it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subscriber {
    /// Slot of the session.
    pub(crate) session: u32,
    pub(crate) phase: SubscriberPhase,
    pub(crate) is_positioned: bool,
    pub(crate) wants_membership: bool,
    /// Offset of the last publication sent to the session.
    pub(crate) offset: u64,
}

/// How publications are handled for a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SubscriberPhase {
    /// The session holds them until it has sent the reply to the subscribe command.
    Joining,
    /// Publications are sent at once.
    Live,
}

/// The subscribers of one channel, by number.
#[derive(Debug, Default)]
pub(crate) enum Subscribers {
    #[default]
    None,
    /// One subscriber, with number zero.
    One(Subscriber),
    Many(Box<Slab<Subscriber>>),
}

/// Capacity above which a mostly empty list shrinks.
const CAPACITY_KEPT: usize = 64;

impl Subscribers {
    /// Adds a subscriber and returns its number.
    pub(crate) fn insert(&mut self, subscriber: Subscriber) -> usize {
        match self {
            Subscribers::None => {
                *self = Subscribers::One(subscriber);
                0
            }
            Subscribers::One(first) => {
                let mut many = Slab::with_capacity(2);
                many.insert(*first);
                let index = many.insert(subscriber);
                *self = Subscribers::Many(Box::new(many));
                index
            }
            Subscribers::Many(many) => many.insert(subscriber),
        }
    }

    /// Removes the subscriber with this number.
    pub(crate) fn remove(&mut self, index: usize) {
        match self {
            Subscribers::None | Subscribers::One(_) => *self = Subscribers::None,
            Subscribers::Many(many) => {
                many.remove(index);
                if many.capacity() > CAPACITY_KEPT && many.len() * 4 < many.capacity() {
                    many.shrink_to_fit();
                }
            }
        }
    }

    pub(crate) fn get_mut(&mut self, index: usize) -> Option<&mut Subscriber> {
        match self {
            Subscribers::None => None,
            Subscribers::One(subscriber) => (index == 0).then_some(subscriber),
            Subscribers::Many(many) => many.get_mut(index),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Subscribers::None => 0,
            Subscribers::One(_) => 1,
            Subscribers::Many(many) => many.len(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All subscribers with their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &Subscriber)> {
        match self {
            Subscribers::None => All::One(None),
            Subscribers::One(subscriber) => All::One(Some((0, subscriber))),
            Subscribers::Many(many) => All::Many(many.iter()),
        }
    }

    /// All subscribers with their numbers.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut Subscriber)> {
        match self {
            Subscribers::None => All::One(None),
            Subscribers::One(subscriber) => All::One(Some((0, subscriber))),
            Subscribers::Many(many) => All::Many(many.iter_mut()),
        }
    }
}

/// An iterator over one subscriber or over a list.
enum All<T, I> {
    One(Option<T>),
    Many(I),
}

impl<T, I: Iterator<Item = T>> Iterator for All<T, I> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        match self {
            All::One(one) => one.take(),
            All::Many(many) => many.next(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn subscriber(session: u32) -> Subscriber {
        Subscriber {
            session,
            phase: SubscriberPhase::Live,
            is_positioned: false,
            wants_membership: false,
            offset: 0,
        }
    }

    proptest! {
        /// A subscriber keeps its number, and no other subscriber has it, while others are added
        /// and removed.
        #[test]
        fn a_subscriber_keeps_its_number(moves in prop::collection::vec(any::<(bool, u16)>(), 0..300)) {
            let mut subscribers = Subscribers::default();
            let mut model: Vec<(usize, u32)> = Vec::new();
            for (session, (comes, which)) in (0..).zip(moves) {
                if comes || model.is_empty() {
                    let index = subscribers.insert(subscriber(session));
                    prop_assert!(model.iter().all(|(taken, _)| *taken != index));
                    model.push((index, session));
                } else {
                    let (index, _) = model.swap_remove(usize::from(which) % model.len());
                    subscribers.remove(index);
                    prop_assert!(subscribers.get_mut(index).is_none());
                }
                prop_assert_eq!((subscribers.len(), subscribers.is_empty()), (model.len(), model.is_empty()));
                for (index, session) in &model {
                    prop_assert_eq!(subscribers.get_mut(*index).map(|one| one.session), Some(*session));
                }
                let mut sorted = model.clone();
                sorted.sort_unstable();
                let all: Vec<_> = subscribers.iter().map(|(index, one)| (index, one.session)).collect();
                prop_assert_eq!(&all, &sorted);
                let all: Vec<_> = subscribers.iter_mut().map(|(index, one)| (index, one.session)).collect();
                prop_assert_eq!(&all, &sorted);
            }
        }
    }

    #[test]
    fn a_channel_with_one_subscriber_is_small() {
        assert!(size_of::<Subscribers>() <= 24);
    }
}
