//! The connection to NATS and what is asked over it: requests with a time-out, and the echo.
//!
//! Invariants: a question has an answer within [`ANSWER_TIMEOUT`], and at once when the link is
//! down; nothing is sent that would make the server close the connection.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_nats::client::{PublishErrorKind, RequestErrorKind};
use async_nats::connection::State;
use async_nats::{Client, HeaderMap, Message, Request, Subscriber};
use bytes::Bytes;
use engine::broker::BrokerError;
use futures_util::StreamExt;
use tokio::sync::{Notify, Semaphore, oneshot};
use wire::protocol::StreamPosition;

use super::Shared;
use super::availability::UnavailableCause;
use super::channel_task::BROKEN;
use super::generation::StoreGenerations;
use super::record::Top;
use super::subject::Names;
use super::task::Tasks;
use crate::Clock;
use crate::limits::{ANSWER_TIMEOUT, NATS_IN_FLIGHT_MAX, NATS_READS_MAX, NATS_SUBJECT_MAX};

/// See the module.
pub(super) struct NatsLink {
    pub(super) client: Client,
    pub(super) names: Names,
    /// Whether JetStream is used.
    pub(super) keeps: bool,
    clock: Arc<dyn Clock>,
    /// Milliseconds by which the clock of NATS is ahead of ours; all nodes count in the time of
    /// NATS.
    ahead_ms: Cell<u64>,
    epochs: Cell<u64>,
    pub(super) generations: StoreGenerations,
    echo: Echo,
    /// Reads of stored messages that may go on at the same time.
    pub(super) reads: Semaphore,
    /// A connection was lost: what was asked over it has no answer any more.
    pub(super) is_cut: Notify,
    /// A stream was asked for that is not there: whoever sees to that is woken.
    pub(super) is_stream_missing: Cell<bool>,
    pub(super) misses_stream: Notify,
    pub(super) tasks: Tasks,
    pub(super) shared: Arc<Shared>,
}

/// Why a request has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestError {
    /// The link is down.
    Down,
    /// Nothing came in time.
    Late,
    /// Nobody listens to the subject.
    NoResponders,
    /// Asking again does not help.
    Refused(BrokerError),
}

#[derive(Default)]
struct Echo {
    waiting: RefCell<Vec<oneshot::Sender<()>>>,
    wanted: Notify,
    /// Bytes handed to the connection so far, and how many of them the server is known to have
    /// handled.
    sent: Cell<u64>,
    handled: Cell<u64>,
    is_broken: Cell<bool>,
}

/// An echo on its way.
struct Flying {
    number: u64,
    /// What was handed to the connection before it.
    sent: u64,
    waiting: Vec<oneshot::Sender<()>>,
}

impl NatsLink {
    pub(super) fn new(
        client: Client,
        names: Names,
        keeps: bool,
        clock: Arc<dyn Clock>,
        tasks: Tasks,
        shared: Arc<Shared>,
    ) -> NatsLink {
        NatsLink {
            client,
            names,
            keeps,
            clock,
            ahead_ms: Cell::new(0),
            epochs: Cell::new(0),
            generations: StoreGenerations::default(),
            echo: Echo::default(),
            reads: Semaphore::new(NATS_READS_MAX),
            is_cut: Notify::new(),
            is_stream_missing: Cell::new(false),
            misses_stream: Notify::new(),
            tasks,
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

    /// Where a stream stands, as endpoints are told it.
    pub(super) fn position(&self, top: &Top) -> StreamPosition {
        StreamPosition {
            offset: top.offset,
            epoch: self.generations.client_epoch(&top.epoch).to_string(),
        }
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

    /// Whether so much is on its way that publications must wait.
    pub(super) fn is_congested(&self) -> bool {
        let in_flight = self.echo.sent.get().saturating_sub(self.echo.handled.get());
        if in_flight > NATS_IN_FLIGHT_MAX as u64 / 2 {
            // That shows what has arrived.
            self.echo.wanted.notify_one();
        }
        in_flight > NATS_IN_FLIGHT_MAX as u64
    }

    pub(super) async fn subscribe(&self, subject: String) -> Result<Subscriber, BrokerError> {
        self.check()?;
        self.admit(&subject, 0)?;
        self.client.subscribe(subject).await.map_err(|_| BrokerError::Unavailable)
    }

    /// Hands a message to the connection; that the server has it is known when an echo behind it is
    /// back.
    pub(super) async fn publish(&self, subject: String, payload: Bytes) -> Result<(), BrokerError> {
        self.check()?;
        self.admit(&subject, payload.len())?;
        self.client.publish(subject, payload).await.map_err(|error| match error.kind() {
            PublishErrorKind::MaxPayloadExceeded => BrokerError::TooLarge,
            PublishErrorKind::InvalidSubject | PublishErrorKind::Send => BrokerError::Unavailable,
        })
    }

    /// Whether a line with this subject fits the server, which closes the connection otherwise;
    /// counts what is sent.
    fn admit(&self, subject: &str, payload_length: usize) -> Result<(), BrokerError> {
        if subject.len() > NATS_SUBJECT_MAX {
            return Err(BrokerError::NameTooLong);
        }
        let length = (subject.len() + payload_length) as u64;
        self.echo.sent.set(self.echo.sent.get() + length);
        Ok(())
    }

    /// Waits until the server has handled everything that was handed to the connection before.
    pub(super) async fn echo(&self) -> Result<(), BrokerError> {
        self.check()?;
        let connection = self.connection();
        let (sender, receiver) = oneshot::channel();
        self.echo.waiting.borrow_mut().push(sender);
        self.echo.wanted.notify_one();
        tokio::select! {
            biased;
            answer = tokio::time::timeout(ANSWER_TIMEOUT, receiver) => match answer {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(_)) | Err(_) => self.shared.availability.set(UnavailableCause::Link, SILENT),
            },
            () = self.cut(connection) => {}
        }
        Err(BrokerError::Unavailable)
    }

    /// Waits for the end of a connection.
    async fn cut(&self, connection: u64) {
        loop {
            let is_cut = self.is_cut.notified();
            if self.connection() != connection || self.check().is_err() {
                return;
            }
            is_cut.await;
        }
    }

    /// Sends one echo for all that wait for one in a turn. Ends with its subscription.
    pub(super) async fn run_echo(self: Rc<NatsLink>) {
        let Ok(mut received) = self.client.subscribe(self.names.echo()).await else { return };
        let mut flying = VecDeque::new();
        let mut number = 0u64;
        loop {
            tokio::select! {
                () = self.echo.wanted.notified() => {
                    assert!(!self.echo.is_broken.take(), "{BROKEN}");
                    let waiting = self.echo.waiting.take();
                    number += 1;
                    let sent = self.echo.sent.get();
                    let payload = number.to_string().into();
                    if self.publish(self.names.echo(), payload).await.is_ok() {
                        flying.push_back(Flying { number, sent, waiting });
                    }
                }
                message = received.next() => {
                    let Some(message) = message else { return };
                    let back = std::str::from_utf8(&message.payload).ok();
                    let back: u64 = back.and_then(|text| text.parse().ok()).unwrap_or(0);
                    self.shared.availability.clear(UnavailableCause::Link);
                    self.handle_echo(&mut flying, back);
                }
            }
        }
    }

    pub(super) fn break_echo(&self) {
        self.echo.is_broken.set(true);
        self.echo.wanted.notify_one();
    }

    fn handle_echo(&self, flying: &mut VecDeque<Flying>, back: u64) {
        while flying.front().is_some_and(|echo| echo.number <= back) {
            let Some(echo) = flying.pop_front() else { return };
            if echo.number == back {
                self.echo.handled.set(echo.sent);
                for sender in echo.waiting {
                    // Whoever has given up does not hear it.
                    let _gone = sender.send(());
                }
            }
        }
    }

    pub(super) async fn request(
        &self,
        subject: String,
        headers: Option<HeaderMap>,
        payload: Bytes,
    ) -> Result<Message, RequestError> {
        self.check().map_err(|_| RequestError::Down)?;
        self.admit(&subject, payload.len()).map_err(RequestError::Refused)?;
        let mut request = Request::new().payload(payload).timeout(Some(ANSWER_TIMEOUT));
        if let Some(headers) = headers {
            request = request.headers(headers);
        }
        let connection = self.connection();
        let answer = tokio::select! {
            biased;
            answer = self.client.send_request(subject, request) => answer,
            () = self.cut(connection) => return Err(RequestError::Down),
        };
        answer.map_err(|error| match error.kind() {
            RequestErrorKind::MaxPayloadExceeded => RequestError::Refused(BrokerError::TooLarge),
            RequestErrorKind::NoResponders => RequestError::NoResponders,
            RequestErrorKind::TimedOut => RequestError::Late,
            RequestErrorKind::InvalidSubject | RequestErrorKind::Other => RequestError::Down,
        })
    }
}

impl From<RequestError> for BrokerError {
    fn from(error: RequestError) -> BrokerError {
        match error {
            RequestError::Refused(error) => error,
            RequestError::Down | RequestError::Late | RequestError::NoResponders => {
                BrokerError::Unavailable
            }
        }
    }
}

/// Why nothing is sent.
pub(super) const SILENT: &str = "NATS does not answer (broker.nats.url)";
