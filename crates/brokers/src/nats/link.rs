//! The connection to NATS and what is asked over it: requests with a time-out, the echo, JetStream.
//!
//! Invariant: a question has an answer within [`ANSWER_TIMEOUT`], and at once when the link is down.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_nats::connection::State;
use async_nats::{Client, HeaderMap, Message, Request, Subscriber};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use engine::broker::BrokerError;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::sync::{Notify, oneshot};
use wire::protocol::StreamPosition;

use super::Shared;
use super::era::Eras;
use super::record::Top;
use super::subject::Names;
use crate::Clock;
use crate::limits::{ANSWER_TIMEOUT, JETSTREAM_RETRY, READER_IDLE};

/// See the module.
pub(super) struct Link {
    pub(super) client: Client,
    pub(super) names: Names,
    /// Whether JetStream is used.
    pub(super) keeps: bool,
    clock: Arc<dyn Clock>,
    /// Milliseconds by which the clock of NATS is ahead of ours; all nodes count in the time of NATS.
    ahead_ms: Cell<u64>,
    epochs: Cell<u64>,
    pub(super) eras: Eras,
    echo: Echo,
    pub(super) shared: Arc<Shared>,
}

/// A message as JetStream keeps it.
pub(super) struct Stored {
    pub(super) subject: String,
    pub(super) sequence: u64,
    pub(super) payload: Bytes,
    /// When it was stored, Unix milliseconds by the clock of NATS; zero when not told.
    pub(super) at_ms: u64,
}

/// What came of storing a message.
pub(super) enum Ack {
    /// It is kept under this number.
    Stored(u64),
    /// The same identifier was stored before, under this number.
    Duplicate(u64),
    /// The subject has moved on.
    Conflict,
}

/// Why the API of JetStream did not do what was asked.
#[derive(Debug)]
pub(super) enum ApiError {
    Unavailable,
    Refused { code: u64, text: String },
}

#[derive(Default)]
struct Echo {
    waiting: RefCell<Vec<oneshot::Sender<()>>>,
    wanted: Notify,
}

impl Link {
    pub(super) fn new(
        client: Client,
        names: Names,
        keeps: bool,
        clock: Arc<dyn Clock>,
        shared: Arc<Shared>,
    ) -> Link {
        Link {
            client,
            names,
            keeps,
            clock,
            ahead_ms: Cell::new(0),
            epochs: Cell::new(0),
            eras: Eras::default(),
            echo: Echo::default(),
            shared,
        }
    }

    /// The time on which all nodes agree, milliseconds.
    pub(super) fn now_ms(&self) -> u64 {
        self.clock.monotonic_ms().saturating_add(self.ahead_ms.get())
    }

    pub(super) fn set_now(&self, now_ms: u64) {
        self.ahead_ms.set(now_ms.saturating_sub(self.clock.monotonic_ms()));
    }

    pub(super) fn new_epoch(&self) -> Arc<str> {
        self.epochs.set(self.epochs.get() + 1);
        format!("{}{:x}", self.names.node, self.epochs.get()).into()
    }

    /// Where a stream stands, as parties are told it.
    pub(super) fn position(&self, top: &Top) -> StreamPosition {
        StreamPosition { offset: top.offset, epoch: self.eras.told(&top.epoch).to_string() }
    }

    /// Counts the connections to NATS, this one included.
    pub(super) fn connection(&self) -> u64 {
        self.client.statistics().connects.load(Ordering::Relaxed)
    }

    pub(super) fn check(&self) -> Result<(), BrokerError> {
        match self.client.connection_state() {
            State::Connected => Ok(()),
            State::Pending | State::Disconnected => Err(BrokerError::Unavailable),
        }
    }

    pub(super) async fn subscribe(&self, subject: String) -> Result<Subscriber, BrokerError> {
        self.check()?;
        self.client.subscribe(subject).await.map_err(|_| BrokerError::Unavailable)
    }

    /// Hands a message to the connection; that the server has it is known when an echo behind it is back.
    pub(super) async fn publish(&self, subject: String, payload: Bytes) -> Result<(), BrokerError> {
        self.check()?;
        self.client.publish(subject, payload).await.map_err(|_| BrokerError::Unavailable)
    }

    /// Waits until the server has handled everything that was handed to the connection before.
    pub(super) async fn echo(&self) -> Result<(), BrokerError> {
        self.check()?;
        let (sender, receiver) = oneshot::channel();
        self.echo.waiting.borrow_mut().push(sender);
        self.echo.wanted.notify_one();
        match tokio::time::timeout(ANSWER_TIMEOUT, receiver).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => {
                self.shared.is_well.store(false, Ordering::Relaxed);
                Err(BrokerError::Unavailable)
            }
        }
    }

    /// Sends one echo for all that wait for one in a turn.
    pub(super) async fn run_echo(self: Rc<Link>, mut heard: Subscriber) {
        let mut flying = std::collections::VecDeque::new();
        let mut number = 0u64;
        loop {
            tokio::select! {
                () = self.echo.wanted.notified() => {
                    let waiting = self.echo.waiting.take();
                    number += 1;
                    let payload = number.to_string().into();
                    if self.publish(self.names.echo(), payload).await.is_ok() {
                        flying.push_back((number, waiting));
                    }
                }
                message = heard.next() => {
                    let Some(message) = message else { return };
                    let back: u64 = std::str::from_utf8(&message.payload)
                        .ok()
                        .and_then(|text| text.parse().ok())
                        .unwrap_or(0);
                    self.shared.is_well.store(true, Ordering::Relaxed);
                    while flying.front().is_some_and(|(number, _)| *number <= back) {
                        if let Some((number, waiting)) = flying.pop_front() && number == back {
                            for sender in waiting {
                                // Whoever has given up does not hear it.
                                let _gone = sender.send(());
                            }
                        }
                    }
                }
            }
        }
    }

    /// Asks the API of JetStream.
    pub(super) async fn api(&self, verb: &str, body: &Value) -> Result<Value, ApiError> {
        let payload = body.to_string().into();
        let answer = self.request(format!("$JS.API.{verb}"), None, payload).await;
        let answer = answer.map_err(|_| ApiError::Unavailable)?;
        let answer: Value =
            serde_json::from_slice(&answer.payload).map_err(|_| ApiError::Unavailable)?;
        match answer.get("error") {
            None => Ok(answer),
            Some(error) => Err(ApiError::Refused {
                code: error["err_code"].as_u64().unwrap_or(0),
                text: error["description"].as_str().unwrap_or_default().into(),
            }),
        }
    }

    /// The newest message of a subject.
    pub(super) async fn newest(
        &self,
        stream: &str,
        subject: &str,
    ) -> Result<Option<Stored>, BrokerError> {
        self.get(stream, &json!({ "last_by_subj": subject })).await
    }

    /// The message of that number.
    pub(super) async fn numbered(
        &self,
        stream: &str,
        sequence: u64,
    ) -> Result<Option<Stored>, BrokerError> {
        self.get(stream, &json!({ "seq": sequence })).await
    }

    async fn get(&self, stream: &str, which: &Value) -> Result<Option<Stored>, BrokerError> {
        let answer = match self.api(&format!("STREAM.MSG.GET.{stream}"), which).await {
            Ok(answer) => answer,
            Err(ApiError::Refused { code: NO_MESSAGE, .. }) => return Ok(None),
            Err(_) => return Err(BrokerError::Unavailable),
        };
        let message = &answer["message"];
        let data = STANDARD.decode(message["data"].as_str().unwrap_or_default());
        Ok(Some(Stored {
            subject: message["subject"].as_str().unwrap_or_default().into(),
            sequence: message["seq"].as_u64().unwrap_or(0),
            payload: data.map_err(|_| BrokerError::Unavailable)?.into(),
            at_ms: 0,
        }))
    }

    /// Stores a message if the newest of its subject is still `after` (zero for none), and no message of the same
    /// identifier was stored of late.
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
        let answer = self.request(subject.into(), Some(headers), payload).await?;
        let answer: Value =
            serde_json::from_slice(&answer.payload).map_err(|_| BrokerError::Unavailable)?;
        match answer["error"]["err_code"].as_u64() {
            Some(WRONG_LAST_SEQUENCE) => return Ok(Ack::Conflict),
            Some(_) => return Err(BrokerError::Unavailable),
            None => {}
        }
        let sequence = answer["seq"].as_u64().ok_or(BrokerError::Unavailable)?;
        let is_duplicate = answer["duplicate"].as_bool().unwrap_or(false);
        Ok(if is_duplicate { Ack::Duplicate(sequence) } else { Ack::Stored(sequence) })
    }

    /// Waits until everything that a stream has stored so far was republished, as far as it still will be: the
    /// refusal of a message goes the same way behind it.
    pub(super) async fn barrier(&self, subject: &str) -> Result<(), BrokerError> {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Expected-Stream", "none");
        self.request(subject.into(), Some(headers), Bytes::new()).await.map(|_| ())
    }

    /// Every message that a stream keeps for a subject, which may have wildcards, oldest first.
    pub(super) async fn range(
        &self,
        stream: &str,
        filter: &str,
    ) -> Result<Vec<Stored>, BrokerError> {
        let reading = async {
            match self.newest(stream, filter).await? {
                Some(newest) => self.read_up_to(stream, filter, newest.sequence).await,
                None => Ok(Vec::new()),
            }
        };
        tokio::time::timeout(ANSWER_TIMEOUT, reading).await.map_err(|_| BrokerError::Unavailable)?
    }

    /// The same, when the number of the newest of them is known.
    pub(super) async fn range_up_to(
        &self,
        stream: &str,
        filter: &str,
        newest: u64,
    ) -> Result<Vec<Stored>, BrokerError> {
        let reading = self.read_up_to(stream, filter, newest);
        tokio::time::timeout(ANSWER_TIMEOUT, reading).await.map_err(|_| BrokerError::Unavailable)?
    }

    /// Reads until the newest is there. One server of a cluster reads what it has, and when it has just come back that
    /// may be less than what is stored; another reads the next time, or it has caught up.
    async fn read_up_to(
        &self,
        stream: &str,
        filter: &str,
        mut newest: u64,
    ) -> Result<Vec<Stored>, BrokerError> {
        for attempt in 1.. {
            let stored = self.read_range(stream, filter).await?;
            if stored.last().is_some_and(|last| last.sequence >= newest) {
                return Ok(stored);
            }
            // It may have been removed meanwhile.
            let Some(now) = self.newest(stream, filter).await? else { return Ok(Vec::new()) };
            newest = now.sequence;
            tokio::time::sleep(JETSTREAM_RETRY * attempt).await;
        }
        Err(BrokerError::Unavailable)
    }

    async fn read_range(&self, stream: &str, filter: &str) -> Result<Vec<Stored>, BrokerError> {
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
        let made = made.map_err(|_| BrokerError::Unavailable)?;
        let count = |value: &Value| value.as_u64().unwrap_or(0);
        let mut left = count(&made["num_pending"]) + count(&made["delivered"]["consumer_seq"]);
        let mut stored = Vec::new();
        while left > 0 {
            let message = messages.next().await.ok_or(BrokerError::Unavailable)?;
            if message.status.is_some() {
                // A heartbeat: nothing has come for a while, so that the rest is gone.
                break;
            }
            let Some((sequence, at_ms, pending)) = message.reply.as_deref().and_then(numbers)
            else {
                continue;
            };
            left = pending;
            let subject = message.subject.to_string();
            stored.push(Stored { subject, sequence, payload: message.payload, at_ms });
        }
        Ok(stored)
    }

    /// Removes all that a stream keeps for a subject, which may have wildcards.
    pub(super) async fn purge(&self, stream: &str, filter: &str) -> Result<(), BrokerError> {
        let answer =
            self.api(&format!("STREAM.PURGE.{stream}"), &json!({ "filter": filter })).await;
        answer.map(|_| ()).map_err(|_| BrokerError::Unavailable)
    }

    /// Removes what a stream keeps for a subject, which may have wildcards, before a number.
    pub(super) async fn purge_before(
        &self,
        stream: &str,
        filter: &str,
        sequence: u64,
    ) -> Result<(), BrokerError> {
        if sequence <= 1 {
            // Nothing is before it, but NATS would take this for no bound at all.
            return Ok(());
        }
        let body = json!({ "filter": filter, "seq": sequence });
        let answer = self.api(&format!("STREAM.PURGE.{stream}"), &body).await;
        answer.map(|_| ()).map_err(|_| BrokerError::Unavailable)
    }

    /// Removes what a stream keeps for a subject but the newest.
    pub(super) async fn keep(
        &self,
        stream: &str,
        subject: &str,
        newest: u64,
    ) -> Result<(), BrokerError> {
        let body = json!({ "filter": subject, "keep": newest });
        let answer = self.api(&format!("STREAM.PURGE.{stream}"), &body).await;
        answer.map(|_| ()).map_err(|_| BrokerError::Unavailable)
    }

    async fn request(
        &self,
        subject: String,
        headers: Option<HeaderMap>,
        payload: Bytes,
    ) -> Result<Message, BrokerError> {
        self.check()?;
        let mut request = Request::new().payload(payload).timeout(Some(ANSWER_TIMEOUT));
        if let Some(headers) = headers {
            request = request.headers(headers);
        }
        self.client.send_request(subject, request).await.map_err(|_| BrokerError::Unavailable)
    }
}

/// A duration as the API of JetStream wants it.
pub(super) fn nanoseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Number, Unix milliseconds and messages to come, as the reply subject of a delivery tells them: the last words of
/// `$JS.ACK.….<stream sequence>.<consumer sequence>.<nanoseconds>.<pending>`, in its longer form with one word more.
fn numbers(reply: &str) -> Option<(u64, u64, u64)> {
    let words: Vec<&str> = reply.split('.').collect();
    let first = if words.len() >= 12 { 7 } else { 5 };
    let number = |index: usize| words.get(index)?.parse::<u64>().ok();
    Some((number(first)?, number(first + 2)? / 1_000_000, number(first + 3)?))
}

/// JetStream: there is no such message.
const NO_MESSAGE: u64 = 10037;
/// JetStream: the last message of the subject is another.
const WRONG_LAST_SEQUENCE: u64 = 10071;
