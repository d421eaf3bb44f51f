//! Rate limits outside the engine: handshakes and connections by address, calls of the server API
//! by key.
//!
//! Invariant: every refusal is counted by bucket and carries the time after which to retry.

use std::sync::{Arc, PoisonError, RwLock};

use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use engine::rates::{Bucket, Limited, Rate, Rates};
use engine::shared_buckets::SharedBuckets;

use crate::client_address::ClientAddress;
use crate::clock::ServerClock;
use crate::telemetry::http_counts::HttpCounts;

/// Token buckets of addresses and API keys.
pub(crate) struct Throttle {
    buckets: Arc<SharedBuckets>,
    clock: ServerClock,
    rates: RwLock<Rates>,
    counts: Arc<HttpCounts>,
}

impl Throttle {
    pub(crate) fn new(
        buckets: Arc<SharedBuckets>,
        clock: ServerClock,
        rates: Rates,
        counts: Arc<HttpCounts>,
    ) -> Throttle {
        Throttle { buckets, clock, rates: RwLock::new(rates), counts }
    }

    /// Replaces the rates.
    pub(crate) fn set_rates(&self, rates: Rates) {
        *self.rates.write().unwrap_or_else(PoisonError::into_inner) = rates;
    }

    /// Takes a token from the bucket of an address. Unix sockets have no bucket.
    pub(crate) fn take_of_address(
        &self,
        bucket: Bucket,
        address: ClientAddress,
    ) -> Result<(), Limited> {
        match (self.rate(bucket), address.prefix()) {
            (Some(rate), Some(prefix)) => self.take_at(rate, bucket, prefix.to_string().as_bytes()),
            _ => Ok(()),
        }
    }

    /// Takes a token from the bucket of this name.
    pub(crate) fn take(&self, bucket: Bucket, name: &[u8]) -> Result<(), Limited> {
        self.rate(bucket).map_or(Ok(()), |rate| self.take_at(rate, bucket, name))
    }

    fn rate(&self, bucket: Bucket) -> Option<Rate> {
        self.rates.read().unwrap_or_else(PoisonError::into_inner).of(bucket)
    }

    fn take_at(&self, rate: Rate, bucket: Bucket, name: &[u8]) -> Result<(), Limited> {
        let taken = self.buckets.take(self.clock.monotonic_ms(), rate, bucket, name);
        if taken.is_err() {
            self.counts.limited(bucket);
        }
        taken
    }
}

/// Sets status 429 and `Retry-After` in seconds, rounded up.
pub(crate) fn set_retry_after(response: &mut Response, limited: Limited) {
    *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
    let seconds = HeaderValue::from(limited.retry_after_ms.div_ceil(1000));
    response.headers_mut().insert(RETRY_AFTER, seconds);
}

#[cfg(test)]
mod tests {
    use engine::hash_keys::HashKeys;

    use super::*;

    const BUCKET: Bucket = Bucket::UserPublishes;

    #[test]
    fn many_threads_share_one_bucket() {
        let buckets = SharedBuckets::new(HashKeys::new([1, 2]));
        let rate = Rate::new(1, 60_000, 700).unwrap();
        let taken: usize = std::thread::scope(|scope| {
            let take = || {
                let is_taken = |_: &u32| buckets.take(0, rate, BUCKET, b"x").is_ok();
                (0..400).filter(is_taken).count()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(taken, 700);
    }
}
