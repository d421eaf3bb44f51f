//! Periodic checks and repair of the store: its streams exist, have lost no messages, and store and
//! return messages.
//!
//! Invariant: a missing stream is created again within seconds, even when unused, and then a
//! generation begins if it had messages; the history stream is probed even when unused.

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
use super::store_check;
use super::streams::{UNREADABLE, ensure_streams};
use crate::limits::{JETSTREAM_RETRY, JETSTREAM_WAIT};

/// See the module.
pub(super) struct Upkeep {
    link: Rc<NatsLink>,
    options: JetStreamOptions,
    presence: Rc<PresenceStore>,
    /// Interval between two probes of the history stream.
    probe_after: Duration,
    /// Held by the one check in progress.
    checking: Mutex<()>,
    /// Another check was requested since the current one began.
    is_wanted: Cell<bool>,
    /// When the streams were last found complete.
    seen_at: Cell<Option<Instant>>,
    /// When the last probe succeeded.
    read_at: Cell<Option<Instant>>,
    /// Creation time of the stream of events, as NATS reports it: a stream that is created again
    /// has no events of the online clients.
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
            checking: Mutex::default(),
            is_wanted: Cell::new(false),
            seen_at: Cell::new(None),
            read_at: Cell::new(None),
            events: RefCell::default(),
        }
    }

    /// Creates missing streams at the start of a node. Waits up to [`JETSTREAM_WAIT`] for the
    /// servers of a cluster to elect leaders.
    pub(super) async fn set_up(
        &self,
        silent: impl Fn(BrokerError) -> NatsError,
    ) -> Result<(), NatsError> {
        let until = Instant::now() + JETSTREAM_WAIT;
        let mut logged = String::new();
        loop {
            let attempt = async {
                ensure_streams(&self.link, &self.options, self.presence.creation_delay()).await?;
                store_check::verify_store(&self.link).await.map_err(&silent)?;
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
            if !may_come
                || self.link.shared.denied_subjects.first().is_some()
                || Instant::now() >= until
            {
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

    /// Checks the store, and once more if another check was requested meanwhile. Failures are
    /// retried with the next check.
    pub(super) async fn check(&self) {
        self.is_wanted.set(true);
        let Ok(_checking) = self.checking.try_lock() else { return };
        while self.is_wanted.take() {
            if let Err(error) = self.check_once().await {
                debug!(%error, "NATS: the store is not complete yet");
            }
        }
    }

    /// After a new connection: checks until the store is complete, or the connection is lost.
    pub(super) async fn restore(&self) -> Result<(), BrokerError> {
        let connection = self.link.connection();
        let _checking = self.checking.lock().await;
        // A server accepts connections some time before its JetStream works.
        self.seen_at.set(None);
        while let Err(error) = self.settle().await {
            debug!(%error, "NATS: the store is not ready yet");
            if self.link.check().is_err() || self.link.connection() != connection {
                return Err(BrokerError::Unavailable);
            }
            tokio::time::sleep(JETSTREAM_RETRY).await;
        }
        Ok(())
    }

    async fn check_once(&self) -> Result<(), BrokerError> {
        self.settle().await?;
        self.probe().await
    }

    /// Creates missing streams, and begins a generation if messages are lost.
    async fn settle(&self) -> Result<(), BrokerError> {
        let is_fresh = self.seen_at.get().is_some_and(|at| at.elapsed() < self.probe_after);
        if self.link.is_stream_missing.get() || !is_fresh {
            self.ensure().await?;
        }
        store_check::verify_store(&self.link).await
    }

    async fn ensure(&self) -> Result<(), BrokerError> {
        let shared = &self.link.shared;
        match ensure_streams(&self.link, &self.options, self.presence.creation_delay()).await {
            Ok(()) => {}
            // The stream works with its old limits.
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
        self.check_events().await
    }

    /// Stores and reads a message in the history stream, and updates the availability. Messages of
    /// other nodes only show that the stream stores, so that they do not replace the probe.
    async fn probe(&self) -> Result<(), BrokerError> {
        let is_fresh = |at: Instant| at.elapsed() < self.probe_after;
        let availability = &self.link.shared.availability;
        let refusal = self.link.take_read_refusal();
        let is_refused = refusal.is_some() || availability.has(UnavailableCause::Read);
        if !is_refused && self.read_at.get().is_some_and(is_fresh) {
            return Ok(());
        }
        // Histories are read through a consumer, which costs NATS more: only after that has failed.
        let is_readable = match is_refused {
            true => store_check::probe_range(&self.link).await,
            false => store_check::probe(&self.link).await,
        };
        if let Some(reason) = self.link.take_read_refusal() {
            availability.set(UnavailableCause::Read, &reason);
        }
        let is_readable = is_readable?;
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

    /// If the stream of events was created again, sends the events of all online clients again.
    async fn check_events(&self) -> Result<(), BrokerError> {
        let stream = self.link.names.events_stream();
        let made = self.link.stream_info(&stream).await?["created"].as_str().map(str::to_owned);
        let last = self.events.replace(made.clone());
        if last.is_some() && last != made {
            info!(%stream, "NATS: the stream of events was created again; all online clients are sent again");
            self.presence.resend_lifecycle();
        }
        Ok(())
    }
}
