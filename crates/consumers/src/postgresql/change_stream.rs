//! The stream of changes of one slot: decode, hand over, confirm.
//!
//! Changes are handed over one after the other, in the order of the commits. PostgreSQL waits
//! while a change is handled; status updates are sent meanwhile.
//!
//! Invariant: the confirmed place is the end of a transaction whose changes are all settled.

use std::borrow::Cow;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{Interval, MissedTickBehavior, interval};

use super::capture_settings::CaptureSettings;
use super::lsn::Lsn;
use super::pgoutput::{LogError, LogMessage, Transaction};
use super::postgres_connection::{CopyFrame, PostgresConnection};
use super::postgres_error::PostgresError;
use super::relations::{RelationError, Relations, RowChange};
use super::replication_frame::{DATA_HEAD, NotReplication, ReplicationFrame, StatusUpdate};
use crate::delivery::{Delivery, Settled};
use crate::handler::Handler;
use crate::limits::{STATUS_INTERVAL, STATUS_SILENCE};
use crate::message::{Body, ConsumedMessage, ConsumedPublication, MessageOrigin, RecordOffset};
use crate::restart::ConsumerTask;
use crate::row_event::RowEvent;

/// Reader of one replication slot.
pub(super) struct ChangeStream<H> {
    task: ConsumerTask,
    settings: Arc<CaptureSettings>,
    delivery: Delivery<H>,
    relations: Relations,
    transaction: Option<OpenTransaction>,
    progress: Progress,
}

/// A transaction whose commit has not come yet.
#[derive(Clone, Copy, Debug)]
struct OpenTransaction {
    begin: Transaction,
    /// Changes so far; with the place of the commit it names a change, also after a restart.
    changes: u64,
}

/// What is confirmed, and when it was told.
struct Progress {
    done: Lsn,
    log_end: Lsn,
    told: Lsn,
    silent_for: Duration,
    tick: Interval,
}

/// Why a stream has ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamError {
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    #[error("the log cannot be decoded: {0}")]
    Log(#[from] LogError),
    #[error("a change in the log does not match its table: {0}")]
    Relation(#[from] RelationError),
    #[error(transparent)]
    Frame(#[from] NotReplication),
    #[error("the log has a change outside of a transaction")]
    NoTransaction,
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Continue,
    Stop,
}

impl Progress {
    fn new() -> Progress {
        let mut tick = interval(STATUS_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (done, log_end, told) = (Lsn(0), Lsn(0), Lsn(0));
        Progress { done, log_end, told, silent_for: Duration::ZERO, tick }
    }

    /// Tells the server what is done, if it is time to.
    async fn tick(&mut self, connection: &mut PostgresConnection) -> Result<(), PostgresError> {
        self.silent_for += STATUS_INTERVAL;
        if self.done > self.told || self.silent_for >= STATUS_SILENCE {
            self.tell(connection).await?;
        }
        Ok(())
    }

    async fn tell(&mut self, connection: &mut PostgresConnection) -> Result<(), PostgresError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ms = i64::try_from(now.as_millis()).unwrap_or(0);
        connection.send_copy(StatusUpdate { done: self.done, now_ms }.encode()).await?;
        (self.told, self.silent_for) = (self.done, Duration::ZERO);
        Ok(())
    }

    fn lag(&self) -> u64 {
        self.log_end.0.saturating_sub(self.done.0)
    }
}

impl<H: Handler> ChangeStream<H> {
    pub(super) fn new(
        task: ConsumerTask,
        settings: Arc<CaptureSettings>,
        delivery: Delivery<H>,
    ) -> ChangeStream<H> {
        ChangeStream {
            task,
            settings,
            delivery,
            relations: Relations::default(),
            transaction: None,
            progress: Progress::new(),
        }
    }

    /// Reads the stream until the order to stop.
    pub(super) async fn run(
        mut self,
        mut connection: PostgresConnection,
    ) -> Result<(), StreamError> {
        let stop = self.task.stop.clone();
        let frame_max = DATA_HEAD + self.settings.row_bytes_max;
        let ended = loop {
            let frame = tokio::select! {
                frame = connection.next_copy(frame_max) => frame,
                _ = self.progress.tick.tick() => {
                    self.progress.tick(&mut connection).await?;
                    continue;
                }
                () = stop.requested() => break Ok(()),
            };
            match self.handle_frame(frame?, &mut connection).await {
                Ok(Flow::Continue) => {}
                Ok(Flow::Stop) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        // The next reader begins here.
        if self.progress.tell(&mut connection).await.is_ok() {
            connection.close().await;
        }
        ended
    }

    async fn handle_frame(
        &mut self,
        frame: CopyFrame,
        connection: &mut PostgresConnection,
    ) -> Result<Flow, StreamError> {
        let frame = match frame {
            CopyFrame::Data(frame) => ReplicationFrame::decode(frame)?,
            CopyFrame::Overlong { length, start } => {
                self.pass_over(length, &start)?;
                return Ok(Flow::Continue);
            }
        };
        match frame {
            ReplicationFrame::Data { log_end, payload } => {
                self.progress.log_end = self.progress.log_end.max(log_end);
                let flow = self.handle_message(LogMessage::decode(payload)?, connection).await?;
                self.task.counters.set_lag(self.progress.lag());
                Ok(flow)
            }
            ReplicationFrame::KeepAlive { log_end, wants_reply } => {
                self.progress.log_end = self.progress.log_end.max(log_end);
                if self.transaction.is_none() {
                    // Everything up to here was of tables that nobody has asked for.
                    self.progress.done = self.progress.done.max(log_end);
                }
                self.task.counters.set_lag(self.progress.lag());
                if wants_reply {
                    self.progress.tell(connection).await?;
                }
                Ok(Flow::Continue)
            }
        }
    }

    async fn handle_message(
        &mut self,
        message: LogMessage,
        connection: &mut PostgresConnection,
    ) -> Result<Flow, StreamError> {
        let (relation, change) = match message {
            LogMessage::Begin(begin) => {
                self.transaction = Some(OpenTransaction { begin, changes: 0 });
                return Ok(Flow::Continue);
            }
            LogMessage::Commit { end } => {
                self.transaction = None;
                self.progress.done = self.progress.done.max(end);
                return Ok(Flow::Continue);
            }
            LogMessage::Relation(relation) => {
                self.relations.describe(relation)?;
                return Ok(Flow::Continue);
            }
            LogMessage::Other => return Ok(Flow::Continue),
            LogMessage::Truncate { relations } => {
                for relation in relations {
                    let flow = self.change(relation, RowChange::Truncate, connection).await?;
                    if flow == Flow::Stop {
                        return Ok(Flow::Stop);
                    }
                }
                return Ok(Flow::Continue);
            }
            LogMessage::Insert { relation, row } => (relation, RowChange::Insert(row)),
            LogMessage::Update { relation, old, row } => (relation, RowChange::Update(old, row)),
            LogMessage::Delete { relation, old } => (relation, RowChange::Delete(old)),
        };
        self.change(relation, change, connection).await
    }

    /// Hands a change over, and keeps the connection alive meanwhile.
    async fn change(
        &mut self,
        relation: u32,
        change: RowChange,
        connection: &mut PostgresConnection,
    ) -> Result<Flow, StreamError> {
        let OpenTransaction { begin, changes } = self.next_change()?;
        let is_truncate = matches!(change, RowChange::Truncate);
        let event = self.relations.get(relation)?.event(&begin, change)?;
        let origin = self.origin(begin.commit, Some((&event.schema, &event.table)));
        let channels = match self.channels(&event) {
            Ok(channels) => channels,
            Err(reason) => {
                self.delivery.reject(&origin, reason);
                return Ok(Flow::Continue);
            }
        };
        // Templates with columns have no channel for all rows of a table.
        if channels.is_empty() && is_truncate {
            return Ok(Flow::Continue);
        }
        let publication = ConsumedPublication {
            channels,
            data: event.to_json(),
            idempotency_key: format!("{}:{}:{changes}", self.task.name, begin.commit),
            ..ConsumedPublication::default()
        };
        let message = ConsumedMessage { origin, body: Body::Publication(publication) };
        let mut settling = pin!(self.delivery.settle(&message, &self.task.stop));
        loop {
            tokio::select! {
                settled = &mut settling => match settled {
                    // Nothing in a log can be set aside: what is rejected is counted and logged.
                    Settled::Done | Settled::Rejected { .. } => return Ok(Flow::Continue),
                    Settled::Stopped => return Ok(Flow::Stop),
                },
                _ = self.progress.tick.tick() => self.progress.tick(connection).await?,
            }
        }
    }

    fn next_change(&mut self) -> Result<OpenTransaction, StreamError> {
        let transaction = self.transaction.as_mut().ok_or(StreamError::NoTransaction)?;
        transaction.changes += 1;
        Ok(*transaction)
    }

    /// Counts and logs a row that is too long.
    fn pass_over(&mut self, length: usize, start: &[u8]) -> Result<(), StreamError> {
        let OpenTransaction { begin, .. } = self.next_change()?;
        let message = start.get(DATA_HEAD..).unwrap_or_default();
        let relation = LogMessage::relation_of(message).map(|id| self.relations.get(id));
        let table = relation.transpose()?.map(|it| (&it.schema, &it.table));
        let origin = self.origin(begin.commit, table);
        let max = self.settings.row_bytes_max;
        let length = length - DATA_HEAD.min(length);
        let reason = format!("the change has {length} bytes, more than {max} (max_row_bytes)");
        self.delivery.reject(&origin, reason.into());
        Ok(())
    }

    fn origin(&self, commit: Lsn, table: Option<(&Arc<str>, &Arc<str>)>) -> MessageOrigin {
        let source = match table {
            Some((schema, table)) => format!("{schema}.{table}").into(),
            None => self.settings.slot.as_str().into(),
        };
        let consumer = self.task.name.clone();
        MessageOrigin { consumer, source, partition: None, offset: RecordOffset::Lsn(commit.0) }
    }

    fn channels(&self, event: &RowEvent) -> Result<Vec<String>, Cow<'static, str>> {
        let is_truncate = event.row.is_none() && event.old.is_none();
        let mut channels = Vec::new();
        for template in &self.settings.channels {
            if is_truncate && template.has_column() {
                continue;
            }
            let found = template.channels(event);
            for channel in found.map_err(|fault| format!("no channel by {template}: {fault}"))? {
                if !channels.contains(&channel) {
                    channels.push(channel);
                }
            }
        }
        Ok(channels)
    }
}
