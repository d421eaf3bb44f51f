//! WebSocket connections whose connect command was not accepted yet.
//!
//! Invariant: they count apart from `client.connection_limit`, so that whoever has no name cannot
//! take the place of those who have one. What they have sent is bounded in bytes, all of them
//! together.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use engine::SessionKey;

use crate::client_address::ClientAddress;
use crate::limits::UNAUTHENTICATED_SIZE_MAX;
use crate::limits::slots::{Evict, Slot, SlotLimits, Slots};
use crate::worker::inbox::{Input, WorkerInbox};

/// The slots of all of them.
pub(crate) struct Waiting(Arc<Slots>);

/// One of them. Dropping it gives its slot back.
pub struct Unauthenticated {
    /// Where the client is, behind proxies too.
    pub address: ClientAddress,
    location: Arc<Location>,
    slot: Slot,
}

/// Where it lives, once it does.
#[derive(Default)]
struct Location {
    is_evicted: AtomicBool,
    session: OnceLock<(Arc<WorkerInbox>, SessionKey)>,
}

impl Waiting {
    /// At most so many at once, half of them of one address. A whole message of every size that is
    /// accepted fits.
    pub(crate) fn new(connections_max: usize, message_size_max: usize) -> Waiting {
        Waiting(Slots::new(SlotLimits {
            connections_max,
            per_address_max: connections_max.div_ceil(2),
            bytes_max: UNAUTHENTICATED_SIZE_MAX.max(message_size_max.saturating_mul(2)),
        }))
    }

    /// A slot for a new one; the oldest of whoever has most of them makes room.
    pub(crate) fn take(&self, address: ClientAddress) -> Option<Unauthenticated> {
        let location = Arc::new(Location::default());
        let slot = self.0.take(address.prefix(), location.clone())?;
        Some(Unauthenticated { address, location, slot })
    }
}

impl Unauthenticated {
    /// It has sent so many bytes more. Beyond what all of them may hold, the oldest of whoever has
    /// most of them make room.
    pub(crate) fn hold_bytes(&self, count: usize) {
        self.slot.hold_bytes(count);
    }

    /// It lives on a worker from now on, which is told when it has to make room. Says whether it
    /// may stay.
    pub(crate) fn assign(&self, inbox: &Arc<WorkerInbox>, key: SessionKey) -> bool {
        // Only the worker that it was given to settles it, once.
        let _first = self.location.session.set((inbox.clone(), key));
        !self.location.is_evicted.load(Ordering::SeqCst)
    }
}

impl Evict for Location {
    fn evict(&self) {
        self.is_evicted.store(true, Ordering::SeqCst);
        if let Some((inbox, key)) = self.session.get() {
            inbox.send(Input::MakeRoom(*key));
        }
    }
}
