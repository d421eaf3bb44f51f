//! Reordering of a stream's messages: a message that arrives early is held back until its
//! predecessor arrives.
//!
//! NATS republishes a stored message from the task of its publisher, so that of two messages stored
//! at the same time the later one may arrive first. Each carries the sequence of the one before it.
//! Invariant: no message is held back longer than [`REORDER_WAIT`], and at most [`HELD_MAX`]
//! messages with [`HELD_BYTES_MAX`] bytes are: a message that does not arrive was lost, and shows
//! as a gap.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::limits::{HELD_BYTES_MAX, HELD_MAX, REORDER_WAIT};

/// See the module.
pub(super) struct Reordering<T> {
    /// Sequence of the last message delivered in order; zero if unknown.
    last: u64,
    /// By sequence and number of arrival; a message without a sequence follows the newest that
    /// arrived before it.
    held: BTreeMap<(u64, u64), Held<T>>,
    /// Messages without a sequence that were held back so far.
    unstored: u64,
    /// How many of these are not held back any longer; they keep their order.
    released: u64,
    /// Bytes of the messages held back.
    held_bytes: usize,
}

/// The sequences of a message within its subject. For a message that was not stored both are zero.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MessageSequence {
    /// Sequence of the message.
    pub(super) sequence: u64,
    /// Sequence of its predecessor; zero for the first.
    pub(super) after: u64,
}

struct Held<T> {
    after: u64,
    due: Instant,
    bytes: usize,
    item: T,
}

impl<T> Default for Reordering<T> {
    fn default() -> Reordering<T> {
        Reordering { last: 0, held: BTreeMap::new(), unstored: 0, released: 0, held_bytes: 0 }
    }
}

impl<T> Reordering<T> {
    /// Takes a message that arrived, with its number of bytes; returns it if it is in order.
    /// [`Reordering::poll_next`] may return more then.
    pub(super) fn handle(
        &mut self,
        now: Instant,
        place: MessageSequence,
        (bytes, item): (usize, T),
    ) -> Option<T> {
        let is_stored = place.sequence > 0;
        let is_next = match is_stored {
            true => self.last == 0 || place.after <= self.last,
            false => self.held.is_empty(),
        };
        if is_next {
            if is_stored {
                self.last = place.sequence;
            }
            return Some(item);
        }
        let behind = self.held.last_key_value().map_or(0, |(key, _)| key.0);
        let key = match is_stored {
            true => (place.sequence, 0),
            false => {
                self.unstored += 1;
                (behind, self.unstored)
            }
        };
        let held = Held { after: place.after, due: now + REORDER_WAIT, bytes, item };
        self.held_bytes += bytes;
        if let Some(replaced) = self.held.insert(key, held) {
            self.held_bytes -= replaced.bytes;
        }
        None
    }

    /// The next message that need not be held back any longer.
    pub(super) fn poll_next(&mut self, now: Instant) -> Option<T> {
        let first = self.held.first_key_value()?.1;
        let is_full = self.held.len() > HELD_MAX || self.held_bytes > HELD_BYTES_MAX;
        let is_next = first.after <= self.last || first.due <= now || is_full;
        if is_next { self.pop() } else { None }
    }

    /// When [`Reordering::poll_next`] returns a message at the latest.
    pub(super) fn due(&self) -> Option<Instant> {
        self.held.first_key_value().map(|(_, first)| first.due)
    }

    /// Marks the messages up to this sequence as known from a read.
    pub(super) fn settle(&mut self, sequence: u64) {
        self.last = self.last.max(sequence);
    }

    /// Forgets all messages; none is awaited.
    pub(super) fn restart(&mut self) {
        let released = self.unstored;
        *self = Reordering { unstored: released, released, ..Reordering::default() };
    }

    /// Marks the messages without a sequence that have arrived.
    pub(super) fn arrived(&self) -> u64 {
        self.unstored
    }

    /// Returns whether none of the messages of [`Reordering::arrived`] is held back any longer.
    pub(super) fn has_released(&self, arrived: u64) -> bool {
        self.released >= arrived
    }

    /// The first message held back, whether or not it is in order.
    pub(super) fn pop(&mut self) -> Option<T> {
        let ((sequence, unstored), held) = self.held.pop_first()?;
        if unstored > 0 {
            self.released = unstored;
        }
        self.last = self.last.max(sequence);
        self.held_bytes -= held.bytes;
        Some(held.item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is delivered when messages of these sequences arrive; 0 is a message that is not
    /// stored.
    fn ordered(order: &mut Reordering<u64>, now: Instant, numbers: &[u64]) -> Vec<u64> {
        let mut ordered = Vec::new();
        for &sequence in numbers {
            let place = MessageSequence { sequence, after: sequence.saturating_sub(1) };
            ordered.extend(order.handle(now, place, (1, sequence)));
            ordered.extend(std::iter::from_fn(|| order.poll_next(now)));
        }
        ordered
    }

    #[test]
    fn early_messages_wait_and_unstored_ones_with_them() {
        let (mut order, now) = (Reordering::default(), Instant::now());
        assert_eq!(ordered(&mut order, now, &[489]), [489]);
        assert_eq!(ordered(&mut order, now, &[492, 0, 491]), [0; 0]);
        assert_eq!(ordered(&mut order, now, &[490]), [490, 491, 492, 0]);
        assert_eq!(ordered(&mut order, now, &[0, 493]), [0, 493]);
        assert_eq!(order.due(), None);
    }

    #[test]
    fn unstored_messages_keep_their_order_whatever_is_delivered_between_them() {
        let (mut order, now) = (Reordering::default(), Instant::now());
        let mut delivered = Vec::new();
        let unstored = MessageSequence::default();
        let stored = |sequence, after| MessageSequence { sequence, after };
        for (place, item) in [
            (stored(1, 0), "1"),
            (stored(5, 3), "5"),
            (unstored, "a"),
            (unstored, "b"),
            (stored(3, 1), "3"),
            (stored(9, 7), "9"),
            (unstored, "c"),
            (unstored, "d"),
        ] {
            delivered.extend(order.handle(now, place, (1, item)));
            if item == "3" {
                delivered.extend(order.poll_next(now));
                delivered.extend(order.poll_next(now));
            }
        }
        delivered.extend(std::iter::from_fn(|| order.pop()));
        assert_eq!(delivered, ["1", "3", "5", "a", "b", "9", "c", "d"]);
    }

    #[test]
    fn a_lost_message_delays_others_for_a_limited_time() {
        let (mut order, now) = (Reordering::default(), Instant::now());
        assert_eq!(ordered(&mut order, now, &[1, 3, 4, 6]), [1]);
        let due = order.due().unwrap();
        let mut late = std::iter::from_fn(|| order.poll_next(due));
        assert_eq!(late.by_ref().collect::<Vec<_>>(), [3, 4, 6]);
        assert_eq!(ordered(&mut order, due, &[2, 7]), [2]);
        assert_eq!(
            order.poll_next(due + REORDER_WAIT),
            Some(7),
            "a late message repairs the order"
        );
    }

    #[test]
    fn the_number_of_held_messages_is_bounded() {
        let (mut order, now) = (Reordering::default(), Instant::now());
        let end = 3 + HELD_MAX as u64;
        assert_eq!(ordered(&mut order, now, &[1]), [1]);
        assert_eq!(ordered(&mut order, now, &(3..end).collect::<Vec<_>>()), [0; 0]);
        assert_eq!(ordered(&mut order, now, &[end]).len(), HELD_MAX + 1);
    }

    #[test]
    fn the_bytes_of_held_messages_are_bounded() {
        let (mut order, now) = (Reordering::default(), Instant::now());
        for sequence in [1, 3, 4, 5] {
            let place = MessageSequence { sequence, after: sequence - 1 };
            let now_held = order.handle(now, place, (HELD_BYTES_MAX / 2, sequence)).is_none();
            assert_eq!(
                (now_held, order.poll_next(now)),
                match sequence {
                    1 => (false, None),
                    3 | 4 => (true, None),
                    _ => (true, Some(3)),
                }
            );
        }
        assert_eq!((order.poll_next(now), order.poll_next(now)), (Some(4), Some(5)));
        assert_eq!(order.held_bytes, 0);
    }

    #[test]
    fn messages_known_from_a_read_are_not_waited_for() {
        let (mut order, now) = (Reordering::default(), Instant::now());
        assert_eq!(ordered(&mut order, now, &[1, 9]), [1]);
        order.settle(8);
        assert_eq!(order.poll_next(now), Some(9));
    }
}
