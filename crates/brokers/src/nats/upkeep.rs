//! What keeps the store of this node in order: its streams exist, have lost nothing that is known,
//! and take messages.
//!
//! Invariant: a stream that is missing is made again within seconds, whether or not anybody uses
//! it, and then a generation begins if anything was in it; whether the history stream takes
//! messages and gives them back is known although nobody uses it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use engine::broker::BrokerError;
use tokio::sync::Mutex;
use tokio::time::{Duration, Instant};
use tracing::{debug, info, warn};

use super::availability::UnavailableCause;
use super::link::NatsLink;
use super::options::{JetStreamOptions, NatsError};
use super::presence::PresenceStore;
use super::streams::{UNREADABLE, ensure_streams};
use crate::limits::{JETSTREAM_RETRY, JETSTREAM_WAIT};

/// See the module.
pub(super) struct Upkeep {
    link: Rc<NatsLink>,
    options: JetStreamOptions,
    presence: Rc<PresenceStore>,
    /// How often the history stream is tried.
    probe_after: Duration,
    /// One look at a time.
    turn: Mutex<()>,
    /// Something has happened since the last look began.
    is_wanted: Cell<bool>,
    /// When the streams were seen last.
    seen_at: Cell<Option<Instant>>,
    /// When a message was stored to see whether it can be read, and could be.
    read_at: Cell<Option<Instant>>,
    /// When the stream of events was made: another one has nothing of who is online.
    events: RefCell<Option<String>>,
}

impl Upkeep {
    pub(super) fn new(
        presence: Rc<PresenceStore>,
        options: JetStreamOptions,
        probe_after: Duration,
    ) -> Upkeep {
        Upkeep {
            link: presence.link.clone(),
            options,
            presence,
            probe_after,
            turn: Mutex::default(),
            is_wanted: Cell::new(false),
            seen_at: Cell::new(None),
            read_at: Cell::new(None),
            events: RefCell::default(),
        }
    }

    /// Finds or makes the streams at the start of a node. Servers of a cluster first agree on who
    /// leads what, which is waited for.
    pub(super) async fn set_up(
        &self,
        silent: impl Fn(BrokerError) -> NatsError,
    ) -> Result<(), NatsError> {
        let until = Instant::now() + JETSTREAM_WAIT;
        let mut logged = String::new();
        loop {
            let attempt = async {
                ensure_streams(&self.link, &self.options, self.presence.turn()).await?;
                self.link.verify_store().await.map_err(&silent)?;
                self.presence.learn_time().await.map_err(&silent)
            };
            let error = match attempt.await {
                Err(error) if !matches!(error, NatsError::ForeignStream { .. }) => error,
                result => return result,
            };
            let server = self.link.client.server_info();
            let is_unreadable =
                matches!(&error, NatsError::Stream { reason, .. } if reason == UNREADABLE);
            let may_come = server.jetstream && (server.cluster.is_some() || is_unreadable);
            if !may_come || self.link.shared.refusals.first().is_some() || Instant::now() >= until {
                return Err(error);
            }
            let text = error.to_string();
            if text != logged {
                warn!(reason = %text, "waiting for the servers of the NATS cluster to agree on leaders");
                logged = text;
            }
            tokio::time::sleep(JETSTREAM_RETRY).await;
        }
    }

    /// Looks once, and again if somebody asked for that meanwhile; what cannot be put right now is
    /// tried with the next look.
    pub(super) async fn look(&self) {
        self.is_wanted.set(true);
        let Ok(_turn) = self.turn.try_lock() else { return };
        while self.is_wanted.take() {
            if let Err(error) = self.look_once().await {
                debug!(%error, "NATS: the store is not in order yet");
            }
        }
    }

    /// The link is back: looks until everything is there, or the link is gone again.
    pub(super) async fn restore(&self) -> Result<(), BrokerError> {
        let connection = self.link.connection();
        let _turn = self.turn.lock().await;
        // JetStream is there some time after its server.
        self.seen_at.set(None);
        while let Err(error) = self.settle().await {
            debug!(%error, "NATS: the store is not there yet");
            if self.link.check().is_err() || self.link.connection() != connection {
                return Err(BrokerError::Unavailable);
            }
            tokio::time::sleep(JETSTREAM_RETRY).await;
        }
        Ok(())
    }

    async fn look_once(&self) -> Result<(), BrokerError> {
        self.settle().await?;
        self.probe().await
    }

    /// The streams are there and have what they had, or a generation has begun.
    async fn settle(&self) -> Result<(), BrokerError> {
        let is_fresh = self.seen_at.get().is_some_and(|at| at.elapsed() < self.probe_after);
        if self.link.is_stream_missing.get() || !is_fresh {
            self.ensure().await?;
        }
        self.link.verify_store().await
    }

    async fn ensure(&self) -> Result<(), BrokerError> {
        let shared = &self.link.shared;
        match ensure_streams(&self.link, &self.options, self.presence.turn()).await {
            Ok(()) => {}
            // It works as it is.
            Err(error @ NatsError::Update { .. }) => shared.warnings.add(error.to_string()),
            Err(error) => {
                if self.link.check().is_ok() {
                    shared.availability.set(UnavailableCause::Streams, &error.to_string());
                }
                return Err(BrokerError::Unavailable);
            }
        }
        shared.availability.clear(UnavailableCause::Streams);
        self.link.is_stream_missing.set(false);
        self.seen_at.set(Some(Instant::now()));
        self.look_at_events().await
    }

    /// The history stream takes a message and gives it back, or the node is not available. What
    /// others store shows the first only, so that their messages never stand for this.
    async fn probe(&self) -> Result<(), BrokerError> {
        let is_fresh = |at: Instant| at.elapsed() < self.probe_after;
        let availability = &self.link.shared.availability;
        let is_refused = availability.has(UnavailableCause::Read);
        if !is_refused && self.read_at.get().is_some_and(is_fresh) {
            return Ok(());
        }
        // Histories are read in another way than single messages, which costs NATS more: only when
        // that has failed.
        let is_readable = match is_refused {
            true => self.link.probe_range().await?,
            false => self.link.probe().await?,
        };
        if is_readable {
            availability.clear(UnavailableCause::Read);
            self.read_at.set(Some(Instant::now()));
            return Ok(());
        }
        let stream = self.link.names.history_stream();
        let reason = format!("the JetStream stream {stream:?} must be removed: {UNREADABLE}");
        availability.set(UnavailableCause::Read, &reason);
        Ok(())
    }

    /// Backends that read another stream of events do not know who is online.
    async fn look_at_events(&self) -> Result<(), BrokerError> {
        let stream = self.link.names.events_stream();
        let made = self.link.stream_info(&stream).await?["created"].as_str().map(str::to_owned);
        let last = self.events.replace(made.clone());
        if last.is_some() && last != made {
            info!(%stream, "NATS: another stream of events; online clients are sent again");
            self.presence.resend_lifecycle();
        }
        Ok(())
    }
}
