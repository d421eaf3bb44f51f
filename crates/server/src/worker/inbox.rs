//! Inbox of a worker: queued inputs, and the wake-up of the worker's thread.
//!
//! Invariant: an input that was sent is seen by the worker's next turn, or dropped if the worker
//! has ended; the wake-up system call is made only when the worker may be asleep.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use engine::broker::BrokerEvent;
use engine::revocation::Revocation;
use engine::rules::Rules;
use engine::{CallOutcome, SessionKey};
use mio::{Poll, Token, Waker};
use tokio::sync::oneshot;

use super::{
    Arrival, ChannelCounts, ClientFilter, SubscriberFilter, WorkerClient, WorkerReport,
    WorkerSubscriber,
};
use crate::admission::call_place::CallPlace;
use crate::admission::token_result::TokenResult;
use crate::limits::INBOX_EVENTS_MAX;

/// The token under which a worker's poller reports a wake-up.
pub(super) const WAKE: Token = Token(usize::MAX);

/// Input of a worker from other threads.
pub enum Input {
    /// A connection that has completed its handshake.
    Arrival(Box<Arrival>),
    /// Event of the broker.
    Broker(BrokerEvent),
    /// Result of the verification of a token on another thread.
    TokenResult(CallPlace, TokenResult),
    /// Result of a call to a backend.
    BackendResult(CallPlace, Box<CallOutcome>),
    /// Request for totals.
    Report(oneshot::Sender<WorkerReport>),
    /// Request for channels with subscribers.
    ChannelCounts(oneshot::Sender<ChannelCounts>),
    /// Request for clients.
    Clients(Box<ClientFilter>, oneshot::Sender<Vec<WorkerClient>>),
    /// Request for subscribers of a channel.
    Subscribers(Box<SubscriberFilter>, oneshot::Sender<Vec<WorkerSubscriber>>),
    /// Close the sessions that a revocation applies to.
    Revoke(Arc<Revocation>),
    /// Close a connection to free its slot, unless it has been authenticated meanwhile.
    MakeRoom(SessionKey),
    /// New limits and channel options.
    Rules(Arc<Rules>),
    /// Close all connections, then end the thread.
    Drain {
        /// Time in milliseconds over which connections are closed.
        window_ms: u64,
    },
}

/// Queue of inputs of one worker.
pub struct WorkerInbox {
    queue: Mutex<Queue>,
    length: AtomicUsize,
    may_sleep: AtomicBool,
    waker: Waker,
}

#[derive(Default)]
struct Queue {
    inputs: Vec<Input>,
    /// Whether the worker has ended.
    is_closed: bool,
}

impl WorkerInbox {
    pub(super) fn new() -> io::Result<(Arc<WorkerInbox>, Poll)> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKE)?;
        let inbox = WorkerInbox {
            queue: Mutex::default(),
            length: AtomicUsize::new(0),
            may_sleep: AtomicBool::new(false),
            waker,
        };
        Ok((Arc::new(inbox), poll))
    }

    /// Queues an input and wakes the worker if it may be asleep. After the worker has ended, drops
    /// the input, and with it the sender of its answer.
    pub fn send(&self, input: Input) {
        {
            let mut queue = self.queue();
            if queue.is_closed {
                drop(queue);
                return;
            }
            queue.inputs.push(input);
            self.length.store(queue.inputs.len(), Ordering::SeqCst);
        }
        // Paired with `prepare_sleep`: either the worker sees the length, or we see that it may
        // sleep.
        if self.may_sleep.swap(false, Ordering::SeqCst)
            && let Err(error) = self.waker.wake()
        {
            tracing::error!(%error, "a worker cannot be woken");
        }
    }

    /// Announces that the worker is about to sleep. Returns `false` if inputs are queued.
    pub(super) fn prepare_sleep(&self) -> bool {
        self.may_sleep.store(true, Ordering::SeqCst);
        self.length.load(Ordering::SeqCst) == 0
    }

    pub(super) fn end_sleep(&self) {
        self.may_sleep.store(false, Ordering::SeqCst);
    }

    /// Swaps the queued inputs with the empty `inputs`.
    pub(super) fn take(&self, inputs: &mut Vec<Input>) {
        if self.length.load(Ordering::SeqCst) > 0 {
            let mut queue = self.queue();
            std::mem::swap(&mut queue.inputs, inputs);
            self.length.store(queue.inputs.len(), Ordering::SeqCst);
        }
    }

    /// The worker ends: drops queued and later inputs.
    pub(super) fn close(&self) {
        let dropped = {
            let mut queue = self.queue();
            queue.is_closed = true;
            self.length.store(0, Ordering::SeqCst);
            std::mem::take(&mut queue.inputs)
        };
        drop(dropped);
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl brokers::Inbox for WorkerInbox {
    fn deliver(&self, event: BrokerEvent) {
        self.send(Input::Broker(event));
    }

    fn is_full(&self) -> bool {
        self.length.load(Ordering::Relaxed) >= INBOX_EVENTS_MAX
    }
}
