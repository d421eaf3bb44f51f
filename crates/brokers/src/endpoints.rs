//! The endpoints of a broker that works on a thread of its own.
//!
//! Invariant: an endpoint's number is not reused during the broker's lifetime.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use engine::broker::{BrokerEvent, Control};

use crate::{Endpoint, Inbox};

/// The inboxes of the attached endpoints.
#[derive(Default)]
pub(crate) struct Endpoints {
    inboxes: RwLock<HashMap<Endpoint, Arc<dyn Inbox>>>,
    next: AtomicU32,
}

impl Endpoints {
    pub(crate) fn attach(&self, inbox: Arc<dyn Inbox>) -> Endpoint {
        let endpoint = Endpoint(self.next.fetch_add(1, Ordering::Relaxed));
        self.inboxes.write().unwrap_or_else(PoisonError::into_inner).insert(endpoint, inbox);
        endpoint
    }

    pub(crate) fn detach(&self, endpoint: Endpoint) {
        self.inboxes.write().unwrap_or_else(PoisonError::into_inner).remove(&endpoint);
    }

    pub(crate) fn all(&self) -> Vec<Endpoint> {
        let inboxes = self.inboxes.read().unwrap_or_else(PoisonError::into_inner);
        inboxes.keys().copied().collect()
    }

    pub(crate) fn inbox(&self, endpoint: Endpoint) -> Option<Arc<dyn Inbox>> {
        self.inboxes.read().unwrap_or_else(PoisonError::into_inner).get(&endpoint).cloned()
    }

    /// The inboxes, none of which is attached or detached meanwhile.
    pub(crate) fn inboxes(&self) -> RwLockReadGuard<'_, HashMap<Endpoint, Arc<dyn Inbox>>> {
        self.inboxes.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn notify_order(&self, control: &Arc<Control>) {
        self.notify_all(&BrokerEvent::Control(control.clone()));
    }

    pub(crate) fn notify_all(&self, event: &BrokerEvent) {
        let inboxes: Vec<_> = {
            let inboxes = self.inboxes.read().unwrap_or_else(PoisonError::into_inner);
            inboxes.values().cloned().collect()
        };
        for inbox in inboxes {
            inbox.deliver(event.clone());
        }
    }
}
