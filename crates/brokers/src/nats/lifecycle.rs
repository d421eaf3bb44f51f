//! Clients that come and go: an entry each among the present ones, in the system's own channel, so
//! that whoever clears a node away finds them; and an event each, for those who listen and in a
//! stream for backends.
//!
//! Invariant: the entry comes before the event that a client is online, and goes behind the one
//! that it is offline, so that one of them is always there to tell of its end; what could not be
//! told while NATS was away is told when it is back.

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
use wire::protocol::{ClientInfo, PushEvent};

use super::channel_task::BROKEN;
use super::presence::PresenceStore;
use super::stream::ChannelStream;
use super::{record, subject};
use crate::lifecycle::LifecycleQueue;
use crate::{Endpoint, lifecycle};

/// Tells what is new of this node's clients.
pub(super) struct LifecyclePublisher {
    queue: RefCell<LifecycleQueue>,
    presence: Rc<PresenceStore>,
    /// Something is new, or NATS may be back.
    wake: Notify,
    has_tried: Notify,
    /// All who are online are to be told again.
    wants_all: Cell<bool>,
    /// What comes next may have been told before, but that is not known.
    is_retry: Cell<bool>,
    is_broken: Cell<bool>,
}

/// Why the clients of a node that fell silent are offline.
const NODE_LOST: &str = "node lost";

/// Owns the entries of clients that are online, whichever worker has them.
pub(super) const NODE: Endpoint = Endpoint(u32::MAX);

/// Time to tell the rest when the node ends.
const END_TIMEOUT: Duration = Duration::from_secs(1);

impl LifecyclePublisher {
    pub(super) fn new(presence: Rc<PresenceStore>) -> LifecyclePublisher {
        LifecyclePublisher {
            queue: RefCell::default(),
            presence,
            wake: Notify::new(),
            has_tried: Notify::new(),
            wants_all: Cell::new(false),
            is_retry: Cell::new(false),
            is_broken: Cell::new(false),
        }
    }

    /// A client came or went.
    pub(super) fn note(&self, endpoint: Endpoint, lifecycle: Lifecycle) {
        self.queue.borrow_mut().note(endpoint, lifecycle);
        self.wake.notify_one();
    }

    /// A worker is gone, and its clients with it.
    pub(super) fn forget(&self, endpoint: Endpoint) {
        self.queue.borrow_mut().forget(endpoint, self.presence.unix_ms());
        self.wake.notify_one();
    }

    /// What could not be told may be told now.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Backends may take this node's clients for offline: all who are online are told again.
    pub(super) fn requeue_online(&self) {
        self.wants_all.set(true);
        self.wake.notify_one();
    }

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

    /// Whether there is nothing left to tell.
    pub(super) fn is_quiet(&self) -> bool {
        self.queue.borrow().is_quiet()
    }

    /// Tells the rest, as far as there is time.
    pub(super) async fn end(&self) {
        let sending = async {
            while !self.is_quiet() {
                self.wake.notify_one();
                self.has_tried.notified().await;
            }
        };
        // Other nodes find what is left when the lease ends.
        let _late = tokio::time::timeout(END_TIMEOUT, sending).await;
    }

    /// Tells some of it; says whether it makes sense to go on.
    async fn send_some(&self) -> bool {
        // What is told once more must be known as the same, and what is told anew must not.
        if !self.is_retry.get() && self.wants_all.take() {
            self.presence.generation.set(self.presence.generation.get() + 1);
            self.queue.borrow_mut().requeue_online();
        }
        let Some(events) = self.queue.borrow_mut().take() else { return false };
        let mut unsent = UnsentBatch { publisher: self, events };
        let mut rest = &unsent.events[..];
        while !rest.is_empty() {
            // Of one client one after the other.
            let mut clients = HashSet::new();
            let together = rest.iter().take_while(|one| clients.insert(&*one.info.client)).count();
            let (some, others) = rest.split_at(together);
            let results = join_all(some.iter().map(|one| self.presence.note(one))).await;
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
}

/// What is being told; what was not when it is dropped is told again.
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

impl PresenceStore {
    async fn note(&self, lifecycle: &Lifecycle) -> Result<(), BrokerError> {
        self.link.check()?;
        let channel: Arc<str> = LIFECYCLE.into();
        let token = subject::token(&channel).into();
        let place = ChannelStream { link: self.link.clone(), channel, token };
        match lifecycle.change {
            // Without JetStream nothing is kept of anybody.
            _ if !self.link.keeps => {}
            Change::Online => {
                // What whoever clears it away does not know: the name of its node, and how often it
                // was told.
                let chan_info = format!("{} {}", self.generation.get(), self.name).into();
                let info = ClientInfo { chan_info, ..(*lifecycle.info).clone() };
                self.add(NODE, &place, Arc::new(info)).await;
            }
            Change::Offline { .. } => {}
        }
        self.publish_lifecycle(&self.name, self.generation.get(), lifecycle).await?;
        if self.link.keeps && matches!(lifecycle.change, Change::Offline { .. }) {
            self.remove(NODE, &place, &lifecycle.info.client).await;
        }
        Ok(())
    }

    /// A client of a node that is gone.
    pub(super) async fn publish_lost(&self, info: Arc<ClientInfo>) -> Result<(), BrokerError> {
        let results = String::from_utf8_lossy(&info.chan_info).into_owned();
        let (generation, name) = results.split_once(' ').unwrap_or(("", &results));
        let change = Change::Offline { reason: NODE_LOST.into() };
        let lost = Lifecycle { info, change, at_ms: self.unix_ms() };
        self.publish_lifecycle(name, generation.parse().unwrap_or(0), &lost).await
    }

    fn unix_ms(&self) -> i64 {
        i64::try_from(self.link.now_ms()).unwrap_or(i64::MAX)
    }

    async fn publish_lifecycle(
        &self,
        node: &str,
        generation: u64,
        lifecycle: &Lifecycle,
    ) -> Result<(), BrokerError> {
        let publication = lifecycle::publication(node, lifecycle);
        let event = publication.data.clone();
        if self.link.keeps {
            let (client, change) = (&lifecycle.info.client, lifecycle.change.words().0);
            let identifier = format!("{client}-{change}-{generation}");
            let length = event.len();
            match self.link.store(&self.link.names.events(), None, &identifier, event).await {
                // It never fits, and those behind it must be told of.
                Err(BrokerError::TooLarge) => {
                    self.link.shared.warnings.add(format!(
                        "a lifecycle event is not published, since it is larger than NATS takes ({length} bytes, \
                         max_payload of nats-server)"
                    ));
                    return Ok(());
                }
                stored => stored?,
            };
        }
        let channel: Arc<str> = LIFECYCLE.into();
        let subject = self.link.names.channel(&subject::token(&channel));
        let said = record::plain(&channel, PushEvent::Publication(Arc::new(publication)));
        match self.link.publish(subject, said).await {
            Err(BrokerError::TooLarge) => Ok(()),
            published => published,
        }
    }
}
