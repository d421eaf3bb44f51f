//! The events that a worker reports, checked against their order.

use std::collections::{BTreeMap, BTreeSet};

use engine::lifecycle::Change;
use engine::{SessionChange, SessionEvent};

use super::oracle::{Oracle, Violation};

/// Clients that were reported online, with the channels that they were reported in.
#[derive(Default)]
pub(crate) struct Reported {
    clients: BTreeMap<String, BTreeSet<String>>,
}

impl Reported {
    /// Checks that an event is the next one of its client and its subscription.
    pub(crate) fn note(&mut self, event: &SessionEvent) -> Result<(), Violation> {
        let client = &event.info.client;
        let channels = self.clients.get_mut(client);
        let is_next = match (&event.what, channels) {
            (SessionChange::Client(Change::Online), None) => {
                self.clients.insert(client.clone(), BTreeSet::new());
                true
            }
            (SessionChange::Client(Change::Offline { .. }), Some(channels)) => {
                let is_empty = channels.is_empty();
                self.clients.remove(client);
                is_empty
            }
            (SessionChange::Subscribed(channel), Some(channels)) => {
                channels.insert(channel.to_string())
            }
            (SessionChange::Unsubscribed(channel), Some(channels)) => channels.remove(&**channel),
            _ => false,
        };
        Oracle::Reported.check(is_next, || format!("{event:?} is out of turn"))
    }

    /// Number of clients that are reported online.
    pub(crate) fn len(&self) -> usize {
        self.clients.len()
    }
}
