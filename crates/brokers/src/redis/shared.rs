//! State shared by the broker's thread and its callers: endpoints, request queue, health.
//!
//! Invariant: locks are held for a few instructions only.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use wire::protocol::ClientInfo;

use super::driver_messages::Job;
use super::published_leaves::PublishedLeaves;
use super::unavailable::UnavailableReason;
use crate::channel_options::ChannelOptions;
use crate::endpoints::Endpoints;
use crate::limits::{QUEUE_BYTES_MAX, QUEUE_MAX};
use crate::warnings::Warnings;
use crate::{Endpoint, LeavePublisher};

/// State shared between threads; see the module.
pub(super) struct Shared {
    pub(super) endpoints: Endpoints,
    queue: Mutex<Vec<Job>>,
    /// Queued requests that expect a reply.
    questions: AtomicUsize,
    /// Bytes of queued publications.
    bytes: AtomicUsize,
    wake: Notify,
    is_closed: AtomicBool,
    health: Mutex<Option<UnavailableReason>>,
    lag_us: AtomicU64,
    pub(super) warnings: Warnings,
    pub(super) options: ChannelOptions,
    /// Publishes leaves if Redis carries only presence.
    leaves: Option<Arc<dyn LeavePublisher>>,
}

impl Shared {
    pub(super) fn new(leaves: Option<Arc<dyn LeavePublisher>>) -> Shared {
        Shared {
            endpoints: Endpoints::default(),
            queue: Mutex::default(),
            questions: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            wake: Notify::new(),
            is_closed: AtomicBool::new(false),
            health: Mutex::new(Some(UnavailableReason::Starting)),
            lag_us: AtomicU64::new(0),
            warnings: Warnings::default(),
            options: ChannelOptions::default(),
            leaves,
        }
    }

    pub(super) fn publish_leave(&self, channel: Arc<str>, info: Arc<ClientInfo>) {
        if let Some(leaves) = &self.leaves {
            leaves.publish_leave(channel, info);
        }
    }

    /// Queues a job with the answer.
    pub(super) fn confirm_leaves(shared: &Arc<Shared>, leaves: PublishedLeaves) {
        let Some(publisher) = &shared.leaves else { return };
        let (channel, weak) = (leaves.channel.clone(), Arc::downgrade(shared));
        publisher.confirm(
            channel,
            Box::new(move |result| {
                let Some(shared) = weak.upgrade() else { return };
                if shared.push(Job::LeavesConfirmed(leaves, result), 0) {
                    shared.wake();
                }
            }),
        );
    }

    pub(super) fn detach(&self, endpoint: Endpoint) {
        self.endpoints.detach(endpoint);
        if self.push(Job::Detach { endpoint }, 0) {
            self.wake();
        }
    }

    /// Announces the channel options with a renewal of the lease, at once.
    pub(super) fn announce_options(&self) {
        if self.push(Job::Announce(self.options.encoded()), 0) {
            self.wake();
        }
    }

    /// Whether a request that expects a reply may be queued. Other requests result from session
    /// events, must not be lost, and are bounded by the sessions.
    pub(super) fn has_room(&self) -> bool {
        self.questions.load(Ordering::Relaxed) < QUEUE_MAX
            && self.bytes.load(Ordering::Relaxed) < QUEUE_BYTES_MAX
    }

    /// Queues a job. Returns whether the queue was empty: then the caller must have it processed.
    #[must_use]
    pub(super) fn push(&self, job: Job, questions: usize) -> bool {
        let bytes = job.length();
        let mut queue = lock(&self.queue);
        queue.push(job);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.questions.fetch_add(questions, Ordering::Relaxed);
        queue.len() == 1
    }

    /// Wakes the broker's thread.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Swaps the queue with the empty `jobs`.
    pub(super) fn take(&self, jobs: &mut Vec<Job>) {
        let mut queue = lock(&self.queue);
        std::mem::swap(&mut *queue, jobs);
        self.questions.store(0, Ordering::Relaxed);
        self.bytes.store(0, Ordering::Relaxed);
    }

    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        self.wake();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::SeqCst)
    }

    pub(super) fn reason(&self) -> Option<UnavailableReason> {
        lock(&self.health).clone()
    }

    pub(super) fn set_unavailable(&self, reason: Option<UnavailableReason>) {
        *lock(&self.health) = reason;
    }

    pub(super) fn note_lag(&self, lag: Duration) {
        self.lag_us.store(u64::try_from(lag.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn lag(&self) -> Duration {
        Duration::from_micros(self.lag_us.load(Ordering::Relaxed))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
