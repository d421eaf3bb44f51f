//! Verifies repeatedly that a link leads to the right server: queries Sentinels and subscribes to
//! their switches, and reconnects to an address so that its name is resolved again.
//!
//! Invariant: it only observes; the core decides what follows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use super::DriverMessage;
use super::connection::Dialer;
use super::driver_messages::{DriverEvent, LinkId, Observation};
use super::identity::ServerIdentity;
use super::sentinel::Master;
use super::settings::{Address, ServerLocation};
use super::unavailable::UnavailableReason;

/// Interval of queries to the Sentinels.
const SENTINEL_INTERVAL: Duration = Duration::from_secs(1);

/// Interval of identity checks at an address.
const IDENTIFY_INTERVAL: Duration = Duration::from_secs(3);

/// Time for a newly named server to identify itself; after it the observation is sent without an
/// identity, and the node leaves its server all the same.
const IDENTIFY_TIMEOUT: Duration = Duration::from_millis(100);

impl Dialer {
    /// Observes until the broker ends.
    pub(super) async fn watch(
        self: Arc<Dialer>,
        link: LinkId,
        server: ServerLocation,
        events: mpsc::Sender<DriverMessage>,
    ) {
        let switched = Notify::new();
        let observing = async {
            let (mut last, mut identified_at) = (None, Instant::now());
            loop {
                let seen = self.observe(&server, &mut last, &mut identified_at).await;
                if events.send(DriverEvent::Observation(link, seen).into()).await.is_err() {
                    return;
                }
                let pause = match server {
                    ServerLocation::At(_) => IDENTIFY_INTERVAL,
                    ServerLocation::Sentinel { .. } => SENTINEL_INTERVAL,
                };
                // The next observation follows a switch or the pause.
                let _either = timeout(pause, switched.notified()).await;
            }
        };
        match &server {
            ServerLocation::At(_) => observing.await,
            ServerLocation::Sentinel { sentinels, login, .. } => {
                let watch_switches =
                    |sentinel| self.listen_for_switches(sentinel, login, &switched);
                tokio::select! {
                    () = observing => {}
                    _ = join_all(sentinels.iter().map(watch_switches)) => {}
                }
            }
        }
    }

    /// Makes one observation. The identity in `last` is reused for a while.
    async fn observe(
        &self,
        server: &ServerLocation,
        last: &mut Option<(Address, Option<ServerIdentity>)>,
        identified_at: &mut Instant,
    ) -> Result<Observation, UnavailableReason> {
        let asked_at = self.clock.time();
        let address = match server {
            ServerLocation::At(address) => address.clone(),
            ServerLocation::Sentinel { master, sentinels, login } => {
                let Master { address, doubt } = self.find_master(master, sentinels, login).await?;
                if doubt.is_some() {
                    return Ok(Observation { address, asked_at, doubt, identity: None });
                }
                address
            }
        };
        let has_sentinels = matches!(server, ServerLocation::Sentinel { .. });
        let is_new = has_sentinels && last.as_ref().is_none_or(|(known, _)| *known != address);
        let is_known = last.as_ref().is_some_and(|(known, seen)| {
            *known == address && seen.is_some() && identified_at.elapsed() < IDENTIFY_INTERVAL
        });
        if !is_known {
            *identified_at = Instant::now();
            let limit = if is_new { IDENTIFY_TIMEOUT } else { Duration::MAX };
            let identity = timeout(limit, self.identify(&address)).await;
            *last = Some((address.clone(), identity.ok().and_then(Result::ok)));
        }
        let identity = last.as_ref().and_then(|(_, seen)| seen.clone());
        Ok(Observation { address, asked_at, doubt: None, identity })
    }

    /// The identity of the server at an address, read over a separate connection.
    pub(super) async fn identify(
        &self,
        address: &Address,
    ) -> Result<ServerIdentity, UnavailableReason> {
        let ask = async {
            let mut connection = self.connect(address).await?;
            connection.authenticate(&self.settings.login).await?;
            ServerIdentity::read(&mut connection).await
        };
        let limit = self.settings.connect_timeout + self.settings.io_timeout;
        timeout(limit, ask).await.unwrap_or(Err(UnavailableReason::Silent(address.clone())))
    }
}
