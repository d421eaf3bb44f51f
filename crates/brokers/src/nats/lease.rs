//! The lease of this node: a message that is stored again before it expires, and shows other nodes
//! that this one runs.
//!
//! Invariant: a lease is stored only if the newest message of its subject is the one that this node
//! stored last. So a node notices that another one cleans it up, and waits until the cleanup is
//! done: its own events come after the offline events that the other node publishes.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::Bytes;
use engine::broker::BrokerError;
use tokio::sync::Mutex;
use tokio::time::{Duration, Instant};

use super::link::NatsLink;
use super::stored_message::{Ack, StoredMessage};
use super::subject;

/// See the module.
pub(super) struct Lease {
    link: Rc<NatsLink>,
    payload: Bytes,
    ttl: Duration,
    /// Held by the one task that renews the lease.
    turn: Mutex<()>,
    /// JetStream sequence of the newest lease that this node has stored; zero for none.
    sequence: Cell<u64>,
    /// Sequence of another node's claim to clean up this node, and when it was first seen.
    claim: Cell<Option<(u64, Instant)>>,
    streams: RefCell<Option<CreationTimes>>,
    /// A state that [`Lease::renew`] has not returned yet, because the lease could not be stored.
    found: Cell<LeaseState>,
    has_ended: Cell<bool>,
    /// When the lease was stored last.
    renewed_at: Cell<Instant>,
}

/// The state of a lease since its last renewal. Later variants take precedence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum LeaseState {
    /// The lease was valid without interruption.
    #[default]
    Held,
    /// NATS was restarted: the streams in memory, with leases and presence, are lost.
    Lost,
    /// Another node has cleaned up this one and published that its clients are offline, or the
    /// stream with their online events is lost.
    Forgotten,
}

/// Creation times of two streams, as NATS reports them; a stream that is created again has another.
#[derive(Clone)]
struct CreationTimes {
    presence: String,
    events: String,
}

impl Lease {
    pub(super) fn new(link: Rc<NatsLink>, name: &str, ttl_ms: u64) -> Lease {
        Lease {
            link,
            payload: format!("{BEGINNING}{}\n", subject::token(name)).into(),
            ttl: Duration::from_millis(ttl_ms),
            turn: Mutex::default(),
            sequence: Cell::new(0),
            claim: Cell::default(),
            streams: RefCell::default(),
            found: Cell::default(),
            has_ended: Cell::new(false),
            renewed_at: Cell::new(Instant::now()),
        }
    }

    /// Why a failed renewal makes this node unready; `None` while the lease has half its time left.
    pub(super) fn reason(&self) -> Option<String> {
        let age = self.renewed_at.get().elapsed();
        if self.is_claimed() {
            return Some("another node cleans up this node as failed".to_owned());
        }
        (age > self.ttl / 2).then(|| {
            format!(
                "the lease of this node was last renewed {} s ago, and expires after {} s",
                age.as_secs(),
                self.ttl.as_secs()
            )
        })
    }

    /// Returns whether another node is known to clean up this one.
    pub(super) fn is_claimed(&self) -> bool {
        self.claim.get().is_some()
    }

    /// Stores the lease again. Fails also while another node cleans up this one.
    pub(super) async fn renew(&self) -> Result<LeaseState, BrokerError> {
        let _turn = self.turn.lock().await;
        if self.has_ended.get() {
            return Err(BrokerError::Unavailable);
        }
        if self.streams.borrow().is_none() {
            let streams = self.read_streams().await?;
            self.streams.replace(Some(streams));
        }
        if !self.store_after(self.sequence.get()).await? {
            let newest = self.check_conflict().await?;
            if !self.store_after(newest).await? {
                return Err(BrokerError::Unavailable);
            }
        }
        self.claim.take();
        Ok(self.found.take())
    }

    /// Waits for a renewal in progress and prevents further ones, so that the lease can be removed.
    pub(super) async fn end(&self) {
        let _turn = self.turn.lock().await;
        self.has_ended.set(true);
    }

    /// Stores the lease if the newest message has this sequence; returns whether it had.
    async fn store_after(&self, sequence: u64) -> Result<bool, BrokerError> {
        let own = self.link.names.lease(&self.link.names.node);
        match self.link.store(&own, Some(sequence), "", self.payload.clone()).await? {
            Ack::Stored(sequence) => {
                self.sequence.set(sequence);
                self.renewed_at.set(Instant::now());
            }
            Ack::Conflict | Ack::Duplicate(_) => return Ok(false),
        }
        Ok(true)
    }

    /// Finds out why the newest message is not the expected one; returns the sequence after which
    /// the lease may be stored.
    async fn check_conflict(&self) -> Result<u64, BrokerError> {
        let names = &self.link.names;
        let stored = self.link.newest(&names.presence_stream(), &names.lease(&names.node)).await?;
        let Some(stored) = stored else {
            let now = self.read_streams().await?;
            let before = self.streams.borrow_mut().replace(now.clone());
            let is_forgotten = before.is_some_and(|before| {
                let was_cleared = now.presence == before.presence;
                was_cleared || now.events != before.events
            });
            self.find(if is_forgotten { LeaseState::Forgotten } else { LeaseState::Lost });
            return Ok(0);
        };
        if is_lease(&stored) {
            // This node stored it, but the acknowledgement was lost.
            return Ok(stored.sequence);
        }
        self.find(LeaseState::Forgotten);
        match self.claim.get() {
            // The node with the claim has failed too.
            Some((claim, since)) if claim == stored.sequence && since.elapsed() >= self.ttl => {
                Ok(stored.sequence)
            }
            Some((claim, _)) if claim == stored.sequence => Err(BrokerError::Unavailable),
            _ => {
                self.claim.set(Some((stored.sequence, Instant::now())));
                Err(BrokerError::Unavailable)
            }
        }
    }

    fn find(&self, state: LeaseState) {
        self.found.set(self.found.get().max(state));
    }

    async fn read_streams(&self) -> Result<CreationTimes, BrokerError> {
        let (link, names) = (&self.link, &self.link.names);
        let presence = link.stream_info(&names.presence_stream()).await?;
        let events = link.stream_info(&names.events_stream()).await?;
        let made = |info: &serde_json::Value| info["created"].as_str().map(str::to_owned);
        let made = |info| made(info).ok_or(BrokerError::Unavailable);
        Ok(CreationTimes { presence: made(&presence)?, events: made(&events)? })
    }
}

/// Returns whether a message is a lease, and not a claim to clean up its node.
pub(super) fn is_lease(stored: &StoredMessage) -> bool {
    name_in(stored).is_some()
}

/// The node name in a lease.
pub(super) fn name_in(stored: &StoredMessage) -> Option<String> {
    let line = std::str::from_utf8(&stored.payload).ok()?;
    subject::text(line.strip_prefix(BEGINNING)?.strip_suffix('\n')?)
}

/// Prefix of a lease's payload.
const BEGINNING: &str = "t1 lease ";
