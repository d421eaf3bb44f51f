//! An endpoint of the broker that sends requests and waits for replies: for the service and the
//! cluster.
//!
//! Invariant: every request ends with a reply or after [`REPLY_TIMEOUT`], and is then removed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use brokers::{BrokerParts, PartsEndpoint};
use bytes::Bytes;
use engine::broker::{BrokerError, BrokerEvent, BrokerRequest, RequestId, Ticket};
use tokio::sync::{Notify, mpsc, oneshot};

use crate::cluster::node::Node;
use crate::cluster::waiting_callers::{Awaited, WaitingCallers};
use crate::limits::REPLY_TIMEOUT;

/// An endpoint that returns replies to its callers.
pub(crate) struct ServiceEndpoint {
    broker: Arc<BrokerParts>,
    endpoint: PartsEndpoint,
    pending: Arc<PendingRequests>,
    next: AtomicU64,
}

struct PendingRequests {
    callers: Mutex<WaitingCallers>,
    events: ClusterEvents,
}

/// Receivers of events that are not replies.
struct ClusterEvents {
    asked: mpsc::Sender<NodeQuestion>,
    /// Notified when there may be a new publication in a subscribed channel.
    is_changed: Arc<Notify>,
    /// Node that revocations are applied to.
    node: Arc<Node>,
}

/// A question of another node, and the ticket to answer it with.
pub(crate) type NodeQuestion = (Ticket, Bytes);

/// Removes a pending request when its caller finishes or is cancelled.
struct PendingRequest<'a, T: Awaited>(&'a PendingRequests, RequestId<T>);

impl ServiceEndpoint {
    /// Attaches an endpoint that passes on questions of other nodes, revocations and news of
    /// publications. Questions are dropped while the queue is full.
    pub(crate) fn new(
        broker: Arc<BrokerParts>,
        asked: mpsc::Sender<NodeQuestion>,
        is_changed: Arc<Notify>,
        node: Arc<Node>,
    ) -> ServiceEndpoint {
        let events = ClusterEvents { asked, is_changed, node };
        let pending = Arc::new(PendingRequests { callers: Mutex::default(), events });
        let endpoint = broker.attach(pending.clone());
        ServiceEndpoint { broker, endpoint, pending, next: AtomicU64::new(0) }
    }

    /// Submits a request and waits for its reply; `request` builds the request from an id.
    ///
    /// # Errors
    /// The broker's error; [`BrokerError::Unavailable`] after [`REPLY_TIMEOUT`].
    pub(crate) async fn ask<T: Awaited, R: Into<BrokerRequest>>(
        &self,
        request: impl FnOnce(RequestId<T>) -> R,
    ) -> Result<T, BrokerError> {
        let id = RequestId::new(self.next.fetch_add(1, Ordering::Relaxed));
        let (sender, mut receiver) = oneshot::channel();
        T::callers(&mut self.pending.lock()).insert(id, sender);
        self.broker.submit(self.endpoint, request(id).into());
        // A broker in this process has replied already, with which the request was removed; no
        // timer is needed.
        if let Ok(answer) = receiver.try_recv() {
            return answer;
        }
        let _pending = PendingRequest(&self.pending, id);
        match tokio::time::timeout(REPLY_TIMEOUT, receiver).await {
            Ok(Ok(answer)) => answer,
            _ => Err(BrokerError::Unavailable),
        }
    }

    /// Submits a request that has no answer.
    pub(crate) fn send(&self, request: impl Into<BrokerRequest>) {
        self.broker.submit(self.endpoint, request.into());
    }
}

impl PendingRequests {
    fn lock(&self) -> MutexGuard<'_, WaitingCallers> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl brokers::Inbox for PendingRequests {
    fn deliver(&self, event: BrokerEvent) {
        let ClusterEvents { asked, is_changed, node } = &self.events;
        match event {
            BrokerEvent::Reply(reply) => self.lock().resolve(reply),
            BrokerEvent::Question { ticket, question } => {
                // When the queue is full, the other node counts this one as missing.
                let _full = asked.try_send((ticket, question));
            }
            BrokerEvent::Revocation(change) => node.revoke(&change),
            BrokerEvent::RevocationsStale => node.revoked.is_stale.notify_one(),
            BrokerEvent::Publication { .. } | BrokerEvent::Position { .. } => {
                is_changed.notify_one();
            }
            BrokerEvent::Membership { .. }
            | BrokerEvent::Expired { .. }
            | BrokerEvent::Control(_) => {}
        }
    }

    /// Never full: publications are not queued, and replies are bounded by the requests.
    fn is_full(&self) -> bool {
        false
    }
}

impl<T: Awaited> Drop for PendingRequest<'_, T> {
    fn drop(&mut self) {
        T::callers(&mut self.0.lock()).remove(&self.1);
    }
}

impl Drop for ServiceEndpoint {
    fn drop(&mut self) {
        self.broker.detach(self.endpoint);
    }
}
