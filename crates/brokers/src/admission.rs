//! Which requests are admitted to the queues of a broker when they are full, also of those that
//! have no reply and so cannot be refused.
//!
//! Invariant: while the queues are full, an end (`Unsubscribe`, `Remove`) is queued only if its
//! beginning (`Subscribe`, `Add`) was, and an `Add` waits here until there is room or its client is
//! removed. So what waits is bounded by the subscriptions and presence entries of the endpoints,
//! however often clients join and leave.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use engine::broker::{
    BrokerError, BrokerReply, BrokerRequest, NodeBusRequest, PresenceRequest, PublicationsRequest,
};

use crate::Endpoint;

/// The queues of a broker.
pub(crate) trait RequestQueue {
    /// Returns whether further requests must be refused.
    fn is_full(&self) -> bool;
    fn push(&self, endpoint: Endpoint, request: BrokerRequest);
}

/// See the module.
#[derive(Default)]
pub(crate) struct RequestAdmission {
    endpoints: Mutex<HashMap<Endpoint, EndpointState>>,
    /// Number of postponed requests of all endpoints.
    postponed: AtomicUsize,
    hasher: RandomState,
}

/// What an endpoint has begun.
#[derive(Default)]
struct EndpointState {
    /// Subscriptions, limited channels and presence entries whose beginning was queued, and whose
    /// end was not. Hashes with a secret key, since names would cost many times as much.
    begun: HashSet<u64>,
    /// Presence entries to be added when there is room, by their hashes.
    postponed: BTreeMap<u64, PresenceRequest>,
    /// The channel whose end could not be requested just now; a subscription that relies on that
    /// request is refused.
    refused: Option<Arc<str>>,
}

/// What an endpoint may begin in a channel.
#[derive(Clone, Copy, Debug, Hash)]
enum Begun<'a> {
    Subscription,
    ChannelEnd,
    Presence { client: &'a str },
}

/// What happens to a request.
enum Verdict {
    Queue,
    Refuse,
    Drop,
}

impl RequestAdmission {
    /// Queues a request if it is needed. Returns the reply to a request that is refused.
    pub(crate) fn submit(
        &self,
        queue: &impl RequestQueue,
        endpoint: Endpoint,
        request: BrokerRequest,
    ) -> Option<BrokerReply> {
        if self.postponed.load(Ordering::Acquire) == 0 && !begins_or_ends(&request) {
            return without_state(queue, &request).apply(queue, endpoint, request);
        }
        let mut endpoints = self.lock();
        let state = endpoints.entry(endpoint).or_default();
        // Before this request, which may have to stand behind them.
        self.queue_postponed(queue, endpoint, state);
        let (before, refused) = (state.postponed.len(), state.refused.take());
        let verdict = self.decide(queue, state, &request, refused.as_ref());
        self.count_postponed(before, state);
        // Under the lock, so that nothing of this endpoint overtakes it.
        verdict.apply(queue, endpoint, request)
    }

    /// Queues postponed requests if there is room.
    pub(crate) fn resume(&self, queue: &impl RequestQueue) {
        if self.postponed.load(Ordering::Acquire) > 0 {
            for (endpoint, state) in self.lock().iter_mut() {
                self.queue_postponed(queue, *endpoint, state);
            }
        }
    }

    pub(crate) fn detach(&self, endpoint: Endpoint) {
        if let Some(mut state) = self.lock().remove(&endpoint) {
            let before = state.postponed.len();
            state.postponed.clear();
            self.count_postponed(before, &state);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Endpoint, EndpointState>> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn key(&self, channel: &str, begun: Begun<'_>) -> u64 {
        self.hasher.hash_one((channel, begun))
    }

    fn queue_postponed(
        &self,
        queue: &impl RequestQueue,
        endpoint: Endpoint,
        state: &mut EndpointState,
    ) {
        let before = state.postponed.len();
        while !state.postponed.is_empty()
            && !queue.is_full()
            && let Some((key, add)) = state.postponed.pop_first()
        {
            state.begun.insert(key);
            queue.push(endpoint, add.into());
        }
        self.count_postponed(before, state);
    }

    fn count_postponed(&self, before: usize, state: &EndpointState) {
        let after = state.postponed.len();
        if after > before {
            self.postponed.fetch_add(after - before, Ordering::Release);
        } else {
            self.postponed.fetch_sub(before - after, Ordering::Release);
        }
    }

    fn decide(
        &self,
        queue: &impl RequestQueue,
        state: &mut EndpointState,
        request: &BrokerRequest,
        refused: Option<&Arc<str>>,
    ) -> Verdict {
        let is_full = queue.is_full();
        match request {
            BrokerRequest::Publications(PublicationsRequest::Subscribe { channel, .. }) => {
                if is_full || refused == Some(channel) {
                    return Verdict::Refuse;
                }
                state.begun.insert(self.key(channel, Begun::Subscription));
                Verdict::Queue
            }
            BrokerRequest::Publications(PublicationsRequest::Unsubscribe { channel }) => {
                state.begun.remove(&self.key(channel, Begun::ChannelEnd));
                let was_begun = state.begun.remove(&self.key(channel, Begun::Subscription));
                if was_begun { Verdict::Queue } else { Verdict::Drop }
            }
            BrokerRequest::Publications(PublicationsRequest::LimitTtl { channel, .. }) => {
                let is_subscribed = state.begun.contains(&self.key(channel, Begun::Subscription));
                let end = self.key(channel, Begun::ChannelEnd);
                let is_first = is_subscribed && state.begun.insert(end);
                if is_first || !is_full {
                    return Verdict::Queue;
                }
                // Beside a subscription, the first such request is enough.
                state.refused = (!is_subscribed).then(|| channel.clone());
                Verdict::Drop
            }
            BrokerRequest::Presence(add @ PresenceRequest::Add { channel, info, .. }) => {
                let key = self.key(channel, Begun::Presence { client: &info.client });
                if is_full {
                    state.postponed.insert(key, add.clone());
                    return Verdict::Drop;
                }
                state.begun.insert(key);
                Verdict::Queue
            }
            BrokerRequest::Presence(PresenceRequest::Remove { channel, client }) => {
                let key = self.key(channel, Begun::Presence { client: &client.client });
                state.postponed.remove(&key);
                if state.begun.remove(&key) { Verdict::Queue } else { Verdict::Drop }
            }
            _ => without_state(queue, request),
        }
    }
}

impl Verdict {
    fn apply(
        self,
        queue: &impl RequestQueue,
        endpoint: Endpoint,
        request: BrokerRequest,
    ) -> Option<BrokerReply> {
        match self {
            Verdict::Queue => {
                queue.push(endpoint, request);
                None
            }
            Verdict::Refuse => request.refuse(BrokerError::Overloaded),
            Verdict::Drop => None,
        }
    }
}

/// Returns whether a request begins or ends something that an endpoint has.
fn begins_or_ends(request: &BrokerRequest) -> bool {
    matches!(
        request,
        BrokerRequest::Publications(
            PublicationsRequest::Subscribe { .. }
                | PublicationsRequest::Unsubscribe { .. }
                | PublicationsRequest::LimitTtl { .. }
        ) | BrokerRequest::Presence(PresenceRequest::Add { .. } | PresenceRequest::Remove { .. })
    )
}

/// The verdict about a request that neither begins nor ends anything.
fn without_state(queue: &impl RequestQueue, request: &BrokerRequest) -> Verdict {
    match request {
        _ if !queue.is_full() => Verdict::Queue,
        // Joins and leaves are not promised, and a survey reports nodes without an answer.
        BrokerRequest::Publications(PublicationsRequest::Announce { .. })
        | BrokerRequest::NodeBus(NodeBusRequest::Answer { .. }) => Verdict::Drop,
        // Orders are bounded by the rate of the server API; lifecycle events must not be lost.
        BrokerRequest::NodeBus(NodeBusRequest::Control(_) | NodeBusRequest::Lifecycle(_)) => {
            Verdict::Queue
        }
        _ => Verdict::Refuse,
    }
}

#[cfg(test)]
mod tests;
