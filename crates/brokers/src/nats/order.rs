//! The order of a stream: what comes ahead of its turn waits for what belongs before it.
//!
//! NATS sends what it has stored from the task of whoever published it, so that of two messages
//! stored at the same time the later may come first. Each names the one of its subject before it.
//! Invariant: nothing waits longer than [`TURN_WAIT`], and no more than [`HELD_MAX`] wait: what
//! does not come was lost, and shows as a gap.

use std::collections::BTreeMap;

use tokio::time::Instant;

use crate::limits::{HELD_MAX, TURN_WAIT};

/// See the module.
pub(super) struct Reordering<T> {
    /// The number of the last one whose turn it was; zero when that is not known.
    last: u64,
    /// By number; what has none stands behind the newest that came before it.
    held: BTreeMap<(u64, usize), Held<T>>,
}

/// Where a message stands in its subject. One that was not stored stands nowhere: both are zero.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MessageSequence {
    /// Its own number.
    pub(super) sequence: u64,
    /// The number of the one before it.
    pub(super) after: u64,
}

struct Held<T> {
    after: u64,
    due: Instant,
    item: T,
}

impl<T> Default for Reordering<T> {
    fn default() -> Reordering<T> {
        Reordering { last: 0, held: BTreeMap::new() }
    }
}

impl<T> Reordering<T> {
    /// Takes what has come; returns it when it is its turn. Others may be next then.
    pub(super) fn handle(&mut self, now: Instant, turn: MessageSequence, item: T) -> Option<T> {
        let is_stored = turn.sequence > 0;
        let is_turn = match is_stored {
            true => self.last == 0 || turn.after <= self.last,
            false => self.held.is_empty(),
        };
        if is_turn {
            if is_stored {
                self.last = turn.sequence;
            }
            return Some(item);
        }
        let behind = self.held.last_key_value().map_or(0, |(key, _)| key.0);
        let key = match is_stored {
            true => (turn.sequence, 0),
            false => (behind, self.held.len()),
        };
        let held = Held { after: turn.after, due: now + TURN_WAIT, item };
        self.held.insert(key, held);
        None
    }

    /// What has waited and need not wait any longer.
    pub(super) fn poll_next(&mut self, now: Instant) -> Option<T> {
        let first = self.held.first_key_value()?.1;
        let is_turn = first.after <= self.last || first.due <= now || self.held.len() > HELD_MAX;
        if is_turn { self.pop() } else { None }
    }

    /// When there is something next at the latest.
    pub(super) fn due(&self) -> Option<Instant> {
        self.held.first_key_value().map(|(_, first)| first.due)
    }

    /// What is stored up to this number is known.
    pub(super) fn settle(&mut self, sequence: u64) {
        self.last = self.last.max(sequence);
    }

    /// The first one, whether or not it is its turn.
    pub(super) fn pop(&mut self) -> Option<T> {
        let ((sequence, _), held) = self.held.pop_first()?;
        self.last = self.last.max(sequence);
        Some(held.item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is let through of numbers that come one after the other; 0 is a message that is not
    /// stored.
    fn ordered(order: &mut Reordering<u64>, now: Instant, numbers: &[u64]) -> Vec<u64> {
        let mut ordered = Vec::new();
        for &sequence in numbers {
            let turn = MessageSequence { sequence, after: sequence.saturating_sub(1) };
            ordered.extend(order.handle(now, turn, sequence));
            ordered.extend(std::iter::from_fn(|| order.poll_next(now)));
        }
        ordered
    }

    #[test]
    fn what_overtook_waits_for_its_turn_and_what_is_not_stored_with_it() {
        let (mut order, now) = (Reordering::default(), Instant::now());
        assert_eq!(ordered(&mut order, now, &[489]), [489]);
        assert_eq!(ordered(&mut order, now, &[492, 0, 491]), [0; 0]);
        assert_eq!(ordered(&mut order, now, &[490]), [490, 491, 492, 0]);
        assert_eq!(ordered(&mut order, now, &[0, 493]), [0, 493]);
        assert_eq!(order.due(), None);
    }

    #[test]
    fn what_does_not_come_is_waited_for_only_so_long() {
        let (mut order, now) = (Reordering::default(), Instant::now());
        assert_eq!(ordered(&mut order, now, &[1, 3, 4, 6]), [1]);
        let due = order.due().unwrap();
        let mut late = std::iter::from_fn(|| order.poll_next(due));
        assert_eq!(late.by_ref().collect::<Vec<_>>(), [3, 4, 6]);
        assert_eq!(ordered(&mut order, due, &[2, 7]), [2]);
        assert_eq!(order.poll_next(due + TURN_WAIT), Some(7), "late ones heal themselves");
    }

    #[test]
    fn no_more_than_so_many_wait() {
        let (mut order, now) = (Reordering::default(), Instant::now());
        let end = 3 + HELD_MAX as u64;
        assert_eq!(ordered(&mut order, now, &[1]), [1]);
        assert_eq!(ordered(&mut order, now, &(3..end).collect::<Vec<_>>()), [0; 0]);
        assert_eq!(ordered(&mut order, now, &[end]).len(), HELD_MAX + 1);
    }

    #[test]
    fn what_is_known_from_a_read_is_not_waited_for() {
        let (mut order, now) = (Reordering::default(), Instant::now());
        assert_eq!(ordered(&mut order, now, &[1, 9]), [1]);
        order.settle(8);
        assert_eq!(order.poll_next(now), Some(9));
    }
}
