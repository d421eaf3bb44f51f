//! Counters of one consumer. They are written by its tasks and read by a scrape of the metrics.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Counters of one consumer.
#[derive(Debug, Default)]
pub struct ConsumerCounters {
    processed: AtomicU64,
    retries: AtomicU64,
    rejected: AtomicU64,
    dead_letters: AtomicU64,
    failures: AtomicU64,
    lag: AtomicU64,
    is_connected: AtomicBool,
}

/// Values of [`ConsumerCounters`] at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConsumerSnapshot {
    /// Messages that took effect.
    pub processed: u64,
    /// Attempts that had to be repeated.
    pub retries: u64,
    /// Messages that could never be handled.
    pub rejected: u64,
    /// Rejected messages that were stored as dead letters.
    pub dead_letters: u64,
    /// Failures of the connection to the source.
    pub failures: u64,
    /// Messages in the source that this node has to handle and has not handled.
    pub lag: u64,
    /// Whether the consumer is connected to its source.
    pub is_connected: bool,
}

impl ConsumerCounters {
    /// Counts a message that took effect.
    pub fn count_processed(&self) {
        self.processed.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an attempt that has to be repeated.
    pub fn count_retry(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a message that can never be handled.
    pub fn count_rejected(&self) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a stored dead letter.
    pub fn count_dead_letter(&self) {
        self.dead_letters.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a failure of the connection to the source, which is not connected from then on.
    pub fn count_failure(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.is_connected.store(false, Ordering::Relaxed);
    }

    /// Notes that the consumer is connected.
    pub fn connected(&self) {
        self.is_connected.store(true, Ordering::Relaxed);
    }

    /// Notes that the consumer is not connected.
    pub fn disconnected(&self) {
        self.is_connected.store(false, Ordering::Relaxed);
    }

    /// Notes the number of messages that this node has to handle and has not handled; bytes for the
    /// log of a database.
    pub fn set_lag(&self, lag: u64) {
        self.lag.store(lag, Ordering::Relaxed);
    }

    /// Values now.
    #[must_use]
    pub fn snapshot(&self) -> ConsumerSnapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ConsumerSnapshot {
            processed: read(&self.processed),
            retries: read(&self.retries),
            rejected: read(&self.rejected),
            dead_letters: read(&self.dead_letters),
            failures: read(&self.failures),
            lag: read(&self.lag),
            is_connected: self.is_connected.load(Ordering::Relaxed),
        }
    }
}
