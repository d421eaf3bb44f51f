//! Clients of this node that are present in channels, and departures that no server has recorded
//! yet.
//!
//! Invariant: presence in Redis lags behind this table by at most one renewal or one reconnect.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::broker::PresenceRequest;
use wire::protocol::ClientInfo;

use crate::Endpoint;
use crate::limits::{DEPARTURES_MAX, NAMES_PER_COMMAND};

type Clients = BTreeMap<String, PresentClient>;

/// A channel and the id of a client.
type PresenceKey = (Arc<str>, String);
/// A client, and whether its leave is announced.
type OwnedClient = (Arc<ClientInfo>, bool);
type Departures = BTreeMap<PresenceKey, Arc<ClientInfo>>;

/// A client of this node that is present in a channel.
pub(super) struct PresentClient {
    pub(super) info: Arc<ClientInfo>,
    pub(super) endpoint: Endpoint,
    /// Whether its leave is announced to subscribers.
    pub(super) announces: bool,
}

/// Present clients by partition and channel, and unrecorded departures.
pub(super) struct PresenceTable {
    partitions: Vec<BTreeMap<Arc<str>, Clients>>,
    /// One for each client and channel, however often the client joined and left.
    departures: Vec<Departures>,
    departure_count: usize,
    /// Present clients that were not sent since they joined, and whether a server may have an
    /// earlier entry of them.
    unsent: Vec<BTreeMap<PresenceKey, bool>>,
}

impl PresenceTable {
    pub(super) fn new(partitions: usize) -> PresenceTable {
        PresenceTable {
            partitions: std::iter::repeat_with(BTreeMap::new).take(partitions).collect(),
            departures: std::iter::repeat_with(BTreeMap::new).take(partitions).collect(),
            departure_count: 0,
            unsent: std::iter::repeat_with(BTreeMap::new).take(partitions).collect(),
        }
    }

    /// Applies a request to this table before it is sent, so that a renewal never adds a client
    /// that has left.
    pub(super) fn accept(
        &mut self,
        partition: usize,
        endpoint: Endpoint,
        request: &PresenceRequest,
    ) {
        match request {
            PresenceRequest::Add { channel, info, announces } => {
                let client = PresentClient { info: info.clone(), endpoint, announces: *announces };
                self.unsent[partition].remove(&(channel.clone(), info.client.clone()));
                self.add(partition, channel, client);
            }
            PresenceRequest::Remove { channel, client } => {
                self.unsent[partition].remove(&(channel.clone(), client.client.clone()));
                self.remove(partition, channel, &client.client);
            }
            PresenceRequest::Clients { .. } | PresenceRequest::Stats { .. } => {}
        }
    }

    /// Applies a request that is not sent: what it changes is sent later.
    pub(super) fn postpone(
        &mut self,
        partition: usize,
        endpoint: Endpoint,
        request: &PresenceRequest,
    ) {
        match request {
            PresenceRequest::Add { channel, info, .. } => {
                let key = (channel.clone(), info.client.clone());
                let clients = self.partitions[partition].get(channel);
                let is_present = clients.is_some_and(|clients| clients.contains_key(&key.1));
                let may_be_recorded = match self.unsent[partition].get(&key) {
                    Some(may_be_recorded) => *may_be_recorded,
                    None => is_present || self.departures[partition].contains_key(&key),
                };
                self.accept(partition, endpoint, request);
                self.unsent[partition].insert(key, may_be_recorded);
            }
            PresenceRequest::Remove { channel, client } => {
                let key = (channel.clone(), client.client.clone());
                let may_be_recorded = self.unsent[partition].get(&key).copied().unwrap_or(true);
                self.accept(partition, endpoint, request);
                if may_be_recorded {
                    self.remember_departure(partition, channel.clone(), client.clone());
                }
            }
            PresenceRequest::Clients { .. } | PresenceRequest::Stats { .. } => {}
        }
    }

    /// Whether joins or leaves of a partition were not sent.
    pub(super) fn has_postponed(&self, partition: usize) -> bool {
        !self.unsent[partition].is_empty() || !self.departures[partition].is_empty()
    }

    /// All clients of the partition are sent.
    pub(super) fn clear_unsent(&mut self, partition: usize) {
        self.unsent[partition].clear();
    }

    /// Takes clients of one channel that were not sent, as many as one command takes.
    pub(super) fn take_unsent(&mut self, partition: usize) -> Option<(Arc<str>, Vec<OwnedClient>)> {
        let ((channel, _), _) = self.unsent[partition].first_key_value()?;
        let (channel, mut taken) = (channel.clone(), Vec::new());
        let clients = self.partitions[partition].get(&channel);
        while taken.len() < NAMES_PER_COMMAND
            && let Some(first) = self.unsent[partition].first_entry()
            && first.key().0 == channel
        {
            let ((_, client), _) = first.remove_entry();
            let present = clients.and_then(|clients| clients.get(&client));
            taken.extend(present.map(|one| (one.info.clone(), one.announces)));
        }
        Some((channel, taken))
    }

    fn add(&mut self, partition: usize, channel: &Arc<str>, client: PresentClient) {
        let clients = self.partitions[partition].entry(channel.clone()).or_default();
        clients.insert(client.info.client.clone(), client);
    }

    fn remove(&mut self, partition: usize, channel: &str, client: &str) {
        if let Some(clients) = self.partitions[partition].get_mut(channel) {
            clients.remove(client);
            if clients.is_empty() {
                self.partitions[partition].remove(channel);
            }
        }
    }

    /// Whether any client of this node is present in the channel.
    pub(super) fn has_any(&self, partition: usize, channel: &str) -> bool {
        self.partitions[partition].contains_key(channel)
    }

    /// The clients of an endpoint, and whether their leaves are announced.
    pub(super) fn of_endpoint(&self, endpoint: Endpoint) -> Vec<(Arc<str>, Arc<ClientInfo>, bool)> {
        let channels = self.partitions.iter().flatten();
        let clients = channels.flat_map(|(channel, clients)| {
            clients
                .values()
                .filter(|client| client.endpoint == endpoint)
                .map(move |client| (channel, client))
        });
        let gone = |(channel, one): (&Arc<str>, &PresentClient)| {
            (channel.clone(), one.info.clone(), one.announces)
        };
        clients.map(gone).collect()
    }

    /// All clients in a partition by channel, and whether their leaves are announced.
    pub(super) fn by_channel(
        &self,
        partition: usize,
    ) -> impl Iterator<Item = (&Arc<str>, Vec<(&ClientInfo, bool)>)> {
        self.partitions[partition].iter().map(|(channel, clients)| {
            (channel, clients.values().map(|one| (&*one.info, one.announces)).collect())
        })
    }

    /// Stores a departure that no server has recorded. Beyond the limit, presence ends by its TTL.
    pub(super) fn remember_departure(
        &mut self,
        partition: usize,
        channel: Arc<str>,
        client: Arc<ClientInfo>,
    ) {
        if self.departure_count < DEPARTURES_MAX {
            let key = (channel, client.client.clone());
            let is_new = self.departures[partition].insert(key, client).is_none();
            self.departure_count += usize::from(is_new);
        }
    }

    /// Takes the departures of a partition whose clients have not returned.
    pub(super) fn take_departures(&mut self, partition: usize) -> Vec<(Arc<str>, Arc<ClientInfo>)> {
        let departures = std::mem::take(&mut self.departures[partition]);
        self.departure_count -= departures.len();
        let departures = departures.into_iter().filter(|((channel, client), _)| {
            let clients = self.partitions[partition].get(channel);
            !clients.is_some_and(|clients| clients.contains_key(client))
        });
        departures.map(|((channel, _), info)| (channel, info)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_joins_and_leaves_again_and_again_is_one_departure() {
        let mut table = PresenceTable::new(1);
        let channel: Arc<str> = "a".into();
        for client in ["1", "2"].repeat(1_000) {
            let info = ClientInfo { client: client.to_owned(), ..ClientInfo::default() };
            table.remember_departure(0, channel.clone(), Arc::new(info));
        }
        assert_eq!(table.departure_count, 2);
        let client = Arc::new(ClientInfo { client: "1".to_owned(), ..ClientInfo::default() });
        let (channel, info) = (channel, client);
        table.accept(0, Endpoint(0), &PresenceRequest::Add { channel, info, announces: false });
        let departures = table.take_departures(0);
        assert_eq!(departures.len(), 1, "one of them has returned");
        assert_eq!(departures[0].1.client, "2");
        assert_eq!(table.departure_count, 0);
    }

    #[test]
    fn a_client_that_no_server_knows_leaves_without_a_departure() {
        let mut table = PresenceTable::new(1);
        let info = |client: &str| {
            Arc::new(ClientInfo { client: client.to_owned(), ..ClientInfo::default() })
        };
        let add = |client: &str| {
            let (channel, info) = ("a".into(), info(client));
            PresenceRequest::Add { channel, info, announces: false }
        };
        let remove = |client: &str| {
            let (channel, client) = ("a".into(), info(client));
            PresenceRequest::Remove { channel, client }
        };
        table.postpone(0, Endpoint(0), &add("unknown"));
        table.postpone(0, Endpoint(0), &remove("unknown"));
        assert!(!table.has_postponed(0) && table.take_departures(0).is_empty());
        // The servers know this one; it joins anew and leaves.
        table.accept(0, Endpoint(0), &add("known"));
        table.postpone(0, Endpoint(0), &add("known"));
        table.postpone(0, Endpoint(0), &remove("known"));
        table.postpone(0, Endpoint(0), &add("known"));
        table.postpone(0, Endpoint(0), &remove("known"));
        assert_eq!(table.take_departures(0).len(), 1);
        table.postpone(0, Endpoint(0), &add("late"));
        let (channel, clients) = table.take_unsent(0).unwrap();
        assert_eq!((&*channel, &*clients[0].0.client, clients.len()), ("a", "late", 1));
        assert!(!table.has_postponed(0));
        table.postpone(0, Endpoint(0), &remove("late"));
        assert_eq!(table.take_departures(0).len(), 1, "it was sent");
    }
}
