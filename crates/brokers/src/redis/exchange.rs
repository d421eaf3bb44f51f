//! What the core takes from endpoints and connections, and what it wants of its driver.
//!
//! Invariant: whatever a connection says carries its line, so that nothing of an earlier one
//! counts.

use std::sync::Arc;
use std::time::Duration;

use engine::broker::BrokerRequest;

use super::connection::{LinkTarget, SlotRange};
use super::identity::ServerIdentity;
use super::pipe::Pipe;
use super::resp::Frame;
use super::scripts::Digests;
use super::settings::{Address, ServerLocation};
use super::unavailable::UnavailableReason;
use super::watch::Sighting;
use crate::Endpoint;

/// Names a server for as long as the broker knows it.
pub(super) type LinkId = u32;

/// What endpoints want.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a request is the usual job, and a box would cost it an allocation"
)]
pub(super) enum Job {
    /// Something of the broker.
    Request { endpoint: Endpoint, request: BrokerRequest },
    /// To be forgotten.
    Detach { endpoint: Endpoint },
    /// Other nodes to know what this one has to say of itself.
    Renew,
}

/// What connections say.
#[derive(Debug)]
pub(super) enum DriverEvent {
    /// Of one connection.
    Link(ConnectionId, LinkEvent),
    /// Who answers for which slots of the cluster.
    Slots(Result<Vec<SlotRange>, UnavailableReason>),
    /// Which server a link is to lead to.
    Sighting(LinkId, Result<Sighting, UnavailableReason>),
}

/// One connection to one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ConnectionId {
    pub(super) link: LinkId,
    pub(super) attempt: u32,
}

/// What one connection says.
#[derive(Debug)]
pub(super) enum LinkEvent {
    Up(Box<Opened>),
    Frames(Vec<Frame>),
    Down(UnavailableReason),
}

/// A connection that may be used.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) address: Address,
    pub(super) digests: Digests,
    pub(super) identity: ServerIdentity,
    /// Whether channels belong to slots: a cluster from version 7 on.
    pub(super) has_shards: bool,
    pub(super) pipe: Arc<Pipe>,
}

/// What the driver has to do.
#[derive(Debug)]
pub(super) enum LinkCommand {
    /// Connect after this time.
    Connect { line: ConnectionId, target: LinkTarget, after: Duration },
    /// Give up the connection, or trying to.
    Close { line: ConnectionId },
    /// Look again and again where the link is to lead.
    Watch { link: LinkId, server: ServerLocation },
    /// Ask one of these who answers for which slots.
    AskSlots { members: Vec<Address> },
}
