//! Events to other systems: what the engine and the node report, and the tasks of the sinks.
//!
//! Invariant: the tasks of the sinks outlive the workers, so that the disconnects of a stop are
//! delivered.

use std::sync::Arc;

use engine::lifecycle::Change;
use engine::{SessionChange, SessionEvent};
use events::{EventBus, EventClient, EventKind, NodeLoad, Occurrence, delivery};

use crate::cluster::node::Node;
use crate::limits::EVENTS_HEARTBEAT_INTERVAL;
use crate::supervision::supervisor::Supervisor;

/// Records an event of the engine.
pub(crate) fn record(bus: &EventBus, event: &SessionEvent) {
    let client = EventClient { client: &event.info.client, user: &event.info.user };
    let what = match &event.what {
        SessionChange::Client(Change::Online) => Occurrence::Online(client),
        SessionChange::Client(Change::Offline { reason }) => Occurrence::Offline(client, reason),
        SessionChange::Subscribed(channel) => Occurrence::Subscribed(client, channel),
        SessionChange::Unsubscribed(channel) => Occurrence::Unsubscribed(client, channel),
    };
    bus.record(event.at_ms, &what);
}

/// Records that the node has started. Starts the task of each sink, and the heartbeat if a sink
/// wants it.
pub(crate) fn start(tasks: &mut Supervisor, node: &Arc<Node>) {
    node.events.record(node.clock.unix_ms(), &Occurrence::NodeJoined);
    for (index, name) in node.events.names().enumerate() {
        let bus = node.events.clone();
        tasks.spawn(format!("events-{name}"), move || delivery::run(bus.clone(), index));
    }
    if node.events.wants(EventKind::NodeHeartbeat) {
        let node = node.clone();
        tasks.spawn("events-heartbeat", move || beat(node.clone()));
    }
}

/// Records the load of the node from time to time, unless its workers do not answer. Does not
/// return.
async fn beat(node: Arc<Node>) {
    let mut interval = tokio::time::interval(EVENTS_HEARTBEAT_INTERVAL);
    loop {
        interval.tick().await;
        if let Ok(totals) = node.totals().await {
            let load = NodeLoad {
                num_clients: totals.connections,
                num_users: totals.users(),
                num_subs: totals.subscriptions,
                num_channels: totals.channels(),
            };
            node.events.record(node.clock.unix_ms(), &Occurrence::NodeHeartbeat(load));
        }
    }
}
