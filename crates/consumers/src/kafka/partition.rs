//! The task of one partition: it starts the records that may start and notes which are finished.
//!
//! Invariant: the level that it shows counts exactly the records that are in memory.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use krafka::consumer::ConsumerRecord;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::dead_letters::DeadLetters;
use super::partition_queue::{PartitionQueue, QueuedRecord};
use super::settings::KafkaForm;
use crate::decode::Undecodable;
use crate::delivery::{Delivery, Settled};
use crate::handler::Handler;
use crate::limits::KAFKA_CONCURRENCY;
use crate::message::{Body, ConsumedMessage, MessageOrigin, RecordOffset};
use crate::stop::{StopSignal, StopTrigger};

/// What all partitions of a consumer have in common.
pub(super) struct RecordHandling<H> {
    pub(super) consumer: Arc<str>,
    pub(super) form: KafkaForm,
    pub(super) delivery: Delivery<H>,
    pub(super) dead_letters: Option<DeadLetters>,
    pub(super) hasher: RandomState,
}

/// A partition that this member reads.
pub(super) struct AssignedPartition {
    records: mpsc::UnboundedSender<Vec<ConsumerRecord>>,
    level: Arc<PartitionLevel>,
    stop: StopTrigger,
    task: JoinHandle<()>,
    /// The offset that was committed last.
    pub(super) committed: i64,
    pub(super) is_paused: bool,
}

/// What a partition has in memory, and how far it is finished.
#[derive(Debug)]
pub(super) struct PartitionLevel {
    records: AtomicUsize,
    bytes: AtomicUsize,
    commit: AtomicI64,
}

impl AssignedPartition {
    /// Starts the task of a partition.
    pub(super) fn start<H: Handler>(handling: Arc<RecordHandling<H>>) -> AssignedPartition {
        // The level bounds the queue: the partition is paused while it is above the bound.
        let (records, received) = mpsc::unbounded_channel();
        let (stop, signal) = StopTrigger::new();
        let level = Arc::new(PartitionLevel {
            records: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            commit: AtomicI64::new(NONE),
        });
        let task = tokio::spawn(run(handling, level.clone(), received, signal));
        AssignedPartition { records, level, stop, task, committed: NONE, is_paused: false }
    }

    /// Hands records to the task.
    pub(super) fn receive(&self, records: Vec<ConsumerRecord>) {
        self.level.records.fetch_add(records.len(), Ordering::Relaxed);
        let bytes = records.iter().map(size).sum();
        self.level.bytes.fetch_add(bytes, Ordering::Relaxed);
        // An error says that the task was stopped; the records are not committed then.
        let _stopped = self.records.send(records);
    }

    /// Records and bytes in memory.
    pub(super) fn level(&self) -> (usize, usize) {
        (self.level.records.load(Ordering::Relaxed), self.level.bytes.load(Ordering::Relaxed))
    }

    /// The offset to commit, if it is another one than the committed one.
    pub(super) fn commit(&self) -> Option<i64> {
        let commit = self.level.commit.load(Ordering::Acquire);
        (commit != self.committed).then_some(commit)
    }

    /// Whether the task has ended without having been stopped, which is a bug.
    pub(super) fn has_ended(&self) -> bool {
        self.task.is_finished()
    }

    /// Starts no more records.
    pub(super) fn stop(&self) {
        self.stop.stop();
    }

    /// Returns when the records that have started are finished. Cancel-safe, and may be
    /// called again.
    pub(super) async fn finished(&mut self) {
        // A panic was reported by its thread; its record is not committed.
        let _ended = (&mut self.task).await;
    }
}

impl Drop for AssignedPartition {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// No offset.
const NONE: i64 = -1;

/// Bytes of a record in memory.
fn size(record: &ConsumerRecord) -> usize {
    let headers = record.headers.iter().map(|(name, value)| {
        name.len() + value.as_ref().map_or(0, bytes::Bytes::len) + size_of::<usize>() * 4
    });
    let key = record.key.as_ref().map_or(0, bytes::Bytes::len);
    let value = record.value.as_ref().map_or(0, bytes::Bytes::len);
    size_of::<ConsumerRecord>() + key + value + headers.sum::<usize>()
}

async fn run<H: Handler>(
    handling: Arc<RecordHandling<H>>,
    level: Arc<PartitionLevel>,
    mut received: mpsc::UnboundedReceiver<Vec<ConsumerRecord>>,
    stop: StopSignal,
) {
    let mut queue = PartitionQueue::default();
    let mut running = FuturesUnordered::new();
    let mut is_open = true;
    let stopped = stop.requested();
    tokio::pin!(stopped);
    loop {
        while is_open && queue.started() < KAFKA_CONCURRENCY {
            let Some(next) = queue.start_next() else { break };
            running.push(handling.finish(next, &stop));
        }
        if !is_open && running.is_empty() {
            return;
        }
        tokio::select! {
            Some(finished) = running.next() => {
                let FinishedRecord { offset, key, bytes, is_settled } = finished;
                level.records.fetch_sub(1, Ordering::Relaxed);
                level.bytes.fetch_sub(bytes, Ordering::Relaxed);
                match is_settled {
                    true => queue.finish(offset, key),
                    false => is_open = false,
                }
                level.commit.store(queue.commit().unwrap_or(NONE), Ordering::Release);
            }
            records = received.recv(), if is_open => match records {
                Some(records) => for record in records {
                    let key = record.key.as_ref().map(|key| handling.hasher.hash_one(key));
                    queue.push(QueuedRecord { offset: record.offset, key, record });
                },
                None => is_open = false,
            },
            () = &mut stopped, if is_open => is_open = false,
        }
    }
}

/// A record that was started and is over.
struct FinishedRecord {
    offset: i64,
    key: Option<u64>,
    bytes: usize,
    /// Whether it took effect or is stored as a dead letter.
    is_settled: bool,
}

impl<H: Handler> RecordHandling<H> {
    async fn finish(
        &self,
        queued: QueuedRecord<ConsumerRecord>,
        stop: &StopSignal,
    ) -> FinishedRecord {
        let QueuedRecord { offset, key, record } = queued;
        let is_settled = self.settle(&record, stop).await;
        FinishedRecord { offset, key, bytes: size(&record), is_settled }
    }

    async fn settle(&self, record: &ConsumerRecord, stop: &StopSignal) -> bool {
        let origin = MessageOrigin {
            consumer: self.consumer.clone(),
            source: record.topic.clone(),
            partition: u32::try_from(record.partition).ok(),
            offset: RecordOffset::Number(record.offset.unsigned_abs()),
        };
        let settled = match self.decode(record) {
            Ok(Some(body)) => self.delivery.settle(&ConsumedMessage { origin, body }, stop).await,
            Ok(None) => {
                self.delivery.counters().count_processed();
                Settled::Done
            }
            Err(reason) => self.delivery.reject(&origin, reason),
        };
        match (settled, &self.dead_letters) {
            (Settled::Stopped, _) => false,
            (Settled::Done, _) | (Settled::Rejected { .. }, None) => true,
            (Settled::Rejected { reason }, Some(dead_letters)) => {
                let is_stored = dead_letters.store(record, &reason, stop).await;
                if is_stored {
                    self.delivery.counters().count_dead_letter();
                }
                is_stored
            }
        }
    }

    /// What a record asks for; `None` if nothing.
    fn decode(&self, record: &ConsumerRecord) -> Result<Option<Body>, Undecodable> {
        let value = record.value.clone();
        match &self.form {
            KafkaForm::Records(form) => {
                let headers = record.headers.iter();
                let headers =
                    headers.map(|(name, value)| (name.as_str(), value.as_deref().unwrap_or(b"")));
                form.decode(value.unwrap_or_default(), &headers).map(Some)
            }
            KafkaForm::ChangeEvents(events) => {
                // The end of a key in a compacted topic; the deletion came before it.
                let Some(value) = value else { return Ok(None) };
                let (topic, partition, offset) = (&record.topic, record.partition, record.offset);
                let key = format!("{topic}/{partition}/{offset}");
                Ok(events.publication(&value, key)?.map(Body::Publication))
            }
        }
    }
}
