//! Generations of the store: how a node notices that NATS came back with less than it had.
//!
//! A NATS that lost its newest messages (a power cut before they reached the disk, a backup put
//! back) goes on counting from where it stands, and its streams look like themselves. So every node
//! keeps a high-water mark: the newest message of the history stream that it knows of. When that
//! message is gone, a generation is over, and the node that notices writes the next into a stream
//! of its own. Epochs are sent with the generation's name behind them: a new generation is a new
//! epoch of every stream, and what is kept stays as it is.
//!
//! Invariant: generations only count up, each is stored under the condition that nobody stored one
//! since it was read, and nothing that was read is answered before its connection's store has shown
//! the high-water mark.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use bytes::Bytes;
use engine::broker::BrokerError;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{info, warn};

use super::availability::UnavailableCause;
use super::jetstream::Ack;
use super::link::NatsLink;
use super::subject::{self, Store};
use crate::limits::ANSWER_TIMEOUT;

/// What a node knows of the store's generations.
#[derive(Default)]
pub(super) struct StoreGenerations {
    current: RefCell<Generation>,
    high_water_mark: RefCell<HighWaterMark>,
    /// The connection, by its number, whose store has shown the high-water mark; zero for none.
    verified_on: Cell<u64>,
    /// A request waits for the store to be verified.
    has_settled: Notify,
    /// This node has looked whether it is the first after a start of NATS.
    has_started: Cell<bool>,
    /// The server that leads the history stream; empty when there is only one.
    leader: RefCell<String>,
    /// Another generation has begun, or another server leads and what the last one was about to
    /// send is lost: every stream that is heard must be verified.
    pub(super) wants_verification: Notify,
    /// A message has a number that another one had.
    pub(super) has_doubts: Notify,
}

#[derive(Clone, Default)]
struct Generation {
    /// Zero before anything was lost.
    number: u64,
    /// What the epochs of this generation end with.
    ending: Arc<str>,
}

/// The newest message of the history stream that is known here; the default stands for none.
#[derive(Clone, Default)]
struct HighWaterMark {
    sequence: u64,
    payload: Bytes,
}

impl StoreGenerations {
    /// An epoch of a record as endpoints are told it.
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

    /// The history stream numbers what it stores from now on above this.
    pub(super) fn high_water_sequence(&self) -> u64 {
        self.high_water_mark.borrow().sequence
    }

    /// Whether another node has stored this generation, since or before this one knew its own: a
    /// store that was put back may give a number twice.
    fn is_new(&self, stored: &Generation) -> bool {
        let own = self.current.borrow();
        stored.number > own.number || stored.number == own.number && stored.ending != own.ending
    }

    /// This node has made the history stream: there was nothing before that could be lost.
    pub(super) fn handle_made(&self) {
        self.has_started.set(true);
    }

    fn begin(&self, generation: Generation) {
        info!(
            generation = generation.number,
            "NATS: a generation of the store has begun, and with it new epochs of all channels"
        );
        self.current.replace(generation);
        self.high_water_mark.take();
        self.wants_verification.notify_one();
    }
}

impl NatsLink {
    /// The history stream has a message. `above` is what it had numbered when it was asked to store
    /// this one.
    pub(super) fn note(&self, above: u64, sequence: u64, payload: &Bytes) {
        let generations = &self.generations;
        if sequence <= above {
            generations.verified_on.set(0);
            generations.has_doubts.notify_one();
        } else if self.is_verified() && sequence > generations.high_water_sequence() {
            generations
                .high_water_mark
                .replace(HighWaterMark { sequence, payload: payload.clone() });
        }
    }

    /// Waits until it is known whether the store, as it is connected now, has lost something.
    pub(super) async fn settled(&self) -> Result<(), BrokerError> {
        let settling = async {
            loop {
                let has_settled = self.generations.has_settled.notified();
                if self.is_verified() {
                    return;
                }
                has_settled.await;
            }
        };
        tokio::time::timeout(ANSWER_TIMEOUT, settling).await.map_err(|_| BrokerError::Unavailable)
    }

    /// Stores a message that says nothing, and reads it; says whether it was there.
    pub(super) async fn probe(&self) -> Result<bool, BrokerError> {
        let (sequence, payload) = self.store_probe().await?;
        let read = self.numbered(&self.names.history_stream(), sequence).await?;
        Ok(read.is_some_and(|read| read.payload == payload))
    }

    /// The same, read as histories are.
    pub(super) async fn probe_range(&self) -> Result<bool, BrokerError> {
        let (sequence, payload) = self.store_probe().await?;
        let stream = self.names.history_stream();
        let stored = self.range_up_to(&stream, &self.names.probe(), sequence).await?;
        Ok(stored.iter().any(|one| one.sequence == sequence && one.payload == payload))
    }

    async fn store_probe(&self) -> Result<(u64, Bytes), BrokerError> {
        // No two are the same, so that a store that has lost some is known by them.
        let payload = Bytes::from(format!("t1 probe {}\n", self.new_epoch()));
        let above = self.generations.high_water_sequence();
        let stored = self.store(&self.names.probe(), None, "", payload.clone()).await?;
        let Ack::Stored(sequence) = stored else { return Err(BrokerError::Unavailable) };
        self.note(above, sequence, &payload);
        Ok((sequence, payload))
    }

    pub(super) fn is_verified(&self) -> bool {
        self.generations.verified_on.get() == self.connection()
    }

    /// Looks whether the store has what it had; if not, a new generation begins.
    pub(super) async fn verify_store(&self) -> Result<(), BrokerError> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        while Instant::now() < deadline {
            let connection = self.connection();
            // Read before anything that speaks for a loss: what was noticed already has its
            // generation then.
            let (stored, sequence) = self.stored_generation().await?;
            if self.generations.is_new(&stored) {
                self.generations.begin(stored);
                continue;
            }
            let own = self.generations.number();
            if stored.number < own || self.has_lost().await? {
                warn!("NATS: the store has less than it had");
                self.begin_generation(own + 1, sequence).await?;
                continue;
            }
            self.generations.has_started.set(true);
            self.generations.verified_on.set(connection);
            // Whatever generation this node could not store, another one has, or it came late.
            self.shared.availability.clear(UnavailableCause::Store(Store::Generation));
            self.generations.has_settled.notify_waiters();
            return self.take_newest_high_water_mark().await;
        }
        Err(BrokerError::Unavailable)
    }

    async fn has_lost(&self) -> Result<bool, BrokerError> {
        let high_water_mark = self.generations.high_water_mark.borrow().clone();
        if high_water_mark.sequence == 0 {
            return self.has_no_high_water_mark().await;
        }
        match self.numbered(&self.names.history_stream(), high_water_mark.sequence).await? {
            Some(stored) => return Ok(stored.payload != high_water_mark.payload),
            // Removed, because newer ones of its channel are there.
            None if self.newest_sequence().await? >= high_water_mark.sequence => return Ok(false),
            None => {}
        }
        // A server that has just come to lead a stream may not have all of it at hand yet; but what
        // it numbers comes behind all.
        let stored = self.store(&self.names.probe(), None, "", PROBE).await?;
        Ok(matches!(stored, Ack::Stored(sequence) if sequence <= high_water_mark.sequence))
    }

    /// At the start of a node: whether no other node can know what the store had, since NATS
    /// started anew without any. Leases are not kept on disk.
    async fn has_no_high_water_mark(&self) -> Result<bool, BrokerError> {
        if self.generations.has_started.get() {
            return Ok(false);
        }
        let leases = self.stream_info(&self.names.presence_stream()).await?;
        let is_alone = last_sequence(&leases)? == 0;
        Ok(is_alone && self.newest_sequence().await? > 0)
    }

    async fn begin_generation(&self, number: u64, after: u64) -> Result<(), BrokerError> {
        let name = self.new_epoch();
        let payload = format!("t1 era {number} {}\n", subject::token(&name)).into();
        self.generations.has_started.set(true);
        if let Ack::Stored(_) =
            self.store(&self.names.generation(), Some(after), "", payload).await?
        {
            self.generations.begin(Generation { number, ending: ending(&name) });
        }
        Ok(())
    }

    async fn stored_generation(&self) -> Result<(Generation, u64), BrokerError> {
        let stored = self.newest(&self.names.generation_stream(), &self.names.generation()).await?;
        let Some(stored) = stored else { return Ok((Generation::default(), 0)) };
        Ok((Generation::decode(&stored.payload).unwrap_or_default(), stored.sequence))
    }

    async fn take_newest_high_water_mark(&self) -> Result<(), BrokerError> {
        let sequence = self.newest_sequence().await?;
        if sequence <= self.generations.high_water_sequence() {
            return Ok(());
        }
        if let Some(stored) = self.numbered(&self.names.history_stream(), sequence).await? {
            self.note(0, stored.sequence, &stored.payload);
        }
        Ok(())
    }

    async fn newest_sequence(&self) -> Result<u64, BrokerError> {
        let info = self.stream_info(&self.names.history_stream()).await?;
        if let Some(leader) = info["cluster"]["leader"].as_str() {
            let last = self.generations.leader.replace(leader.to_owned());
            if !last.is_empty() && last != leader {
                info!(%leader, "NATS: another server leads the history stream");
                self.generations.wants_verification.notify_one();
            }
        }
        last_sequence(&info)
    }
}

impl Generation {
    /// `None` when it is none of ours.
    fn decode(message: &[u8]) -> Option<Generation> {
        let line = std::str::from_utf8(message).ok()?.strip_suffix('\n')?;
        let (number, name) = line.strip_prefix("t1 era ")?.split_once(' ')?;
        Some(Generation { number: number.parse().ok()?, ending: ending(&subject::text(name)?) })
    }
}

fn last_sequence(info: &Value) -> Result<u64, BrokerError> {
    info["state"]["last_seq"].as_u64().ok_or(BrokerError::Unavailable)
}

fn ending(name: &str) -> Arc<str> {
    format!(".{name}").into()
}

/// What is stored only to learn its number.
const PROBE: Bytes = Bytes::from_static(b"t1 probe\n");
