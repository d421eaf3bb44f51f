//! The places of a channel. Most channels of a worker have one, which takes no room of its own.
//!
//! Invariant: a seat keeps its number until its owner leaves.

use slab::Slab;

use crate::hub::Seated;

/// See the module.
#[derive(Debug, Default)]
pub(crate) enum Seats {
    #[default]
    None,
    /// Number zero.
    One(Seated),
    Many(Box<Slab<Seated>>),
}

/// Beyond so much room, most of which is empty, seats give room back.
const ROOM_KEPT: usize = 64;

impl Seats {
    /// Takes a free place; returns its number.
    pub(crate) fn insert(&mut self, seated: Seated) -> usize {
        match self {
            Seats::None => {
                *self = Seats::One(seated);
                0
            }
            Seats::One(first) => {
                let mut many = Slab::with_capacity(2);
                many.insert(*first);
                let index = many.insert(seated);
                *self = Seats::Many(Box::new(many));
                index
            }
            Seats::Many(many) => many.insert(seated),
        }
    }

    /// Frees a place that is taken.
    pub(crate) fn remove(&mut self, index: usize) {
        match self {
            Seats::None | Seats::One(_) => *self = Seats::None,
            Seats::Many(many) => {
                many.remove(index);
                if many.capacity() > ROOM_KEPT && many.len() * 4 < many.capacity() {
                    many.shrink_to_fit();
                }
            }
        }
    }

    pub(crate) fn get_mut(&mut self, index: usize) -> Option<&mut Seated> {
        match self {
            Seats::None => None,
            Seats::One(seated) => (index == 0).then_some(seated),
            Seats::Many(many) => many.get_mut(index),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Seats::None => 0,
            Seats::One(_) => 1,
            Seats::Many(many) => many.len(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All, with their numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &Seated)> {
        match self {
            Seats::None => All::One(None),
            Seats::One(seated) => All::One(Some((0, seated))),
            Seats::Many(many) => All::Many(many.iter()),
        }
    }

    /// All, with their numbers.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut Seated)> {
        match self {
            Seats::None => All::One(None),
            Seats::One(seated) => All::One(Some((0, seated))),
            Seats::Many(many) => All::Many(many.iter_mut()),
        }
    }
}

/// At most one, or as many as there are.
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
    use crate::hub::SeatPhase;

    fn seated(session: u32) -> Seated {
        Seated {
            session,
            phase: SeatPhase::Live,
            is_positioned: false,
            wants_membership: false,
            offset: 0,
        }
    }

    proptest! {
        /// Whatever comes and goes, everybody sits where they sat down, and nobody else does.
        #[test]
        fn everybody_stays_where_they_sat_down(moves in prop::collection::vec(any::<(bool, u16)>(), 0..300)) {
            let mut seats = Seats::default();
            let mut model: Vec<(usize, u32)> = Vec::new();
            for (session, (comes, which)) in (0..).zip(moves) {
                if comes || model.is_empty() {
                    let index = seats.insert(seated(session));
                    prop_assert!(model.iter().all(|(taken, _)| *taken != index));
                    model.push((index, session));
                } else {
                    let (index, _) = model.swap_remove(usize::from(which) % model.len());
                    seats.remove(index);
                    prop_assert!(seats.get_mut(index).is_none());
                }
                prop_assert_eq!((seats.len(), seats.is_empty()), (model.len(), model.is_empty()));
                for (index, session) in &model {
                    prop_assert_eq!(seats.get_mut(*index).map(|one| one.session), Some(*session));
                }
                let mut sorted = model.clone();
                sorted.sort_unstable();
                let all: Vec<_> = seats.iter().map(|(index, one)| (index, one.session)).collect();
                prop_assert_eq!(&all, &sorted);
                let all: Vec<_> = seats.iter_mut().map(|(index, one)| (index, one.session)).collect();
                prop_assert_eq!(&all, &sorted);
            }
        }
    }

    #[test]
    fn a_channel_with_one_seat_is_small() {
        assert!(size_of::<Seats>() <= 24);
    }
}
