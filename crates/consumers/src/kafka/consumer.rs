//! The loop of a Kafka consumer: polls, hands records to partitions, commits, and reports the lag.

use std::sync::Arc;

use krafka::CloseOptions;
use krafka::consumer::{Consumer, ConsumerRecord};
use krafka::error::KrafkaError;
use tokio::time::Instant;
use tracing::{debug, info};

use super::assignment::Assignment;
use super::connect::{connect, failure, member};
use super::dead_letters::DeadLetters;
use super::partition::RecordHandling;
use super::settings::KafkaSettings;
use crate::delivery::Delivery;
use crate::error::ConsumerError;
use crate::handler::Handler;
use crate::limits::{
    KAFKA_CLOSE_TIMEOUT, KAFKA_COMMIT_INTERVAL, KAFKA_FAULTS_MAX, KAFKA_POLL_TIMEOUT, RETRY_DELAY,
};
use crate::restart::{ConsumerTask, run_until_stopped};
use crate::stop::StopSignal;

/// Consumes until the stop. At the end all partitions are handed over.
pub async fn run<H: Handler>(task: ConsumerTask, settings: KafkaSettings, handler: Arc<H>) {
    run_until_stopped(&task, || consume(&task, &settings, handler.clone())).await;
}

async fn consume<H: Handler>(
    task: &ConsumerTask,
    settings: &KafkaSettings,
    handler: Arc<H>,
) -> Result<(), ConsumerError> {
    let kafka = connect(settings).await?;
    let handling = RecordHandling {
        consumer: task.name.clone(),
        form: settings.form.clone(),
        delivery: Delivery::new(handler, task.counters.clone()),
        dead_letters: DeadLetters::open(&kafka, settings).await?,
        hasher: std::hash::RandomState::new(),
    };
    let assignment = Arc::new(Assignment::new(handling, settings.partition_queue_max_size));
    let consumer = Arc::new(member(&kafka, settings, assignment.clone()).await?);
    assignment.commit_by(&consumer);
    info!(consumer = %task.name, topics = ?settings.topics, group = %settings.consumer_group, "consumer: connected to Kafka");
    task.counters.connected();
    let ended = poll_all(task, settings, &consumer, &assignment).await;
    assignment.finish_all().await;
    let closed = consumer.close_with(CloseOptions::new().timeout(KAFKA_CLOSE_TIMEOUT)).await;
    if let Err(error) = closed {
        debug!(consumer = %task.name, %error, "consumer: leaving the consumer group failed; rebalance after the session timeout");
    }
    ended
}

async fn poll_all<H: Handler>(
    task: &ConsumerTask,
    settings: &KafkaSettings,
    consumer: &Consumer,
    assignment: &Assignment<H>,
) -> Result<(), ConsumerError> {
    let mut faults = 0;
    let mut committed = Instant::now();
    while !task.stop.is_requested() {
        match poll(consumer, &task.stop).await {
            Ok(records) => {
                faults = 0;
                assignment.receive(consumer, records).await;
            }
            Err(KrafkaError::Wakeup) => {}
            Err(error) if error.is_retriable() && faults < KAFKA_FAULTS_MAX => {
                faults += 1;
                debug!(consumer = %task.name, %error, "consumer: polling failed and is tried again");
                task.stop.requested_within(RETRY_DELAY).await;
            }
            Err(error) => return Err(failure(settings, &error)),
        }
        if assignment.has_failed() {
            return Err(ConsumerError::TaskEnded);
        }
        assignment.resume(consumer).await;
        if committed.elapsed() >= KAFKA_COMMIT_INTERVAL {
            assignment.commit().await;
            committed = Instant::now();
            let unread: u64 = consumer.lag().await.values().filter_map(|lag| lag.lag).sum();
            task.counters.set_lag(unread + assignment.records() as u64);
        }
    }
    Ok(())
}

/// Polls; a stop ends the wait.
async fn poll(consumer: &Consumer, stop: &StopSignal) -> krafka::Result<Vec<ConsumerRecord>> {
    let polling = consumer.poll(KAFKA_POLL_TIMEOUT);
    tokio::pin!(polling);
    tokio::select! {
        polled = &mut polling => polled,
        () = stop.requested() => {
            // A poll that applies a rebalance is not interrupted.
            consumer.wakeup();
            polling.await
        }
    }
}
