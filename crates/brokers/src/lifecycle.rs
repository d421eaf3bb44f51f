//! Clients that come and go: what a node has not told its broker yet, and the form in which it is told.
//!
//! Invariants: what the broker was not known to have taken is told again, in the order in which it happened; every broker tells
//! it in one form.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use engine::lifecycle::{Change, Lifecycle};
use serde_json::json;
use wire::protocol::{ClientInfo, Publication};

use crate::Endpoint;
use crate::limits::{LIFECYCLE_BACKLOG, NAMES_PER_COMMAND};

/// See the module.
pub(crate) struct News {
    online: HashMap<String, (Arc<ClientInfo>, i64, Endpoint)>,
    queue: VecDeque<Lifecycle>,
    /// Whether some are on their way.
    is_telling: bool,
    /// Whether some are told that the broker may know.
    is_retelling: bool,
    compact_at: usize,
}

/// Why a client is offline of which the broker knows and this node does not.
const UNKNOWN: &str = "connection closed";

/// Why the clients of a worker that is gone are offline.
const WORKER_LOST: &str = "worker lost";

impl Default for News {
    fn default() -> News {
        News {
            online: HashMap::new(),
            queue: VecDeque::new(),
            is_telling: false,
            is_retelling: false,
            compact_at: LIFECYCLE_BACKLOG,
        }
    }
}

impl News {
    /// A client came or went.
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

    /// Nobody hears of clients that came and went while the broker could not be told: what is kept is bounded by those who were
    /// online before and those who are now.
    fn compact(&mut self) {
        let online = &self.online;
        let mut unreported = HashSet::new();
        self.queue.retain(|news| match news.change {
            Change::Online if !online.contains_key(&news.info.client) => {
                unreported.insert(news.info.client.clone());
                false
            }
            Change::Online => true,
            Change::Offline { .. } => !unreported.remove(&news.info.client),
        });
        self.compact_at = LIFECYCLE_BACKLOG.max(2 * self.queue.len());
    }

    /// The endpoint is gone, and its clients with it.
    pub(crate) fn forget(&mut self, endpoint: Endpoint, at_ms: i64) {
        let of_endpoint = self.online.values().filter(|(_, _, owner)| *owner == endpoint);
        let lost: Vec<Arc<ClientInfo>> = of_endpoint.map(|(info, ..)| info.clone()).collect();
        for info in lost {
            let change = Change::Offline { reason: WORKER_LOST.into() };
            self.note(endpoint, Lifecycle { info, change, at_ms });
        }
    }

    /// What to tell next; nothing while something is on its way.
    pub(crate) fn take(&mut self) -> Option<Vec<Lifecycle>> {
        if self.is_telling || self.queue.is_empty() {
            return None;
        }
        self.is_telling = true;
        let count = self.queue.len().min(NAMES_PER_COMMAND);
        Some(self.queue.drain(..count).collect())
    }

    /// The broker has taken what was told.
    pub(crate) fn handle_told(&mut self) {
        self.is_telling = false;
    }

    /// It may not have.
    pub(crate) fn take_back(&mut self, news: Vec<Lifecycle>) {
        self.is_telling = false;
        for news in news.into_iter().rev() {
            self.queue.push_front(news);
        }
    }

    /// How many clients the broker knows once it has taken what is on its way; `None` when nobody can say.
    pub(crate) fn told_count(&mut self) -> Option<usize> {
        self.is_retelling &= !self.is_quiet();
        if self.is_retelling {
            return None;
        }
        // What comes first of a client in the queue says what the broker knows of it until then.
        let mut first: HashMap<&str, bool> = HashMap::new();
        for news in &self.queue {
            let is_offline = matches!(news.change, Change::Offline { .. });
            first.entry(&news.info.client).or_insert(is_offline);
        }
        let is_known = |client: &str| first.get(client).copied().unwrap_or(true);
        let online = self.online.keys().filter(|client| is_known(client)).count();
        let leaving = first.iter().filter(|(_, is_known)| **is_known);
        let leaving = leaving.filter(|(client, _)| !self.online.contains_key(**client)).count();
        Some(online + leaving)
    }

    /// Whether everything has been told.
    pub(crate) fn is_quiet(&self) -> bool {
        self.queue.is_empty() && !self.is_telling
    }

    /// The broker may have lost what it was told: all who are online are told again.
    pub(crate) fn tell_all(&mut self) {
        self.is_retelling = true;
        let told: HashSet<&str> = self.queue.iter().map(|news| &*news.info.client).collect();
        let missing = self.online.values().filter(|(info, ..)| !told.contains(&*info.client));
        let missing: Vec<Lifecycle> = missing
            .map(|(info, at_ms, _)| Lifecycle {
                info: info.clone(),
                change: Change::Online,
                at_ms: *at_ms,
            })
            .collect();
        self.queue.extend(missing);
    }

    /// The broker knows a client of this node; if this node does not, it has gone.
    pub(crate) fn check(&mut self, client: &str, user: &str, at_ms: i64) {
        if !self.online.contains_key(client) {
            let (client, user) = (client.to_owned(), user.to_owned());
            let info = Arc::new(ClientInfo { client, user, ..ClientInfo::default() });
            let change = Change::Offline { reason: UNKNOWN.into() };
            self.queue.push_back(Lifecycle { info, change, at_ms });
        }
    }
}

/// What is published in [`engine::channel::LIFECYCLE`].
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

    fn news(client: &str, change: Change) -> Lifecycle {
        let info = ClientInfo { client: client.to_owned(), ..ClientInfo::default() };
        Lifecycle { info: Arc::new(info), change, at_ms: 0 }
    }

    fn offline() -> Change {
        Change::Offline { reason: "x".into() }
    }

    #[test]
    fn what_was_not_taken_is_told_again_in_order() {
        let mut told = News::default();
        told.note(Endpoint(0), news("a", Change::Online));
        let first = told.take().unwrap();
        told.note(Endpoint(0), news("a", offline()));
        assert_eq!(told.take(), None);
        told.take_back(first);
        let again = told.take().unwrap();
        assert_eq!(again, [news("a", Change::Online), news("a", offline())]);
        told.handle_told();
        assert!(told.is_quiet());
    }

    #[test]
    fn how_many_are_told_of_is_known_unless_they_are_told_again() {
        let mut told = News::default();
        assert_eq!(told.told_count(), Some(0));
        for client in ["a", "b"] {
            told.note(Endpoint(0), news(client, Change::Online));
        }
        assert_eq!(told.told_count(), Some(0));
        told.take().unwrap();
        assert_eq!(told.told_count(), Some(2), "it is on its way");
        told.note(Endpoint(0), news("a", offline()));
        told.note(Endpoint(0), news("c", Change::Online));
        told.note(Endpoint(0), news("c", offline()));
        assert_eq!(told.told_count(), Some(2));
        told.handle_told();
        told.take().unwrap();
        assert_eq!(told.told_count(), Some(1));
        told.tell_all();
        assert_eq!(told.told_count(), None);
        told.handle_told();
        told.take().unwrap();
        assert_eq!(told.told_count(), None);
        told.handle_told();
        assert_eq!(told.told_count(), Some(1));
        told.check("left over", "ann", 0);
        assert_eq!(told.told_count(), Some(2), "the broker knows one more");
    }

    #[test]
    fn a_backlog_is_bounded_by_who_is_online_and_who_was() {
        let mut told = News::default();
        told.note(Endpoint(0), news("stays", Change::Online));
        told.note(Endpoint(0), news("was", offline()));
        for number in 0..LIFECYCLE_BACKLOG {
            told.note(Endpoint(0), news(&number.to_string(), Change::Online));
            told.note(Endpoint(0), news(&number.to_string(), offline()));
        }
        assert!(told.queue.len() < LIFECYCLE_BACKLOG);
        assert_eq!(told.queue[0], news("stays", Change::Online));
        assert_eq!(told.queue[1], news("was", offline()));
    }
}
