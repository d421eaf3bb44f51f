//! Pulls of a durable consumer: a batch of messages, then the end of the batch.
//!
//! Invariant: no more messages and bytes are under way than one batch asks for.

use std::time::Duration;

use async_nats::{Client, Message, StatusCode, Subscriber};
use futures_util::StreamExt as _;
use serde_json::json;
use tokio::time::timeout;

use super::settings::NatsConsumerSettings;
use crate::error::ConsumerError;
use crate::limits::{
    JETSTREAM_BATCH, JETSTREAM_BATCH_BYTES, JETSTREAM_HEARTBEAT, JETSTREAM_PULL_EXPIRES,
};

/// An open pull request of a durable consumer.
pub(super) struct Pull {
    client: Client,
    inbox: Subscriber,
    reply: String,
    subject: String,
    batch: usize,
    /// Messages that the batch may still bring.
    open: usize,
}

impl Pull {
    pub(super) async fn start(
        client: &Client,
        settings: &NatsConsumerSettings,
    ) -> Result<Pull, ConsumerError> {
        let reply = client.new_inbox();
        let inbox = client.subscribe(reply.clone()).await.map_err(|error| lost(&error))?;
        let NatsConsumerSettings { stream, durable, max_ack_pending, .. } = settings;
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}");
        let batch = usize::try_from(*max_ack_pending).unwrap_or(usize::MAX);
        let batch = batch.clamp(1, JETSTREAM_BATCH);
        Ok(Pull { client: client.clone(), inbox, reply, subject, batch, open: 0 })
    }

    /// The next message. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<Message, ConsumerError> {
        loop {
            if self.open == 0 {
                self.ask().await?;
            }
            let message = timeout(JETSTREAM_HEARTBEAT * 2, self.inbox.next()).await;
            let Ok(message) = message else {
                return Err(lost(&"no heartbeat of the durable consumer"));
            };
            let message = message.ok_or_else(|| lost(&"the subscription has ended"))?;
            let text = message.description.as_deref().unwrap_or_default();
            match message.status {
                None | Some(StatusCode::OK) => {
                    self.open -= 1;
                    return Ok(message);
                }
                Some(StatusCode::IDLE_HEARTBEAT) => {}
                // The batch has ended: no more messages, its time, or its bytes.
                Some(StatusCode::NOT_FOUND | StatusCode::TIMEOUT) => self.open = 0,
                Some(StatusCode::NO_RESPONDERS) => {
                    return Err(lost(&"JetStream or the durable consumer is gone"));
                }
                Some(status) => {
                    self.open = 0;
                    if text.contains("Deleted") || text.contains("Push") {
                        return Err(lost(&format_args!("{text} ({status})")));
                    }
                    // Another pull has taken the places that were free.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Whether a message is here already.
    pub(super) fn batch_rest(&mut self) -> Vec<Message> {
        let mut rest = Vec::new();
        while self.open > 0 {
            let next = futures_util::FutureExt::now_or_never(self.inbox.next());
            let Some(Some(message)) = next else { break };
            match message.status {
                None | Some(StatusCode::OK) => {
                    self.open -= 1;
                    rest.push(message);
                }
                Some(StatusCode::IDLE_HEARTBEAT) => {}
                Some(_) => self.open = 0,
            }
        }
        rest
    }

    async fn ask(&mut self) -> Result<(), ConsumerError> {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let body = json!({
            "batch": self.batch,
            "max_bytes": JETSTREAM_BATCH_BYTES,
            "expires": nanos(JETSTREAM_PULL_EXPIRES),
            "idle_heartbeat": nanos(JETSTREAM_HEARTBEAT),
        });
        let (subject, reply) = (self.subject.clone(), self.reply.clone());
        let sent = self.client.publish_with_reply(subject, reply, body.to_string().into()).await;
        sent.map_err(|error| lost(&error))?;
        self.open = self.batch;
        Ok(())
    }
}

pub(super) fn lost(reason: &dyn std::fmt::Display) -> ConsumerError {
    let (source_name, reason) = ("JetStream of NATS".to_owned(), reason.to_string());
    ConsumerError::Unavailable { source_name, reason }
}
