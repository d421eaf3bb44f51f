//! The server API as typed requests, results and errors. HTTP, gRPC, consumers and the demo only
//! translate to it.
//!
//! Invariant: every request that names a channel checks it against the caller's permissions and the
//! rules, here and nowhere else.

pub(crate) mod batch;
pub(crate) mod call;
pub(crate) mod caller;
pub(crate) mod channels;
pub(crate) mod error;
pub(crate) mod gate;
pub(crate) mod keys;
pub(crate) mod method;
pub(crate) mod nodes;
pub(crate) mod payload;
pub(crate) mod publications;
pub(crate) mod revocations;
pub(crate) mod sessions;
pub(crate) mod subscribers;

use std::sync::Arc;

use crate::clock::ServerClock;
use crate::cluster::members::Members;
use crate::cluster::node::Node;
use channels::ChannelService;
use nodes::NodeService;
use publications::PublicationService;
use revocations::RevocationService;
use sessions::SessionService;
use subscribers::SubscriberService;

/// The methods of the server API, by subject.
pub(crate) struct Service {
    pub(crate) publications: PublicationService,
    pub(crate) sessions: SessionService,
    pub(crate) channels: ChannelService,
    pub(crate) subscribers: SubscriberService,
    pub(crate) revocations: RevocationService,
    pub(crate) nodes: NodeService,
}

/// What all parts of the service use.
#[derive(Clone)]
pub(crate) struct ServiceContext {
    pub(crate) members: Arc<Members>,
    pub(crate) node: Arc<Node>,
    pub(crate) clock: ServerClock,
}

impl ServiceContext {
    pub(crate) fn of(members: &Arc<Members>) -> ServiceContext {
        let node = members.node().clone();
        ServiceContext { members: members.clone(), clock: node.clock, node }
    }
}

impl Service {
    pub(crate) fn new(context: &ServiceContext) -> Service {
        Service {
            publications: PublicationService::new(context.clone()),
            sessions: SessionService::new(context.clone()),
            channels: ChannelService::new(context.clone()),
            subscribers: SubscriberService::new(context.clone()),
            revocations: RevocationService::new(context.clone()),
            nodes: NodeService::new(context.clone()),
        }
    }
}
