//! The number of a channel's current entry in the schedule of comparisons.

use std::num::NonZeroU32;

use crate::wheel::Tick;

/// Distinguishes the current entry of a channel from stale ones; four bytes, because every channel
/// has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CheckAt(NonZeroU32);

impl CheckAt {
    /// Two ticks that share a number are so far apart that they are never in the wheel together.
    pub(crate) fn of(Tick(tick): Tick) -> CheckAt {
        let number = u32::try_from(tick % u64::from(u32::MAX)).unwrap_or_default();
        CheckAt(NonZeroU32::MIN.saturating_add(number))
    }
}
