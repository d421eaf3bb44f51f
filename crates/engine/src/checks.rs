//! When silent channels are compared with the broker: a publication lost on the way to this worker
//! must be noticed even when none follows it.
//!
//! Invariant: a channel with a positioned subscriber has exactly one entry in the wheel, and is
//! compared when the broker last verified that nothing is missing between half of
//! `client.channel_position_check_delay` and all of it ago. Which moment it is, is random, and at
//! most [`CHECKS_PER_TURN`] come at once: channels that were joined together, or all heard
//! something at the same time, are not compared together.

use std::collections::VecDeque;
use std::num::NonZeroU32;

use crate::hub::Channel;
use crate::limits::{CHECK_TICK_MS, CHECKS_PER_TURN};
use crate::random::Random;
use crate::wheel::{Tick, Wheel};

/// Tells an entry that counts from a stale one; four bytes, since every channel has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CheckAt(NonZeroU32);

impl CheckAt {
    /// Ticks that are so far from each other that they share a number are never in the wheel
    /// together.
    fn of(Tick(tick): Tick) -> CheckAt {
        let number = u32::try_from(tick % u64::from(u32::MAX)).unwrap_or_default();
        CheckAt(NonZeroU32::MIN.saturating_add(number))
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Checks {
    /// Slots of the hub.
    wheel: Wheel<u32, CHECK_TICK_MS>,
    /// Those whose time has come.
    due: VecDeque<(Tick, u32)>,
}

impl Checks {
    pub(crate) fn new(now_ms: u64) -> Checks {
        Checks { wheel: Wheel::new(now_ms), due: VecDeque::new() }
    }

    /// A positioned subscriber has joined the channel in this slot.
    pub(crate) fn watch(
        &mut self,
        now_ms: u64,
        (slot, channel): (u32, &mut Channel),
        (delay_ms, random): (u64, &mut Random),
    ) {
        if channel.check.is_none() {
            self.put(now_ms, (slot, channel), (delay_ms, random));
        }
    }

    /// Looks at the channel in this slot again, so long after it was verified.
    pub(crate) fn put(
        &mut self,
        verified_at_ms: u64,
        (slot, channel): (u32, &mut Channel),
        (delay_ms, random): (u64, &mut Random),
    ) {
        let half = delay_ms / 2;
        let tick = self.wheel.tick_for(verified_at_ms + half + random.below(delay_ms - half));
        channel.check = Some(CheckAt::of(tick));
        self.wheel.put(tick, slot);
    }

    /// The slots of the channels that may be compared now, each with the entry for which it was
    /// put.
    pub(crate) fn due(&mut self, now_ms: u64) -> Vec<(CheckAt, u32)> {
        self.wheel.advance(now_ms, &mut self.due);
        let count = self.due.len().min(CHECKS_PER_TURN);
        let due = self.due.drain(..count).map(|(tick, slot)| (CheckAt::of(tick), slot)).collect();
        self.due.shrink_to(4 * CHECKS_PER_TURN);
        due
    }

    /// When there is something to do next.
    pub(crate) fn next_at_ms(&self) -> Option<u64> {
        if self.due.is_empty() { self.wheel.next_at_ms() } else { Some(0) }
    }
}
