//! Token buckets of users, addresses and API keys, shared by the workers of a node.
//!
//! A bucket is one number: the time at which it will be full again (generic cell rate algorithm). A
//! full bucket stores nothing, so that its entry is free for another name. The table has a fixed
//! size, and idle buckets expire without work. Entries are atomic and lock-free. A race of two
//! names for an entry charges at most one token to the wrong name.
//!
//! Invariant: memory is [`SHARED_BUCKETS`] entries, whatever peers do. If more buckets are not
//! full, those nearest to full are dropped first.

use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::hash_keys::HashKeys;
use crate::limits::SHARED_BUCKETS;
use crate::rates::{Bucket, Limited, Rate};

/// Token buckets of users, addresses and API keys of this node.
#[derive(Debug)]
pub struct SharedBuckets {
    /// Sets of entries; a name's entry is in one set.
    sets: Box<[[Place; WAYS]]>,
    hasher: HashKeys,
}

#[derive(Debug, Default)]
struct Place {
    /// Hash of bucket and name.
    name: AtomicU64,
    /// Nanoseconds on the monotonic clock at which the bucket is full.
    full_at: AtomicU64,
}

const WAYS: usize = 8;

impl SharedBuckets {
    /// Creates a table of full buckets.
    #[must_use]
    pub fn new(hasher: HashKeys) -> SharedBuckets {
        SharedBuckets::with_places(SHARED_BUCKETS, hasher)
    }

    fn with_places(places: usize, hasher: HashKeys) -> SharedBuckets {
        let sets = (0..places.div_ceil(WAYS)).map(|_| std::array::from_fn(|_| Place::default()));
        SharedBuckets { sets: sets.collect(), hasher }
    }

    /// Takes a token from the bucket of this name.
    ///
    /// # Errors
    /// If the bucket is empty.
    pub fn take(
        &self,
        now_ms: u64,
        rate: Rate,
        bucket: Bucket,
        name: &[u8],
    ) -> Result<(), Limited> {
        let now = now_ms.saturating_mul(1_000_000);
        let interval = rate.interval_ns();
        let most = now.saturating_add(interval.saturating_mul(u64::from(rate.burst())));
        let place = self.place(now, bucket, name);
        let mut full_at = place.full_at.load(Ordering::Relaxed);
        loop {
            // At most what an empty bucket has: rates may have changed, and a clock may go back.
            let next = full_at.clamp(now, most).saturating_add(interval);
            if next > most {
                let retry_after_ms = (next - most).div_ceil(1_000_000).max(1);
                return Err(Limited { bucket, retry_after_ms });
            }
            if exchange(&place.full_at, full_at, next) {
                return Ok(());
            }
            full_at = place.full_at.load(Ordering::Relaxed);
        }
    }

    /// Returns the entry of this name: its own, a free one, or that of the bucket nearest to full.
    fn place(&self, now: u64, bucket: Bucket, name: &[u8]) -> &Place {
        let hash = self.hasher.hash_one((bucket as u8, name)).max(1);
        let set = &self.sets[hash as usize % self.sets.len()];
        loop {
            let mut free = (&set[0], u64::MAX, 0);
            for place in set {
                let (owner, full_at) = place.load();
                if owner == hash {
                    return place;
                }
                if full_at < free.1 {
                    free = (place, full_at, owner);
                }
            }
            let (place, full_at, owner) = free;
            // A thread that loses the race searches again, and may find the entry of its name.
            if exchange(&place.name, owner, hash) {
                if full_at > now {
                    exchange(&place.full_at, full_at, now);
                }
                return place;
            }
        }
    }
}

impl Place {
    fn load(&self) -> (u64, u64) {
        (self.name.load(Ordering::Relaxed), self.full_at.load(Ordering::Relaxed))
    }
}

/// Sets `place` to `to` if it is `from`. Returns whether it was.
fn exchange(place: &AtomicU64, from: u64, to: u64) -> bool {
    place.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed).is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BUCKET: Bucket = Bucket::UserPublishes;

    #[test]
    fn names_and_buckets_are_apart_and_refill() {
        let buckets = SharedBuckets::new(HashKeys::new([1, 2]));
        let rate = Rate::new(10, 1_000, 2).unwrap();
        let take = |now, name: &str| buckets.take(now, rate, BUCKET, name.as_bytes());
        assert!(take(0, "ann").is_ok() && take(0, "ann").is_ok());
        let limited = Limited { bucket: BUCKET, retry_after_ms: 100 };
        assert_eq!(take(0, "ann"), Err(limited));
        assert!(take(0, "bob").is_ok());
        assert!(buckets.take(0, rate, Bucket::UserCommands, b"ann").is_ok());
        assert!(take(99, "ann").is_err() && take(100, "ann").is_ok() && take(100, "ann").is_err());
    }

    #[test]
    fn a_heavy_user_is_kept_while_others_come_and_go() {
        let buckets = SharedBuckets::with_places(64, HashKeys::new([1, 2]));
        let rate = Rate::new(1, 1_000, 100).unwrap();
        for _ in 0..100 {
            buckets.take(0, rate, BUCKET, b"flood").unwrap();
        }
        for number in 0..10_000u32 {
            buckets.take(1, rate, BUCKET, &number.to_le_bytes()).unwrap();
        }
        assert!(buckets.take(2, rate, BUCKET, b"flood").is_err());
    }

    proptest! {
        #[test]
        fn never_more_than_rate_and_burst_and_a_wait_is_enough(
            amount in 1u32..100_000, burst in 1u32..1_000,
            steps in proptest::collection::vec(0u64..200, 1..300),
        ) {
            let rate = Rate::new(amount, 1_000, burst).unwrap();
            let buckets = SharedBuckets::with_places(8, HashKeys::new([1, 2]));
            let (mut now, mut taken) = (0, 0);
            for step in steps {
                now += step;
                match buckets.take(now, rate, BUCKET, b"x") {
                    Ok(()) => taken += 1,
                    Err(limited) => {
                        now += limited.retry_after_ms;
                        prop_assert!(buckets.take(now, rate, BUCKET, b"x").is_ok());
                        taken += 1;
                    }
                }
                prop_assert!(taken <= now * u64::from(amount) / 1_000 + u64::from(burst));
            }
        }

        #[test]
        fn a_clock_that_goes_back_blocks_no_bucket(times in proptest::collection::vec(0u64..1_000_000, 1..100)) {
            let rate = Rate::new(10, 1_000, 5).unwrap();
            let buckets = SharedBuckets::with_places(8, HashKeys::new([1, 2]));
            for now in times {
                if let Err(limited) = buckets.take(now, rate, BUCKET, b"x") {
                    prop_assert!(limited.retry_after_ms <= 100);
                }
            }
        }
    }
}
