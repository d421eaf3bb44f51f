//! Rows that wait in the partitions of an outbox.
//!
//! Invariant: a partition that this node does not hold counts as zero.

use std::sync::atomic::{AtomicU64, Ordering};

/// Number of waiting rows per partition of an outbox.
#[derive(Debug)]
pub(super) struct OutboxLag(Vec<AtomicU64>);

impl OutboxLag {
    pub(super) fn new(partitions: usize) -> OutboxLag {
        OutboxLag((0..partitions).map(|_| AtomicU64::new(0)).collect())
    }

    /// Notes the rows of a partition; returns those of all.
    pub(super) fn set(&self, partition: u32, rows: u64) -> u64 {
        let index = usize::try_from(partition).unwrap_or(usize::MAX);
        if let Some(lag) = self.0.get(index) {
            lag.store(rows, Ordering::Relaxed);
        }
        self.0.iter().map(|lag| lag.load(Ordering::Relaxed)).sum()
    }
}
