//! Timers as data: a wheel of slots, with one entry per session that has a timer.
//!
//! Invariant: an entry is returned at or after its time, within one tick plus the caller's delay.
//! An entry beyond the horizon is returned at the horizon, and the caller schedules it again.

use crate::limits::{WHEEL_SLOTS, WHEEL_TICK_MS};

/// A timer wheel for keys of type `K`, with `TICK_MS` milliseconds per slot.
#[derive(Debug)]
pub(crate) struct Wheel<K, const TICK_MS: u64 = WHEEL_TICK_MS> {
    slots: Vec<Vec<K>>,
    /// One bit per slot: whether it has entries.
    occupied: [u64; WHEEL_SLOTS / 64],
    /// The first tick that was not returned yet.
    next_tick: u64,
    entries: usize,
}

/// The tick of an entry. A caller that stores it can recognize stale entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tick(pub(crate) u64);

impl<K: Copy, const TICK_MS: u64> Wheel<K, TICK_MS> {
    /// Creates an empty wheel that starts at `now_ms`.
    pub(crate) fn new(now_ms: u64) -> Wheel<K, TICK_MS> {
        Wheel {
            slots: std::iter::repeat_with(Vec::new).take(WHEEL_SLOTS).collect(),
            occupied: [0; WHEEL_SLOTS / 64],
            next_tick: now_ms / TICK_MS,
            entries: 0,
        }
    }

    /// The tick at which an entry for `at_ms` would be returned.
    pub(crate) fn tick_for(&self, at_ms: u64) -> Tick {
        let horizon = self.next_tick + WHEEL_SLOTS as u64 - 1;
        Tick(at_ms.div_ceil(TICK_MS).clamp(self.next_tick, horizon))
    }

    /// The latest time that fits into the wheel.
    pub(crate) fn horizon_ms(&self) -> u64 {
        (self.next_tick + WHEEL_SLOTS as u64 - 1) * TICK_MS
    }

    /// Adds `key`. It is returned once, at this tick of [`Wheel::tick_for`].
    pub(crate) fn put(&mut self, tick: Tick, key: K) {
        let slot = Self::slot(tick.0);
        self.slots[slot].push(key);
        self.occupied[slot / 64] |= 1 << (slot % 64);
        self.entries += 1;
    }

    /// Appends to `due` all entries due by `now_ms`, each with its tick.
    pub(crate) fn advance(&mut self, now_ms: u64, due: &mut impl Extend<(Tick, K)>) {
        let now_tick = now_ms / TICK_MS;
        if self.entries == 0 {
            self.next_tick = self.next_tick.max(now_tick + 1);
            return;
        }
        while self.next_tick <= now_tick {
            let index = Self::slot(self.next_tick);
            self.occupied[index / 64] &= !(1 << (index % 64));
            let slot = &mut self.slots[index];
            self.entries -= slot.len();
            due.extend(slot.drain(..).map(|key| (Tick(self.next_tick), key)));
            // A burst of timers must not keep its memory.
            slot.shrink_to(16);
            self.next_tick += 1;
        }
    }

    /// The time of the next entry; `None` if the wheel is empty.
    pub(crate) fn next_at_ms(&self) -> Option<u64> {
        if self.entries == 0 {
            return None;
        }
        let start = Self::slot(self.next_tick);
        let first = self.occupied[start / 64] >> (start % 64);
        let distance = match first {
            0 => (1..=self.occupied.len()).find_map(|step| {
                let word = self.occupied[(start / 64 + step) % self.occupied.len()];
                let before = step * 64 - start % 64;
                (word != 0).then(|| before + word.trailing_zeros() as usize)
            })?,
            _ => first.trailing_zeros() as usize,
        };
        Some((self.next_tick + distance as u64) * TICK_MS)
    }

    fn slot(tick: u64) -> usize {
        (tick as usize) & (WHEEL_SLOTS - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_entries_in_time_and_far_ones_at_the_horizon() {
        let mut wheel: Wheel<char> = Wheel::new(1000);
        for (at_ms, key) in [(1500, 'a'), (3000, 'b'), (10_000_000, 'c'), (0, 'd')] {
            wheel.put(wheel.tick_for(at_ms), key);
        }
        let mut seen = Vec::new();
        let mut now_ms = 1000;
        while let Some(at_ms) = wheel.next_at_ms() {
            now_ms = at_ms.max(now_ms);
            let mut due = Vec::new();
            wheel.advance(now_ms, &mut due);
            seen.extend(due.into_iter().map(|(_, key)| (key, now_ms)));
        }
        assert_eq!(seen.iter().map(|(key, _)| *key).collect::<String>(), "dabc");
        assert!((1500..1500 + WHEEL_TICK_MS).contains(&seen[1].1));
        assert!(seen[3].1 < 1000 + WHEEL_SLOTS as u64 * WHEEL_TICK_MS);
    }

    #[test]
    fn the_next_entry_is_found_from_every_slot_at_every_distance() {
        for start in 0..WHEEL_SLOTS as u64 {
            for distance in 0..WHEEL_SLOTS as u64 {
                let mut wheel: Wheel<(), 1> = Wheel::new(start);
                wheel.put(wheel.tick_for(start + distance), ());
                assert_eq!(wheel.next_at_ms(), Some(start + distance));
                let mut due = Vec::new();
                wheel.advance(start + distance, &mut due);
                assert_eq!((due.len(), wheel.next_at_ms()), (1, None));
            }
        }
    }

    #[test]
    fn a_long_pause_returns_everything_at_once() {
        let mut wheel: Wheel<u64> = Wheel::new(0);
        for at_ms in 0..1000u64 {
            wheel.put(wheel.tick_for(at_ms * 20), at_ms);
        }
        let mut due = Vec::new();
        wheel.advance(1_000_000, &mut due);
        assert_eq!(due.len(), 1000);
        assert_eq!(wheel.next_at_ms(), None);
    }
}
