//! A consumer of an outbox: a table of PostgreSQL to which applications add rows, each a method of
//! the server API with its payload.
//!
//! Each partition of the table has a connection and an advisory lock of its own, so that one node
//! at a time handles its rows, in the order of their ids. A row is removed in the transaction that
//! holds the lock, after it took effect.
//!
//! Invariant: a row leaves the table only when it took effect or is stored as a dead letter.
//! Without a table for dead letters a row that can never take effect is removed, counted and
//! logged.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{info, warn};

use super::login::{self, SessionMode};
use super::outbox_lag::OutboxLag;
use super::outbox_partition::OutboxPartition;
use super::outbox_payload::PayloadColumn;
use super::outbox_settings::OutboxSettings;
use super::outbox_task::{OutboxShared, OutboxTask};
use super::postgres_error::PostgresError;
use super::sql_name::identifier;
use crate::backoff::RetryBackoff;
use crate::delivery::Delivery;
use crate::error::ConsumerError;
use crate::handler::Handler;
use crate::limits::{RESTART_DELAY, RESTART_DELAY_MAX};
use crate::restart::{ConsumerTask, run_until_stopped};

/// Consumes until the stop.
pub async fn run<H: Handler>(task: ConsumerTask, settings: OutboxSettings, handler: Arc<H>) {
    let settings = Arc::new(settings);
    run_until_stopped(&task, || consume(&task, &settings, handler.clone())).await;
}

async fn consume<H: Handler>(
    task: &ConsumerTask,
    settings: &Arc<OutboxSettings>,
    handler: Arc<H>,
) -> Result<(), ConsumerError> {
    let payload = examine(settings).await.map_err(|error| error.of_consumer("the outbox"))?;
    task.counters.connected();
    info!(consumer = %task.name, table = %settings.table, "consumer: outbox consumer started");
    let count = usize::try_from(settings.partitions).unwrap_or(usize::MAX);
    let shared = Arc::new(OutboxShared {
        task: task.clone(),
        settings: settings.clone(),
        lag: OutboxLag::new(count),
        wake: (0..count).map(|_| Notify::new()).collect(),
        payload,
    });
    let delivery = Arc::new(Delivery::new(handler, task.counters.clone()));
    let mut tasks = JoinSet::new();
    for partition in 0..settings.partitions {
        let partition = OutboxPartition::new(partition, shared.clone(), delivery.clone());
        tasks.spawn(keep_running(task.clone(), partition));
    }
    if !settings.notification_channel.is_empty() {
        tasks.spawn(keep_running(task.clone(), OutboxListener(shared.clone())));
    }
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            let (source_name, reason) = ("the outbox".to_owned(), error.to_string());
            return Err(ConsumerError::Unavailable { source_name, reason });
        }
    }
    Ok(())
}

/// Names what is wrong with the tables before anything is consumed.
async fn examine(settings: &OutboxSettings) -> Result<PayloadColumn, PostgresError> {
    let OutboxSettings { dsn, tls, table, dead_letters, .. } = settings;
    let mut connection = login::open(dsn, tls.as_ref(), SessionMode::Query).await?;
    connection.simple(&format!("select id, method, partition from {table} limit 0")).await?;
    let payload = PayloadColumn::of(&mut connection, table).await?;
    if let Some(dead) = dead_letters {
        let columns = "id, method, payload, partition, error";
        connection.simple(&format!("select {columns} from {dead} limit 0")).await?;
    }
    connection.close().await;
    Ok(payload)
}

/// Runs a task again whenever it fails, until the order to stop.
async fn keep_running(task: ConsumerTask, mut part: impl OutboxTask) {
    let ConsumerTask { name: consumer, counters, stop } = task;
    let mut backoff = RetryBackoff::new(RESTART_DELAY, RESTART_DELAY_MAX);
    while !stop.is_requested() {
        let begun = Instant::now();
        let Err(error) = part.run_once().await else { return };
        counters.count_failure();
        if begun.elapsed() > RESTART_DELAY_MAX {
            backoff.reset();
        }
        let (delay, part) = (backoff.next_delay(), part.label());
        warn!(%consumer, %part, %error, ?delay, "consumer: the outbox cannot be read");
        if stop.requested_within(delay).await {
            return;
        }
    }
}

/// Wakes partitions when their rows are announced.
struct OutboxListener(Arc<OutboxShared>);

impl OutboxTask for OutboxListener {
    fn label(&self) -> String {
        "notifications".to_owned()
    }

    async fn run_once(&mut self) -> Result<(), PostgresError> {
        tokio::select! {
            ended = self.listen() => ended,
            () = self.0.task.stop.requested() => Ok(()),
        }
    }
}

impl OutboxListener {
    async fn listen(&self) -> Result<(), PostgresError> {
        let OutboxShared { settings, wake, .. } = &*self.0;
        let dsn = settings.notification_dsn.as_ref().unwrap_or(&settings.dsn);
        let tls = settings.tls.as_ref();
        let mut connection = login::open(dsn, tls, SessionMode::Query).await?;
        let channel = identifier(&settings.notification_channel);
        connection.simple(&format!("listen {channel}")).await?;
        // Notifications may have been missed before.
        wake.iter().for_each(Notify::notify_one);
        loop {
            let payload = connection.notification().await?;
            let partition = payload.trim().parse::<usize>().ok();
            match partition.and_then(|partition| wake.get(partition)) {
                Some(partition) => partition.notify_one(),
                // A payload that names no partition could mean any of them.
                None => wake.iter().for_each(Notify::notify_one),
            }
        }
    }
}
