//! Lifecycle events that a node has not yet sent to its broker, and their encoding.
//!
//! Invariants: events without an acknowledgement are sent again, in their original order. All
//! brokers send events in the same encoding.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use engine::lifecycle::{Change, Lifecycle};
use serde_json::json;
use wire::protocol::{ClientInfo, Publication};

use crate::Endpoint;
use crate::limits::{LIFECYCLE_BACKLOG, NAMES_PER_COMMAND};

/// The lifecycle events of a node; see the module.
pub(crate) struct LifecycleQueue {
    online: BTreeMap<String, (Arc<ClientInfo>, i64, Endpoint)>,
    queue: VecDeque<Lifecycle>,
    /// Number of events at the head of the queue that the broker may already have.
    uncertain: usize,
    /// Whether a batch is in flight.
    is_sending: bool,
    /// Whether events that the broker may already have are sent again.
    is_resending: bool,
    compact_at: usize,
}

/// Offline reason of a client that the broker has as online and this node does not have.
const UNKNOWN: &str = "connection closed";

/// Offline reason of the clients of a worker that has ended.
const WORKER_LOST: &str = "worker lost";

impl Default for LifecycleQueue {
    fn default() -> LifecycleQueue {
        LifecycleQueue {
            online: BTreeMap::new(),
            queue: VecDeque::new(),
            uncertain: 0,
            is_sending: false,
            is_resending: false,
            compact_at: LIFECYCLE_BACKLOG,
        }
    }
}

impl LifecycleQueue {
    /// Adds an event of a client.
    pub(crate) fn note(&mut self, endpoint: Endpoint, lifecycle: Lifecycle) {
        let client = &lifecycle.info.client;
        match lifecycle.change {
            Change::Online => {
                let known = (lifecycle.info.clone(), lifecycle.at_ms, endpoint);
                self.online.insert(client.clone(), known);
            }
            Change::Offline { .. } => {
                self.online.remove(client);
            }
        }
        self.queue.push_back(lifecycle);
        if self.queue.len() >= self.compact_at {
            self.compact();
        }
    }

    /// Drops both events of clients that connected and disconnected while the broker was
    /// unreachable, except those that the broker may already have. So the queue is bounded by the
    /// clients that were online before, those that are now, and one batch.
    fn compact(&mut self) {
        let online = &self.online;
        let mut unreported = HashSet::new();
        let mut uncertain = self.uncertain;
        self.queue.retain(|event| match event.change {
            _ if uncertain > 0 => {
                uncertain -= 1;
                true
            }
            Change::Online if !online.contains_key(&event.info.client) => {
                unreported.insert(event.info.client.clone());
                false
            }
            Change::Online => true,
            Change::Offline { .. } => !unreported.remove(&event.info.client),
        });
        self.compact_at = LIFECYCLE_BACKLOG.max(2 * self.queue.len());
    }

    /// Adds offline events for the clients of a detached endpoint.
    pub(crate) fn forget(&mut self, endpoint: Endpoint, at_ms: i64) {
        let of_endpoint = self.online.values().filter(|(_, _, owner)| *owner == endpoint);
        let lost: Vec<Arc<ClientInfo>> = of_endpoint.map(|(info, ..)| info.clone()).collect();
        for info in lost {
            let change = Change::Offline { reason: WORKER_LOST.into() };
            self.note(endpoint, Lifecycle { info, change, at_ms });
        }
    }

    /// Returns the next batch; `None` while one is in flight.
    pub(crate) fn take(&mut self) -> Option<Vec<Lifecycle>> {
        if self.is_sending || self.queue.is_empty() {
            return None;
        }
        self.is_sending = true;
        let count = self.queue.len().min(NAMES_PER_COMMAND);
        self.uncertain = self.uncertain.saturating_sub(count);
        Some(self.queue.drain(..count).collect())
    }

    /// Removes the batch that the broker has acknowledged.
    pub(crate) fn handle_sent(&mut self) {
        self.is_sending = false;
    }

    /// Queues a batch again that the broker may not have received.
    pub(crate) fn requeue(&mut self, events: Vec<Lifecycle>) {
        self.is_sending = false;
        // Whether the broker has them is unknown, and so is the number of its clients.
        self.is_resending = true;
        self.uncertain += events.len();
        for event in events.into_iter().rev() {
            self.queue.push_front(event);
        }
    }

    /// Returns how many clients the broker has as online after the batch in flight; `None` while
    /// that is unknown.
    pub(crate) fn known_count(&mut self) -> Option<usize> {
        self.is_resending &= !self.is_quiet();
        if self.is_resending {
            return None;
        }
        // A client's first event in the queue shows its state at the broker before it.
        let mut first: HashMap<&str, bool> = HashMap::new();
        for event in &self.queue {
            let is_offline = matches!(event.change, Change::Offline { .. });
            first.entry(&event.info.client).or_insert(is_offline);
        }
        let is_known = |client: &str| first.get(client).copied().unwrap_or(true);
        let online = self.online.keys().filter(|client| is_known(client)).count();
        let leaving = first.iter().filter(|(_, is_known)| **is_known);
        let leaving = leaving.filter(|(client, _)| !self.online.contains_key(**client)).count();
        Some(online + leaving)
    }

    /// Returns whether every event has been acknowledged.
    pub(crate) fn is_quiet(&self) -> bool {
        self.queue.is_empty() && !self.is_sending
    }

    /// Queues every online client again, because the broker may have lost events.
    pub(crate) fn requeue_online(&mut self) {
        self.is_resending = true;
        let queued: HashSet<&str> = self.queue.iter().map(|event| &*event.info.client).collect();
        let missing = self.online.values().filter(|(info, ..)| !queued.contains(&*info.client));
        let missing: Vec<Lifecycle> = missing
            .map(|(info, at_ms, _)| Lifecycle {
                info: info.clone(),
                change: Change::Online,
                at_ms: *at_ms,
            })
            .collect();
        self.queue.extend(missing);
    }

    /// Queues every online client again, because the broker has removed their records. A client
    /// whose offline event waits is queued as online before it: the broker publishes no offline
    /// event of a client that it does not know.
    pub(crate) fn requeue_removed(&mut self) {
        let mut known = HashSet::new();
        // The broker has none of them any more.
        self.uncertain = 0;
        for event in std::mem::take(&mut self.queue) {
            let is_first = known.insert(event.info.client.clone());
            if is_first && event.change != Change::Online {
                self.queue.push_back(Lifecycle { change: Change::Online, ..event.clone() });
            }
            self.queue.push_back(event);
        }
        self.requeue_online();
    }

    /// Checks a client that the broker has as online. Adds an offline event if this node does not
    /// have it.
    pub(crate) fn check(&mut self, client: &str, user: &str, at_ms: i64) {
        if !self.online.contains_key(client) {
            let (client, user) = (client.to_owned(), user.to_owned());
            let info = Arc::new(ClientInfo { client, user, ..ClientInfo::default() });
            let change = Change::Offline { reason: UNKNOWN.into() };
            self.queue.push_back(Lifecycle { info, change, at_ms });
        }
    }
}

/// Encodes an event as the publication in [`engine::channel::LIFECYCLE`].
pub(crate) fn publication(node: &str, lifecycle: &Lifecycle) -> Publication {
    let Lifecycle { info, change, at_ms } = lifecycle;
    let (event, reason) = change.words();
    let event = json!({
        "event": event,
        "client_id": info.client,
        "user_id": info.user,
        "node_id": node,
        "timestamp": at_ms,
        "reason": reason,
    });
    let data = Bytes::from(event.to_string());
    Publication { data, time: *at_ms, ..Publication::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(client: &str, change: Change) -> Lifecycle {
        let info = ClientInfo { client: client.to_owned(), ..ClientInfo::default() };
        Lifecycle { info: Arc::new(info), change, at_ms: 0 }
    }

    fn offline() -> Change {
        Change::Offline { reason: "x".into() }
    }

    #[test]
    fn unacknowledged_events_are_sent_again_in_order() {
        let mut queue = LifecycleQueue::default();
        queue.note(Endpoint(0), event("a", Change::Online));
        let first = queue.take().unwrap();
        queue.note(Endpoint(0), event("a", offline()));
        assert_eq!(queue.take(), None);
        queue.requeue(first);
        assert_eq!(queue.known_count(), None, "the broker may have executed it");
        let again = queue.take().unwrap();
        assert_eq!(again, [event("a", Change::Online), event("a", offline())]);
        queue.handle_sent();
        assert!(queue.is_quiet());
    }

    #[test]
    fn the_known_count_is_unknown_while_events_are_sent_again() {
        let mut queue = LifecycleQueue::default();
        assert_eq!(queue.known_count(), Some(0));
        for client in ["a", "b"] {
            queue.note(Endpoint(0), event(client, Change::Online));
        }
        assert_eq!(queue.known_count(), Some(0));
        queue.take().unwrap();
        assert_eq!(queue.known_count(), Some(2), "it is on its way");
        queue.note(Endpoint(0), event("a", offline()));
        queue.note(Endpoint(0), event("c", Change::Online));
        queue.note(Endpoint(0), event("c", offline()));
        assert_eq!(queue.known_count(), Some(2));
        queue.handle_sent();
        queue.take().unwrap();
        assert_eq!(queue.known_count(), Some(1));
        queue.requeue_online();
        assert_eq!(queue.known_count(), None);
        queue.handle_sent();
        queue.take().unwrap();
        assert_eq!(queue.known_count(), None);
        queue.handle_sent();
        assert_eq!(queue.known_count(), Some(1));
        queue.check("left over", "ann", 0);
        assert_eq!(queue.known_count(), Some(2), "the broker knows one more");
    }

    #[test]
    fn a_departure_survives_the_loss_of_its_client_s_record() {
        let mut queue = LifecycleQueue::default();
        for client in ["a", "b"] {
            queue.note(Endpoint(0), event(client, Change::Online));
        }
        queue.take().unwrap();
        queue.handle_sent();
        queue.note(Endpoint(0), event("a", offline()));
        queue.requeue_removed();
        let again = queue.take().unwrap();
        let online = |client| event(client, Change::Online);
        assert_eq!(again, [online("a"), event("a", offline()), online("b")]);
    }

    #[test]
    fn the_departure_of_a_client_that_the_broker_may_know_is_not_dropped() {
        let mut queue = LifecycleQueue::default();
        queue.note(Endpoint(0), event("a", Change::Online));
        let first = queue.take().unwrap();
        queue.requeue(first);
        queue.note(Endpoint(0), event("a", offline()));
        queue.compact();
        let again = queue.take().unwrap();
        assert_eq!(again, [event("a", Change::Online), event("a", offline())]);
    }

    #[test]
    fn the_queue_is_bounded_by_clients_online_before_and_now() {
        let mut queue = LifecycleQueue::default();
        queue.note(Endpoint(0), event("stays", Change::Online));
        queue.note(Endpoint(0), event("was", offline()));
        for number in 0..LIFECYCLE_BACKLOG {
            queue.note(Endpoint(0), event(&number.to_string(), Change::Online));
            queue.note(Endpoint(0), event(&number.to_string(), offline()));
        }
        assert!(queue.queue.len() < LIFECYCLE_BACKLOG);
        assert_eq!(queue.queue[0], event("stays", Change::Online));
        assert_eq!(queue.queue[1], event("was", offline()));
    }
}
