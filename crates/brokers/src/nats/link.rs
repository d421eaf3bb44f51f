//! The connection to NATS: publications, requests with a time-out, and the echo.
//!
//! Invariants: a request ends within [`ANSWER_TIMEOUT`], and at once when the connection is lost,
//! and so does the wait for a place in its queue; no line is sent that would make the server close
//! the connection.

use std::cell::{Cell, Ref, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use async_nats::client::{PublishErrorKind, RequestErrorKind};
use async_nats::connection::State;
use async_nats::{Client, HeaderMap, Message, Request, Subscriber};
use bytes::Bytes;
use engine::broker::BrokerError;
use futures_util::StreamExt;
use tokio::sync::{Notify, Semaphore, oneshot};
use tracing::info;

use super::Shared;
use super::availability::UnavailableCause;
use super::generation::{Generation, StoreGenerations};
use super::node_state::{LinkState, NodeState, NodeView};
use super::subject::Names;
use super::task::{BROKEN, Tasks};
use crate::Clock;
use crate::limits::{
    ANSWER_TIMEOUT, NATS_ECHOES_MAX, NATS_IN_FLIGHT_MAX, NATS_READS_MAX, NATS_SUBJECT_MAX,
};

/// See the module.
pub(super) struct NatsLink {
    pub(super) client: Client,
    pub(super) names: Names,
    pub(super) has_jetstream: bool,
    clock: Arc<dyn Clock>,
    /// Milliseconds by which the clock of NATS is ahead of ours; all nodes use the time of NATS.
    ahead_ms: Cell<u64>,
    /// The state that the cores share.
    state: RefCell<NodeState>,
    /// Wakes requests that wait until the store is verified.
    has_verified: Notify,
    /// A generation has begun, or another server leads the history stream and messages of the
    /// former leader may be lost: every channel with subscribers must be verified.
    pub(super) wants_verification: Notify,
    /// The store must be checked: it may have lost messages, lack a stream, or refuse reads.
    pub(super) wants_store_check: Notify,
    /// Why the last read of a history was refused, until the store is checked.
    read_refusal: RefCell<Option<String>>,
    echo: Echo,
    /// One permit for each read of stored messages.
    pub(super) reads: Semaphore,
    /// A connection was lost: requests over it get no answer.
    pub(super) is_cut: Notify,
    /// A stream was missing when it was used; the node creates it.
    pub(super) is_stream_missing: Cell<bool>,
    pub(super) tasks: Tasks,
    pub(super) shared: Arc<Shared>,
}

/// What a link needs beside its connection.
pub(super) struct LinkContext {
    pub(super) names: Names,
    pub(super) has_jetstream: bool,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) shared: Arc<Shared>,
}

/// Why a request has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestError {
    /// There is no connection, or it was lost.
    Down,
    /// No answer within [`ANSWER_TIMEOUT`].
    Late,
    /// The subject has no subscriber.
    NoResponders,
    /// The request cannot succeed.
    Refused(BrokerError),
}

/// Messages of this node to itself: an echo that returns shows that the server has handled all
/// that was sent before it.
#[derive(Default)]
struct Echo {
    /// Waiters for the next echo; each is a request or a task, bounded by `REQUESTS_MAX`.
    waiting: RefCell<Vec<oneshot::Sender<()>>>,
    wanted: Notify,
    /// Bytes handed to the connection so far.
    sent: Cell<u64>,
    /// How many of these the last echo has confirmed.
    handled: Cell<u64>,
    is_broken: Cell<bool>,
}

/// An echo that has not returned.
struct FlyingEcho {
    number: u64,
    /// Value of [`Echo::sent`] when it was sent.
    sent: u64,
    waiting: Vec<oneshot::Sender<()>>,
}

impl NatsLink {
    pub(super) fn new(client: Client, tasks: Tasks, context: LinkContext) -> NatsLink {
        let LinkContext { names, has_jetstream, clock, shared } = context;
        let state = NodeState::new(names.node.clone());
        NatsLink {
            client,
            names,
            has_jetstream,
            clock,
            ahead_ms: Cell::new(0),
            state: RefCell::new(state),
            has_verified: Notify::new(),
            wants_verification: Notify::new(),
            wants_store_check: Notify::new(),
            read_refusal: RefCell::default(),
            echo: Echo::default(),
            reads: Semaphore::new(NATS_READS_MAX),
            is_cut: Notify::new(),
            is_stream_missing: Cell::new(false),
            tasks,
            shared,
        }
    }

    /// Unix milliseconds by the clock of NATS, which all nodes share.
    pub(super) fn now_ms(&self) -> u64 {
        self.clock.monotonic_ms().saturating_add(self.ahead_ms.get())
    }

    pub(super) fn set_now(&self, now_ms: u64) {
        self.ahead_ms.set(now_ms.saturating_sub(self.clock.monotonic_ms()));
    }

    /// [`NatsLink::now_ms`] as lifecycle events carry it.
    pub(super) fn unix_ms(&self) -> i64 {
        i64::try_from(self.now_ms()).unwrap_or(i64::MAX)
    }

    /// A name that no other epoch has.
    pub(super) fn new_epoch(&self) -> Arc<str> {
        self.state.borrow_mut().new_epoch()
    }

    /// Lets a core handle an input with what is known now.
    pub(super) fn with_view<T>(&self, handle: impl FnOnce(&mut NodeView<'_>) -> T) -> T {
        let link = LinkState {
            connection: self.connection(),
            is_connected: self.check().is_ok(),
            is_congested: self.is_congested(),
            has_jetstream: self.has_jetstream,
        };
        let (now, now_ms) = (Instant::now(), self.now_ms());
        let state = &mut *self.state.borrow_mut();
        let result = handle(&mut NodeView { now, now_ms, link, state });
        if state.generations.take_check() {
            self.wants_store_check.notify_one();
        }
        result
    }

    pub(super) fn generations(&self) -> Ref<'_, StoreGenerations> {
        Ref::map(self.state.borrow(), |state| &state.generations)
    }

    /// Records a message of the history stream: see [`StoreGenerations::record`].
    pub(super) fn record(&self, above: u64, sequence: u64, payload: &Bytes) {
        self.with_view(|view| view.record(above, sequence, payload));
    }

    /// Records the server that leads the history stream.
    pub(super) fn record_leader(&self, leader: &str) {
        if self.state.borrow_mut().generations.record_leader(leader) {
            info!(%leader, "NATS: another server leads the history stream");
            self.wants_verification.notify_one();
        }
    }

    /// See [`StoreGenerations::set_started`].
    pub(super) fn set_started(&self) {
        self.state.borrow_mut().generations.set_started();
    }

    /// The store has shown the high-water mark on this connection.
    pub(super) fn set_verified(&self, connection: u64) {
        self.state.borrow_mut().generations.set_verified(connection);
        self.has_verified.notify_waiters();
    }

    pub(super) fn begin_generation(&self, generation: Generation) {
        info!(
            generation = generation.number,
            "NATS: a generation of the store has begun, and with it new epochs of all channels"
        );
        self.state.borrow_mut().generations.begin(generation);
        self.wants_verification.notify_one();
    }

    pub(super) fn is_verified(&self) -> bool {
        self.generations().is_verified(self.connection())
    }

    /// Waits until the store is verified on the current connection.
    pub(super) async fn verified(&self) -> Result<(), BrokerError> {
        let waiting = async {
            loop {
                let has_verified = self.has_verified.notified();
                if self.is_verified() {
                    return;
                }
                has_verified.await;
            }
        };
        tokio::time::timeout(ANSWER_TIMEOUT, waiting).await.map_err(|_| BrokerError::Unavailable)
    }

    /// A history cannot be read. The node is unready only if a check of the store cannot read one
    /// either, since a limit of consumers may be exceeded for a moment.
    pub(super) fn report_read_refusal(&self, reason: String) {
        let is_first = self.read_refusal.replace(Some(reason)).is_none();
        if is_first && !self.shared.availability.has(UnavailableCause::Read) {
            self.wants_store_check.notify_one();
        }
    }

    pub(super) fn take_read_refusal(&self) -> Option<String> {
        self.read_refusal.take()
    }

    /// The number of the current connection, counted from one.
    pub(super) fn connection(&self) -> u64 {
        self.client.statistics().connects.load(Ordering::Relaxed)
    }

    pub(super) fn check(&self) -> Result<(), BrokerError> {
        match self.client.connection_state() {
            State::Connected => Ok(()),
            State::Pending | State::Disconnected => Err(BrokerError::Unavailable),
        }
    }

    /// Returns whether unconfirmed bytes exceed [`NATS_IN_FLIGHT_MAX`], so that publications must
    /// be refused.
    fn is_congested(&self) -> bool {
        let in_flight = self.echo.sent.get().saturating_sub(self.echo.handled.get());
        if in_flight > NATS_IN_FLIGHT_MAX as u64 / 2 {
            // Its return confirms them.
            self.echo.wanted.notify_one();
        }
        in_flight > NATS_IN_FLIGHT_MAX as u64
    }

    pub(super) async fn subscribe(&self, subject: String) -> Result<Subscriber, BrokerError> {
        self.check()?;
        self.admit(&subject, 0)?;
        let subscribed = self.enqueue(self.client.subscribe(subject)).await?;
        subscribed.map_err(|_| BrokerError::Unavailable)
    }

    /// Hands a message to the connection; [`NatsLink::echo`] confirms that the server has it.
    pub(super) async fn publish(&self, subject: String, payload: Bytes) -> Result<(), BrokerError> {
        self.check()?;
        self.admit(&subject, payload.len())?;
        let published = self.enqueue(self.client.publish(subject, payload)).await?;
        published.map_err(|error| match error.kind() {
            PublishErrorKind::MaxPayloadExceeded => BrokerError::TooLarge,
            PublishErrorKind::InvalidSubject | PublishErrorKind::Send => BrokerError::Unavailable,
        })
    }

    /// Waits for a place in the queue of the connection, which is not emptied while the server does
    /// not read.
    async fn enqueue<T>(&self, command: impl Future<Output = T>) -> Result<T, BrokerError> {
        let connection = self.connection();
        tokio::select! {
            biased;
            done = command => Ok(done),
            () = self.cut(connection) => Err(BrokerError::Unavailable),
            () = tokio::time::sleep(ANSWER_TIMEOUT) => Err(BrokerError::Unavailable),
        }
    }

    /// Refuses a subject too long for a line, for which the server would close the connection, and
    /// counts the bytes sent.
    fn admit(&self, subject: &str, payload_length: usize) -> Result<(), BrokerError> {
        if subject.len() > NATS_SUBJECT_MAX {
            return Err(BrokerError::NameTooLong);
        }
        let length = (subject.len() + payload_length) as u64;
        self.echo.sent.set(self.echo.sent.get() + length);
        Ok(())
    }

    /// Waits until the server has handled everything that was handed to the connection so far.
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

    /// Waits until this connection is lost.
    async fn cut(&self, connection: u64) {
        loop {
            let is_cut = self.is_cut.notified();
            if self.connection() != connection || self.check().is_err() {
                return;
            }
            is_cut.await;
        }
    }

    /// Sends one echo for all waiters of a turn. Ends with its subscription.
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
                        if flying.len() >= NATS_ECHOES_MAX {
                            // Fails its waiters, as a lost echo does.
                            flying.pop_front();
                        }
                        flying.push_back(FlyingEcho { number, sent, waiting });
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

    /// Makes the echo task panic, for tests of the supervision.
    pub(super) fn break_echo(&self) {
        self.echo.is_broken.set(true);
        self.echo.wanted.notify_one();
    }

    fn handle_echo(&self, flying: &mut VecDeque<FlyingEcho>, back: u64) {
        while flying.front().is_some_and(|echo| echo.number <= back) {
            let Some(echo) = flying.pop_front() else { return };
            if echo.number == back {
                self.echo.handled.set(echo.sent);
                for sender in echo.waiting {
                    // The waiter may have timed out.
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

/// The reason of [`UnavailableCause::Link`].
pub(super) const SILENT: &str = "NATS does not answer (broker.nats.url)";
