//! Why a batch was not acknowledged.

use std::time::Duration;

/// A failed attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryFailure {
    /// What failed; without addresses and secrets.
    pub cause: String,
    /// Whether the status says that the receiver never takes the batch.
    pub is_final: bool,
    /// Time for which the receiver wants no further attempt.
    pub retry_after: Option<Duration>,
}

impl DeliveryFailure {
    /// A failure after which the same batch is sent again.
    #[must_use]
    pub fn transient(cause: impl Into<String>) -> DeliveryFailure {
        DeliveryFailure { cause: cause.into(), is_final: false, retry_after: None }
    }
}
