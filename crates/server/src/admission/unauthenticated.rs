//! WebSocket connections whose connect command was not accepted yet.
//!
//! Invariant: they do not count towards `client.connection_limit`, so that unauthenticated clients
//! cannot exclude authenticated ones. The bytes that all of them hold together are bounded.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use engine::SessionKey;

use crate::client_address::ClientAddress;
use crate::limits::UNAUTHENTICATED_SIZE_MAX;
use crate::limits::slots::{Evict, Slot, SlotLimits, Slots};
use crate::worker::inbox::{Input, WorkerInbox};

/// Slots of all unauthenticated connections.
pub(crate) struct Waiting(Arc<Slots>);

/// An unauthenticated connection. Dropping it releases its slot.
pub struct Unauthenticated {
    /// Address of the client, resolved through trusted proxies.
    pub address: ClientAddress,
    location: Arc<Location>,
    /// Bytes of its messages: the session may hold them until a token is verified.
    messages: Cell<usize>,
    slot: Slot,
}

/// Worker and session of the connection, once it has arrived there.
#[derive(Default)]
struct Location {
    is_evicted: AtomicBool,
    session: OnceLock<(Arc<WorkerInbox>, SessionKey)>,
}

impl Waiting {
    /// Allows `connections_max` connections, half of them from one address. The bound on bytes has
    /// room for a complete message of every accepted size.
    pub(crate) fn new(connections_max: usize, message_size_max: usize) -> Waiting {
        Waiting(Slots::new(SlotLimits {
            connections_max,
            per_address_max: connections_max.div_ceil(2),
            bytes_max: UNAUTHENTICATED_SIZE_MAX.max(message_size_max.saturating_mul(2)),
        }))
    }

    /// Takes a slot. If none is free, the oldest connection of the address with most connections is
    /// evicted.
    pub(crate) fn take(&self, address: ClientAddress) -> Option<Unauthenticated> {
        let location = Arc::new(Location::default());
        let slot = self.0.take(address.prefix(), location.clone())?;
        Some(Unauthenticated { address, location, messages: Cell::new(0), slot })
    }
}

impl Unauthenticated {
    /// Accounts a message of `count` bytes.
    pub(crate) fn hold_message(&self, count: usize) {
        self.messages.set(self.messages.get() + count);
    }

    /// Accounts the bytes of an unfinished message, beside those of its messages. If the total of
    /// all connections exceeds its bound, those that hold most are evicted.
    pub(crate) fn hold_unfinished(&self, count: usize) {
        self.slot.set_bytes(self.messages.get() + count);
    }

    /// Records the worker and session, which an eviction is sent to. Returns `false` if the
    /// connection was evicted already.
    pub(crate) fn assign(&self, inbox: &Arc<WorkerInbox>, key: SessionKey) -> bool {
        // Called once, by the worker that the connection was passed to.
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
