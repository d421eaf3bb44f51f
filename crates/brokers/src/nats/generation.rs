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

use std::sync::Arc;

use bytes::Bytes;

use super::subject;

/// The generation, high-water mark and verification of the store, as this node knows them.
#[derive(Debug, Default)]
pub(super) struct StoreGenerations {
    current: Generation,
    high_water_mark: HighWaterMark,
    /// Number of the connection on which the store has shown the high-water mark; zero for none.
    verified_on: u64,
    /// Whether this node has checked that it is not the first one after a restart of NATS.
    has_started: bool,
    /// Name of the server that leads the history stream; empty for a single server.
    leader: String,
    /// A message has a sequence that another message had before: the store must be checked.
    is_check_wanted: bool,
}

/// One life of the store, from one loss of messages to the next.
#[derive(Clone, Debug, Default)]
pub(super) struct Generation {
    /// Zero until the first loss.
    pub(super) number: u64,
    /// Suffix of the epochs of this generation.
    suffix: Arc<str>,
}

/// The newest message of the history stream that this node has seen; the default stands for none.
#[derive(Clone, Debug, Default)]
pub(super) struct HighWaterMark {
    pub(super) sequence: u64,
    pub(super) payload: Bytes,
}

impl StoreGenerations {
    /// The epoch that clients see for the epoch of a record.
    pub(super) fn client_epoch(&self, epoch: &Arc<str>) -> Arc<str> {
        match self.current.number {
            0 => epoch.clone(),
            _ => format!("{epoch}{}", self.current.suffix).into(),
        }
    }

    pub(super) fn number(&self) -> u64 {
        self.current.number
    }

    /// Messages stored from now on have a sequence above this one.
    pub(super) fn high_water_sequence(&self) -> u64 {
        self.high_water_mark.sequence
    }

    pub(super) fn high_water_mark(&self) -> &HighWaterMark {
        &self.high_water_mark
    }

    /// Records a message of the history stream, received on this connection. `above` is the
    /// highest sequence known when the message was stored.
    pub(super) fn record(&mut self, connection: u64, above: u64, sequence: u64, payload: &Bytes) {
        if sequence <= above {
            self.verified_on = 0;
            self.is_check_wanted = true;
        } else if self.is_verified(connection) && sequence > self.high_water_sequence() {
            self.high_water_mark = HighWaterMark { sequence, payload: payload.clone() };
        }
    }

    /// Returns whether the store must be checked since the last call.
    pub(super) fn take_check(&mut self) -> bool {
        std::mem::take(&mut self.is_check_wanted)
    }

    pub(super) fn is_verified(&self, connection: u64) -> bool {
        self.verified_on == connection
    }

    /// The store has shown the high-water mark on this connection.
    pub(super) fn set_verified(&mut self, connection: u64) {
        self.set_started();
        self.verified_on = connection;
    }

    /// Returns whether another node has stored this generation. A restored store may give one
    /// number twice, so that the name is compared too.
    pub(super) fn is_new(&self, stored: &Generation) -> bool {
        let own = &self.current;
        stored.number > own.number || stored.number == own.number && stored.suffix != own.suffix
    }

    pub(super) fn has_started(&self) -> bool {
        self.has_started
    }

    /// From now on only a missing high-water mark begins a generation. Called also by the node that
    /// creates the history stream: nothing could be lost before.
    pub(super) fn set_started(&mut self) {
        self.has_started = true;
    }

    /// Records the server that leads the history stream. Returns whether it was another one, whose
    /// newest messages may be lost: then every channel with subscribers must be verified.
    pub(super) fn record_leader(&mut self, leader: &str) -> bool {
        let last = std::mem::replace(&mut self.leader, leader.to_owned());
        !last.is_empty() && last != leader
    }

    /// Begins a generation. Every channel with subscribers must be verified.
    pub(super) fn begin(&mut self, generation: Generation) {
        self.current = generation;
        self.high_water_mark = HighWaterMark::default();
    }
}

impl Generation {
    pub(super) fn new(number: u64, name: &str) -> Generation {
        Generation { number, suffix: format!(".{name}").into() }
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
