//! Proves again and again that a link leads where it should: Sentinels are asked and listened to, and an address is connected
//! to anew, so that its name is resolved again and a server behind another way is noticed.
//!
//! Invariant: it only looks and says what it saw; what follows from that is for the broker's state.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout};

use super::connection::Dialer;
use super::exchange::{Event, LinkId};
use super::identity::Identity;
use super::settings::{Address, Server};
use super::trouble::Trouble;

/// Which server is to be used now.
#[derive(Debug)]
pub(super) struct Sighting {
    pub(super) address: Address,
    /// Who answers there; `None` when nobody does.
    pub(super) identity: Option<Identity>,
}

/// Time between two questions to the Sentinels.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// Time between two looks at who answers at an address.
const LOOK_EVERY: Duration = Duration::from_secs(3);

impl Dialer {
    /// Looks until nobody wants to know.
    pub(super) async fn watch(
        self: Arc<Dialer>,
        link: LinkId,
        server: Server,
        events: mpsc::Sender<Event>,
    ) {
        let switched = Notify::new();
        let looking = async {
            let (mut last, mut looked_at) = (None, Instant::now());
            loop {
                let seen = self.sight(&server, &mut last, &mut looked_at).await;
                if events.send(Event::Sighting(link, seen)).await.is_err() {
                    return;
                }
                let pause = match server {
                    Server::At(_) => LOOK_EVERY,
                    Server::Sentinel { .. } => ASK_EVERY,
                };
                // Either way it is time to look.
                let _either = timeout(pause, switched.notified()).await;
            }
        };
        match &server {
            Server::At(_) => looking.await,
            Server::Sentinel { sentinels, login, .. } => {
                let listen = |sentinel| self.listen_for_switches(sentinel, login, &switched);
                tokio::select! {
                    () = looking => {}
                    _ = join_all(sentinels.iter().map(listen)) => {}
                }
            }
        }
    }

    /// What was seen there `last` is good for a while.
    async fn sight(
        &self,
        server: &Server,
        last: &mut Option<(Address, Option<Identity>)>,
        looked_at: &mut Instant,
    ) -> Result<Sighting, Trouble> {
        let address = match server {
            Server::At(address) => address.clone(),
            Server::Sentinel { master, sentinels, login } => {
                self.find_master(master, sentinels, login).await?
            }
        };
        let is_known = last.as_ref().is_some_and(|(known, seen)| {
            *known == address && seen.is_some() && looked_at.elapsed() < LOOK_EVERY
        });
        if !is_known {
            *looked_at = Instant::now();
            *last = Some((address.clone(), self.identify(&address).await.ok()));
        }
        let identity = last.as_ref().and_then(|(_, seen)| seen.clone());
        Ok(Sighting { address, identity })
    }
}
