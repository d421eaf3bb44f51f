//! Lifecycle events on NATS: in the stream for backends, and on the channel for subscribers.
//!
//! Invariant: an event that is sent again has the identifier of the first attempt, so that the
//! stream keeps one.

use std::sync::Arc;

use engine::broker::BrokerError;
use engine::channel::LIFECYCLE;
use engine::lifecycle::{Change, Lifecycle};
use wire::protocol::{ClientInfo, PushEvent};

use super::link::NatsLink;
use super::{record, subject};
use crate::lifecycle;

/// The node that a client of an event was connected to.
pub(super) struct EventSource<'a> {
    pub(super) node: &'a str,
    /// How often the node has sent all its online clients again; distinguishes these events from
    /// the earlier ones.
    pub(super) resend_count: u64,
}

/// Offline reason of the clients of a failed node.
const NODE_LOST: &str = "node lost";

impl EventSource<'_> {
    /// The text that a client's presence entry carries, so that another node can send the offline
    /// event.
    pub(super) fn encode(&self) -> String {
        format!("{} {}", self.resend_count, self.node)
    }
}

pub(super) async fn publish(
    link: &NatsLink,
    source: &EventSource<'_>,
    lifecycle: &Lifecycle,
) -> Result<(), BrokerError> {
    let publication = lifecycle::publication(source.node, lifecycle);
    let event = publication.data.clone();
    if link.has_jetstream {
        let (client, change) = (&lifecycle.info.client, lifecycle.change.words().0);
        let identifier = format!("{client}-{change}-{}", source.resend_count);
        let length = event.len();
        match link.store(&link.names.events(), None, &identifier, event).await {
            // Another attempt cannot succeed, and would hold up the events after it.
            Err(BrokerError::TooLarge) => {
                link.shared.warnings.add(format!(
                    "a lifecycle event is not published, since it is larger than NATS takes ({length} bytes, \
                     max_payload of nats-server)"
                ));
                return Ok(());
            }
            stored => stored?,
        };
    }
    let channel: Arc<str> = LIFECYCLE.into();
    let subject = link.names.channel(&subject::token(&channel));
    let message = record::plain(&channel, PushEvent::Publication(Arc::new(publication)));
    match link.publish(subject, message).await {
        Err(BrokerError::TooLarge) => Ok(()),
        published => published,
    }
}

/// Publishes that a client of a failed node is offline.
pub(super) async fn publish_lost(
    link: &NatsLink,
    info: Arc<ClientInfo>,
) -> Result<(), BrokerError> {
    let text = String::from_utf8_lossy(&info.chan_info).into_owned();
    let (resend_count, node) = text.split_once(' ').unwrap_or(("", &text));
    let source = EventSource { node, resend_count: resend_count.parse().unwrap_or(0) };
    let change = Change::Offline { reason: NODE_LOST.into() };
    let lost = Lifecycle { info, change, at_ms: link.unix_ms() };
    publish(link, &source, &lost).await
}
