//! The parties of a broker that works on a thread of its own.
//!
//! Invariant: a party has one name as long as its broker lives, and no other ever has it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use engine::broker::{BrokerEvent, Control};

use crate::{Inbox, Party};

/// See the module.
#[derive(Default)]
pub(crate) struct Parties {
    inboxes: RwLock<HashMap<Party, Arc<dyn Inbox>>>,
    next: AtomicU32,
}

impl Parties {
    pub(crate) fn attach(&self, inbox: Arc<dyn Inbox>) -> Party {
        let party = Party(self.next.fetch_add(1, Ordering::Relaxed));
        self.inboxes.write().unwrap_or_else(PoisonError::into_inner).insert(party, inbox);
        party
    }

    pub(crate) fn detach(&self, party: Party) {
        self.inboxes.write().unwrap_or_else(PoisonError::into_inner).remove(&party);
    }

    pub(crate) fn all(&self) -> Vec<Party> {
        let inboxes = self.inboxes.read().unwrap_or_else(PoisonError::into_inner);
        inboxes.keys().copied().collect()
    }

    pub(crate) fn inbox(&self, party: Party) -> Option<Arc<dyn Inbox>> {
        self.inboxes.read().unwrap_or_else(PoisonError::into_inner).get(&party).cloned()
    }

    pub(crate) fn tell(&self, control: &Arc<Control>) {
        self.tell_all(&BrokerEvent::Control(control.clone()));
    }

    pub(crate) fn tell_all(&self, event: &BrokerEvent) {
        let inboxes: Vec<_> = {
            let inboxes = self.inboxes.read().unwrap_or_else(PoisonError::into_inner);
            inboxes.values().cloned().collect()
        };
        for inbox in inboxes {
            inbox.deliver(event.clone());
        }
    }
}
