//! A request in the queues of the broker: where its reply goes, its deadline, and its share of the
//! broker's bounds.
//!
//! Invariant: a request with an id gets exactly one reply, even if its task panics, and its share
//! of [`RequestLoad`] is released when it is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use engine::broker::{
    Answer, BrokerError, BrokerEvent, BrokerReply, BrokerRequest, NodeBusRequest, PresenceRequest,
    PublicationsRequest, RequestId,
};
use tokio::time::Instant;
use wire::protocol::{ClientInfo, Publication};

use crate::limits::{ANSWER_TIMEOUT, REQUEST_OVERHEAD, REQUESTS_BYTES_MAX, REQUESTS_MAX};
use crate::{Endpoint, Inbox};

/// A request with the handle for its reply.
pub(super) struct QueuedRequest<W> {
    pub(super) endpoint: Endpoint,
    pub(super) what: W,
    pub(super) reply: ReplyHandle,
}

/// A request about one channel.
#[expect(
    clippy::large_enum_variant,
    reason = "a publication is the usual request, and a box would cost it an allocation"
)]
pub(super) enum ChannelRequest {
    Publications(PublicationsRequest),
    Presence(PresenceRequest),
}

impl ChannelRequest {
    pub(super) fn channel(&self) -> &Arc<str> {
        match self {
            ChannelRequest::Publications(request) => request.channel(),
            ChannelRequest::Presence(request) => request.channel(),
        }
    }
}

/// Replies to a request. When dropped without a reply, it replies that the broker is unavailable.
pub(super) struct ReplyHandle {
    pub(super) inbox: Arc<dyn Inbox>,
    /// Sent when the handle is dropped; `None` for a request without a reply, or after it.
    refusal: Option<BrokerReply>,
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

impl QueuedRequest<BrokerRequest> {
    /// Queues a request, or replies that the broker is overloaded. Requests without a reply are
    /// always queued, since a dropped unsubscription would cost more than its place; only
    /// announcements are dropped.
    pub(super) fn admit(
        load: &Arc<RequestLoad>,
        endpoint: Endpoint,
        inbox: Arc<dyn Inbox>,
        what: BrokerRequest,
    ) -> Option<QueuedRequest<BrokerRequest>> {
        let share = Share::new(load, REQUEST_OVERHEAD + payload_length(&what));
        if load.is_exceeded() {
            if let Some(refusal) = what.refuse(BrokerError::Overloaded) {
                inbox.deliver(BrokerEvent::Reply(refusal));
                return None;
            }
            let is_announcement =
                matches!(what, BrokerRequest::Publications(PublicationsRequest::Announce { .. }));
            if is_announcement {
                return None;
            }
        }
        let due = Instant::now() + ANSWER_TIMEOUT;
        let refusal = what.refuse(BrokerError::Unavailable);
        let reply = ReplyHandle { inbox, refusal, due, _share: share };
        Some(QueuedRequest { endpoint, what, reply })
    }
}

impl ReplyHandle {
    pub(super) fn send<T: Answer>(mut self, id: RequestId<T>, result: Result<T, BrokerError>) {
        self.refusal = None;
        self.inbox.deliver(BrokerEvent::Reply(id.answer(result)));
    }

    /// The deadline, after which the caller does not wait any longer.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Returns whether the deadline has passed. A request without a reply has none.
    pub(super) fn is_late(&self) -> bool {
        self.refusal.is_some() && self.due <= Instant::now()
    }
}

impl Drop for ReplyHandle {
    fn drop(&mut self) {
        if let Some(refusal) = self.refusal.take() {
            self.inbox.deliver(BrokerEvent::Reply(refusal));
        }
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
        BrokerRequest::Publications(PublicationsRequest::Publish {
            publication, options, ..
        }) => {
            publication_length(publication)
                + options.idempotency_key.len()
                + options.version_epoch.len()
        }
        BrokerRequest::Publications(PublicationsRequest::Announce { info, .. })
        | BrokerRequest::Presence(PresenceRequest::Add { info, .. }) => info_length(info),
        BrokerRequest::NodeBus(NodeBusRequest::Lifecycle(lifecycle)) => {
            info_length(&lifecycle.info)
        }
        BrokerRequest::NodeBus(NodeBusRequest::Survey { question, .. }) => question.len(),
        BrokerRequest::NodeBus(NodeBusRequest::Answer { answer, .. }) => answer.len(),
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
