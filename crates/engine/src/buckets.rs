//! The token buckets of one connection: six levels and one time stamp in 16 bytes.
//!
//! A level counts units. A full bucket has at most 65,535 units: a token is worth several units,
//! or, for bytes, a unit is worth several tokens. The refill between two times is the difference of
//! the refills since the clock's origin, so that rounding loses nothing however often a bucket is
//! read. One time stamp serves all levels.
//!
//! Invariant: in any interval no more tokens are taken than rate × time + burst, to within one
//! unit, whatever the clock does. A clock that goes back refills nothing.

use crate::rates::{Bucket, CONNECTION_BUCKETS, Limited, Rates};

/// Token buckets of one connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionBuckets {
    /// Low 32 bits of the monotonic milliseconds to which the levels were refilled.
    filled_at: u32,
    levels: [u16; CONNECTION_BUCKETS],
}

const _: () = assert!(size_of::<ConnectionBuckets>() == 16, "the cost of limits per connection");

impl ConnectionBuckets {
    /// Creates full buckets.
    pub(crate) fn full(now_ms: u64) -> ConnectionBuckets {
        ConnectionBuckets { filled_at: now_ms as u32, levels: [u16::MAX; CONNECTION_BUCKETS] }
    }

    /// Takes tokens from a bucket. Takes nothing and fails if there are too few.
    pub(crate) fn take(
        &mut self,
        now_ms: u64,
        rates: &Rates,
        bucket: Bucket,
        tokens: u32,
    ) -> Result<(), Limited> {
        let scale = rates.connection[bucket as usize];
        if scale.full == 0 {
            return Ok(());
        }
        self.refill(now_ms, rates);
        let cost = scale.cost(tokens);
        // A new connection has more units than a full bucket, because rates are not known when it
        // opens.
        let level = self.levels[bucket as usize].min(scale.full);
        let Some(left) = level.checked_sub(cost) else {
            return Err(Limited { bucket, retry_after_ms: scale.wait_ms(now_ms, cost - level) });
        };
        self.levels[bucket as usize] = left;
        Ok(())
    }

    /// A time stamp half the range or more ahead means that the clock went back, or that nothing
    /// was taken for more than 24 days. Either way the levels stay, and refill from now on.
    fn refill(&mut self, now_ms: u64, rates: &Rates) {
        let passed_ms = (now_ms as u32).wrapping_sub(self.filled_at);
        if passed_ms == 0 {
            return;
        }
        self.filled_at = now_ms as u32;
        let is_ahead = passed_ms <= u32::MAX / 2;
        let before_ms = if is_ahead { now_ms.saturating_sub(passed_ms.into()) } else { now_ms };
        for (level, scale) in self.levels.iter_mut().zip(&rates.connection) {
            if *level >= scale.full {
                // A bucket without a limit counts as full if it gets one later.
                *level = u16::MAX;
                continue;
            }
            let refilled = scale.refilled_by(now_ms) - scale.refilled_by(before_ms);
            let filled = u64::from(*level).saturating_add(refilled);
            *level = filled.min(u64::from(scale.full)) as u16;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rate::Rate;

    const BUCKET: Bucket = Bucket::ConnectionPublishes;

    fn rates(rate: Rate) -> Rates {
        // The other buckets share the time stamp and refill faster or more slowly.
        Rates::new(|bucket| match bucket {
            BUCKET => Some(rate),
            Bucket::ConnectionCommands => Rate::new(1_000, 1_000, 1),
            Bucket::ConnectionBytes => Rate::new(1, 3_600_000, 100),
            _ => None,
        })
    }

    fn any_rate() -> impl Strategy<Value = Rate> {
        let window = prop_oneof![Just(1_000u32), Just(60_000), Just(3_600_000)];
        let burst = prop_oneof![1u32..300, 1u32..70_000, 1u32..20_000_000];
        (1u32..2_000_000, window, burst)
            .prop_filter_map("too slow", |(amount, window, burst)| Rate::new(amount, window, burst))
    }

    /// Steps of the clock: many short ones, and some long ones.
    fn any_steps() -> impl Strategy<Value = Vec<(u64, u32)>> {
        let step = prop_oneof![4 => 0u64..3, 2 => 0u64..5_000, 1 => 0u64..5_000_000];
        proptest::collection::vec((step, 1u32..4), 1..200)
    }

    proptest! {
        #[test]
        fn never_more_than_rate_and_burst_and_never_less_than_a_wait_earns(
            rate in any_rate(), began in 0u64..(1 << 40), steps in any_steps(),
        ) {
            let rates = rates(rate);
            let mut buckets = ConnectionBuckets::full(began);
            let (mut now, mut taken) = (began, 0u128);
            for (step, tokens) in steps {
                now += step;
                // Taking from another bucket moves the shared time stamp; this bucket must lose
                // nothing.
                let _other = buckets.take(now, &rates, Bucket::ConnectionCommands, 1);
                let tokens = tokens.min(rate.burst());
                match buckets.take(now, &rates, BUCKET, tokens) {
                    Ok(()) => taken += u128::from(tokens),
                    Err(limited) => {
                        let mut later = buckets;
                        let wait = limited.retry_after_ms;
                        prop_assert!(wait > 0);
                        if wait > 1 {
                            prop_assert!(later.take(now + wait - 1, &rates, BUCKET, tokens).is_err());
                        }
                        prop_assert!(later.take(now + wait, &rates, BUCKET, tokens).is_ok());
                    }
                }
                let earned = u128::from(now - began) * u128::from(rate.amount());
                let most = earned / u128::from(rate.window_ms()) + u128::from(rate.burst()) + 1;
                prop_assert!(taken <= most, "{taken} taken, {most} allowed");
            }
        }

        #[test]
        fn a_client_that_always_asks_gets_the_rate(
            amount in 1u32..5_000, burst in 1u32..2_000, began in 0u64..(1 << 40), pace in 1u64..7,
        ) {
            let rate = Rate::new(amount, 1_000, burst).unwrap();
            let rates = rates(rate);
            let mut buckets = ConnectionBuckets::full(began);
            let mut taken = 0;
            for now in (began..began + 4_000).step_by(pace as usize) {
                while taken < 1_000_000 && buckets.take(now, &rates, BUCKET, 1).is_ok() {
                    taken += 1;
                }
            }
            // The refill between two calls must fit beside the fraction that the last call left;
            // only then is the whole rate earned.
            let per_look = u64::from(amount) * pace / 1_000 + 1;
            let earned = 4 * u64::from(amount) * 99 / 100;
            prop_assert!(per_look >= u64::from(burst) || taken + per_look >= earned, "{taken} of {earned}");
        }

        #[test]
        fn a_clock_that_jumps_gives_no_more(
            rate in any_rate(), jumps in proptest::collection::vec(0u64..(1 << 31), 1..50),
        ) {
            let rates = rates(rate);
            let mut buckets = ConnectionBuckets::full(0);
            let (mut taken, mut last, mut forward) = (0u128, 0, 0u128);
            for now in jumps {
                forward += u128::from(now.saturating_sub(last));
                last = now;
                for _ in 0..10 {
                    taken += u128::from(buckets.take(now, &rates, BUCKET, 1).is_ok());
                }
                let earned = forward * u128::from(rate.amount()) / u128::from(rate.window_ms());
                prop_assert!(taken <= earned + u128::from(rate.burst()) + 1);
            }
        }
    }

    #[test]
    fn the_time_stamp_wraps_around() {
        let rates = rates(Rate::new(1, 1_000, 2).unwrap());
        let began = (1 << 32) - 500;
        let mut buckets = ConnectionBuckets::full(began);
        let mut take = |now| buckets.take(now, &rates, BUCKET, 1).is_ok();
        assert!(take(began) && take(began) && !take(began));
        assert!(!take(began + 499) && !take(began + 999) && take(began + 1_002));
        // After a silence of more than 24 days the bucket continues from its last level.
        let later = began + 1_002 + (1 << 31);
        assert!(!take(later) && take(later + 1_002) && !take(later + 1_002));
    }

    #[test]
    fn other_rates_keep_the_share_that_is_left() {
        let few = rates(Rate::new(1, 1_000, 10).unwrap());
        let many = rates(Rate::new(1, 1_000, 1_000).unwrap());
        let mut buckets = ConnectionBuckets::full(0);
        for _ in 0..5 {
            buckets.take(0, &few, BUCKET, 1).unwrap();
        }
        let taken = (0..1_000).filter(|_| buckets.take(0, &many, BUCKET, 1).is_ok()).count();
        assert!((490..=510).contains(&taken), "{taken}");
        assert!(buckets.take(0, &Rates::default(), BUCKET, 1_000_000).is_ok(), "it does not limit");
    }

    #[test]
    fn a_cost_above_the_burst_passes_when_the_bucket_is_full() {
        let rates = rates(Rate::new(1_000, 1_000, 100_000).unwrap());
        let mut buckets = ConnectionBuckets::full(0);
        assert!(buckets.take(0, &rates, BUCKET, 1_000_000).is_ok());
        let limited = buckets.take(0, &rates, BUCKET, 1_000_000).unwrap_err();
        assert!((99_000..=101_000).contains(&limited.retry_after_ms), "{limited:?}");
        assert!(buckets.take(limited.retry_after_ms, &rates, BUCKET, 1_000_000).is_ok());
    }
}
