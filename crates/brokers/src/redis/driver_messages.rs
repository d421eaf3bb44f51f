//! Messages between the core, its driver and the connections.
//!
//! Invariant: every event of a connection carries its id, so events of earlier connections are
//! ignored.

use std::time::Duration;

use engine::broker::{BrokerError, BrokerRequest, PublicationsRequest};

use super::clock::MonotonicTime;
use super::identity::ServerIdentity;
use super::published_leaves::PublishedLeaves;
use super::resp::Frame;
use super::scripts::Digests;
use super::settings::{Address, ServerLocation};
use super::topology::SlotRange;
use super::unavailable::UnavailableReason;
use crate::Endpoint;
use crate::channel_options::EncodedOptions;

/// Identifies a link for as long as the broker keeps it.
pub(super) type LinkId = u32;

/// The server that a link connects to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LinkTarget {
    /// An independent server.
    Server(ServerLocation),
    /// A master of the cluster.
    Member(Address),
}

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
    /// Whether leaves have reached the broker that publishes them.
    LeavesConfirmed(PublishedLeaves, Result<(), BrokerError>),
    /// The channel options have changed; the lease is renewed with them.
    Announce(EncodedOptions),
}

impl Job {
    /// Bytes of its publication.
    pub(super) fn length(&self) -> usize {
        match self {
            Job::Request {
                request:
                    BrokerRequest::Publications(PublicationsRequest::Publish { publication, .. }),
                ..
            } => publication.weight(),
            _ => 0,
        }
    }
}

/// An event of the driver's tasks.
#[derive(Debug)]
pub(super) enum DriverEvent {
    /// An event of one connection.
    Link(ConnectionId, LinkEvent),
    /// The slot assignment of the cluster.
    Slots(Result<Vec<SlotRange>, UnavailableReason>),
    /// An observation of the server that a link should lead to.
    Observation(LinkId, Result<Observation, UnavailableReason>),
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
}

impl Opened {
    /// The command that publishes.
    pub(super) fn publish_command(&self) -> &'static [u8] {
        if self.has_shards { b"SPUBLISH" } else { b"PUBLISH" }
    }
}

/// A command of the core to its driver.
#[derive(Debug)]
pub(super) enum LinkCommand {
    /// Connect after this delay.
    Connect { connection_id: ConnectionId, target: LinkTarget, after: Duration },
    /// Close the connection or abandon the attempt.
    Close { connection_id: ConnectionId },
    /// Verify repeatedly where the link should lead.
    Watch { link: LinkId, server: ServerLocation },
    /// Read the slot assignment from one of these members.
    ReadSlots { members: Vec<Address> },
}

/// An observation: the server that a link should lead to.
#[derive(Debug)]
pub(super) struct Observation {
    pub(super) address: Address,
    /// When the observation began.
    pub(super) asked_at: MonotonicTime,
    /// Why the answer is not certain: fewer than half of the Sentinels agree.
    pub(super) doubt: Option<UnavailableReason>,
    /// Identity of the server; `None` when it does not answer or its identity does not matter.
    pub(super) identity: Option<ServerIdentity>,
}
