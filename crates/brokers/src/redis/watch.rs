//! Verifies repeatedly that a link leads to the right server: queries Sentinels and subscribes to
//! their switches, and reconnects to an address so that its name is resolved again.
//!
//! Invariant: it only observes; the core decides what follows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;

use super::connection::Dialer;
use super::exchange::{DriverEvent, LinkId};
use super::identity::ServerIdentity;
use super::sentinel::Master;
use super::settings::{Address, ServerLocation};
use super::unavailable::UnavailableReason;

/// An observation: the server that a link should lead to.
#[derive(Debug)]
pub(super) struct Sighting {
    pub(super) address: Address,
    /// When the observation began.
    pub(super) asked_at: Instant,
    /// Why the answer is not certain: fewer than half of the Sentinels agree.
    pub(super) doubt: Option<UnavailableReason>,
    /// Identity of the server; `None` when it does not answer or its identity does not matter.
    pub(super) identity: Option<ServerIdentity>,
}

/// Interval of queries to the Sentinels.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// Interval of identity checks at an address.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// Time for a newly named server to identify itself; after it the observation is sent without an
/// identity, and the node leaves its server all the same.
const SAY_WITHIN: Duration = Duration::from_millis(100);

impl Dialer {
    /// Observes until the broker ends.
    pub(super) async fn watch(
        self: Arc<Dialer>,
        link: LinkId,
        server: ServerLocation,
        events: mpsc::Sender<DriverEvent>,
    ) {
        let switched = Notify::new();
        let looking = async {
            let (mut last, mut looked_at) = (None, Instant::now());
            loop {
                let seen = self.sight(&server, &mut last, &mut looked_at).await;
                if events.send(DriverEvent::Sighting(link, seen)).await.is_err() {
                    return;
                }
                let pause = match server {
                    ServerLocation::At(_) => LOOK_EVERY,
                    ServerLocation::Sentinel { .. } => ASK_EVERY,
                };
                // The next observation follows a switch or the pause.
                let _either = timeout(pause, switched.notified()).await;
            }
        };
        match &server {
            ServerLocation::At(_) => looking.await,
            ServerLocation::Sentinel { sentinels, login, .. } => {
                let listen = |sentinel| self.listen_for_switches(sentinel, login, &switched);
                tokio::select! {
                    () = looking => {}
                    _ = join_all(sentinels.iter().map(listen)) => {}
                }
            }
        }
    }

    /// Makes one observation. The identity in `last` is reused for a while.
    async fn sight(
        &self,
        server: &ServerLocation,
        last: &mut Option<(Address, Option<ServerIdentity>)>,
        looked_at: &mut Instant,
    ) -> Result<Sighting, UnavailableReason> {
        let asked_at = Instant::now();
        let address = match server {
            ServerLocation::At(address) => address.clone(),
            ServerLocation::Sentinel { master, sentinels, login } => {
                let Master { address, doubt } = self.find_master(master, sentinels, login).await?;
                if doubt.is_some() {
                    return Ok(Sighting { address, asked_at, doubt, identity: None });
                }
                address
            }
        };
        let has_sentinels = matches!(server, ServerLocation::Sentinel { .. });
        let is_new = has_sentinels && last.as_ref().is_none_or(|(known, _)| *known != address);
        let is_known = last.as_ref().is_some_and(|(known, seen)| {
            *known == address && seen.is_some() && looked_at.elapsed() < LOOK_EVERY
        });
        if !is_known {
            *looked_at = Instant::now();
            let limit = if is_new { SAY_WITHIN } else { Duration::MAX };
            let identity = timeout(limit, self.identify(&address)).await;
            *last = Some((address.clone(), identity.ok().and_then(Result::ok)));
        }
        let identity = last.as_ref().and_then(|(_, seen)| seen.clone());
        Ok(Sighting { address, asked_at, doubt: None, identity })
    }
}
