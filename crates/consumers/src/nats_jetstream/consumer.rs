//! Messages of a durable consumer: pulled in batches, handled one after the other, acknowledged.
//!
//! Invariant: a message is acknowledged after it took effect, or after it was stored as a dead
//! letter; while it waits, JetStream gets in-progress acknowledgements.

use std::pin::pin;
use std::sync::Arc;

use async_nats::{Client, HeaderMap, Message as NatsMessage};
use tokio::time::interval;
use tracing::info;

use super::ack_subject::MessagePlace;
use super::connect::{connect, prepare};
use super::pull::{Pull, lost};
use super::settings::NatsConsumerSettings;
use crate::delivery::{Delivery, Settled};
use crate::error::ConsumerError;
use crate::handler::Handler;
use crate::limits::JETSTREAM_PROGRESS;
use crate::message::{ConsumedMessage, MessageOrigin, RecordOffset};
use crate::restart::{ConsumerTask, run_until_stopped};

/// Consumes until the stop.
pub async fn run<H: Handler>(task: ConsumerTask, settings: NatsConsumerSettings, handler: Arc<H>) {
    run_until_stopped(&task, || consume(&task, &settings, handler.clone())).await;
}

async fn consume<H: Handler>(
    task: &ConsumerTask,
    settings: &NatsConsumerSettings,
    handler: Arc<H>,
) -> Result<(), ConsumerError> {
    let client = connect(settings, &task.name).await?;
    prepare(&client, settings).await?;
    let NatsConsumerSettings { stream, durable, .. } = settings;
    info!(consumer = %task.name, %stream, %durable, "consumer: JetStream consumer started");
    task.counters.connected();
    let delivery = Delivery::new(handler, task.counters.clone());
    let source: Arc<str> = stream.as_str().into();
    let reader = JetStreamReader { task, settings, client: client.clone(), delivery, source };
    let ended = reader.read().await;
    let _gone = client.drain().await;
    ended
}

struct JetStreamReader<'t, H> {
    task: &'t ConsumerTask,
    settings: &'t NatsConsumerSettings,
    client: Client,
    delivery: Delivery<H>,
    source: Arc<str>,
}

/// Answers to JetStream.
const ACK: &str = "+ACK";
const NAK: &str = "-NAK";
const IN_PROGRESS: &str = "+WPI";
const TERMINATE: &str = "+TERM";

impl<H: Handler> JetStreamReader<'_, H> {
    async fn read(&self) -> Result<(), ConsumerError> {
        let mut pull = Pull::start(&self.client, self.settings).await?;
        loop {
            let first = tokio::select! {
                message = pull.next() => message?,
                () = self.task.stop.requested() => return Ok(()),
            };
            let mut batch = pull.batch_rest();
            batch.insert(0, first);
            for index in 0..batch.len() {
                let (message, behind) = (&batch[index], &batch[index..]);
                let settled = self.settle(message, behind).await?;
                match settled {
                    Settled::Done => self.answer(message, ACK).await?,
                    Settled::Rejected { reason } => self.set_aside(message, &reason).await?,
                    Settled::Stopped => {
                        // Another node gets them at once.
                        for message in behind {
                            self.answer(message, NAK).await?;
                        }
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Hands a message over; meanwhile those behind it are not delivered to anybody else.
    async fn settle(
        &self,
        message: &NatsMessage,
        behind: &[NatsMessage],
    ) -> Result<Settled, ConsumerError> {
        if self.task.stop.is_requested() {
            return Ok(Settled::Stopped);
        }
        let place = message.reply.as_deref().and_then(MessagePlace::of);
        let (sequence, pending) = place.map_or((0, 0), |place| (place.sequence, place.pending));
        let waiting = u64::try_from(behind.len()).unwrap_or(u64::MAX);
        self.task.counters.set_lag(pending.saturating_add(waiting) - 1);
        let origin = MessageOrigin {
            consumer: self.task.name.clone(),
            source: self.source.clone(),
            partition: None,
            offset: RecordOffset::Number(sequence),
        };
        let no_headers = HeaderMap::new();
        let headers = message.headers.as_ref().unwrap_or(&no_headers);
        let headers = headers.iter().filter_map(|(name, values)| {
            let value = values.first()?;
            Some((name.as_ref(), value.as_str().as_bytes()))
        });
        let headers: Vec<(&str, &[u8])> = headers.collect();
        let body = match self.settings.form.decode(message.payload.clone(), &headers.into_iter()) {
            Ok(body) => body,
            Err(reason) => return Ok(self.delivery.reject(&origin, reason)),
        };
        let message = ConsumedMessage { origin, body };
        let mut settling = pin!(self.delivery.settle(&message, &self.task.stop));
        let mut progress = interval(JETSTREAM_PROGRESS);
        progress.tick().await;
        loop {
            tokio::select! {
                settled = &mut settling => return Ok(settled),
                _ = progress.tick() => {
                    for message in behind {
                        self.answer(message, IN_PROGRESS).await?;
                    }
                }
            }
        }
    }

    /// Stores a message as a dead letter, if there is a place for it, and ends its delivery.
    async fn set_aside(&self, message: &NatsMessage, reason: &str) -> Result<(), ConsumerError> {
        let subject = &self.settings.dead_letter_subject;
        if subject.is_empty() {
            return self.answer(message, TERMINATE).await;
        }
        let mut headers = message.headers.clone().unwrap_or_default();
        // A header is one line.
        headers.insert("tidings-error", reason.replace(['\r', '\n'], " "));
        headers.insert("tidings-subject", message.subject.as_str());
        let (subject, payload) = (subject.clone(), message.payload.clone());
        let sent = self.client.publish_with_headers(subject, headers, payload).await;
        sent.map_err(|error| lost(&error))?;
        self.client.flush().await.map_err(|error| lost(&error))?;
        self.task.counters.count_dead_letter();
        self.answer(message, ACK).await
    }

    async fn answer(
        &self,
        message: &NatsMessage,
        answer: &'static str,
    ) -> Result<(), ConsumerError> {
        let Some(reply) = &message.reply else { return Ok(()) };
        let sent = self.client.publish(reply.clone(), answer.into()).await;
        sent.map_err(|error| lost(&error))
    }
}
