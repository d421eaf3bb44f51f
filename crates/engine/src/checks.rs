//! Schedules the comparison of silent channels with the broker: a publication lost on the way to
//! this worker must be detected even if none follows it.
//!
//! Invariant: a channel with a positioned subscriber has exactly one entry in the wheel. One
//! comparison happens between 0.5 and 1 × `client.channel_position_check_delay` after the last
//! verification. The exact time is random, and at most [`CHECKS_PER_TURN`] comparisons start in one
//! turn, so that channels that were joined together are not compared together.

use std::collections::VecDeque;

use crate::check_at::CheckAt;
use crate::hub::Channel;
use crate::limits::{CHECK_TICK_MS, CHECKS_PER_TURN};
use crate::random::Random;
use crate::wheel::{Tick, Wheel};

/// Schedule of the position checks of a worker.
#[derive(Debug)]
pub(crate) struct Checks {
    /// Slots of the hub, by the time of the next comparison.
    wheel: Wheel<u32, CHECK_TICK_MS>,
    /// Entries that are due.
    due: VecDeque<(Tick, u32)>,
}

/// Time until a comparison, of which the second half is random.
pub(crate) struct CheckDelay<'r> {
    /// `client.channel_position_check_delay`.
    pub(crate) delay_ms: u64,
    pub(crate) random: &'r mut Random,
}

impl Checks {
    pub(crate) fn new(now_ms: u64) -> Checks {
        Checks { wheel: Wheel::new(now_ms), due: VecDeque::new() }
    }

    /// Schedules the first comparison of a channel that got a positioned subscriber.
    pub(crate) fn watch(
        &mut self,
        now_ms: u64,
        slot: u32,
        channel: &mut Channel,
        delay: CheckDelay<'_>,
    ) {
        if channel.check.is_none() {
            self.put(now_ms, slot, channel, delay);
        }
    }

    /// Schedules the next comparison of a channel, counted from its last verification.
    pub(crate) fn put(
        &mut self,
        verified_at_ms: u64,
        slot: u32,
        channel: &mut Channel,
        CheckDelay { delay_ms, random }: CheckDelay<'_>,
    ) {
        let half = delay_ms / 2;
        let tick = self.wheel.tick_for(verified_at_ms + half + random.below(delay_ms - half));
        channel.check = Some(CheckAt::of(tick));
        self.wheel.put(tick, slot);
    }

    /// Returns the slots of the channels to compare now, each with its entry.
    pub(crate) fn due(&mut self, now_ms: u64) -> Vec<(CheckAt, u32)> {
        self.wheel.advance(now_ms, &mut self.due);
        let count = self.due.len().min(CHECKS_PER_TURN);
        let due = self.due.drain(..count).map(|(tick, slot)| (CheckAt::of(tick), slot)).collect();
        self.due.shrink_to(4 * CHECKS_PER_TURN);
        due
    }

    /// Returns when the next entry is due, on the monotonic clock.
    pub(crate) fn next_at_ms(&self) -> Option<u64> {
        if self.due.is_empty() { self.wheel.next_at_ms() } else { Some(0) }
    }
}
