//! The inputs of a node: requests of its broker, events of the connection, failures of its tasks,
//! and messages that concern no channel.

use std::sync::Arc;

use async_nats::Subscriber;
use engine::broker::BrokerError;
use futures_util::StreamExt;
use futures_util::stream::{SelectAll, select_all};
use tokio::sync::mpsc;

use super::FaultPoint;
use super::connection_events::ConnectionEvents;
use super::link::NatsLink;
use super::request::QueuedRequest;
use super::task::TaskFailure;
use crate::Endpoint;

/// An input from the broker.
#[expect(
    clippy::large_enum_variant,
    reason = "a request is the usual case, and a box would cost it an allocation"
)]
pub(super) enum NodeInput {
    Request(QueuedRequest),
    Detach(Endpoint),
    /// The channel options have changed: announce them to other nodes.
    Options,
    /// Make a part fail, for tests of the supervision.
    Break(FaultPoint),
    /// End after the inputs queued before.
    End,
}

/// Every source of inputs of a node.
pub(super) struct Inputs {
    pub(super) requests: mpsc::UnboundedReceiver<NodeInput>,
    pub(super) events: Arc<ConnectionEvents>,
    pub(super) failures: mpsc::Receiver<TaskFailure>,
    pub(super) subscriptions: NodeSubscriptions,
}

/// Subscriptions of a node that concern no channel.
pub(super) struct NodeSubscriptions {
    /// Orders, questions and answers of other nodes.
    pub(super) controls: SelectAll<Subscriber>,
    /// Generations that another node begins; `None` without JetStream.
    pub(super) generations: Option<Subscriber>,
    /// Elections of a leader of the history stream; `None` without JetStream.
    pub(super) leaders: Option<Subscriber>,
}

impl NodeSubscriptions {
    pub(super) async fn open(link: &NatsLink) -> Result<NodeSubscriptions, BrokerError> {
        let to_all = link.subscribe(link.names.control()).await?;
        let to_this = link.subscribe(link.names.control_of(&link.names.node)).await?;
        let controls = select_all([to_all, to_this]);
        let (mut generations, mut leaders) = (None, None);
        if link.has_jetstream {
            generations = Some(link.subscribe(link.names.generation()).await?);
            leaders = Some(link.subscribe(link.names.leaders()).await?);
        }
        Ok(NodeSubscriptions { controls, generations, leaders })
    }
}

/// The next message of a subscription; pending without one.
pub(super) async fn next(subscription: &mut Option<Subscriber>) -> Option<async_nats::Message> {
    match subscription {
        Some(subscription) => subscription.next().await,
        None => std::future::pending().await,
    }
}
