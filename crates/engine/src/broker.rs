//! The contract between an endpoint and a broker: the requests that an endpoint submits and the
//! events that a broker delivers.
//!
//! An endpoint is a local user of a broker: a worker, or the server API. It submits a
//! [`BrokerRequest`] without waiting and receives [`BrokerEvent`]s in its inbox. Every broker
//! guarantees:
//!
//! - Requests of one endpoint about one channel take effect in the order of submission.
//! - All endpoints receive the publications of a channel in the same order.
//! - Each request that carries a [`RequestId`] gets exactly one [`BrokerEvent::Reply`], whose type
//!   follows from the id.
//! - A reply stands in the inbox behind every event that precedes it in the channel. So the reply
//!   to [`PublicationsRequest::Subscribe`] separates the publications that its [`JoinedStream`]
//!   covers from those that follow.
//!
//! A broker has four parts, which may be different servers: publications with their history,
//! presence, the node bus, and the registry. The guarantees about order hold within a part.

mod node_bus;
mod presence;
mod publications;
mod registry;
mod reply;

use std::sync::Arc;

use bytes::Bytes;
use wire::protocol::{ClientInfo, Publication, StreamPosition};

use crate::revocation::Revocation;

pub use node_bus::{Control, NodeBusRequest, Order, Survey, Target, Ticket};
pub use presence::PresenceRequest;
pub use publications::{
    ChannelTtl, HistoryQuery, HistoryRemoved, JoinRead, JoinedStream, Membership,
    PublicationsRequest, PublishOptions,
};
pub use registry::RegistryRequest;
pub use reply::{BrokerReply, ReplyValue, RequestId};

/// A request that an endpoint submits to a broker.
#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a publication is the usual request, and a box would cost it an allocation"
)]
pub enum BrokerRequest {
    /// About the publications of a channel.
    Publications(PublicationsRequest),
    /// About the clients present in a channel.
    Presence(PresenceRequest),
    /// About other nodes.
    NodeBus(NodeBusRequest),
    /// About revocations.
    Registry(RegistryRequest),
}

impl BrokerRequest {
    /// Returns the reply that refuses the request; `None` for a request without a reply.
    #[must_use]
    pub fn refuse(&self, error: BrokerError) -> Option<BrokerReply> {
        match self {
            BrokerRequest::Publications(request) => request.refuse(error),
            BrokerRequest::Presence(request) => request.refuse(error),
            BrokerRequest::NodeBus(request) => request.refuse(error),
            BrokerRequest::Registry(request) => Some(request.refuse(error)),
        }
    }

    /// Returns whether the request is answered with a reply.
    #[must_use]
    pub fn has_reply(&self) -> bool {
        self.refuse(BrokerError::Unavailable).is_some()
    }

    /// Returns the channel of the request; `None` for requests about nodes and revocations.
    #[must_use]
    pub fn channel(&self) -> Option<&Arc<str>> {
        match self {
            BrokerRequest::Publications(request) => Some(request.channel()),
            BrokerRequest::Presence(request) => Some(request.channel()),
            BrokerRequest::NodeBus(_) | BrokerRequest::Registry(_) => None,
        }
    }
}

/// An event that a broker delivers to an endpoint.
#[derive(Clone, Debug)]
pub enum BrokerEvent {
    /// A publication in a channel to which the endpoint is subscribed.
    Publication {
        /// Channel of the publication.
        channel: Arc<str>,
        /// The publication with its offset; offset 0 without history.
        publication: Arc<Publication>,
        /// Epoch of the stream; empty without history.
        epoch: Arc<str>,
    },
    /// A client joined or left a channel to which the endpoint is subscribed.
    Membership {
        /// Channel that the client joined or left.
        channel: Arc<str>,
        /// The client, as subscribers see it.
        info: Arc<ClientInfo>,
        /// Whether the client joined or left.
        change: Membership,
    },
    /// The top position of a channel to which the endpoint is subscribed. A broker sends it when
    /// publications may have been lost, for example after a reconnect. It follows every publication
    /// up to that position.
    Position {
        /// Channel of the stream.
        channel: Arc<str>,
        /// Top position of the stream.
        top: StreamPosition,
    },
    /// A temporary channel to which the endpoint is subscribed has expired. See
    /// [`PublicationsRequest::LimitTtl`].
    Expired {
        /// Channel that has expired.
        channel: Arc<str>,
    },
    /// The reply to a request.
    Reply(BrokerReply),
    /// An order of the server API, submitted at any node.
    Control(Arc<Control>),
    /// A change of what is revoked, stored through any node.
    Revocation(Arc<Revocation>),
    /// Changes of what is revoked may have been missed. The endpoint must read them again.
    RevocationsStale,
    /// A question of another node. One endpoint of this node answers it with
    /// [`NodeBusRequest::Answer`].
    Question {
        /// Identifies the question in the answer.
        ticket: Ticket,
        /// Encoded question.
        question: Bytes,
    },
}

/// Why a broker rejected a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// The broker is not reachable, or did not answer in time. The request may have taken effect.
    #[error("the broker is unavailable")]
    Unavailable,
    /// The inbox of a subscribed endpoint is full.
    #[error("a subscriber of the channel is overloaded")]
    Overloaded,
    /// The broker's memory limit is reached and nothing stored can be evicted for this request.
    #[error(
        "the broker's memory limit is reached (engine.memory.bytes_max, engine.memory.channels_max)"
    )]
    Full,
    /// The requested position belongs to another epoch.
    #[error("the position is no longer in the stream")]
    UnrecoverablePosition,
    /// The channel's name is too long for this broker. Permanent: a retry fails too.
    #[error("the channel name is too long for the broker")]
    NameTooLong,
    /// The publication is too large for this broker. Permanent: a retry fails too.
    #[error("the publication is too large for the broker")]
    TooLarge,
    /// The broker's configuration does not support the request. Permanent: a retry fails too.
    #[error("the broker's configuration does not support this request")]
    NotSupported,
}
