//! A node of the simulated world: the state machine, its endpoints, and what its driver would do.
//!
//! Invariant: outputs are carried out at once and in order, as the driver does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use engine::broker::BrokerError;

use crate::Endpoint;
use crate::redis::clock::ClockReading;
use crate::redis::core::RedisCore;
use crate::redis::driver_messages::{ConnectionId, Job, LinkCommand, LinkId, LinkTarget};
use crate::redis::outputs::{CoreOutput, EndpointStates};
use crate::redis::published_leaves::PublishedLeaves;
use crate::redis::settings::{RedisSettings, ServerLocation};
use crate::redis::unavailable::UnavailableReason;

use super::endpoint::{Interruptions, SimEndpoint};
use super::truth::Truth;

/// See the module.
pub(super) struct SimNode {
    pub(super) core: RedisCore,
    pub(super) name: String,
    pub(super) endpoints: Endpoints,
    /// Connections to open, by time.
    pub(super) connects: Vec<(u64, ConnectionId, LinkTarget)>,
    /// Places to observe, by time.
    pub(super) watches: Vec<(u64, LinkId, ServerLocation)>,
    pub(super) closes: Vec<ConnectionId>,
    pub(super) sent: Vec<(ConnectionId, Vec<u8>)>,
    /// What the broker of publications has to do, if Redis carries presence only.
    leaves: Vec<LeaveStep>,
    /// Channels with leaves that it has lost since the last confirmation.
    lost: BTreeSet<Arc<str>>,
    pub(super) health: Option<UnavailableReason>,
    pub(super) interruptions: Interruptions,
    /// The process does not run until this time.
    pub(super) frozen_until_ms: u64,
    next_endpoint: u32,
}

/// Something for the broker of publications to do.
enum LeaveStep {
    Publish(Arc<str>, String),
    Confirm(PublishedLeaves),
}

/// Whether the broker of publications works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeaveBroker {
    Takes,
    Loses,
}

/// The endpoints of a node.
#[derive(Default)]
pub(super) struct Endpoints(pub(super) BTreeMap<Endpoint, SimEndpoint>);

impl EndpointStates for Endpoints {
    fn is_attached(&self, endpoint: Endpoint) -> bool {
        self.0.contains_key(&endpoint)
    }

    fn is_full(&self, endpoint: Endpoint) -> bool {
        self.0.get(&endpoint).is_some_and(|endpoint| endpoint.is_full)
    }
}

impl SimNode {
    pub(super) fn new(now: ClockReading, settings: &RedisSettings) -> SimNode {
        let mut node = SimNode {
            core: RedisCore::new(now.time, settings),
            name: settings.node.clone(),
            endpoints: Endpoints::default(),
            connects: Vec::new(),
            watches: Vec::new(),
            closes: Vec::new(),
            sent: Vec::new(),
            leaves: Vec::new(),
            lost: BTreeSet::new(),
            health: Some(UnavailableReason::Starting),
            interruptions: Interruptions::of_node(&settings.node),
            frozen_until_ms: 0,
            next_endpoint: 0,
        };
        node.attach();
        node.attach();
        node
    }

    pub(super) fn attach(&mut self) {
        self.endpoints.0.insert(Endpoint(self.next_endpoint), SimEndpoint::default());
        self.next_endpoint += 1;
    }

    pub(super) fn submit(&mut self, now: ClockReading, job: Job) {
        self.core.handle_job(now, job, &self.endpoints);
    }

    /// Lets the state machine do what is due, and takes its outputs.
    pub(super) fn turn(&mut self, now: ClockReading, now_ms: u64, truth: &mut Truth) {
        self.core.handle_timeout(now);
        let sent = &mut self.sent;
        self.core.flush(now.time, |connection_id, bytes| {
            sent.push((connection_id, std::mem::take(bytes)));
        });
        while let Some(command) = self.core.poll_command() {
            match command {
                LinkCommand::Connect { connection_id, target, after } => {
                    let at_ms = now_ms + u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
                    self.connects.push((at_ms, connection_id, target));
                }
                LinkCommand::Close { connection_id } => self.closes.push(connection_id),
                LinkCommand::Watch { link, server } => self.watches.push((now_ms, link, server)),
                LinkCommand::ReadSlots { .. } => panic!("there is no cluster"),
            }
        }
        while let Some(output) = self.core.poll_output() {
            match output {
                CoreOutput::Deliver(endpoint, event) => {
                    if let Some(endpoint) = self.endpoints.0.get_mut(&endpoint) {
                        endpoint.handle(event, &self.interruptions, truth);
                    }
                }
                CoreOutput::Notify(event) => {
                    for endpoint in self.endpoints.0.values_mut() {
                        endpoint.handle(event.clone(), &self.interruptions, truth);
                    }
                }
                CoreOutput::Health(health) => self.health = health,
                CoreOutput::Leave(channel, info) => {
                    self.leaves.push(LeaveStep::Publish(channel, info.client.clone()));
                }
                CoreOutput::ConfirmLeaves(leaves) => self.leaves.push(LeaveStep::Confirm(leaves)),
                CoreOutput::Warn(_)
                | CoreOutput::WarnOfSameName
                | CoreOutput::Nodes(_)
                | CoreOutput::Lag(_) => {}
            }
        }
    }

    /// Does what the broker of publications does with the leaves that it has to publish.
    pub(super) fn publish_leaves(
        &mut self,
        now: ClockReading,
        broker: LeaveBroker,
        truth: &mut Truth,
    ) {
        for step in std::mem::take(&mut self.leaves) {
            match (step, broker) {
                (LeaveStep::Publish(channel, client), LeaveBroker::Takes) => {
                    truth.left.insert((channel, client));
                }
                (LeaveStep::Publish(channel, _), LeaveBroker::Loses) => {
                    self.lost.insert(channel);
                }
                (LeaveStep::Confirm(leaves), broker) => {
                    let has_lost = self.lost.remove(&leaves.channel);
                    let result = match has_lost || broker == LeaveBroker::Loses {
                        true => Err(BrokerError::Unavailable),
                        false => Ok(()),
                    };
                    self.submit(now, Job::LeavesConfirmed(leaves, result));
                }
            }
        }
    }
}
