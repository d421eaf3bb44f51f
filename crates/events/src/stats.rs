//! Counts of a sink, for metrics.

use std::sync::Arc;
use std::time::Duration;

/// Why events were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossReason {
    /// The queue of the sink was full.
    Full,
    /// The receiver has said that it never takes the event.
    Rejected,
    /// The node stopped before the receiver had acknowledged them.
    Stopped,
}

impl LossReason {
    /// All reasons, in the order of the counts.
    pub const ALL: [LossReason; 3] = [LossReason::Full, LossReason::Rejected, LossReason::Stopped];

    /// Name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            LossReason::Full => "full",
            LossReason::Rejected => "rejected",
            LossReason::Stopped => "stopped",
        }
    }
}

/// Counts of a sink at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SinkStats {
    /// Name of the sink.
    pub name: Arc<str>,
    /// Acknowledged events.
    pub delivered: u64,
    /// Lost events by [`LossReason::ALL`].
    pub lost: [u64; 3],
    /// Failed attempts to deliver a batch.
    pub failures: u64,
    /// Events that wait.
    pub queued: usize,
    /// Bytes of the events that wait.
    pub queued_bytes: usize,
    /// Time for which the oldest event has waited.
    pub delay: Duration,
}
