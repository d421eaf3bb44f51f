//! Chance that can be repeated (splitmix64).

use std::time::Duration;

/// See the module.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Between half of `mean` and one and a half.
    pub(crate) fn about(&mut self, mean: Duration) -> Duration {
        mean / 2 + mean.mul_f64((self.next() % 1000) as f64 / 1000.0)
    }
}
