//! A request in the queues of the broker: where its reply goes, its deadline, and its share of the
//! broker's bounds.
//!
//! Invariant: a request with an id gets exactly one reply, even if its task panics, and its share
//! of [`RequestLoad`] is released when it is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use engine::broker::{
    BrokerError, BrokerEvent, BrokerRequest, NodeBusRequest, PresenceRequest, PublicationsRequest,
    RegistryRequest, ReplyValue, RequestId,
};
use wire::protocol::{ClientInfo, Publication};

use crate::control;
use crate::limits::{REQUEST_OVERHEAD, REQUESTS_BYTES_MAX, REQUESTS_MAX};
use crate::{Endpoint, Inbox};

/// A request in a queue. When dropped unopened, it replies that the broker is unavailable.
pub(super) struct QueuedRequest {
    /// `None` once it is opened.
    content: Option<(BrokerRequest, ReplyContext)>,
}

/// Where the reply to a request goes, and its share of the broker's bounds.
pub(super) struct ReplyContext {
    pub(super) endpoint: Endpoint,
    pub(super) inbox: Arc<dyn Inbox>,
    due: Instant,
    share: Share,
}

/// Replies to a request. When dropped without a reply, it replies that the broker is unavailable.
pub(super) struct ReplyHandle<T: ReplyValue> {
    inbox: Arc<dyn Inbox>,
    /// `None` once it has replied.
    id: Option<RequestId<T>>,
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
    /// A request that waits until `due` at most, if it has a reply.
    pub(super) fn new(
        load: &Arc<RequestLoad>,
        due: Instant,
        (endpoint, inbox): (Endpoint, Arc<dyn Inbox>),
        what: BrokerRequest,
    ) -> QueuedRequest {
        let share = Share::new(load, REQUEST_OVERHEAD + payload_length(&what));
        let context = ReplyContext { endpoint, inbox, due, share };
        QueuedRequest { content: Some((what, context)) }
    }

    pub(super) fn endpoint(&self) -> Endpoint {
        let (_, context) = self.content.as_ref().expect("opening consumes the request");
        context.endpoint
    }

    pub(super) fn what(&self) -> &BrokerRequest {
        let (what, _) = self.content.as_ref().expect("opening consumes the request");
        what
    }

    /// Returns whether the deadline has passed. A request without a reply has none.
    pub(super) fn is_late(&self, now: Instant) -> bool {
        let late = |(what, context): &(BrokerRequest, ReplyContext)| {
            context.due <= now && what.refuse(BrokerError::Unavailable).is_some()
        };
        self.content.as_ref().is_some_and(late)
    }

    /// From now on the caller must reply.
    pub(super) fn open(mut self) -> (BrokerRequest, ReplyContext) {
        self.content.take().expect("opening consumes the request")
    }
}

impl Drop for QueuedRequest {
    fn drop(&mut self) {
        let Some((what, context)) = self.content.take() else { return };
        if let Some(refusal) = what.refuse(BrokerError::Unavailable) {
            context.inbox.deliver(BrokerEvent::Reply(refusal));
        }
    }
}

impl ReplyContext {
    pub(super) fn reply<T: ReplyValue>(self, id: RequestId<T>) -> ReplyHandle<T> {
        let ReplyContext { inbox, due, share, .. } = self;
        ReplyHandle { inbox, id: Some(id), due, _share: share }
    }
}

impl<T: ReplyValue> ReplyHandle<T> {
    pub(super) fn send(mut self, result: Result<T, BrokerError>) {
        self.deliver(result);
    }

    /// The deadline, after which the caller does not wait any longer.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    fn deliver(&mut self, result: Result<T, BrokerError>) {
        if let Some(id) = self.id.take() {
            self.inbox.deliver(BrokerEvent::Reply(id.answer(result)));
        }
    }
}

impl<T: ReplyValue> Drop for ReplyHandle<T> {
    fn drop(&mut self) {
        self.deliver(Err(BrokerError::Unavailable));
    }
}

impl RequestLoad {
    pub(super) fn is_exceeded(&self) -> bool {
        self.requests.load(Ordering::Relaxed) > REQUESTS_MAX
            || self.bytes.load(Ordering::Relaxed) > REQUESTS_BYTES_MAX
    }

    /// Number of requests in all queues.
    pub(super) fn length(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
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

/// Bytes of what a request carries: its channel and its payload.
fn payload_length(request: &BrokerRequest) -> usize {
    let channel = request.channel().map_or(0, |channel| channel.len());
    let payload = match request {
        BrokerRequest::Publications(request) => match request {
            PublicationsRequest::Publish { publication, options, .. } => {
                publication_length(publication)
                    + options.idempotency_key.len()
                    + options.version_epoch.len()
            }
            PublicationsRequest::Announce { info, .. } => info_length(info),
            PublicationsRequest::Subscribe { .. }
            | PublicationsRequest::Unsubscribe { .. }
            | PublicationsRequest::History { .. }
            | PublicationsRequest::RemoveHistory { .. }
            | PublicationsRequest::LimitTtl { .. }
            | PublicationsRequest::ChannelTtl { .. } => 0,
        },
        BrokerRequest::Presence(request) => match request {
            PresenceRequest::Add { info, .. } | PresenceRequest::Remove { client: info, .. } => {
                info_length(info)
            }
            PresenceRequest::Clients { .. } | PresenceRequest::Stats { .. } => 0,
        },
        BrokerRequest::NodeBus(request) => match request {
            NodeBusRequest::Lifecycle(lifecycle) => info_length(&lifecycle.info),
            NodeBusRequest::Survey { question, .. } => question.len(),
            NodeBusRequest::Answer { answer, .. } => answer.len(),
            // Orders of the server API are few, and may be as large as its requests.
            NodeBusRequest::Control(order) => control::encode(order).len(),
        },
        BrokerRequest::Registry(request) => match request {
            RegistryRequest::Revoke { revocation, .. } => {
                control::encode_revocation(revocation).len()
            }
            RegistryRequest::Find { subject, .. } => control::subject_key(subject).len(),
            RegistryRequest::Read { .. } => 0,
        },
    };
    channel + payload
}

fn publication_length(publication: &Publication) -> usize {
    let tags: usize = publication.tags.iter().map(|(key, value)| key.len() + value.len()).sum();
    let info = publication.info.as_ref().map_or(0, info_length);
    publication.data.len() + tags + info
}

fn info_length(info: &ClientInfo) -> usize {
    info.client.len() + info.user.len() + info.conn_info.len() + info.chan_info.len()
}
