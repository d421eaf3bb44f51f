//! Subscribed endpoints by channel. Invariant: a channel without subscribers has no entry.

use std::collections::HashMap;
use std::sync::Arc;

use engine::broker::BrokerEvent;

use super::outputs::{CoreOutputs, EndpointStates};
use crate::Endpoint;

/// Subscribed endpoints by partition and channel, since a partition moves as a whole.
pub(super) struct ChannelSubscriptions {
    partitions: Vec<HashMap<Arc<str>, ChannelEntry>>,
}

struct ChannelEntry {
    subscribers: Vec<Endpoint>,
    /// TTL in milliseconds of the position that subscribers track; `None` when none does.
    meta_ttl_ms: Option<u64>,
    /// Epoch of the last publication; its allocation is shared with later events.
    epoch: Arc<str>,
}

/// Shared names of a channel and its stream's epoch.
pub(super) struct SharedNames {
    pub(super) channel: Arc<str>,
    pub(super) epoch: Arc<str>,
}

impl ChannelSubscriptions {
    pub(super) fn new(partitions: usize) -> ChannelSubscriptions {
        ChannelSubscriptions {
            partitions: std::iter::repeat_with(HashMap::new).take(partitions).collect(),
        }
    }

    /// Returns whether it is the first subscriber of the channel.
    pub(super) fn add(
        &mut self,
        partition: usize,
        channel: &Arc<str>,
        subscriber: Endpoint,
        meta_ttl_ms: Option<u64>,
    ) -> bool {
        let channels = &mut self.partitions[partition];
        if let Some(entry) = channels.get_mut(channel) {
            entry.meta_ttl_ms = entry.meta_ttl_ms.max(meta_ttl_ms);
            if !entry.subscribers.contains(&subscriber) {
                entry.subscribers.push(subscriber);
            }
            return false;
        }
        let entry = ChannelEntry { subscribers: vec![subscriber], meta_ttl_ms, epoch: "".into() };
        channels.insert(channel.clone(), entry);
        true
    }

    /// Returns whether the channel has no subscribers any more.
    pub(super) fn remove(&mut self, partition: usize, channel: &str, endpoint: Endpoint) -> bool {
        let Some(entry) = self.partitions[partition].get_mut(channel) else {
            return false;
        };
        entry.subscribers.retain(|subscriber| *subscriber != endpoint);
        let is_empty = entry.subscribers.is_empty();
        if is_empty {
            self.partitions[partition].remove(channel);
        }
        is_empty
    }

    /// Removes an endpoint; returns the channels without subscribers, with their partitions.
    pub(super) fn remove_endpoint(&mut self, endpoint: Endpoint) -> Vec<(usize, Arc<str>)> {
        let mut unused = Vec::new();
        for (partition, channels) in self.partitions.iter_mut().enumerate() {
            channels.retain(|channel, entry| {
                entry.subscribers.retain(|subscriber| *subscriber != endpoint);
                if entry.subscribers.is_empty() {
                    unused.push((partition, channel.clone()));
                }
                !entry.subscribers.is_empty()
            });
        }
        unused.sort();
        unused
    }

    pub(super) fn has_subscribers(&self, partition: usize, channel: &str) -> bool {
        self.partitions[partition].contains_key(channel)
    }

    /// Whether a subscriber of the channel is too far behind.
    pub(super) fn is_full(
        &self,
        partition: usize,
        channel: &str,
        endpoints: &dyn EndpointStates,
    ) -> bool {
        let entry = self.partitions[partition].get(channel);
        entry.is_some_and(|entry| entry.subscribers.iter().any(|one| endpoints.is_full(*one)))
    }

    /// The shared names; `None` when the channel has no subscribers.
    pub(super) fn names(
        &mut self,
        partition: usize,
        channel: &str,
        epoch: &str,
    ) -> Option<SharedNames> {
        let (name, _) = self.partitions[partition].get_key_value(channel)?;
        let channel = name.clone();
        let entry = self.partitions[partition].get_mut(&channel)?;
        if epoch.is_empty() {
            return Some(SharedNames { channel, epoch: "".into() });
        }
        if *entry.epoch != *epoch {
            entry.epoch = epoch.into();
        }
        Some(SharedNames { channel, epoch: entry.epoch.clone() })
    }

    pub(super) fn notify(
        &self,
        partition: usize,
        channel: &str,
        event: &BrokerEvent,
        outputs: &mut CoreOutputs,
    ) {
        if let Some(entry) = self.partitions[partition].get(channel) {
            entry.subscribers.iter().for_each(|one| outputs.deliver(*one, event.clone()));
        }
    }

    /// All channels of a partition, with the TTL of their positions.
    pub(super) fn channels(&self, partition: usize) -> Vec<(Arc<str>, Option<u64>)> {
        let channels = self.partitions[partition].iter();
        let mut channels: Vec<_> =
            channels.map(|(channel, entry)| (channel.clone(), entry.meta_ttl_ms)).collect();
        // The same inputs give the same commands.
        channels.sort();
        channels
    }
}
