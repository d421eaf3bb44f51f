//! A request in the queues of the broker: where its reply goes, its deadline, and its share of the
//! broker's bounds.
//!
//! Invariant: a request with an id gets exactly one reply, even if its task panics, and its share
//! of [`RequestLoad`] is released when it is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use engine::broker::{BrokerError, BrokerEvent, BrokerReply, BrokerRequest, RequestId};
use tokio::time::Instant;
use wire::protocol::{ClientInfo, Publication};

use crate::limits::{ANSWER_TIMEOUT, REQUEST_OVERHEAD, REQUESTS_BYTES_MAX, REQUESTS_MAX};
use crate::{Endpoint, Inbox};

/// A request with the handle for its reply.
pub(super) struct QueuedRequest {
    pub(super) endpoint: Endpoint,
    pub(super) what: BrokerRequest,
    pub(super) reply: ReplyHandle,
}

/// Replies to a request. When dropped without a reply, it replies that the broker is unavailable.
pub(super) struct ReplyHandle {
    pub(super) inbox: Arc<dyn Inbox>,
    id: Option<RequestId>,
    due: Instant,
    _share: Share,
}

/// Number and bytes of the requests in all queues of a broker.
#[derive(Default)]
pub(super) struct RequestLoad {
    requests: AtomicUsize,
    bytes: AtomicUsize,
}

/// The share of one request in [`RequestLoad`].
struct Share {
    load: Arc<RequestLoad>,
    bytes: usize,
}

impl QueuedRequest {
    /// Queues a request, or replies that the broker is overloaded. Requests without a reply are
    /// always queued, since a dropped unsubscription would cost more than its place; only
    /// announcements are dropped.
    pub(super) fn admit(
        load: &Arc<RequestLoad>,
        endpoint: Endpoint,
        inbox: Arc<dyn Inbox>,
        what: BrokerRequest,
    ) -> Option<QueuedRequest> {
        let share = Share::new(load, REQUEST_OVERHEAD + payload_length(&what));
        let is_refusable = what.id().is_some() || matches!(what, BrokerRequest::Announce { .. });
        let due = Instant::now() + ANSWER_TIMEOUT;
        let is_full = is_refusable && load.is_exceeded();
        let reply = ReplyHandle { inbox, id: what.id(), due, _share: share };
        if is_full {
            reply.send(Err(BrokerError::Overloaded));
            return None;
        }
        Some(QueuedRequest { endpoint, what, reply })
    }
}

impl ReplyHandle {
    pub(super) fn send(mut self, result: Result<BrokerReply, BrokerError>) {
        self.deliver(result);
    }

    /// The deadline, after which the caller does not wait any longer.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Returns whether the deadline has passed. A request without a reply has none.
    pub(super) fn is_late(&self) -> bool {
        self.id.is_some() && self.due <= Instant::now()
    }

    fn deliver(&mut self, result: Result<BrokerReply, BrokerError>) {
        if let Some(id) = self.id.take() {
            self.inbox.deliver(BrokerEvent::Reply { id, result });
        }
    }
}

impl Drop for ReplyHandle {
    fn drop(&mut self) {
        self.deliver(Err(BrokerError::Unavailable));
    }
}

impl RequestLoad {
    fn is_exceeded(&self) -> bool {
        self.requests.load(Ordering::Relaxed) > REQUESTS_MAX
            || self.bytes.load(Ordering::Relaxed) > REQUESTS_BYTES_MAX
    }
}

impl Share {
    fn new(load: &Arc<RequestLoad>, bytes: usize) -> Share {
        load.requests.fetch_add(1, Ordering::Relaxed);
        load.bytes.fetch_add(bytes, Ordering::Relaxed);
        Share { load: load.clone(), bytes }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.load.requests.fetch_sub(1, Ordering::Relaxed);
        self.load.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Bytes of a request's payload.
fn payload_length(request: &BrokerRequest) -> usize {
    match request {
        BrokerRequest::Publish { publication, options, .. } => {
            publication_length(publication)
                + options.idempotency_key.len()
                + options.version_epoch.len()
        }
        BrokerRequest::Announce { info, .. } | BrokerRequest::AddPresence { info, .. } => {
            info_length(info)
        }
        BrokerRequest::Lifecycle(lifecycle) => info_length(&lifecycle.info),
        BrokerRequest::Survey { question, .. } => question.len(),
        BrokerRequest::Answer { answer, .. } => answer.len(),
        _ => 0,
    }
}

fn publication_length(publication: &Publication) -> usize {
    let tags: usize = publication.tags.iter().map(|(key, value)| key.len() + value.len()).sum();
    let info = publication.info.as_ref().map_or(0, info_length);
    publication.data.len() + tags + info
}

fn info_length(info: &ClientInfo) -> usize {
    info.user.len() + info.conn_info.len() + info.chan_info.len()
}
