//! What waits for a worker, and how the worker is woken.
//!
//! Invariant: an input that was sent is seen by the worker's next turn; the wake-up system call is
//! made only when the worker may be asleep.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use engine::SessionKey;
use engine::broker::BrokerEvent;
use engine::revocation::Revocation;
use engine::rules::Rules;
use mio::{Poll, Token, Waker};
use tokio::sync::oneshot;

use super::{Arrival, Census, ClientFilter, WorkerClient, WorkerReport};
use crate::admission::judgement::Judgement;
use crate::limits::INBOX_EVENTS_MAX;

/// The token under which a worker's poller reports a wake-up.
pub(super) const WAKE: Token = Token(usize::MAX);

/// Something for a worker to do.
pub enum Input {
    /// A connection that has completed its handshake.
    Arrival(Box<Arrival>),
    /// The broker has something to say.
    Broker(BrokerEvent),
    /// A token was verified elsewhere.
    Verdict(SessionKey, Judgement),
    /// Somebody wants to know how it goes.
    Report(oneshot::Sender<WorkerReport>),
    /// Somebody wants to know which channels are heard.
    Census(oneshot::Sender<Census>),
    /// Somebody wants to know where clients are.
    Clients(Box<ClientFilter>, oneshot::Sender<Vec<WorkerClient>>),
    /// End the sessions that this is about.
    Revoke(Arc<Revocation>),
    /// A connection has to make room for another one, unless it was authenticated meanwhile.
    MakeRoom(SessionKey),
    /// Other rules from now on.
    Rules(Arc<Rules>),
    /// End all connections, spread over so many milliseconds, and then the thread.
    Drain {
        /// Over how long.
        window_ms: u64,
    },
}

/// See the module.
pub struct WorkerInbox {
    inputs: Mutex<Vec<Input>>,
    length: AtomicUsize,
    may_sleep: AtomicBool,
    waker: Waker,
}

impl WorkerInbox {
    pub(super) fn new() -> io::Result<(Arc<WorkerInbox>, Poll)> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKE)?;
        let inbox = WorkerInbox {
            inputs: Mutex::default(),
            length: AtomicUsize::new(0),
            may_sleep: AtomicBool::new(false),
            waker,
        };
        Ok((Arc::new(inbox), poll))
    }

    /// Adds an input and wakes the worker if need be.
    pub fn send(&self, input: Input) {
        {
            let mut inputs = self.inputs.lock().unwrap_or_else(PoisonError::into_inner);
            inputs.push(input);
            self.length.store(inputs.len(), Ordering::SeqCst);
        }
        // Paired with `prepare_sleep`: either the worker sees the length, or we see that it may
        // sleep.
        if self.may_sleep.swap(false, Ordering::SeqCst)
            && let Err(error) = self.waker.wake()
        {
            tracing::error!(%error, "a worker cannot be woken");
        }
    }

    /// Announces that the worker is about to sleep; `false` when there is something to do instead.
    pub(super) fn prepare_sleep(&self) -> bool {
        self.may_sleep.store(true, Ordering::SeqCst);
        self.length.load(Ordering::SeqCst) == 0
    }

    pub(super) fn end_sleep(&self) {
        self.may_sleep.store(false, Ordering::SeqCst);
    }

    /// Exchanges what waits for the empty `inputs`.
    pub(super) fn take(&self, inputs: &mut Vec<Input>) {
        if self.length.load(Ordering::SeqCst) > 0 {
            let mut waiting = self.inputs.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::swap(&mut *waiting, inputs);
            self.length.store(waiting.len(), Ordering::SeqCst);
        }
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
