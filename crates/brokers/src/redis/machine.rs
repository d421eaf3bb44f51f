//! The state machine together with what its outputs go to: inboxes, sockets, the shared state.
//!
//! Invariant: the thread that holds the machine's lock carries out its outputs before it releases
//! it, so that endpoints receive events in the order in which the state machine emitted them.

use std::collections::HashMap;
use std::sync::Arc;

use super::DriverMessage;
use super::clock::{ClockReading, MonotonicTime, RedisClock};
use super::core::RedisCore;
use super::driver_messages::{ConnectionId, Job, LinkCommand};
use super::outputs::{CoreOutput, EndpointStates};
use super::settings::RedisSettings;
use super::shared::Shared;
use super::write_queue::WriteQueue;
use crate::Endpoint;
use crate::channel_options::OtherNode;
use crate::endpoints::Endpoints;

/// See the module.
pub(super) struct Machine {
    core: RedisCore,
    shared: Arc<Shared>,
    pub(super) clock: RedisClock,
    write_queues: HashMap<ConnectionId, Arc<WriteQueue>>,
    /// Empty; kept for its capacity.
    jobs: Vec<Job>,
}

impl Machine {
    pub(super) fn new(settings: &RedisSettings, shared: Arc<Shared>) -> Machine {
        let clock = RedisClock::start();
        let core = RedisCore::new(clock.time(), settings);
        Machine { core, shared, clock, write_queues: HashMap::new(), jobs: Vec::new() }
    }

    fn add_write_queue(&mut self, connection_id: ConnectionId, queue: Arc<WriteQueue>) {
        self.write_queues.retain(|known, _| known.link != connection_id.link);
        self.write_queues.insert(connection_id, queue);
    }

    /// Handles messages of the driver's tasks.
    pub(super) fn handle_messages(
        &mut self,
        now: ClockReading,
        messages: impl Iterator<Item = DriverMessage>,
    ) {
        for message in messages {
            match message {
                DriverMessage::WriteQueue(connection_id, queue) => {
                    self.add_write_queue(connection_id, queue);
                }
                DriverMessage::Event(event) => self.core.handle_event(now, event),
            }
        }
        self.carry_out();
    }

    /// Handles queued jobs of endpoints.
    pub(super) fn handle_jobs(&mut self, now: ClockReading) {
        let mut jobs = std::mem::take(&mut self.jobs);
        self.shared.take(&mut jobs);
        for job in jobs.drain(..) {
            self.core.handle_job(now, job, &self.shared.endpoints);
        }
        self.jobs = jobs;
        self.carry_out();
    }

    pub(super) fn handle_timeout(&mut self, now: ClockReading) {
        self.core.handle_timeout(now);
        self.carry_out();
    }

    /// Leaves the registry, as the broker ends.
    pub(super) fn leave_registry(&mut self, now: ClockReading) {
        self.core.leave_registry(now.time);
        self.carry_out();
    }

    /// Sends buffered commands, one write for each server.
    pub(super) fn flush(&mut self, now: ClockReading) {
        let write_queues = &self.write_queues;
        self.core.flush(now.time, |connection_id, bytes| {
            match write_queues.get(&connection_id) {
                // A closed connection reports itself.
                Some(queue) => queue.send(bytes),
                None => bytes.clear(),
            }
        });
        self.carry_out();
    }

    pub(super) fn is_idle(&self) -> bool {
        self.core.is_idle()
    }

    pub(super) fn next_timeout(&self) -> MonotonicTime {
        self.core.next_timeout()
    }

    pub(super) fn has_commands(&self) -> bool {
        self.core.has_commands()
    }

    pub(super) fn poll_command(&mut self) -> Option<LinkCommand> {
        self.core.poll_command()
    }

    fn carry_out(&mut self) {
        let inboxes = self.shared.endpoints.inboxes();
        while let Some(output) = self.core.poll_output() {
            match output {
                CoreOutput::Deliver(endpoint, event) => {
                    if let Some(inbox) = inboxes.get(&endpoint) {
                        inbox.deliver(event);
                    }
                }
                CoreOutput::Notify(event) => {
                    inboxes.values().for_each(|inbox| inbox.deliver(event.clone()));
                }
                CoreOutput::Leave(channel, info) => self.shared.publish_leave(channel, info),
                CoreOutput::ConfirmLeaves(leaves) => Shared::confirm_leaves(&self.shared, leaves),
                CoreOutput::Warn(text) => self.shared.warnings.add(text),
                CoreOutput::WarnOfSameName => self.shared.warnings.add_twin(self.core.name()),
                CoreOutput::Nodes(nodes) => {
                    let nodes = nodes.iter().map(|node| OtherNode {
                        id: &node.id,
                        name: &node.name,
                        text: &node.text,
                    });
                    let warnings = self.shared.options.note(nodes);
                    warnings.into_iter().for_each(|warning| self.shared.warnings.add(warning));
                }
                CoreOutput::Health(reason) => self.shared.set_unavailable(reason),
                CoreOutput::Lag(lag) => self.shared.note_lag(lag),
            }
        }
    }
}

impl EndpointStates for Endpoints {
    fn is_attached(&self, endpoint: Endpoint) -> bool {
        self.inbox(endpoint).is_some()
    }

    fn is_full(&self, endpoint: Endpoint) -> bool {
        self.inbox(endpoint).is_some_and(|inbox| inbox.is_full())
    }
}
