//! Connects and disconnects of servers, and partitions that move between servers.
//!
//! Invariant: a partition resumes only when no command to its previous server is pending. Then its
//! channels are subscribed and their positions are sent before any other request.

use std::sync::Arc;

use engine::broker::{BrokerError, BrokerEvent, PresenceRequest};
use wire::protocol::ClientInfo;

use super::super::clock::MonotonicTime;
use super::super::command_request::CommandRequest;
use super::super::driver_messages::{LinkId, Observation, Opened};
use super::super::link::{ActiveLink, LinkHealth, Purpose, SubscriptionChange};
use super::super::open_request::OpenRequest;
use super::super::settings::Address;
use super::super::topology::SlotRange;
use super::super::unavailable::UnavailableReason;
use super::{RENEWALS_PER_TTL, RedisCore, TICK};
use crate::Endpoint;
use crate::limits::NAMES_PER_COMMAND;

impl RedisCore {
    /// Resumes a held partition on the server that it belongs to.
    pub(super) fn resume(&mut self, now: MonotonicTime, index: usize) {
        let partition = &mut self.servers.partitions[index];
        if partition.link != partition.target {
            partition.hold(now);
        }
        for pending in partition.take_overdue(now) {
            self.fail(pending);
        }
        let partition = &mut self.servers.partitions[index];
        let Some(hold) = partition.release(now) else { return };
        let has_moved = partition.link != partition.target;
        let mut unsent = Vec::new();
        if has_moved {
            unsent = self.servers.leave_link(now, index, &self.subscriptions);
            let partition = &mut self.servers.partitions[index];
            partition.link = partition.target;
            // The new server may allow the refused subscriptions.
            partition.refusal = None;
        }
        if hold.must_load {
            self.servers.load_scripts(now, index);
        }
        if has_moved || hold.must_resubscribe {
            let last_fence = self.restore(now, index);
            // A retry of refused names that did not finish waits for these fences.
            self.servers.partitions[index].begin_retry_of_all(last_fence);
        }
        for pending in hold.returned.into_iter().chain(unsent).chain(hold.held) {
            match &mut self.servers.partitions[index].hold {
                Some(hold) => hold.push(pending),
                None => self.send(now, index, pending),
            }
        }
    }

    /// A partition has a server, again or for the first time: subscribes its channels, sends
    /// positions to subscribers, and renews presence. Returns the number of the last fence.
    pub(super) fn restore(&mut self, now: MonotonicTime, index: usize) -> Option<u64> {
        let (open, servers) = (SubscriptionChange::Open, &mut self.servers);
        let subscribed = self.subscriptions.channels(index);
        let channels: Vec<Arc<str>> =
            subscribed.iter().map(|(channel, _)| channel.clone()).collect();
        let mut last_fence = servers.update_subscriptions(now, index, &channels, open);
        if index == 0 {
            let node = servers.keys.control_of(&servers.encoder.node);
            let controls = [servers.keys.control(), node];
            last_fence = servers.update_named_subscriptions(now, 0, &controls, open);
        }
        for (channel, meta_ttl_ms) in subscribed {
            let Some(meta_ttl_ms) = meta_ttl_ms else { continue };
            if !servers.read_position(now, index, channel, meta_ttl_ms) {
                break;
            }
        }
        for channel in &channels {
            let Some(ttl_ms) = self.expirations.ttl_ms(channel) else { continue };
            let channel = channel.clone();
            self.send_own(now, index, CommandRequest::LimitTtl { channel, ttl_ms });
        }
        self.send_departures(now, index);
        self.renew_presence(now, index);
        if index == 0 {
            self.registry.join(now, &mut self.servers);
            self.outputs.notify(BrokerEvent::RevocationsStale);
        }
        last_fence
    }

    /// Sends a request that no endpoint waits for.
    fn send_own(&mut self, now: MonotonicTime, index: usize, request: CommandRequest) {
        let deadline = self.servers.deadline(now);
        self.send(now, index, OpenRequest::new(Endpoint(u32::MAX), request, deadline));
    }

    /// Sends departures that no server has recorded.
    fn send_departures(&mut self, now: MonotonicTime, index: usize) {
        for (channel, client) in self.present.take_departures(index) {
            let request = PresenceRequest::Remove { channel, client };
            self.send_own(now, index, CommandRequest::Presence(request));
        }
    }

    /// Renews the presence of all clients of this node in a partition.
    fn renew_presence(&mut self, now: MonotonicTime, index: usize) {
        let RedisCore { servers, present, .. } = self;
        present.clear_unsent(index);
        for (channel, clients) in present.by_channel(index) {
            for clients in clients.chunks(NAMES_PER_COMMAND) {
                // A reconnect renews all presence.
                let _later =
                    servers.write_anyway(now, index, Purpose::Ignored, |encoder, target, out| {
                        encoder.renew_presence(target, channel, clients, out);
                    });
            }
        }
    }

    /// Renews the presence of all clients of this node.
    pub(super) fn renew_all_presence(&mut self, now: MonotonicTime) {
        for index in 0..self.servers.partitions.len() {
            if self.servers.partitions[index].hold.is_none() {
                self.renew_presence(now, index);
            }
        }
    }

    /// Sends what joined and left while too much was pending, as soon as less is.
    pub(super) fn send_postponed_presence(&mut self, now: MonotonicTime) {
        for index in 0..self.servers.partitions.len() {
            let is_open = self.servers.can_write(index) && !self.servers.is_congested(index);
            if !is_open || !self.present.has_postponed(index) {
                continue;
            }
            self.send_departures(now, index);
            while !self.servers.is_congested(index)
                && let Some((channel, clients)) = self.present.take_unsent(index)
            {
                let clients: Vec<(&ClientInfo, bool)> =
                    clients.iter().map(|(info, announces)| (&**info, *announces)).collect();
                // A reconnect renews all presence.
                let _later = self.servers.write_anyway(
                    now,
                    index,
                    Purpose::Ignored,
                    |encoder, target, out| {
                        encoder.renew_presence(target, &channel, &clients, out);
                    },
                );
            }
        }
    }

    /// Renews some partitions' presence at every tick, so that all are renewed in time.
    pub(super) fn renew_next_presence(&mut self, now: MonotonicTime) {
        let ttl_ms = self.servers.encoder.presence_ttl_ms;
        let ticks = ttl_ms / RENEWALS_PER_TTL / TICK.as_millis() as u64;
        let total = self.servers.partitions.len();
        let count = (total as u64).div_ceil(ticks.max(1));
        for _ in 0..count {
            self.next_renewal = (self.next_renewal + 1) % total;
            let index = self.next_renewal;
            if self.servers.can_write(index) && !self.servers.is_congested(index) {
                self.send_departures(now, index);
                self.renew_presence(now, index);
            }
        }
    }

    pub(super) fn handle_up(&mut self, now: MonotonicTime, id: LinkId, opened: Opened) {
        tracing::info!(
            server = %opened.address, run_id = %opened.identity.run_id, "Redis: connected"
        );
        if self.servers.links.has_been_cut(id, &opened) {
            self.outputs.warn(format!(
                "Redis at {} has closed the connection of this node without being restarted: publications come faster than \
                 the node reads them (client-output-buffer-limit pubsub), or an operator (CLIENT KILL) or a \
                 network device has closed it",
                opened.address
            ));
        }
        self.servers.links.open(now, id, opened);
        self.servers.links.note_eviction(id, &mut self.outputs);
        for index in self.servers.partitions_of(id) {
            self.restore(now, index);
        }
    }

    /// A connection has ended. Pending commands have an unknown outcome.
    pub(super) fn handle_down(
        &mut self,
        now: MonotonicTime,
        id: LinkId,
        reason: UnavailableReason,
    ) {
        if self.servers.partitions[0].link == Some(id) {
            self.registry.reason = None;
        }
        let text = reason.text(self.parts);
        let jitter = self.servers.random_number();
        let connection = self.servers.links.end(id, reason, jitter);
        match &connection {
            Some(connection) => tracing::warn!(
                reason = %text,
                server = %connection.opened.address,
                unanswered = connection.in_flight(),
                answer_bytes = connection.window.under_way(),
                "Redis: connection lost"
            ),
            None => tracing::debug!(reason = %text, "Redis: connecting failed"),
        }
        self.servers.mark_slots_stale();
        self.forget_pending(now, id, connection);
    }

    fn forget_pending(&mut self, now: MonotonicTime, id: LinkId, connection: Option<ActiveLink>) {
        self.servers.forget_pending(id);
        let Some((in_flight, unsent)) = connection.map(ActiveLink::into_unanswered) else { return };
        let mut of_node = Vec::new();
        for sent in in_flight {
            match sent.purpose {
                Purpose::Request(pending) => self.fail_unknown(pending),
                Purpose::Publications(mut batch) => {
                    batch.take_requests().for_each(|pending| self.fail_unknown(pending));
                }
                purpose => of_node.push(purpose),
            }
        }
        unsent.into_iter().for_each(|pending| self.fail(pending));
        // In reverse: requeued events go to the front and keep their order.
        of_node.into_iter().rev().for_each(|purpose| self.handle_node_failure(now, purpose));
    }

    /// A registry command has failed or has an unknown outcome.
    pub(super) fn handle_node_failure(&mut self, now: MonotonicTime, purpose: Purpose) {
        match purpose {
            Purpose::Revocations(reading) => {
                self.outputs.answer(&reading.asker, Err(BrokerError::Unavailable));
            }
            Purpose::Survey(number) => {
                if let Some(survey) = self.surveys.remove(number) {
                    survey.end(&mut self.outputs);
                }
            }
            purpose => self.registry.handle_failure(now, purpose),
        }
    }

    pub(super) fn leave_silent(&mut self, now: MonotonicTime, id: LinkId) {
        self.leave(now, id, UnavailableReason::Silent);
    }

    /// Closes a connection deliberately.
    fn leave(
        &mut self,
        now: MonotonicTime,
        id: LinkId,
        why: impl FnOnce(Address) -> UnavailableReason,
    ) {
        let Some(address) = self.servers.links.close(id) else { return };
        self.handle_down(now, id, why(address));
    }

    /// Fails overdue requests, closes a hopeless connection and sends the next probe.
    pub(super) fn check_link(&mut self, now: MonotonicTime, id: LinkId) {
        let (overdue_requests, health) = self.servers.check_link(now, id);
        overdue_requests.into_iter().for_each(|pending| self.fail_unknown(pending));
        if health == LinkHealth::MustClose {
            self.leave_silent(now, id);
        }
    }

    /// Handles an observation of where a link should lead.
    pub(super) fn handle_observation(
        &mut self,
        now: MonotonicTime,
        id: LinkId,
        seen: Result<Observation, UnavailableReason>,
    ) {
        let seen = match seen {
            Ok(seen) => seen,
            Err(reason) => {
                tracing::debug!(%reason, "Redis: the master could not be determined");
                return;
            }
        };
        let (other_nodes, links) = (self.registry.other_nodes(), &mut self.servers.links);
        let reason = links.handle_observation(now, (id, seen), other_nodes, &mut self.outputs);
        if let Some(reason) = reason {
            self.leave(now, id, |_| reason);
        }
    }

    /// Leaves servers that neither Sentinels nor other nodes confirm.
    pub(super) fn leave_isolated_servers(&mut self, now: MonotonicTime) {
        let isolated = self.servers.links.isolated(now, self.registry.other_nodes());
        for (id, reason) in isolated {
            self.leave(now, id, |_| reason);
        }
    }

    /// Moves partitions to the masters that the cluster reports.
    pub(super) fn handle_slots(
        &mut self,
        now: MonotonicTime,
        slots: Result<Vec<SlotRange>, UnavailableReason>,
    ) {
        self.servers.assign_slots(now, slots);
        for index in self.servers.misplaced() {
            self.resume(now, index);
        }
        for (id, connection) in self.servers.forget_links() {
            self.forget_pending(now, id, connection);
        }
    }
}
