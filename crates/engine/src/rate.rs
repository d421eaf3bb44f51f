//! The rate of one token bucket, and its form in the units of a connection's buckets.
//!
//! Invariant: rates are valid by construction ([`Rate::new`]): every empty bucket refills.

use crate::limits::{BUCKET_FILL_MS_MAX, BUCKET_TOKENS_MAX};

/// A rate limit: tokens per window, and the burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    amount: u32,
    window_ms: u32,
    burst: u32,
}

impl Rate {
    /// Creates a rate of `amount` tokens in `window_ms`, at most `burst` at once. `None` if a
    /// number is zero or too large, or if an empty bucket would need longer than
    /// [`BUCKET_FILL_MS_MAX`] to fill.
    #[must_use]
    pub fn new(amount: u32, window_ms: u32, burst: u32) -> Option<Rate> {
        let is_within = |number: u32| (1..=BUCKET_TOKENS_MAX).contains(&number);
        let fill_ms = u64::from(burst) * u64::from(window_ms) / u64::from(amount.max(1));
        let is_valid = is_within(amount) && is_within(burst) && window_ms > 0;
        (is_valid && fill_ms <= BUCKET_FILL_MS_MAX).then_some(Rate { amount, window_ms, burst })
    }

    /// Tokens per window.
    #[must_use]
    pub fn amount(self) -> u32 {
        self.amount
    }

    /// Milliseconds of the window.
    #[must_use]
    pub fn window_ms(self) -> u32 {
        self.window_ms
    }

    /// Tokens of a full bucket.
    #[must_use]
    pub fn burst(self) -> u32 {
        self.burst
    }

    /// Nanoseconds in which one token refills, rounded up.
    pub(crate) fn interval_ns(self) -> u64 {
        (u64::from(self.window_ms) * 1_000_000).div_ceil(u64::from(self.amount))
    }
}

/// A rate in the units of a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scale {
    /// Units of a full bucket; 0 for a bucket without a limit.
    pub(crate) full: u16,
    units_per_token: u16,
    tokens_per_unit: u32,
    /// Units refilled in a millisecond, times 2^32, rounded up: at most one unit too many in 49
    /// days.
    units_per_ms: u64,
}

impl Scale {
    pub(crate) fn new(rate: Option<Rate>) -> Scale {
        let Some(rate) = rate else {
            return Scale { full: 0, units_per_token: 0, tokens_per_unit: 1, units_per_ms: 0 };
        };
        let units_max = u32::from(u16::MAX);
        let (units_per_token, tokens_per_unit) = match rate.burst() {
            burst @ ..=0xFFFF => (units_max / burst, 1),
            burst => (1, burst.div_ceil(units_max)),
        };
        // At most 65,535: burst × (65,535 / burst), or burst / (burst / 65,535 rounded up).
        let full = (rate.burst() * units_per_token / tokens_per_unit) as u16;
        let units = u128::from(rate.amount()) * u128::from(units_per_token);
        let time = u128::from(rate.window_ms()) * u128::from(tokens_per_unit);
        // A bucket that refills within a millisecond cannot refill faster.
        let units_per_ms = (units << 32).div_ceil(time).min(u128::from(full) << 32) as u64;
        Scale { full, units_per_token: units_per_token as u16, tokens_per_unit, units_per_ms }
    }

    /// Converts tokens to units. A cost above a full bucket is a full bucket, so that a message
    /// larger than the burst can pass.
    pub(crate) fn cost(self, tokens: u32) -> u16 {
        let units = u64::from(tokens.div_ceil(self.tokens_per_unit));
        (units * u64::from(self.units_per_token)).min(u64::from(self.full)) as u16
    }

    /// Units refilled from the clock's origin until `at_ms`.
    pub(crate) fn refilled_by(self, at_ms: u64) -> u64 {
        ((u128::from(at_ms) * u128::from(self.units_per_ms)) >> 32) as u64
    }

    /// Milliseconds from `now_ms` until `missing` units are refilled.
    pub(crate) fn wait_ms(self, now_ms: u64, missing: u16) -> u64 {
        let target = u128::from(self.refilled_by(now_ms)) + u128::from(missing);
        let at_ms = (target << 32).div_ceil(u128::from(self.units_per_ms.max(1)));
        u64::try_from(at_ms).unwrap_or(u64::MAX).saturating_sub(now_ms).max(1)
    }
}
