//! The node's place in the registry: lease, lifecycle events and surveys.
//!
//! The registry lies in the first partition; the presence of a failed node lies in all partitions.
//! Invariant: each step may be lost or repeated; the next step continues from what Redis holds.

use std::time::Duration;

use engine::broker::{BrokerError, BrokerEvent, Survey, Ticket};

use super::super::clock::MonotonicTime;
use super::super::command::{CommandTarget, LeaseReport};
use super::super::link::{Purpose, SentCommand};
use super::super::open_request::Asker;
use super::super::outputs::{CoreOutput, NodeRecord};
use super::super::resp::Frame;
use super::super::surveys::OpenSurvey;
use super::RedisCore;
use crate::control::{self, NodeMessage};
use crate::limits::{CLOCK_SKEW_MAX, PARTITIONS, SURVEY_TIMEOUT};

/// Delay after which another node has seen that this node is alive, and ended its cleanup.
const REENTER_AFTER: Duration = Duration::from_secs(2);

/// Field that marks a hash of clients as complete; written by the scripts.
const WHOLE: &str = "\0";

/// Partition of the registry.
pub(super) const FIRST: usize = 0;

impl RedisCore {
    /// Writes one command for a partition. Returns whether its server can be used now.
    pub(super) fn write(
        &mut self,
        now: MonotonicTime,
        index: usize,
        purpose: Purpose,
        form: impl FnOnce(&super::CommandEncoder, CommandTarget<'_>, &mut Vec<u8>),
    ) -> bool {
        let is_waiting = self.partitions[index].hold.is_some();
        let connection = self.links.usable(self.partitions[index].link).filter(|_| !is_waiting);
        let Some(connection) = connection else { return false };
        let partition = index % PARTITIONS;
        let target = CommandTarget { keys: &self.keys, opened: &connection.opened, partition };
        form(&self.encoder, target, &mut connection.out);
        connection.expect(SentCommand::new(index, now + self.io_timeout, purpose));
        self.partitions[index].in_flight += 1;
        true
    }

    /// Renews the lease, restores presence and ends overdue surveys, when due.
    pub(super) fn send_lease(&mut self, now: MonotonicTime) {
        if self.registry.begins_renewal(now) {
            let report = LeaseReport {
                is_free: self.registry.cleanup.is_none(),
                clients: self.registry.lifecycle.known_count(),
                options: self.options.clone(),
            };
            let with_options = !report.options.digest.is_empty();
            let purpose = Purpose::Lease { with_options };
            let is_sent = self.write(now, FIRST, purpose, |encoder, target, out| {
                encoder.lease(target, &report, out);
            });
            if !is_sent {
                tracing::debug!("Redis: the lease cannot be renewed; it is retried");
                self.registry.handle_renewal_failed(now);
            }
        }
        if self.registry.renews_presence_at.take_if(|at| *at <= now).is_some() {
            self.renew_all_presence(now);
        }
        for survey in self.surveys.take_overdue(now) {
            self.end_survey(survey);
        }
    }

    /// Sends pending lifecycle events.
    pub(super) fn send_lifecycle(&mut self, now: MonotonicTime) {
        if !self.registry.may_send(now) {
            return;
        }
        let Some(events) = self.registry.lifecycle.take() else { return };
        let is_sent =
            self.write(now, FIRST, Purpose::Lifecycle(events.clone()), |encoder, target, out| {
                encoder.lifecycle(target, &events, out);
            });
        if !is_sent {
            self.registry.lifecycle.requeue(events);
            self.registry.pause_lifecycle(now);
        }
    }

    /// The first partition has a server, which may lack what the previous one held.
    pub(super) fn join_registry(&mut self, now: MonotonicTime) {
        // The lease first: other nodes look up clients by live node.
        self.registry.request_renewal(now);
        self.send_lease(now);
        self.registry.lifecycle.requeue_online();
        self.scan(now, b"0");
    }

    fn scan(&mut self, now: MonotonicTime, cursor: &[u8]) {
        // If the server cannot be used, the next reconnect scans again.
        let _later = self.write(now, FIRST, Purpose::Scan, |encoder, target, out| {
            encoder.scan(target, cursor, out);
        });
    }

    /// Handles the reply to a registry command.
    pub(super) fn handle_node_answer(
        &mut self,
        now: MonotonicTime,
        purpose: &Purpose,
        frame: &Frame,
    ) {
        match purpose {
            Purpose::Lifecycle(_) => self.registry.lifecycle.handle_sent(),
            &Purpose::Lease { with_options } => {
                self.registry.reason = None;
                self.registry.has_sent_options |= with_options;
                self.handle_lease(now, frame);
            }
            Purpose::Scan => {
                let Some([cursor, clients]) = frame.list() else { return };
                for pair in clients.list().unwrap_or_default().chunks_exact(2) {
                    if let (Some(client), Some(user)) = (pair[0].str(), pair[1].str())
                        && client != WHOLE
                    {
                        self.registry.lifecycle.check(client, user, self.unix_ms);
                    }
                }
                if let Some(cursor) = cursor.text().filter(|cursor| &cursor[..] != b"0") {
                    let cursor = cursor.clone();
                    self.scan(now, &cursor);
                }
            }
            &Purpose::Survey(number) => {
                let drops_keys = self.may_evict();
                let nodes = frame.list().unwrap_or_default().iter().filter_map(Frame::str);
                let others = nodes.filter(|node| *node != self.encoder.node);
                // Redis may have evicted the leases of live nodes, so nodes seen earlier are added.
                // Otherwise its list is exact and excludes nodes that have left.
                let seen = self.registry.others().map(String::as_str).filter(|_| drops_keys);
                let others = others.chain(seen).map(str::to_owned).collect();
                if let Some(survey) = self.surveys.handle_nodes(number, others) {
                    self.end_survey(survey);
                }
            }
            purpose => self.handle_cleanup(now, purpose, frame),
        }
    }

    /// A registry command has failed or has an unknown outcome.
    pub(super) fn handle_node_failure(&mut self, now: MonotonicTime, purpose: Purpose) {
        match purpose {
            Purpose::Revocations(reading) => {
                self.answer(&reading.asker, Err(BrokerError::Unavailable));
            }
            Purpose::Lifecycle(events) => {
                self.registry.lifecycle.requeue(events);
                self.registry.pause_lifecycle(now);
            }
            Purpose::Lease { .. } => self.registry.handle_renewal_failed(now),
            Purpose::Survey(number) => {
                if let Some(survey) = self.surveys.remove(number) {
                    self.end_survey(survey);
                }
            }
            // The node's lease remains expired, so Redis assigns its cleanup again.
            Purpose::PresentChannels(number)
            | Purpose::Evict(number, _)
            | Purpose::CleanUp(number) => {
                self.abandon_cleanup(number);
            }
            _ => {}
        }
    }

    fn renew_all_presence(&mut self, now: MonotonicTime) {
        for index in 0..self.partitions.len() {
            if self.partitions[index].hold.is_none() {
                self.renew_presence(now, index);
            }
        }
    }

    fn handle_lease(&mut self, now: MonotonicTime, frame: &Frame) {
        let Some([lasted, time, dead, twin, whole, others]) = frame.list() else { return };
        self.note_others(others.list().unwrap_or_default());
        let was_member = std::mem::replace(&mut self.registry.is_member, true);
        if !was_member {
            tracing::info!(node = %self.encoder.node, "Redis: this node has a lease");
        }
        if lasted.u64() == Some(0) && was_member {
            tracing::warn!(
                "Redis: the lease of this node had ended; the lifecycle events of its clients are sent again"
            );
            // Other nodes consider this node failed: its clients are announced again, and once more
            // after a cleanup that may be in progress.
            self.registry.lifecycle.requeue_online();
            self.registry.renews_presence_at = Some(now + REENTER_AFTER);
            self.renew_all_presence(now);
        }
        if whole.u64() == Some(0) {
            let text = "Redis has evicted records of this node's clients; their lifecycle events are sent again";
            self.outputs.warn(text.to_owned());
            self.registry.lifecycle.requeue_removed();
        }
        let skew_ms = time.u64().map_or(0, |time| self.unix_ms - i64::try_from(time).unwrap_or(0));
        if Duration::from_millis(skew_ms.unsigned_abs()) > CLOCK_SKEW_MAX {
            let text = format!(
                "the clock of this node is {skew_ms} ms before that of Redis: tokens and subscriptions end at other times here than on other nodes"
            );
            self.outputs.warn(text);
        }
        // The lease of a node that was just killed is still valid.
        if self.registry.has_twin(now, twin.str().unwrap_or_default()) {
            self.outputs.add(CoreOutput::WarnOfSameName);
        }
        if let Some(dead) = dead.str().filter(|dead| !dead.is_empty())
            && self.registry.cleanup.is_none()
        {
            self.begin_cleanup(now, dead);
        }
    }

    /// Stores the other live nodes, from triples of id, name and channel options.
    fn note_others(&mut self, others: &[Frame]) {
        let text = |frame: &Frame| frame.str().map(str::to_owned);
        let nodes = others.chunks_exact(3).filter_map(|other| {
            let [id, name, options] = other else { return None };
            Some(NodeRecord { id: text(id)?, name: text(name)?, text: text(options)? })
        });
        let nodes: Vec<NodeRecord> = nodes.collect();
        self.registry.set_others(nodes.iter().map(|node| node.id.clone()).collect());
        self.outputs.add(CoreOutput::Nodes(nodes));
    }

    /// Sends a survey to all other nodes.
    pub(super) fn survey(&mut self, now: MonotonicTime, asker: Asker<Survey>, question: &[u8]) {
        let number = self.random.next_u64();
        let ticket = Ticket { node: self.encoder.node.clone(), number };
        let payload = control::encode_question(&ticket, question);
        let sent = self.write(now, FIRST, Purpose::Survey(number), |_, target, out| {
            target.survey(&payload, out);
        });
        if !sent {
            return self.answer(&asker, Err(BrokerError::Unavailable));
        }
        self.surveys.begin(number, asker, now + SURVEY_TIMEOUT);
    }

    fn end_survey(&mut self, survey: OpenSurvey) {
        let (asker, result) = survey.into_result();
        self.answer(&asker, result);
    }

    /// Handles a message of another node.
    pub(super) fn handle_message(&mut self, now: MonotonicTime, message: NodeMessage) {
        match message {
            NodeMessage::Order(control) => {
                self.outputs.notify(BrokerEvent::Control(control.into()));
            }
            NodeMessage::Question { ticket, question } if ticket.node != self.encoder.node => {
                let event = BrokerEvent::Question { ticket, question };
                self.outputs.notify(event);
            }
            // Redis nodes announce channel options with their leases.
            NodeMessage::Question { .. } | NodeMessage::Options(_) => {}
            NodeMessage::Revocation(revocation) => {
                self.outputs.notify(BrokerEvent::Revocation(revocation.into()));
            }
            NodeMessage::Look => self.registry.request_renewal(now),
            NodeMessage::Answer { node, number, answer } => {
                if let Some(survey) = self.surveys.handle_answer(number, &node, answer) {
                    self.end_survey(survey);
                }
            }
        }
    }
}
