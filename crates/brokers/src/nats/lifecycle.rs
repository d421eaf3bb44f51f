//! Lifecycle events of this node's clients: published in order, and backed by a presence entry for
//! each online client in the system channel, from which other nodes learn the clients of a failed
//! node.
//!
//! Invariant: the entry is stored before the online event and removed after the offline event, so
//! that one of both always leads to the offline event. Events that could not be sent are sent when
//! NATS is connected again.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use engine::broker::BrokerError;
use engine::channel::LIFECYCLE;
use engine::lifecycle::{Change, Lifecycle};
use futures_util::future::join_all;
use tokio::sync::Notify;
use wire::protocol::ClientInfo;

use super::lifecycle_events::{self, EventSource};
use super::presence::{NODE, PresenceStore};
use super::subject::ChannelName;
use super::task::BROKEN;
use crate::Endpoint;
use crate::lifecycle::LifecycleQueue;

/// Publishes the lifecycle events of this node's clients.
pub(super) struct LifecyclePublisher {
    queue: RefCell<LifecycleQueue>,
    presence: Rc<PresenceStore>,
    /// There is an event to send, or NATS may be connected again.
    wake: Notify,
    has_tried: Notify,
    /// Whether all online clients must be sent again.
    wants_all: Cell<bool>,
    /// How often all online clients were sent again.
    resend_count: Cell<u64>,
    /// Whether the next batch may have been sent before.
    is_retry: Cell<bool>,
    is_broken: Cell<bool>,
}

/// Time limit for sending the remaining events when the node ends.
const END_TIMEOUT: Duration = Duration::from_secs(1);

impl LifecyclePublisher {
    pub(super) fn new(presence: Rc<PresenceStore>) -> LifecyclePublisher {
        LifecyclePublisher {
            queue: RefCell::default(),
            presence,
            wake: Notify::new(),
            has_tried: Notify::new(),
            wants_all: Cell::new(false),
            resend_count: Cell::new(0),
            is_retry: Cell::new(false),
            is_broken: Cell::new(false),
        }
    }

    /// Queues an event.
    pub(super) fn note(&self, endpoint: Endpoint, lifecycle: Lifecycle) {
        self.queue.borrow_mut().note(endpoint, lifecycle);
        self.wake.notify_one();
    }

    /// Queues offline events for all clients of a worker that has ended.
    pub(super) fn forget(&self, endpoint: Endpoint) {
        self.queue.borrow_mut().forget(endpoint, self.presence.link.unix_ms());
        self.wake.notify_one();
    }

    /// Tries again to send queued events.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Sends all online clients again, since backends may take them for offline.
    pub(super) fn requeue_online(&self) {
        self.wants_all.set(true);
        self.wake.notify_one();
    }

    /// Makes the publisher panic, for tests of the supervision.
    pub(super) fn break_it(&self) {
        self.is_broken.set(true);
        self.wake.notify_one();
    }

    /// Does not end.
    pub(super) async fn run(self: Rc<LifecyclePublisher>) {
        loop {
            assert!(!self.is_broken.take(), "{BROKEN}");
            let goes_on = self.send_some().await;
            self.has_tried.notify_one();
            if !goes_on {
                self.wake.notified().await;
            }
        }
    }

    /// Returns whether no event is queued or in flight.
    pub(super) fn is_quiet(&self) -> bool {
        self.queue.borrow().is_quiet()
    }

    /// Sends the remaining events within [`END_TIMEOUT`].
    pub(super) async fn end(&self) {
        let sending = async {
            while !self.is_quiet() {
                self.wake.notify_one();
                self.has_tried.notified().await;
            }
        };
        // Other nodes send the rest when the lease ends.
        let _late = tokio::time::timeout(END_TIMEOUT, sending).await;
    }

    /// Sends one batch; returns whether another attempt makes sense now.
    async fn send_some(&self) -> bool {
        // A batch that is sent again keeps its count, so that the stream drops duplicates.
        if !self.is_retry.get() && self.wants_all.take() {
            self.resend_count.set(self.resend_count.get() + 1);
            self.queue.borrow_mut().requeue_online();
        }
        let Some(events) = self.queue.borrow_mut().take() else { return false };
        let mut unsent = UnsentBatch { publisher: self, events };
        let mut rest = &unsent.events[..];
        while !rest.is_empty() {
            // Events of one client are sent one after the other.
            let mut clients = HashSet::new();
            let together = rest.iter().take_while(|one| clients.insert(&*one.info.client)).count();
            let (some, others) = rest.split_at(together);
            let results = join_all(some.iter().map(|one| self.send(one))).await;
            if results.iter().any(Result::is_err) {
                return false;
            }
            rest = others;
        }
        unsent.events.clear();
        self.queue.borrow_mut().handle_sent();
        self.is_retry.set(false);
        true
    }

    async fn send(&self, lifecycle: &Lifecycle) -> Result<(), BrokerError> {
        let link = &self.presence.link;
        link.check()?;
        let source =
            EventSource { node: &self.presence.name, resend_count: self.resend_count.get() };
        let name = ChannelName::new(LIFECYCLE.into());
        if link.has_jetstream && matches!(lifecycle.change, Change::Online) {
            let chan_info = source.encode().into();
            let info = ClientInfo { chan_info, ..(*lifecycle.info).clone() };
            let info = Arc::new(info);
            self.presence.add(NODE, &name, &info);
            self.presence.store(NODE, &name, &info).await;
        }
        lifecycle_events::publish(link, &source, lifecycle).await?;
        if link.has_jetstream && matches!(lifecycle.change, Change::Offline { .. }) {
            self.presence.forget(NODE, &name, &lifecycle.info.client);
            self.presence.remove(NODE, &name, &lifecycle.info.client).await;
        }
        Ok(())
    }
}

/// A batch in flight. Events left in it when it is dropped are queued again.
struct UnsentBatch<'a> {
    publisher: &'a LifecyclePublisher,
    events: Vec<Lifecycle>,
}

impl Drop for UnsentBatch<'_> {
    fn drop(&mut self) {
        if !self.events.is_empty() {
            self.publisher.queue.borrow_mut().requeue(std::mem::take(&mut self.events));
            self.publisher.is_retry.set(true);
        }
    }
}
