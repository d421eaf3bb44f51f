//! Requests about the clients that are present in a channel.
//!
//! Invariant: a client is present until it is removed, its endpoint detaches or its node's lease
//! expires.

use std::sync::Arc;

use wire::protocol::{ClientInfo, PresenceStats};

use super::reply::{BrokerReply, RequestId};
use super::{BrokerError, BrokerRequest};

/// A request about the presence of one channel.
#[derive(Clone, Debug)]
pub enum PresenceRequest {
    /// Adds a client to the channel's presence. It stays until it is removed, the endpoint detaches
    /// or the node's lease expires. Idempotent; replaces the stored information. Has no reply.
    Add {
        /// Channel in which the client is present.
        channel: Arc<str>,
        /// The client, as presence replies show it.
        info: Arc<ClientInfo>,
        /// Whether the broker publishes a leave message for the client when its endpoint detaches
        /// or its node fails.
        announces: bool,
    },
    /// Removes a client from the channel's presence. Has no reply.
    Remove {
        /// Channel from which to remove the client.
        channel: Arc<str>,
        /// The client as it was added; its client id identifies it.
        client: Arc<ClientInfo>,
    },
    /// Reads the clients present in a channel.
    Clients {
        /// Repeated in the reply.
        id: RequestId<Vec<Arc<ClientInfo>>>,
        /// Channel whose presence to read.
        channel: Arc<str>,
    },
    /// Counts the clients and users present in a channel.
    Stats {
        /// Repeated in the reply.
        id: RequestId<PresenceStats>,
        /// Channel whose presence to count.
        channel: Arc<str>,
    },
}

impl PresenceRequest {
    /// Returns the channel of the request.
    #[must_use]
    pub fn channel(&self) -> &Arc<str> {
        match self {
            PresenceRequest::Add { channel, .. }
            | PresenceRequest::Remove { channel, .. }
            | PresenceRequest::Clients { channel, .. }
            | PresenceRequest::Stats { channel, .. } => channel,
        }
    }

    pub(super) fn refuse(&self, error: BrokerError) -> Option<BrokerReply> {
        match self {
            PresenceRequest::Clients { id, .. } => Some(id.answer(Err(error))),
            PresenceRequest::Stats { id, .. } => Some(id.answer(Err(error))),
            PresenceRequest::Add { .. } | PresenceRequest::Remove { .. } => None,
        }
    }
}

impl From<PresenceRequest> for BrokerRequest {
    fn from(request: PresenceRequest) -> BrokerRequest {
        BrokerRequest::Presence(request)
    }
}
