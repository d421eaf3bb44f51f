//! Clients of this node that are present in channels, and departures that no server has recorded
//! yet.
//!
//! Invariant: presence in Redis lags behind this table by at most one renewal or one reconnect.

use std::collections::BTreeMap;
use std::sync::Arc;

use engine::broker::PresenceRequest;
use wire::protocol::ClientInfo;

use crate::Endpoint;
use crate::limits::DEPARTURES_MAX;

type Clients = BTreeMap<String, PresentClient>;

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
    departures: Vec<Vec<(Arc<str>, Arc<ClientInfo>)>>,
    departure_count: usize,
}

impl PresenceTable {
    pub(super) fn new(partitions: usize) -> PresenceTable {
        PresenceTable {
            partitions: std::iter::repeat_with(BTreeMap::new).take(partitions).collect(),
            departures: std::iter::repeat_with(Vec::new).take(partitions).collect(),
            departure_count: 0,
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
                self.add(partition, channel, client);
            }
            PresenceRequest::Remove { channel, client } => {
                self.remove(partition, channel, &client.client);
            }
            PresenceRequest::Clients { .. } | PresenceRequest::Stats { .. } => {}
        }
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
            self.departures[partition].push((channel, client));
            self.departure_count += 1;
        }
    }

    /// Takes the departures of a partition whose clients have not returned.
    pub(super) fn take_departures(&mut self, partition: usize) -> Vec<(Arc<str>, Arc<ClientInfo>)> {
        let mut departures = std::mem::take(&mut self.departures[partition]);
        self.departure_count -= departures.len();
        departures.retain(|(channel, info)| {
            let clients = self.partitions[partition].get(channel);
            !clients.is_some_and(|clients| clients.contains_key(&info.client))
        });
        departures
    }
}
