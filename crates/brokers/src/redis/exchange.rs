//! Messages between the core, its driver and the connections.
//!
//! Invariant: every event of a connection carries its id, so events of earlier connections are
//! ignored.

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

/// Identifies a link for as long as the broker keeps it.
pub(super) type LinkId = u32;

/// A job that endpoints submit.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "a request is the usual job, and a box would cost it an allocation"
)]
pub(super) enum Job {
    /// A request to the broker.
    Request { endpoint: Endpoint, request: BrokerRequest },
    /// The endpoint is removed.
    Detach { endpoint: Endpoint },
    /// The lease is renewed, with changed channel options.
    Renew,
}

/// An event of the driver's tasks.
#[derive(Debug)]
pub(super) enum DriverEvent {
    /// An event of one connection.
    Link(ConnectionId, LinkEvent),
    /// The slot assignment of the cluster.
    Slots(Result<Vec<SlotRange>, UnavailableReason>),
    /// An observation of the server that a link should lead to.
    Sighting(LinkId, Result<Sighting, UnavailableReason>),
}

/// Identifies one connection attempt of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ConnectionId {
    pub(super) link: LinkId,
    pub(super) attempt: u32,
}

/// An event of one connection.
#[derive(Debug)]
pub(super) enum LinkEvent {
    Up(Box<Opened>),
    Frames(Vec<Frame>),
    Down(UnavailableReason),
}

/// An open, verified connection.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) address: Address,
    pub(super) digests: Digests,
    pub(super) identity: ServerIdentity,
    /// Whether sharded pub/sub is used: in a cluster from version 7 on.
    pub(super) has_shards: bool,
    pub(super) pipe: Arc<Pipe>,
}

/// A command of the core to its driver.
#[derive(Debug)]
pub(super) enum LinkCommand {
    /// Connect after this delay.
    Connect { line: ConnectionId, target: LinkTarget, after: Duration },
    /// Close the connection or abandon the attempt.
    Close { line: ConnectionId },
    /// Verify repeatedly where the link should lead.
    Watch { link: LinkId, server: ServerLocation },
    /// Read the slot assignment from one of these members.
    AskSlots { members: Vec<Address> },
}
