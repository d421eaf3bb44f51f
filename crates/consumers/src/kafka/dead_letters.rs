//! The topic for records that can never be handled.
//!
//! Invariant: a dead letter has the key, value and headers of its record, and headers that say
//! where it comes from and why.

use krafka::Kafka;
use krafka::consumer::ConsumerRecord;
use krafka::producer::{Producer, Record};
use tracing::warn;

use super::connect::failure;
use super::settings::KafkaSettings;
use crate::backoff::RetryBackoff;
use crate::error::ConsumerError;
use crate::limits::{RETRY_DELAY, RETRY_DELAY_MAX};
use crate::log_rate::LogRate;
use crate::stop::StopSignal;

/// Producer for the topic of records that can never be handled.
pub(super) struct DeadLetters {
    producer: Producer,
    topic: String,
    failures: LogRate,
}

impl DeadLetters {
    /// The dead letters of a consumer, if it has a topic for them.
    pub(super) async fn open(
        kafka: &Kafka,
        settings: &KafkaSettings,
    ) -> Result<Option<DeadLetters>, ConsumerError> {
        if settings.dead_letter_topic.is_empty() {
            return Ok(None);
        }
        let producer = kafka.producer().build().await;
        let producer = producer.map_err(|error| failure(settings, &error))?;
        let topic = settings.dead_letter_topic.clone();
        Ok(Some(DeadLetters { producer, topic, failures: LogRate::default() }))
    }

    /// Stores a record; returns whether it is stored, which it is unless the consumer stops.
    pub(super) async fn store(
        &self,
        record: &ConsumerRecord,
        reason: &str,
        stop: &StopSignal,
    ) -> bool {
        let mut backoff = RetryBackoff::new(RETRY_DELAY, RETRY_DELAY_MAX);
        loop {
            let error = match self.producer.send(self.letter(record, reason)).await {
                Ok(_) => return true,
                Err(error) => error,
            };
            if let Some(left_out) = self.failures.admit() {
                let (topic, at) = (&self.topic, record.offset);
                warn!(%topic, at, %error, left_out, "consumer: a dead letter cannot be stored and is tried again");
            }
            if stop.requested_within(backoff.next_delay()).await {
                return false;
            }
        }
    }

    fn letter(&self, record: &ConsumerRecord, reason: &str) -> Record {
        let mut letter = match &record.value {
            Some(value) => Record::new(&self.topic, value.clone()),
            None => Record::new(&self.topic, "").without_value(),
        };
        if let Some(key) = &record.key {
            letter = letter.key(key.clone());
        }
        for (name, value) in &record.headers {
            letter = match value {
                Some(value) => letter.header(name, value.clone()),
                None => letter.null_header(name),
            };
        }
        letter
            .header("tidings-reason", reason.to_owned())
            .header("tidings-topic", record.topic.to_string())
            .header("tidings-partition", record.partition.to_string())
            .header("tidings-offset", record.offset.to_string())
    }
}
