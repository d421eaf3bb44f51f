//! Requests to JetStream: store, read and remove messages.
//!
//! Invariant: every outcome updates the availability of the node: a stream that stores nothing
//! makes the node unready, and a missing stream is created again.

use async_nats::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use engine::broker::BrokerError;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tracing::debug;

use super::availability::UnavailableCause;
use super::link::{NatsLink, RequestError};
use super::stored_message::{Ack, StoredMessage};
use super::subject::Store;
use crate::limits::{ANSWER_TIMEOUT, JETSTREAM_RETRY, READER_IDLE};

/// Why a request to the API of JetStream failed.
#[derive(Debug)]
pub(super) enum JetStreamError {
    Unavailable,
    /// No server answers for JetStream: it is switched off or has no leader.
    NoResponders,
    /// The server's own error.
    Refused {
        code: u64,
        text: String,
    },
}

impl NatsLink {
    /// Sends a request to the API of JetStream.
    pub(super) async fn api(&self, verb: &str, body: &Value) -> Result<Value, JetStreamError> {
        let payload = body.to_string().into();
        let answer = self.request(format!("$JS.API.{verb}"), None, payload).await;
        let answer = answer.map_err(|error| self.note_unanswered(verb, error))?;
        let answer: Value =
            serde_json::from_slice(&answer.payload).map_err(|_| JetStreamError::Unavailable)?;
        let Some(error) = answer.get("error") else {
            self.shared.availability.clear(UnavailableCause::Api);
            return Ok(answer);
        };
        let code = error["err_code"].as_u64().unwrap_or(0);
        let text = error["description"].as_str().unwrap_or_default().to_owned();
        debug!(verb, code, text, "JetStream has refused a request");
        if error["code"] == UNAVAILABLE {
            let reason = format!("JetStream of this NATS is unavailable: {text} (error {code})");
            self.shared.availability.set(UnavailableCause::Api, &reason);
        } else {
            self.shared.availability.clear(UnavailableCause::Api);
        }
        Err(JetStreamError::Refused { code, text })
    }

    fn note_unanswered(&self, verb: &str, error: RequestError) -> JetStreamError {
        let why = match error {
            RequestError::Late => "does not answer",
            RequestError::NoResponders => "is not there (is it switched off, or without a leader?)",
            RequestError::Down | RequestError::Refused(_) => return JetStreamError::Unavailable,
        };
        debug!(verb, why, "JetStream has not answered");
        self.shared
            .availability
            .set(UnavailableCause::Api, &format!("JetStream of this NATS {why}"));
        match error {
            RequestError::NoResponders => JetStreamError::NoResponders,
            _ => JetStreamError::Unavailable,
        }
    }

    /// Reads the newest message of a subject.
    pub(super) async fn newest(
        &self,
        stream: &str,
        subject: &str,
    ) -> Result<Option<StoredMessage>, BrokerError> {
        self.get(stream, &json!({ "last_by_subj": subject })).await
    }

    /// Reads the message with this sequence.
    pub(super) async fn numbered(
        &self,
        stream: &str,
        sequence: u64,
    ) -> Result<Option<StoredMessage>, BrokerError> {
        self.get(stream, &json!({ "seq": sequence })).await
    }

    async fn get(&self, stream: &str, which: &Value) -> Result<Option<StoredMessage>, BrokerError> {
        let answer = match self.api(&format!("STREAM.MSG.GET.{stream}"), which).await {
            Ok(answer) => answer,
            Err(JetStreamError::Refused { code: NO_MESSAGE, .. }) => return Ok(None),
            Err(error) => return Err(self.note_failed(&error)),
        };
        let message = &answer["message"];
        let data = STANDARD.decode(message["data"].as_str().unwrap_or_default());
        Ok(Some(StoredMessage {
            subject: message["subject"].as_str().unwrap_or_default().into(),
            sequence: message["seq"].as_u64().unwrap_or(0),
            payload: data.map_err(|_| BrokerError::Unavailable)?.into(),
            at_ms: 0,
        }))
    }

    /// Stores a message if the newest one of its subject has the sequence `after` (zero for none),
    /// and no message with the same identifier was stored within the duplicate window.
    pub(super) async fn store(
        &self,
        subject: &str,
        after: Option<u64>,
        identifier: &str,
        payload: Bytes,
    ) -> Result<Ack, BrokerError> {
        let mut headers = HeaderMap::new();
        if let Some(after) = after {
            headers.insert("Nats-Expected-Last-Subject-Sequence", after.to_string());
        }
        if !identifier.is_empty() {
            headers.insert("Nats-Msg-Id", identifier);
        }
        let store = self.names.store_of(subject);
        let answer = match self.request(subject.into(), Some(headers), payload).await {
            Ok(answer) => answer,
            Err(error) => {
                self.note_unstored(store, error);
                return Err(error.into());
            }
        };
        let answer: Value =
            serde_json::from_slice(&answer.payload).map_err(|_| BrokerError::Unavailable)?;
        match answer["error"]["err_code"].as_u64() {
            Some(WRONG_LAST_SEQUENCE) => {
                if store == Store::Generation {
                    // Another node has stored the generation.
                    self.shared.availability.clear(UnavailableCause::Store(store));
                }
                return Ok(Ack::Conflict);
            }
            Some(MESSAGE_TOO_LARGE) => return Err(BrokerError::TooLarge),
            Some(code) => {
                let text = answer["error"]["description"].as_str().unwrap_or_default();
                self.note_refused(store, code, text);
                return Err(BrokerError::Unavailable);
            }
            None => self.note_stored(store),
        }
        let sequence = answer["seq"].as_u64().ok_or(BrokerError::Unavailable)?;
        let is_duplicate = answer["duplicate"].as_bool().unwrap_or(false);
        Ok(if is_duplicate { Ack::Duplicate(sequence) } else { Ack::Stored(sequence) })
    }

    pub(super) async fn stream_info(&self, stream: &str) -> Result<Value, BrokerError> {
        let info = self.api(&format!("STREAM.INFO.{stream}"), &json!({})).await;
        info.map_err(|error| self.note_failed(&error))
    }

    /// Records a failed request, whose cause may be a missing stream.
    fn note_failed(&self, error: &JetStreamError) -> BrokerError {
        if matches!(error, JetStreamError::Refused { code: NO_STREAM, .. }) {
            self.miss_stream();
        }
        BrokerError::Unavailable
    }

    /// Reports that a history cannot be read, even if single messages can.
    fn note_unread(&self, stream: &str, error: &JetStreamError) -> BrokerError {
        if let JetStreamError::Refused { code, text } = error
            && *code != NO_STREAM
            && stream == self.names.history_stream()
        {
            let reason = format!(
                "histories in the JetStream stream {stream:?} cannot be read: {text} (error {code}); look at the limits of the \
                 stream and of the account (max_consumers)"
            );
            self.report_read_refusal(reason);
        }
        self.note_failed(error)
    }

    fn miss_stream(&self) {
        self.is_stream_missing.set(true);
        self.wants_store_check.notify_one();
    }

    fn note_unstored(&self, store: Store, error: RequestError) {
        let stream = self.names.stream_of(store);
        let reason = match error {
            RequestError::Late => format!("the JetStream stream {stream:?} does not answer"),
            RequestError::NoResponders => {
                self.miss_stream();
                format!(
                    "the JetStream stream {stream:?} is missing; it is created again when JetStream answers"
                )
            }
            RequestError::Down | RequestError::Refused(_) => return,
        };
        self.note_unavailable(store, &reason);
    }

    fn note_refused(&self, store: Store, code: u64, text: &str) {
        let stream = self.names.stream_of(store);
        let kind = if store == Store::Presence { "max_memory_store" } else { "max_file_store" };
        let reason = format!(
            "the JetStream stream {stream:?} takes no messages: {text} (error {code}); raise its limits ({kind} of nats-server, \
             limits of the account or of the stream), or reduce what is retained"
        );
        self.note_unavailable(store, &reason);
    }

    /// A refused revocation is not retried, and nothing would make the node ready again: it is only
    /// a warning.
    fn note_unavailable(&self, store: Store, reason: &str) {
        match store {
            Store::Revocations => self.shared.warnings.add(reason.to_owned()),
            _ => self.shared.availability.set(UnavailableCause::Store(store), reason),
        }
    }

    fn note_stored(&self, store: Store) {
        // One stored entry does not show that all are stored; the next renewal does.
        if store != Store::Presence {
            self.shared.availability.clear(UnavailableCause::Store(store));
        }
    }

    /// Waits until a stream has republished everything stored so far: a message that the stream
    /// refuses takes the same way, so that its refusal comes after the others.
    pub(super) async fn barrier(&self, subject: &str) -> Result<(), BrokerError> {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Expected-Stream", "none");
        self.request(subject.into(), Some(headers), Bytes::new()).await?;
        Ok(())
    }

    /// Reads all messages of a subject, which may have wildcards, oldest first.
    pub(super) async fn range(
        &self,
        stream: &str,
        filter: &str,
    ) -> Result<Vec<StoredMessage>, BrokerError> {
        let reading = async {
            match self.newest(stream, filter).await? {
                Some(newest) => self.read_up_to(stream, filter, newest.sequence).await,
                None => Ok(Vec::new()),
            }
        };
        tokio::time::timeout(ANSWER_TIMEOUT, reading).await.map_err(|_| BrokerError::Unavailable)?
    }

    /// Like [`NatsLink::range`], if the sequence of the newest message is known.
    pub(super) async fn range_up_to(
        &self,
        stream: &str,
        filter: &str,
        newest: u64,
    ) -> Result<Vec<StoredMessage>, BrokerError> {
        let reading = self.read_up_to(stream, filter, newest);
        tokio::time::timeout(ANSWER_TIMEOUT, reading).await.map_err(|_| BrokerError::Unavailable)?
    }

    /// Reads until the newest message is included. A server of a cluster that was just restarted
    /// may return fewer messages than are stored; the next read meets another server, or the same
    /// one has caught up.
    async fn read_up_to(
        &self,
        stream: &str,
        filter: &str,
        mut newest: u64,
    ) -> Result<Vec<StoredMessage>, BrokerError> {
        for attempt in 1.. {
            let stored = self.read_range(stream, filter).await?;
            if stored.last().is_some_and(|last| last.sequence >= newest) {
                return Ok(stored);
            }
            // The newest message may have been removed meanwhile.
            let Some(now) = self.newest(stream, filter).await? else { return Ok(Vec::new()) };
            newest = now.sequence;
            tokio::time::sleep(JETSTREAM_RETRY * attempt).await;
        }
        Err(BrokerError::Unavailable)
    }

    async fn read_range(
        &self,
        stream: &str,
        filter: &str,
    ) -> Result<Vec<StoredMessage>, BrokerError> {
        let _permit = self.reads.acquire().await.map_err(|_| BrokerError::Unavailable)?;
        let inbox = self.client.new_inbox();
        let mut messages = self.subscribe(inbox.clone()).await?;
        let config = json!({
            "deliver_subject": inbox,
            "deliver_policy": "all",
            "ack_policy": "none",
            "replay_policy": "instant",
            "filter_subject": filter,
            "mem_storage": true,
            "num_replicas": 1,
            "inactive_threshold": nanoseconds(READER_IDLE),
            "idle_heartbeat": nanoseconds(READER_IDLE),
        });
        let body = json!({ "stream_name": stream, "config": config });
        let made = self.api(&format!("CONSUMER.CREATE.{stream}"), &body).await;
        let made = made.map_err(|error| self.note_unread(stream, &error))?;
        let count = |value: &Value| value.as_u64().unwrap_or(0);
        let mut left = count(&made["num_pending"]) + count(&made["delivered"]["consumer_seq"]);
        let mut stored = Vec::new();
        while left > 0 {
            let message = messages.next().await.ok_or(BrokerError::Unavailable)?;
            if message.status.is_some() {
                // A heartbeat after a pause: the remaining messages were removed.
                break;
            }
            let Some((sequence, at_ms, pending)) = message.reply.as_deref().and_then(numbers)
            else {
                continue;
            };
            left = pending;
            let subject = message.subject.to_string();
            stored.push(StoredMessage { subject, sequence, payload: message.payload, at_ms });
        }
        Ok(stored)
    }

    /// Removes all messages of a subject, which may have wildcards.
    pub(super) async fn purge(&self, stream: &str, filter: &str) -> Result<(), BrokerError> {
        let answer =
            self.api(&format!("STREAM.PURGE.{stream}"), &json!({ "filter": filter })).await;
        answer.map(|_| ()).map_err(|error| self.note_failed(&error))
    }

    /// Removes the messages of a subject, which may have wildcards, with a smaller sequence.
    pub(super) async fn purge_before(
        &self,
        stream: &str,
        filter: &str,
        sequence: u64,
    ) -> Result<(), BrokerError> {
        if sequence <= 1 {
            // No message is before it, and NATS takes this value for no bound.
            return Ok(());
        }
        let body = json!({ "filter": filter, "seq": sequence });
        let answer = self.api(&format!("STREAM.PURGE.{stream}"), &body).await;
        answer.map(|_| ()).map_err(|error| self.note_failed(&error))
    }

    /// Removes all messages of a subject except the newest ones.
    pub(super) async fn keep(
        &self,
        stream: &str,
        subject: &str,
        newest: u64,
    ) -> Result<(), BrokerError> {
        let body = json!({ "filter": subject, "keep": newest });
        let answer = self.api(&format!("STREAM.PURGE.{stream}"), &body).await;
        answer.map(|_| ()).map_err(|error| self.note_failed(&error))
    }
}

/// A duration in the unit of the JetStream API.
pub(super) fn nanoseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Sequence, Unix milliseconds and number of pending messages in the reply subject of a delivery:
/// the last words of `$JS.ACK.….<stream sequence>.<consumer sequence>.<nanoseconds>.<pending>`,
/// in its longer form with one word more.
fn numbers(reply: &str) -> Option<(u64, u64, u64)> {
    let words: Vec<&str> = reply.split('.').collect();
    let first = if words.len() >= 12 { 7 } else { 5 };
    let number = |index: usize| words.get(index)?.parse::<u64>().ok();
    Some((number(first)?, number(first + 2)? / 1_000_000, number(first + 3)?))
}

/// HTTP status in an error of the API: the server is unavailable for now.
const UNAVAILABLE: u64 = 503;
/// JetStream error: no message found.
const NO_MESSAGE: u64 = 10037;
/// JetStream error: wrong last sequence of the subject.
const WRONG_LAST_SEQUENCE: u64 = 10071;
/// JetStream error: the message exceeds the maximum size of the stream.
const MESSAGE_TOO_LARGE: u64 = 10054;
/// JetStream error: stream not found.
pub(super) const NO_STREAM: u64 = 10059;
