//! The channels that parties of this node hear.
//!
//! Invariant: a channel stands here as long as somebody hears it, with the position up to which it was told.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use engine::broker::BrokerEvent;
use wire::protocol::StreamPosition;

use super::message;
use crate::{Inbox, Party};

/// See the module.
#[derive(Default)]
pub(super) struct Heard(HashMap<Arc<str>, Ear>);

/// What hears one channel.
#[derive(Default)]
pub(super) struct Ear {
    listeners: Vec<(Party, Arc<dyn Inbox>)>,
    /// Whether Redis was asked over the connection that we have now.
    pub(super) is_asked: bool,
    /// Epoch and offset up to which the listeners know the stream; empty when they know none.
    pub(super) told: (Arc<str>, u64),
    /// How long offset and epoch are kept, by the longest that was asked for.
    pub(super) meta_ttl_ms: u64,
}

impl Ear {
    pub(super) fn tell(&self, event: &BrokerEvent) {
        for (_, inbox) in &self.listeners {
            inbox.deliver(event.clone());
        }
    }

    pub(super) fn is_told(&mut self, top: &StreamPosition) {
        if *self.told.0 != *top.epoch {
            self.told.0 = top.epoch.as_str().into();
        }
        self.told.1 = top.offset;
    }
}

impl Heard {
    pub(super) fn enter(
        &mut self,
        channel: &Arc<str>,
        party: Party,
        inbox: &Arc<dyn Inbox>,
    ) -> &mut Ear {
        let ear = self.0.entry(channel.clone()).or_default();
        if !ear.listeners.iter().any(|(listener, _)| *listener == party) {
            ear.listeners.push((party, inbox.clone()));
        }
        ear
    }

    /// Says whether the channel is not heard any more.
    pub(super) fn leave(&mut self, channel: &str, party: Party) -> bool {
        let Some(ear) = self.0.get_mut(channel) else { return false };
        ear.listeners.retain(|(listener, _)| *listener != party);
        ear.listeners.is_empty() && self.0.remove(channel).is_some()
    }

    /// The party is gone. Returns the channels that are not heard any more.
    pub(super) fn forget(&mut self, party: Party) -> Vec<Arc<str>> {
        let mut silent = Vec::new();
        self.0.retain(|channel, ear| {
            ear.listeners.retain(|(listener, _)| *listener != party);
            if ear.listeners.is_empty() {
                silent.push(channel.clone());
            }
            !ear.listeners.is_empty()
        });
        silent
    }

    pub(super) fn ear(&mut self, channel: &str) -> Option<&mut Ear> {
        self.0.get_mut(channel)
    }

    pub(super) fn has_full_listener(&self, channel: &str) -> bool {
        let listeners = self.0.get(channel).map_or(&[][..], |ear| &ear.listeners);
        listeners.iter().any(|(_, inbox)| inbox.is_full())
    }

    pub(super) fn hear(&mut self, channel: &str, payload: &Bytes) {
        let Some((channel, _)) = self.0.get_key_value(channel) else { return };
        let channel = channel.clone();
        let Some(ear) = self.0.get_mut(&channel) else { return };
        let Some(event) = message::decode(&channel, payload, &ear.told.0) else { return };
        if let BrokerEvent::Publication { publication, epoch, .. } = &event
            && !epoch.is_empty()
        {
            ear.told = (epoch.clone(), publication.offset);
        }
        ear.tell(&event);
    }

    /// The connection is gone, and what was asked over it.
    pub(super) fn lose(&mut self) -> Vec<Arc<str>> {
        for ear in self.0.values_mut() {
            ear.is_asked = false;
        }
        self.0.keys().cloned().collect()
    }
}
