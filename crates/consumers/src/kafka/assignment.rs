//! The partitions that this member reads, and what happens when they come and go.
//!
//! Invariant: a partition that is taken away in good order has finished what it started and is
//! committed before another member reads it. Of one that was lost nothing is committed any more.

use std::collections::HashMap;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use futures_util::future::join_all;
use krafka::consumer::{
    Consumer, ConsumerRebalanceListener, ConsumerRecord, OffsetAndMetadata, TopicPartition,
};
use tracing::{debug, info, warn};

use super::partition::{AssignedPartition, RecordHandling};
use crate::handler::Handler;
use crate::limits::{KAFKA_DRAIN_TIMEOUT, KAFKA_PARTITION_BYTES_MAX};

/// Partitions that are assigned to this member of the consumer group.
pub(super) struct Assignment<H> {
    handling: Arc<RecordHandling<H>>,
    /// Records in memory above which a partition is paused.
    records_max: usize,
    consumer: OnceLock<Weak<Consumer>>,
    partitions: Mutex<HashMap<TopicPartition, AssignedPartition>>,
}

impl<H: Handler> Assignment<H> {
    pub(super) fn new(handling: RecordHandling<H>, records_max: usize) -> Assignment<H> {
        Assignment {
            handling: Arc::new(handling),
            records_max,
            consumer: OnceLock::new(),
            partitions: Mutex::default(),
        }
    }

    /// Names the consumer by which offsets are committed.
    pub(super) fn commit_by(&self, consumer: &Arc<Consumer>) {
        let _once = self.consumer.set(Arc::downgrade(consumer));
    }

    /// Hands records to their partitions, and pauses those that have enough.
    pub(super) async fn receive(&self, consumer: &Consumer, records: Vec<ConsumerRecord>) {
        let mut full = Vec::new();
        for batch in by_partition(records) {
            let Some(first) = batch.first() else { continue };
            let place = TopicPartition::new(&*first.topic, first.partition);
            let mut partitions = self.lock();
            let partition = partitions
                .entry(place.clone())
                .or_insert_with(|| AssignedPartition::start(self.handling.clone()));
            partition.receive(batch);
            if self.is_above(partition, 1) && !partition.is_paused {
                partition.is_paused = true;
                full.push(place);
            }
        }
        for place in full {
            consumer.pause(place.topic(), &[place.partition()]).await;
        }
    }

    /// Resumes partitions that have less than half of what they may have.
    pub(super) async fn resume(&self, consumer: &Consumer) {
        let mut drained = Vec::new();
        for (place, partition) in self.lock().iter_mut() {
            if partition.is_paused && !self.is_above(partition, 2) {
                partition.is_paused = false;
                drained.push(place.clone());
            }
        }
        for place in drained {
            consumer.resume(place.topic(), &[place.partition()]).await;
        }
    }

    /// Whether a partition has more than a part of what it may have.
    fn is_above(&self, partition: &AssignedPartition, part: usize) -> bool {
        let (records, bytes) = partition.level();
        records > self.records_max / part || bytes > KAFKA_PARTITION_BYTES_MAX / part
    }

    /// Records in memory that are not finished.
    pub(super) fn records(&self) -> usize {
        self.lock().values().map(|partition| partition.level().0).sum()
    }

    /// Whether the task of a partition has panicked.
    pub(super) fn has_failed(&self) -> bool {
        self.lock().values().any(AssignedPartition::has_ended)
    }

    /// Commits what is finished.
    pub(super) async fn commit(&self) {
        let offsets: Vec<_> = {
            let partitions = self.lock();
            let unsaved = partitions
                .iter()
                .filter_map(|(place, partition)| Some((place.clone(), partition.commit()?)));
            unsaved.collect()
        };
        if self.commit_offsets(&offsets).await {
            let mut partitions = self.lock();
            for (place, offset) in offsets {
                if let Some(partition) = partitions.get_mut(&place) {
                    partition.committed = offset;
                }
            }
        }
    }

    async fn commit_offsets(&self, offsets: &[(TopicPartition, i64)]) -> bool {
        let Some(consumer) = self.consumer.get().and_then(Weak::upgrade) else { return false };
        if offsets.is_empty() {
            return true;
        }
        let of = |(place, offset): &(TopicPartition, i64)| {
            (place.clone(), OffsetAndMetadata::new(*offset))
        };
        match consumer.commit_offsets(offsets.iter().map(of)).await {
            Ok(()) => true,
            Err(error) => {
                // They are committed with the next ones, or another member handles them again.
                debug!(consumer = %self.handling.consumer, %error, "consumer: offsets were not committed");
                false
            }
        }
    }

    /// Finishes and commits all partitions of this member.
    pub(super) async fn finish_all(&self) {
        let all = mem::take(&mut *self.lock());
        self.finish(all.into_iter().collect()).await;
    }

    async fn finish(&self, mut partitions: Vec<(TopicPartition, AssignedPartition)>) {
        partitions.iter().for_each(|(_, partition)| partition.stop());
        let all = join_all(partitions.iter_mut().map(|(_, partition)| partition.finished()));
        if tokio::time::timeout(KAFKA_DRAIN_TIMEOUT, all).await.is_err() {
            warn!(
                consumer = %self.handling.consumer,
                "consumer: drain timeout; unfinished records will be redelivered"
            );
        }
        let commits = partitions
            .iter()
            .filter_map(|(place, partition)| Some((place.clone(), partition.commit()?)));
        self.commit_offsets(&commits.collect::<Vec<_>>()).await;
    }

    fn take(&self, places: &[TopicPartition]) -> Vec<(TopicPartition, AssignedPartition)> {
        let mut partitions = self.lock();
        places.iter().filter_map(|place| partitions.remove_entry(place)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TopicPartition, AssignedPartition>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<H: Handler> ConsumerRebalanceListener for Assignment<H> {
    async fn on_partitions_assigned(&self, partitions: &[TopicPartition]) {
        info!(consumer = %self.handling.consumer, partitions = %names(partitions), "consumer: partitions assigned");
    }

    async fn on_partitions_revoked(&self, partitions: &[TopicPartition]) {
        let taken = self.take(partitions);
        self.finish(taken).await;
        info!(consumer = %self.handling.consumer, partitions = %names(partitions), "consumer: partitions revoked");
    }

    async fn on_partitions_lost(&self, partitions: &[TopicPartition]) {
        // Dropping a partition ends its task.
        drop(self.take(partitions));
        warn!(consumer = %self.handling.consumer, partitions = %names(partitions), "consumer: partitions were lost; another member handles them");
    }
}

fn names(places: &[TopicPartition]) -> String {
    let name = |place: &TopicPartition| format!("{}[{}]", place.topic(), place.partition());
    places.iter().map(name).collect::<Vec<_>>().join(" ")
}

/// Splits records where the partition changes.
fn by_partition(records: Vec<ConsumerRecord>) -> Vec<Vec<ConsumerRecord>> {
    let mut batches: Vec<Vec<ConsumerRecord>> = Vec::new();
    for record in records {
        match batches.last_mut() {
            Some(batch) if is_neighbour(batch.last(), &record) => batch.push(record),
            _ => batches.push(vec![record]),
        }
    }
    batches
}

fn is_neighbour(last: Option<&ConsumerRecord>, next: &ConsumerRecord) -> bool {
    last.is_some_and(|last| last.partition == next.partition && last.topic == next.topic)
}
