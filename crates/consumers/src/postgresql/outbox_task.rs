//! What the tasks of an outbox share: one for each partition, and one for notifications.

use std::sync::Arc;

use tokio::sync::Notify;

use super::outbox_lag::OutboxLag;
use super::outbox_payload::PayloadColumn;
use super::outbox_settings::OutboxSettings;
use super::postgres_error::PostgresError;
use crate::restart::ConsumerTask;

/// What the tasks of one outbox share.
pub(super) struct OutboxShared {
    pub(super) task: ConsumerTask,
    pub(super) settings: Arc<OutboxSettings>,
    pub(super) lag: OutboxLag,
    /// Wakes partitions; one permit is kept for a partition that is at work.
    pub(super) wake: Vec<Notify>,
    pub(super) payload: PayloadColumn,
}

/// A task of the outbox that ends with its connection.
pub(super) trait OutboxTask: Send + 'static {
    /// For the log.
    fn label(&self) -> String;

    /// Works until the connection is lost, or until the order to stop.
    fn run_once(&mut self) -> impl Future<Output = Result<(), PostgresError>> + Send;
}
