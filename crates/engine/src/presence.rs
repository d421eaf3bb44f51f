//! The clients present in one channel.
//!
//! Invariant: the number of users is that of the distinct users of the stored clients.

use std::collections::BTreeMap;
use std::sync::Arc;

use wire::protocol::{ClientInfo, PresenceStats};

/// The clients present in one channel, each with the endpoint that added it.
#[derive(Clone, Debug)]
pub struct Presence<Endpoint> {
    clients: BTreeMap<String, (Arc<ClientInfo>, Endpoint)>,
    users: BTreeMap<String, u32>,
}

impl<Endpoint> Default for Presence<Endpoint> {
    fn default() -> Presence<Endpoint> {
        Presence { clients: BTreeMap::new(), users: BTreeMap::new() }
    }
}

impl<Endpoint: Clone> Presence<Endpoint> {
    /// Adds a client, or replaces its stored information.
    pub fn add(&mut self, info: Arc<ClientInfo>, endpoint: Endpoint) {
        self.remove(&info.client);
        *self.users.entry(info.user.clone()).or_default() += 1;
        self.clients.insert(info.client.clone(), (info, endpoint));
    }

    /// Removes a client. Returns whether it was present.
    pub fn remove(&mut self, client: &str) -> bool {
        let Some((info, _)) = self.clients.remove(client) else {
            return false;
        };
        if let Some(count) = self.users.get_mut(&info.user) {
            *count -= 1;
            if *count == 0 {
                self.users.remove(&info.user);
            }
        }
        true
    }

    /// Removes all clients of an endpoint and returns them, each with the data of its endpoint
    /// entry.
    pub fn remove_endpoint(
        &mut self,
        is_of_endpoint: impl Fn(&Endpoint) -> bool,
    ) -> Vec<(Arc<ClientInfo>, Endpoint)> {
        let of_endpoint = self.clients.values().filter(|(_, owner)| is_of_endpoint(owner));
        let gone: Vec<_> = of_endpoint.cloned().collect();
        for (info, _) in &gone {
            self.remove(&info.client);
        }
        gone
    }

    /// All clients, ordered by client id.
    #[must_use]
    pub fn clients(&self) -> Vec<Arc<ClientInfo>> {
        self.clients.values().map(|(info, _)| info.clone()).collect()
    }

    /// The numbers of clients and users.
    #[must_use]
    pub fn stats(&self) -> PresenceStats {
        let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        PresenceStats { num_clients: count(self.clients.len()), num_users: count(self.users.len()) }
    }

    /// Returns whether no client is present.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(user: &str, client: &str) -> Arc<ClientInfo> {
        Arc::new(ClientInfo { user: user.into(), client: client.into(), ..ClientInfo::default() })
    }

    #[test]
    fn counts_clients_and_distinct_users_and_removes_an_endpoint_at_once() {
        let mut presence = Presence::default();
        presence.add(info("ann", "1"), 'a');
        presence.add(info("ann", "2"), 'b');
        presence.add(info("bob", "3"), 'b');
        presence.add(info("bob", "3"), 'b');
        assert_eq!(presence.stats(), PresenceStats { num_clients: 3, num_users: 2 });
        assert_eq!(presence.remove_endpoint(|endpoint| *endpoint == 'b').len(), 2);
        assert_eq!(presence.stats(), PresenceStats { num_clients: 1, num_users: 1 });
        assert!(presence.remove("1"));
        assert!(!presence.remove("1"));
        assert!(presence.is_empty());
        assert_eq!(presence.stats(), PresenceStats::default());
    }
}
