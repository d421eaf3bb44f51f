//! One partition of an outbox: lock, read, handle, remove, again and again.
//!
//! Invariant: rows of a partition are handled one after the other in the order of their ids, while
//! its lock is held.

use std::fmt::Write as _;
use std::sync::Arc;

use tokio::time::Instant;
use tracing::debug;

use super::login::{self, SessionMode};
use super::outbox_settings::PartitionLock;
use super::outbox_task::{OutboxShared, OutboxTask};
use super::postgres_connection::{PostgresConnection, PostgresRow};
use super::postgres_error::PostgresError;
use crate::backoff::RetryBackoff;
use crate::decode;
use crate::delivery::{Attempt, Delivery, Settled};
use crate::handler::Handler;
use crate::limits::{
    OUTBOX_LAG_INTERVAL, OUTBOX_LAG_MAX, OUTBOX_PAYLOAD_MAX, RETRY_DELAY, RETRY_DELAY_MAX,
};
use crate::message::{ConsumedMessage, MessageOrigin, RecordOffset};
use crate::restart::ConsumerTask;
use crate::stop::StopSignal;

/// Reader of one partition of an outbox.
pub(super) struct OutboxPartition<H> {
    partition: u32,
    shared: Arc<OutboxShared>,
    delivery: Arc<Delivery<H>>,
    retry: RetryBackoff,
    lag_at: Option<Instant>,
}

/// What has become of the rows of one transaction.
#[derive(Debug, Default)]
struct Pass {
    /// Ids to remove, as a literal of an array without braces.
    removed: String,
    rejected: Vec<(String, String)>,
    rows: u32,
    /// How the pass ended before its last row.
    halt: Option<Halt>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Halt {
    Stop,
    Wait(std::time::Duration),
}

/// What to do after a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Again,
    AfterPoll,
    After(std::time::Duration),
    Stop,
}

impl<H: Handler> OutboxTask for OutboxPartition<H> {
    fn label(&self) -> String {
        format!("partition {}", self.partition)
    }

    async fn run_once(&mut self) -> Result<(), PostgresError> {
        let settings = self.shared.settings.clone();
        let tls = settings.tls.as_ref();
        let mut connection = login::open(&settings.dsn, tls, SessionMode::Query).await?;
        let ConsumerTask { counters, stop, .. } = self.shared.task.clone();
        counters.connected();
        loop {
            let delay = match self.pass(&mut connection, &stop).await? {
                Next::Again => continue,
                Next::AfterPoll => {
                    let index = usize::try_from(self.partition).unwrap_or(usize::MAX);
                    tokio::select! {
                        () = stop.requested() => break,
                        () = tokio::time::sleep(settings.poll_interval) => {}
                        () = self.shared.wake[index].notified() => {}
                    }
                    continue;
                }
                Next::After(delay) => delay,
                Next::Stop => break,
            };
            if stop.requested_within(delay).await {
                break;
            }
        }
        connection.close().await;
        Ok(())
    }
}

impl<H: Handler> OutboxPartition<H> {
    pub(super) fn new(
        partition: u32,
        shared: Arc<OutboxShared>,
        delivery: Arc<Delivery<H>>,
    ) -> OutboxPartition<H> {
        let retry = RetryBackoff::new(RETRY_DELAY, RETRY_DELAY_MAX);
        OutboxPartition { partition, shared, delivery, retry, lag_at: None }
    }

    /// One transaction.
    async fn pass(
        &mut self,
        connection: &mut PostgresConnection,
        stop: &StopSignal,
    ) -> Result<Next, PostgresError> {
        connection.simple("begin").await?;
        // After the order to stop the connection is not used again: the wait may be dropped.
        let is_locked = tokio::select! {
            is_locked = self.lock(connection) => is_locked?,
            () = stop.requested() => return Ok(Next::Stop),
        };
        if !is_locked {
            connection.simple("rollback").await?;
            return Ok(Next::AfterPoll);
        }
        let pass = self.handle_rows(connection).await?;
        self.remove(connection, &pass).await?;
        connection.simple("commit").await?;
        let is_full = pass.rows >= self.shared.settings.select_limit;
        match is_full {
            true => self.count_lag(connection).await?,
            false => self.set_lag(0),
        }
        Ok(match pass.halt {
            Some(Halt::Stop) => Next::Stop,
            Some(Halt::Wait(delay)) => Next::After(delay),
            None if stop.is_requested() => Next::Stop,
            None if is_full => Next::Again,
            None => Next::AfterPoll,
        })
    }

    /// Takes the lock of the partition until the end of the transaction. Its name is that of the
    /// compatible server, so that both may run side by side.
    async fn lock(&self, connection: &mut PostgresConnection) -> Result<bool, PostgresError> {
        let settings = &self.shared.settings;
        let name = format!("centrifugo_partition_lock_{}{}", self.shared.task.name, self.partition);
        let function = match settings.lock {
            PartitionLock::Wait => "pg_advisory_xact_lock",
            PartitionLock::Try => "pg_try_advisory_xact_lock",
        };
        let rows = connection.rows(&format!("select {function}(hashtext($1))"), &[&name]).await?;
        let is_taken = rows.first().and_then(|row| row.text(0)) != Some("f");
        Ok(is_taken || settings.lock == PartitionLock::Wait)
    }

    async fn handle_rows(
        &mut self,
        connection: &mut PostgresConnection,
    ) -> Result<Pass, PostgresError> {
        let settings = &self.shared.settings;
        let sql = format!(
            "select id, method, {} from {} where partition = $1 order by id limit {}",
            self.shared.payload.selected(),
            settings.table,
            settings.select_limit,
        );
        connection.begin_rows(&sql, &[&self.partition.to_string()]).await?;
        let mut pass = Pass::default();
        while let Some(row) = connection.next_row().await? {
            // Rows behind one that has to wait are read and left.
            if pass.halt.is_none() {
                self.handle_row(&row, &mut pass).await;
            }
        }
        Ok(pass)
    }

    async fn handle_row(&mut self, row: &PostgresRow, pass: &mut Pass) {
        if self.shared.task.stop.is_requested() {
            pass.halt = Some(Halt::Stop);
            return;
        }
        let settings = &self.shared.settings;
        let id = row.text(0).unwrap_or_default().to_owned();
        let origin = MessageOrigin {
            consumer: self.shared.task.name.clone(),
            source: settings.table.to_string().into(),
            partition: Some(self.partition),
            offset: RecordOffset::Number(id.parse().unwrap_or_default()),
        };
        let body = match (row.bytes(2), row.text(3)) {
            (Some(payload), _) => decode::command(row.text(1).unwrap_or_default(), payload.clone()),
            (None, Some(length)) => {
                Err(format!("the payload has {length} bytes, more than {OUTBOX_PAYLOAD_MAX}")
                    .into())
            }
            (None, None) => Err("the payload is null".into()),
        };
        let settled = match body {
            Err(reason) => self.delivery.reject(&origin, reason),
            Ok(body) => {
                let message = ConsumedMessage { origin, body };
                match self.delivery.attempt(&message, &mut self.retry).await {
                    Attempt::Settled(settled) => settled,
                    Attempt::Wait(delay) => {
                        pass.halt = Some(Halt::Wait(delay));
                        return;
                    }
                }
            }
        };
        match settled {
            Settled::Done => {}
            Settled::Rejected { reason } => pass.rejected.push((id.clone(), reason)),
            Settled::Stopped => {
                pass.halt = Some(Halt::Stop);
                return;
            }
        }
        self.retry.reset();
        pass.rows += 1;
        let comma = if pass.removed.is_empty() { "" } else { "," };
        // Writing to a string cannot fail.
        let _ok = write!(pass.removed, "{comma}{id}");
    }

    /// Moves what was rejected to the dead letters, and removes all that was handled.
    async fn remove(
        &self,
        connection: &mut PostgresConnection,
        pass: &Pass,
    ) -> Result<(), PostgresError> {
        let settings = &self.shared.settings;
        let table = &settings.table;
        if let Some(dead) = &settings.dead_letters {
            let sql = format!(
                "insert into {dead} (id, method, payload, partition, error) \
                 select id, method, payload, partition, $2 from {table} where id = $1"
            );
            for (id, reason) in &pass.rejected {
                connection.rows(&sql, &[id, reason]).await?;
                self.delivery.counters().count_dead_letter();
            }
        }
        if !pass.removed.is_empty() {
            let ids = format!("{{{}}}", pass.removed);
            let sql = format!("delete from {table} where id = any($1)");
            connection.rows(&sql, &[&ids]).await?;
            debug!(consumer = %self.shared.task.name, partition = self.partition, rows = pass.rows, "consumer: outbox rows removed");
        }
        Ok(())
    }

    /// Counts the rows that wait, at most once in [`OUTBOX_LAG_INTERVAL`].
    async fn count_lag(
        &mut self,
        connection: &mut PostgresConnection,
    ) -> Result<(), PostgresError> {
        if self.lag_at.is_some_and(|at| at.elapsed() < OUTBOX_LAG_INTERVAL) {
            return Ok(());
        }
        self.lag_at = Some(Instant::now());
        let sql = format!(
            "select count(*) from \
             (select 1 from {} where partition = $1 limit {OUTBOX_LAG_MAX}) r",
            self.shared.settings.table
        );
        let rows = connection.rows(&sql, &[&self.partition.to_string()]).await?;
        self.set_lag(rows.first().and_then(|row| row.text(0)?.parse().ok()).unwrap_or(0));
        Ok(())
    }

    fn set_lag(&self, rows: u64) {
        self.delivery.counters().set_lag(self.shared.lag.set(self.partition, rows));
    }
}
