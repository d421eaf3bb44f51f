//! This node among the nodes: who of its clients is online, what is not told yet, and the node that it clears away.
//!
//! Invariant: what Redis was not known to have taken is told again, in the order in which it happened; scripts tell nothing
//! twice.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::lifecycle::{Change, Lifecycle};
use wire::protocol::ClientInfo;

use crate::Party;
use crate::limits::{LIFECYCLE_BACKLOG, NAMES_PER_COMMAND};

/// See the module.
pub(super) struct Registry {
    online: HashMap<String, (Arc<ClientInfo>, i64, Party)>,
    news: VecDeque<Lifecycle>,
    /// Whether news are on their way.
    is_telling: bool,
    compact_at: usize,
    lease: Duration,
    next_renewal: Instant,
    /// Whether Redis has said that the lease holds.
    pub(super) is_member: bool,
    pub(super) burial: Option<Burial>,
}

/// A node whose lease has ended, while this one clears away what it left.
pub(super) struct Burial {
    pub(super) node: String,
    /// The partition whose channels its clients leave now.
    pub(super) partition: usize,
    /// Channels of that partition that are not done.
    pub(super) channels: usize,
}

/// How often a lease is renewed within its time.
const RENEWALS_PER_LEASE: u32 = 4;

/// Time after which a renewal that failed is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// Why a client is offline of which Redis knows and this node does not.
const UNKNOWN: &str = "connection closed";

/// Why the clients of a worker that is gone are offline.
const WORKER_LOST: &str = "worker lost";

impl Registry {
    pub(super) fn new(now: Instant, lease: Duration) -> Registry {
        Registry {
            online: HashMap::new(),
            news: VecDeque::new(),
            is_telling: false,
            compact_at: LIFECYCLE_BACKLOG,
            lease,
            next_renewal: now,
            is_member: false,
            burial: None,
        }
    }

    /// A client came or went.
    pub(super) fn note(&mut self, party: Party, lifecycle: Lifecycle) {
        let client = &lifecycle.info.client;
        match lifecycle.change {
            Change::Online => {
                let known = (lifecycle.info.clone(), lifecycle.at_ms, party);
                self.online.insert(client.clone(), known);
            }
            Change::Offline { .. } => {
                self.online.remove(client);
            }
        }
        self.news.push_back(lifecycle);
        if self.news.len() >= self.compact_at {
            self.compact();
        }
    }

    /// Nobody hears of clients that came and went while Redis could not be told: what is kept is bounded by those who were
    /// online before and those who are now.
    fn compact(&mut self) {
        let online = &self.online;
        let mut unheard = std::collections::HashSet::new();
        self.news.retain(|news| match news.change {
            Change::Online if !online.contains_key(&news.info.client) => {
                unheard.insert(news.info.client.clone());
                false
            }
            Change::Online => true,
            Change::Offline { .. } => !unheard.remove(&news.info.client),
        });
        self.compact_at = LIFECYCLE_BACKLOG.max(2 * self.news.len());
    }

    /// The party is gone, and its clients with it.
    pub(super) fn forget(&mut self, party: Party, at_ms: i64) {
        let of_party = self.online.values().filter(|(_, _, owner)| *owner == party);
        let lost: Vec<Arc<ClientInfo>> = of_party.map(|(info, ..)| info.clone()).collect();
        for info in lost {
            let change = Change::Offline { reason: WORKER_LOST.into() };
            self.note(party, Lifecycle { info, change, at_ms });
        }
    }

    /// What to tell next; nothing while something is on its way.
    pub(super) fn take_news(&mut self) -> Option<Vec<Lifecycle>> {
        if self.is_telling || self.news.is_empty() {
            return None;
        }
        self.is_telling = true;
        let count = self.news.len().min(NAMES_PER_COMMAND);
        Some(self.news.drain(..count).collect())
    }

    /// Redis has taken what was told.
    pub(super) fn handle_told(&mut self) {
        self.is_telling = false;
    }

    /// It may not have.
    pub(super) fn take_back(&mut self, news: Vec<Lifecycle>) {
        self.is_telling = false;
        for news in news.into_iter().rev() {
            self.news.push_front(news);
        }
    }

    /// Whether everything has been told.
    pub(super) fn is_quiet(&self) -> bool {
        self.news.is_empty() && !self.is_telling
    }

    /// Redis may have lost what it was told: all who are online are told again.
    pub(super) fn tell_all(&mut self) {
        let told: std::collections::HashSet<&str> =
            self.news.iter().map(|news| &*news.info.client).collect();
        let missing = self.online.values().filter(|(info, ..)| !told.contains(&*info.client));
        let missing: Vec<Lifecycle> = missing
            .map(|(info, at_ms, _)| Lifecycle {
                info: info.clone(),
                change: Change::Online,
                at_ms: *at_ms,
            })
            .collect();
        self.news.extend(missing);
    }

    /// Redis knows a client of this node; if this node does not, it has gone.
    pub(super) fn check(&mut self, client: &str, user: &str, at_ms: i64) {
        if !self.online.contains_key(client) {
            let (client, user) = (client.to_owned(), user.to_owned());
            let info = Arc::new(ClientInfo { client, user, ..ClientInfo::default() });
            let change = Change::Offline { reason: UNKNOWN.into() };
            self.news.push_back(Lifecycle { info, change, at_ms });
        }
    }

    /// Whether it is time to renew the lease; the caller does.
    pub(super) fn begins_renewal(&mut self, now: Instant) -> bool {
        let begins = self.next_renewal <= now;
        if begins {
            self.next_renewal = now + self.lease / RENEWALS_PER_LEASE;
        }
        begins
    }

    /// The lease must be renewed at once.
    pub(super) fn want_renewal(&mut self, now: Instant) {
        self.next_renewal = now;
    }

    /// The renewal did not work.
    pub(super) fn handle_renewal_failed(&mut self, now: Instant) {
        self.next_renewal = now + RETRY_AFTER.min(self.lease / RENEWALS_PER_LEASE);
    }
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
        let mut registry = Registry::new(Instant::now(), Duration::from_secs(1));
        registry.note(Party(0), news("a", Change::Online));
        let first = registry.take_news().unwrap();
        registry.note(Party(0), news("a", offline()));
        assert_eq!(registry.take_news(), None);
        registry.take_back(first);
        let again = registry.take_news().unwrap();
        assert_eq!(again, [news("a", Change::Online), news("a", offline())]);
        registry.handle_told();
        assert!(registry.is_quiet());
    }

    #[test]
    fn a_backlog_is_bounded_by_who_is_online_and_who_was() {
        let mut registry = Registry::new(Instant::now(), Duration::from_secs(1));
        registry.note(Party(0), news("stays", Change::Online));
        registry.note(Party(0), news("was", offline()));
        for number in 0..LIFECYCLE_BACKLOG {
            registry.note(Party(0), news(&number.to_string(), Change::Online));
            registry.note(Party(0), news(&number.to_string(), offline()));
        }
        assert!(registry.news.len() < LIFECYCLE_BACKLOG);
        assert_eq!(registry.news[0], news("stays", Change::Online));
        assert_eq!(registry.news[1], news("was", offline()));
    }
}
