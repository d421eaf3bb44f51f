//! Clients that come and go: an entry each among the present ones, in the system's own channel, so that whoever clears a node
//! away finds them; and an event each, for those who listen and in a stream for backends.
//!
//! Invariant: the entry comes before the event that a client is online, and goes before the one that it is offline.

use std::sync::Arc;

use bytes::Bytes;
use engine::broker::BrokerError;
use engine::channel::LIFECYCLE;
use engine::lifecycle::{Change, Lifecycle};
use wire::protocol::{ClientInfo, PushEvent};

use super::presence::Presence;
use super::stream::Place;
use super::{record, subject};
use crate::{Party, lifecycle};

/// Why the clients of a node that fell silent are offline.
const NODE_LOST: &str = "node lost";

impl Presence {
    /// A client came or went.
    pub(super) async fn note(&self, party: Party, place: &Place, lifecycle: &Lifecycle) {
        match lifecycle.change {
            // Without JetStream nothing is kept of anybody.
            _ if !self.link.keeps => {}
            Change::Online => {
                // The name of its node, which whoever clears it away does not know.
                let chan_info = Bytes::from(self.name.clone());
                let info = ClientInfo { chan_info, ..(*lifecycle.info).clone() };
                self.add(party, place, Arc::new(info)).await;
            }
            Change::Offline { .. } => self.remove(party, place, &lifecycle.info.client).await,
        }
        // While NATS is away nobody hears it, and nothing can be stored; the entries say later who is there.
        let _untold = self.tell_lifecycle(&self.name, lifecycle).await;
    }

    /// A client of a node or worker that is gone.
    pub(super) async fn tell_lost(&self, info: Arc<ClientInfo>) -> Result<(), BrokerError> {
        let name = String::from_utf8_lossy(&info.chan_info).into_owned();
        let at_ms = i64::try_from(self.link.now_ms()).unwrap_or(i64::MAX);
        let change = Change::Offline { reason: NODE_LOST.into() };
        self.tell_lifecycle(&name, &Lifecycle { info, change, at_ms }).await
    }

    async fn tell_lifecycle(&self, node: &str, lifecycle: &Lifecycle) -> Result<(), BrokerError> {
        let publication = lifecycle::publication(node, lifecycle);
        let event = publication.data.clone();
        if self.link.keeps {
            let identifier = format!("{}-{}", lifecycle.info.client, lifecycle.change.words().0);
            self.link.store(&self.link.names.events(), None, &identifier, event).await?;
        }
        let channel: Arc<str> = LIFECYCLE.into();
        let subject = self.link.names.channel(&subject::token(&channel));
        let said = record::plain(&channel, PushEvent::Publication(Arc::new(publication)));
        self.link.publish(subject, said).await
    }
}
