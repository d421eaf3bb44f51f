//! Which party hears which channel. Invariant: a channel that nobody hears is not known here.

use std::collections::HashMap;
use std::sync::Arc;

use engine::broker::BrokerEvent;

use crate::{Inbox, Party};

type Ear = (Party, Arc<dyn Inbox>);

/// See the module. Channels by partition, since a partition moves as a whole.
pub(super) struct Listeners {
    partitions: Vec<HashMap<Arc<str>, Heard>>,
}

struct Heard {
    ears: Vec<Ear>,
    /// How long the position is kept that somebody holds; `None` while nobody has asked for it.
    meta_ttl_ms: Option<u64>,
    /// The epoch of the last publication, shared with those that follow.
    epoch: Arc<str>,
}

/// The names of a channel and of its stream's epoch, shared.
pub(super) struct Names {
    pub(super) channel: Arc<str>,
    pub(super) epoch: Arc<str>,
}

impl Listeners {
    pub(super) fn new(partitions: usize) -> Listeners {
        Listeners { partitions: std::iter::repeat_with(HashMap::new).take(partitions).collect() }
    }

    /// Says whether nobody heard the channel before.
    pub(super) fn add(
        &mut self,
        partition: usize,
        channel: &Arc<str>,
        ear: Ear,
        meta_ttl_ms: Option<u64>,
    ) -> bool {
        let channels = &mut self.partitions[partition];
        if let Some(heard) = channels.get_mut(channel) {
            heard.meta_ttl_ms = heard.meta_ttl_ms.max(meta_ttl_ms);
            if !heard.ears.iter().any(|(party, _)| *party == ear.0) {
                heard.ears.push(ear);
            }
            return false;
        }
        let heard = Heard { ears: vec![ear], meta_ttl_ms, epoch: "".into() };
        channels.insert(channel.clone(), heard);
        true
    }

    /// Says whether nobody hears the channel any more.
    pub(super) fn remove(&mut self, partition: usize, channel: &str, party: Party) -> bool {
        let Some(heard) = self.partitions[partition].get_mut(channel) else {
            return false;
        };
        heard.ears.retain(|(ear, _)| *ear != party);
        let is_deserted = heard.ears.is_empty();
        if is_deserted {
            self.partitions[partition].remove(channel);
        }
        is_deserted
    }

    /// The party is gone; the channels that nobody hears any more, with their partitions.
    pub(super) fn remove_party(&mut self, party: Party) -> Vec<(usize, Arc<str>)> {
        let mut deserted = Vec::new();
        for (partition, channels) in self.partitions.iter_mut().enumerate() {
            channels.retain(|channel, heard| {
                heard.ears.retain(|(ear, _)| *ear != party);
                if heard.ears.is_empty() {
                    deserted.push((partition, channel.clone()));
                }
                !heard.ears.is_empty()
            });
        }
        deserted
    }

    pub(super) fn is_heard(&self, partition: usize, channel: &str) -> bool {
        self.partitions[partition].contains_key(channel)
    }

    /// Whether one of those who hear the channel is too far behind.
    pub(super) fn is_full(&self, partition: usize, channel: &str) -> bool {
        let heard = self.partitions[partition].get(channel);
        heard.is_some_and(|heard| heard.ears.iter().any(|(_, inbox)| inbox.is_full()))
    }

    /// `None` when nobody hears the channel.
    pub(super) fn names(&mut self, partition: usize, channel: &str, epoch: &str) -> Option<Names> {
        let (name, _) = self.partitions[partition].get_key_value(channel)?;
        let channel = name.clone();
        let heard = self.partitions[partition].get_mut(&channel)?;
        if epoch.is_empty() {
            return Some(Names { channel, epoch: "".into() });
        }
        if *heard.epoch != *epoch {
            heard.epoch = epoch.into();
        }
        Some(Names { channel, epoch: heard.epoch.clone() })
    }

    pub(super) fn tell(&self, partition: usize, channel: &str, event: &BrokerEvent) {
        if let Some(heard) = self.partitions[partition].get(channel) {
            heard.ears.iter().for_each(|(_, inbox)| inbox.deliver(event.clone()));
        }
    }

    /// All channels of a partition, with how long the positions are kept that somebody holds.
    pub(super) fn channels(&self, partition: usize) -> Vec<(Arc<str>, Option<u64>)> {
        let channels = self.partitions[partition].iter();
        channels.map(|(channel, heard)| (channel.clone(), heard.meta_ttl_ms)).collect()
    }
}
