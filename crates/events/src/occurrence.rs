//! What can happen, and its names.
//!
//! Invariant: every kind but `lost` belongs to one occurrence; `lost` is an event of the queue.

use std::sync::Arc;

use serde::Serialize;

/// A client of an event.
#[derive(Clone, Copy, Debug)]
pub struct EventClient<'e> {
    /// Client id.
    pub client: &'e str,
    /// User id; empty if anonymous.
    pub user: &'e str,
}

/// Something that happened on this node.
#[derive(Clone, Copy, Debug)]
pub enum Occurrence<'e> {
    /// A client connected.
    Online(EventClient<'e>),
    /// A client disconnected, for this reason.
    Offline(EventClient<'e>, &'e str),
    /// A subscription of a client became active. If it is the first one of the channel on this
    /// node, the channel is occupied before.
    Subscribed(EventClient<'e>, &'e Arc<str>),
    /// A subscription of a client ended. If it was the last one of the channel on this node, the
    /// channel is vacated afterwards.
    Unsubscribed(EventClient<'e>, &'e Arc<str>),
    /// The node has started.
    NodeJoined,
    /// The node disconnects its clients before it stops.
    NodeDraining,
    /// The node stops, and has disconnected its clients as far as it could in time.
    NodeLeft,
    /// The node works, with this load.
    NodeHeartbeat(NodeLoad),
}

/// What a node has.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct NodeLoad {
    /// Number of connections.
    pub num_clients: usize,
    /// Number of different users.
    pub num_users: usize,
    /// Number of subscriptions.
    pub num_subs: usize,
    /// Number of channels with a subscriber.
    pub num_channels: usize,
}

/// Kind of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A client connected.
    Online,
    /// A client disconnected.
    Offline,
    /// A subscription became active.
    Subscribed,
    /// A subscription ended.
    Unsubscribed,
    /// A channel has its first subscriber on this node.
    Occupied,
    /// A channel has lost its last subscriber on this node.
    Vacated,
    /// The node has started.
    NodeJoined,
    /// The node disconnects its clients.
    NodeDraining,
    /// The node stops, and has disconnected its clients as far as it could in time.
    NodeLeft,
    /// The node works.
    NodeHeartbeat,
    /// Events in this place were lost.
    Lost,
}

impl EventKind {
    /// The kinds that can be selected: all but `lost`, which every sink gets.
    pub const SELECTABLE: [EventKind; 10] = [
        EventKind::Online,
        EventKind::Offline,
        EventKind::Subscribed,
        EventKind::Unsubscribed,
        EventKind::Occupied,
        EventKind::Vacated,
        EventKind::NodeJoined,
        EventKind::NodeDraining,
        EventKind::NodeLeft,
        EventKind::NodeHeartbeat,
    ];

    /// Name in events and in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            EventKind::Online => "online",
            EventKind::Offline => "offline",
            EventKind::Subscribed => "subscribed",
            EventKind::Unsubscribed => "unsubscribed",
            EventKind::Occupied => "occupied",
            EventKind::Vacated => "vacated",
            EventKind::NodeJoined => "node_joined",
            EventKind::NodeDraining => "node_draining",
            EventKind::NodeLeft => "node_left",
            EventKind::NodeHeartbeat => "node_heartbeat",
            EventKind::Lost => "lost",
        }
    }

    /// The kind of a name that can be selected.
    #[must_use]
    pub fn named(name: &str) -> Option<EventKind> {
        EventKind::SELECTABLE.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether it needs the connects and disconnects of clients.
    #[must_use]
    pub const fn is_of_client(self) -> bool {
        matches!(self, EventKind::Online | EventKind::Offline)
    }

    /// Whether it needs the subscriptions of clients.
    #[must_use]
    pub const fn is_of_subscription(self) -> bool {
        matches!(
            self,
            EventKind::Subscribed
                | EventKind::Unsubscribed
                | EventKind::Occupied
                | EventKind::Vacated
        )
    }
}
