//! The lease of this node: a message that says that it lives, stored anew again and again.
//!
//! Invariant: a lease is stored only behind the one that this node stored last. So a node that
//! another has taken for dead finds out, and while that one still clears away, it waits: what it
//! says is said behind what was said of its death.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::Bytes;
use engine::broker::BrokerError;
use tokio::sync::Mutex;
use tokio::time::{Duration, Instant};

use super::jetstream::{Ack, Stored};
use super::link::NatsLink;
use super::subject;

/// See the module.
pub(super) struct Lease {
    link: Rc<NatsLink>,
    payload: Bytes,
    ttl: Duration,
    /// One renewal after the other.
    turn: Mutex<()>,
    /// The number of the newest one that this node has stored.
    sequence: Cell<u64>,
    /// The claim of another node on it, and since when it is known here.
    claim: Cell<Option<(u64, Instant)>>,
    streams: RefCell<Option<Streams>>,
    /// What was found out and not yet returned, because the lease could not be stored.
    found: Cell<LeaseState>,
    has_ended: Cell<bool>,
    /// When it was stored last.
    renewed_at: Cell<Instant>,
}

/// What became of a node since it last said that it lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum LeaseState {
    /// Nothing happened.
    #[default]
    Held,
    /// What is kept in memory is gone: NATS was started anew.
    Lost,
    /// The node was cleared away and its clients were told to be offline, or nobody knows any more
    /// that they are online.
    Forgotten,
}

/// When the streams of presence and of events were made, which tells whether they are still the
/// same.
#[derive(Clone)]
struct Streams {
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

    /// Why a node whose lease is not renewed should not serve, if it should not.
    pub(super) fn reason(&self) -> Option<String> {
        let age = self.renewed_at.get().elapsed();
        if self.is_claimed() {
            return Some(
                "another node takes this one for dead and clears its clients away".to_owned(),
            );
        }
        (age > self.ttl / 2).then(|| {
            format!(
                "the lease of this node was renewed {} s ago last, and ends after {} s",
                age.as_secs(),
                self.ttl.as_secs()
            )
        })
    }

    /// Whether another node is known to be clearing this one away.
    pub(super) fn is_claimed(&self) -> bool {
        self.claim.get().is_some()
    }

    /// Stores it anew. Fails also while another node clears this one away.
    pub(super) async fn renew(&self) -> Result<LeaseState, BrokerError> {
        let _turn = self.turn.lock().await;
        if self.has_ended.get() {
            return Err(BrokerError::Unavailable);
        }
        if self.streams.borrow().is_none() {
            let streams = self.read_streams().await?;
            self.streams.replace(Some(streams));
        }
        if !self.store_behind(self.sequence.get()).await? {
            let behind = self.find_out().await?;
            if !self.store_behind(behind).await? {
                return Err(BrokerError::Unavailable);
            }
        }
        self.claim.take();
        Ok(self.found.take())
    }

    /// No renewal is under way any more, and none follows: what is removed now stays so.
    pub(super) async fn end(&self) {
        let _turn = self.turn.lock().await;
        self.has_ended.set(true);
    }

    /// Whether it was stored: the newest was still that of this number.
    async fn store_behind(&self, sequence: u64) -> Result<bool, BrokerError> {
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

    /// The newest is not the one that was expected: behind which the next may be stored.
    async fn find_out(&self) -> Result<u64, BrokerError> {
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
            // An answer was lost, or came too late.
            return Ok(stored.sequence);
        }
        self.find(LeaseState::Forgotten);
        match self.claim.get() {
            // Whoever claimed it has ended since.
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

    fn find(&self, standing: LeaseState) {
        self.found.set(self.found.get().max(standing));
    }

    async fn read_streams(&self) -> Result<Streams, BrokerError> {
        let (link, names) = (&self.link, &self.link.names);
        let presence = link.stream_info(&names.presence_stream()).await?;
        let events = link.stream_info(&names.events_stream()).await?;
        let made = |info: &serde_json::Value| info["created"].as_str().map(str::to_owned);
        let made = |info| made(info).ok_or(BrokerError::Unavailable);
        Ok(Streams { presence: made(&presence)?, events: made(&events)? })
    }
}

/// Whether it says that a node lives, and not that another one clears it away.
pub(super) fn is_lease(stored: &Stored) -> bool {
    name_in(stored).is_some()
}

/// What the node is called whose lease it is.
pub(super) fn name_in(stored: &Stored) -> Option<String> {
    let line = std::str::from_utf8(&stored.payload).ok()?;
    subject::text(line.strip_prefix(BEGINNING)?.strip_suffix('\n')?)
}

const BEGINNING: &str = "t1 lease ";
