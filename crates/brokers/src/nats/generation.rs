//! Generations of the store: how a node keeps track of messages that NATS has lost.
//!
//! A NATS that lost its newest messages (a power cut before they reached the disk, a restored
//! backup) continues to count from what it has, and its streams look intact. So every node keeps a
//! high-water mark: the newest message of the history stream that it has seen. When that message is
//! missing, the node that notices it stores the next generation in a stream of its own. Epochs that
//! clients see end with the name of the generation: a new generation is a new epoch of every
//! channel, while stored messages stay as they are. See [`super::store_check`] for the comparison.
//!
//! Invariant: generation numbers only grow, and a node uses what it reads only after the store has
//! shown the high-water mark on the current connection.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Notify;
use tracing::info;

use super::subject;

/// The generation, high-water mark and verification of the store, as this node knows them.
#[derive(Default)]
pub(super) struct StoreGenerations {
    current: RefCell<Generation>,
    high_water_mark: RefCell<HighWaterMark>,
    /// Number of the connection on which the store has shown the high-water mark; zero for none.
    verified_on: Cell<u64>,
    /// Wakes requests that wait until the store is verified.
    pub(super) has_settled: Notify,
    /// Whether this node has checked that it is not the first one after a restart of NATS.
    has_started: Cell<bool>,
    /// Name of the server that leads the history stream; empty for a single server.
    leader: RefCell<String>,
    /// A generation has begun, or another server leads the history stream and messages of the
    /// former leader may be lost: every channel with subscribers must be verified.
    pub(super) wants_verification: Notify,
    /// A message has a sequence that another message had before.
    pub(super) reuses_sequence: Notify,
}

/// A life of the store, from one loss of messages to the next.
#[derive(Clone, Default)]
pub(super) struct Generation {
    /// Zero until the first loss.
    pub(super) number: u64,
    /// Suffix of the epochs of this generation.
    ending: Arc<str>,
}

/// The newest message of the history stream that this node has seen; the default stands for none.
#[derive(Clone, Default)]
pub(super) struct HighWaterMark {
    pub(super) sequence: u64,
    pub(super) payload: Bytes,
}

impl StoreGenerations {
    /// The epoch that clients see for the epoch of a record.
    pub(super) fn client_epoch(&self, epoch: &Arc<str>) -> Arc<str> {
        let current = self.current.borrow();
        match current.number {
            0 => epoch.clone(),
            _ => format!("{epoch}{}", current.ending).into(),
        }
    }

    pub(super) fn number(&self) -> u64 {
        self.current.borrow().number
    }

    /// Messages stored from now on have a sequence above this one.
    pub(super) fn high_water_sequence(&self) -> u64 {
        self.high_water_mark.borrow().sequence
    }

    pub(super) fn high_water_mark(&self) -> HighWaterMark {
        self.high_water_mark.borrow().clone()
    }

    /// Takes note of a message of the history stream, received on this connection. `above` is the
    /// highest sequence known when the message was stored.
    pub(super) fn note(&self, connection: u64, above: u64, sequence: u64, payload: &Bytes) {
        if sequence <= above {
            self.verified_on.set(0);
            self.reuses_sequence.notify_one();
        } else if self.is_verified(connection) && sequence > self.high_water_sequence() {
            self.high_water_mark.replace(HighWaterMark { sequence, payload: payload.clone() });
        }
    }

    pub(super) fn is_verified(&self, connection: u64) -> bool {
        self.verified_on.get() == connection
    }

    /// The store has shown the high-water mark on this connection.
    pub(super) fn set_verified(&self, connection: u64) {
        self.set_started();
        self.verified_on.set(connection);
        self.has_settled.notify_waiters();
    }

    /// Returns whether another node has stored this generation. A restored store may give one
    /// number twice, so that the name is compared too.
    pub(super) fn is_new(&self, stored: &Generation) -> bool {
        let own = self.current.borrow();
        stored.number > own.number || stored.number == own.number && stored.ending != own.ending
    }

    pub(super) fn has_started(&self) -> bool {
        self.has_started.get()
    }

    /// From now on only a missing high-water mark begins a generation. Called also by the node that
    /// creates the history stream: nothing could be lost before.
    pub(super) fn set_started(&self) {
        self.has_started.set(true);
    }

    /// Takes note of the server that leads the history stream.
    pub(super) fn note_leader(&self, leader: &str) {
        let last = self.leader.replace(leader.to_owned());
        if !last.is_empty() && last != leader {
            info!(%leader, "NATS: another server leads the history stream");
            self.wants_verification.notify_one();
        }
    }

    pub(super) fn begin(&self, generation: Generation) {
        info!(
            generation = generation.number,
            "NATS: a generation of the store has begun, and with it new epochs of all channels"
        );
        self.current.replace(generation);
        self.high_water_mark.take();
        self.wants_verification.notify_one();
    }
}

impl Generation {
    pub(super) fn new(number: u64, name: &str) -> Generation {
        Generation { number, ending: format!(".{name}").into() }
    }

    pub(super) fn encode(number: u64, name: &str) -> Bytes {
        format!("t1 era {number} {}\n", subject::token(name)).into()
    }

    /// `None` for a message in another format.
    pub(super) fn decode(message: &[u8]) -> Option<Generation> {
        let line = std::str::from_utf8(message).ok()?.strip_suffix('\n')?;
        let (number, name) = line.strip_prefix("t1 era ")?.split_once(' ')?;
        Some(Generation::new(number.parse().ok()?, &subject::text(name)?))
    }
}
