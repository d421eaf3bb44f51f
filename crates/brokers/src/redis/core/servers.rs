//! Connects and disconnects of servers, and partitions that move between servers.
//!
//! Invariant: a partition resumes only when no command to its previous server is pending. Then its
//! channels are subscribed and their positions are sent before any other request.

use std::sync::Arc;

use engine::broker::{BrokerEvent, PresenceRequest, PublicationsRequest};

use super::super::clock::MonotonicTime;
use super::super::driver_messages::{LinkId, LinkTarget, Opened};
use super::super::link::{ActiveLink, LinkHealth, Purpose, SentCommand, SubscriptionChange};
use super::super::open_request::OpenRequest;
use super::super::partition::{Hold, Partition};
use super::super::resp::encode;
use super::super::scripts;
use super::super::settings::Address;
use super::super::topology::{SlotRange, Topology};
use super::super::unavailable::UnavailableReason;
use super::{CommandTarget, NO_PARTITION, RENEWALS_PER_TTL, RedisCore, TICK};
use crate::Endpoint;
use crate::limits::{NAMES_PER_COMMAND, PARTITIONS};

impl RedisCore {
    /// Holds requests of the partition until its pending commands have returned.
    pub(super) fn hold(&mut self, now: MonotonicTime, partition: usize, why: &[u8]) -> &mut Hold {
        let has_forgotten = why.starts_with(b"NOSCRIPT");
        if let Some(topology) = &mut self.topology
            && !has_forgotten
        {
            topology.mark_stale();
        }
        let hold = self.partitions[partition].hold(now);
        hold.must_load |= has_forgotten;
        hold
    }

    /// Resumes a held partition on the server that it belongs to.
    pub(super) fn resume(&mut self, now: MonotonicTime, index: usize) {
        if self.partitions[index].link != self.partitions[index].target {
            self.partitions[index].hold(now);
        }
        for pending in self.partitions[index].take_overdue(now) {
            self.fail(pending);
        }
        let Some(hold) = self.partitions[index].release(now) else { return };
        let partition = &mut self.partitions[index];
        let has_moved = partition.link != partition.target;
        let mut unsent = Vec::new();
        if has_moved {
            unsent = self.leave_link(now, index);
            let partition = &mut self.partitions[index];
            partition.link = partition.target;
            // The new server may allow the refused subscriptions.
            partition.refusal = None;
        }
        if hold.must_load {
            self.load_scripts(now, index);
        }
        if has_moved || hold.must_resubscribe {
            let last_fence = self.restore(now, index);
            // A retry of refused names that did not finish waits for these fences.
            self.partitions[index].begin_retry_of_all(last_fence);
        }
        for pending in hold.returned.into_iter().chain(unsent).chain(hold.held) {
            match &mut self.partitions[index].hold {
                Some(hold) => hold.held.push_back(pending),
                None => self.send(now, index, pending),
            }
        }
    }

    /// Leaves the previous server: unsubscribes channels that are not sharded, which would be
    /// received twice. Returns requests that were not sent.
    fn leave_link(&mut self, now: MonotonicTime, index: usize) -> Vec<OpenRequest> {
        let tag = index % PARTITIONS;
        let deadline = now + self.io_timeout;
        let link = self.partitions[index].link;
        let Some(connection) = link.and_then(|link| self.links.connection(link)) else {
            return Vec::new();
        };
        if !connection.opened.has_shards {
            let channels = self.subscriptions.channels(index).into_iter();
            let names: Vec<String> =
                channels.map(|(channel, _)| self.keys.key(tag, "c", &channel)).collect();
            for names in names.chunks(NAMES_PER_COMMAND) {
                connection.update_subscriptions(
                    names,
                    SubscriptionChange::Close,
                    NO_PARTITION,
                    deadline,
                );
            }
        }
        connection.window.take_partition(index)
    }

    fn load_scripts(&mut self, now: MonotonicTime, partition: usize) {
        let deadline = now + self.io_timeout;
        let Some(connection) = self.links.usable(self.partitions[partition].link) else { return };
        for script in scripts::ALL {
            encode(&mut connection.out, &[b"SCRIPT", b"LOAD", script.text().as_bytes()]);
            connection.expect(SentCommand::new(partition, deadline, Purpose::Ignored));
            self.partitions[partition].in_flight += 1;
        }
    }

    /// A partition has a server, again or for the first time: subscribes its channels, sends
    /// positions to subscribers, and renews presence. Returns the number of the last fence.
    pub(super) fn restore(&mut self, now: MonotonicTime, index: usize) -> Option<u64> {
        let subscribed = self.subscriptions.channels(index);
        let channels: Vec<Arc<str>> =
            subscribed.iter().map(|(channel, _)| channel.clone()).collect();
        let mut last_fence =
            self.update_subscriptions(now, index, &channels, SubscriptionChange::Open);
        if index == 0 {
            let controls = [self.keys.control(), self.keys.control_of(&self.encoder.node)];
            last_fence =
                self.update_named_subscriptions(now, 0, &controls, SubscriptionChange::Open);
        }
        let deadline = now + self.io_timeout;
        let tag = index % PARTITIONS;
        for (channel, meta_ttl_ms) in subscribed {
            let Some(meta_ttl_ms) = meta_ttl_ms else { continue };
            let epoch = self.random.next_u64();
            let Some(connection) = self.links.usable(self.partitions[index].link) else { break };
            let target =
                CommandTarget { keys: &self.keys, opened: &connection.opened, partition: tag };
            target.position(&channel, epoch, meta_ttl_ms, &mut connection.out);
            connection.expect(SentCommand::new(index, deadline, Purpose::Position(channel)));
            self.partitions[index].in_flight += 1;
        }
        for channel in &channels {
            let Some(ttl_ms) = self.expirations.ttl_ms(channel) else { continue };
            let request = PublicationsRequest::LimitTtl { channel: channel.clone(), ttl_ms }.into();
            self.send(now, index, OpenRequest::new(Endpoint(u32::MAX), request, deadline));
        }
        for (channel, client) in self.present.take_departures(index) {
            let request = PresenceRequest::Remove { channel, client }.into();
            self.send(now, index, OpenRequest::new(Endpoint(u32::MAX), request, deadline));
        }
        self.renew_presence(now, index);
        if index == 0 {
            self.join_registry(now);
            self.outputs.notify(BrokerEvent::RevocationsStale);
        }
        last_fence
    }

    /// Renews the presence of all clients of this node in a partition.
    pub(super) fn renew_presence(&mut self, now: MonotonicTime, index: usize) {
        let deadline = now + self.io_timeout;
        let Some(connection) = self.links.usable(self.partitions[index].link) else { return };
        let target = CommandTarget {
            keys: &self.keys,
            opened: &connection.opened,
            partition: index % PARTITIONS,
        };
        let mut count = 0;
        for (channel, clients) in self.present.by_channel(index) {
            for clients in clients.chunks(NAMES_PER_COMMAND) {
                self.encoder.renew_presence(target, channel, clients, &mut connection.out);
                count += 1;
            }
        }
        for _ in 0..count {
            connection.expect(SentCommand::new(index, deadline, Purpose::Ignored));
        }
        self.partitions[index].in_flight += count;
    }

    /// Renews some partitions' presence at every tick, so that all are renewed in time.
    pub(super) fn renew_next_presence(&mut self, now: MonotonicTime) {
        let ticks = self.encoder.presence_ttl_ms / RENEWALS_PER_TTL / TICK.as_millis() as u64;
        let count = (self.partitions.len() as u64).div_ceil(ticks.max(1));
        for _ in 0..count {
            self.next_renewal = (self.next_renewal + 1) % self.partitions.len();
            if self.partitions[self.next_renewal].hold.is_none() {
                self.renew_presence(now, self.next_renewal);
            }
        }
    }

    pub(super) fn handle_up(&mut self, now: MonotonicTime, id: LinkId, opened: Opened) {
        tracing::info!(
            server = %opened.address, run_id = %opened.identity.run_id, "Redis: connected"
        );
        if self.links.has_been_cut(id, &opened) {
            self.outputs.warn(format!(
                "Redis at {} has closed the connection of this node without being restarted: publications come faster than \
                 the node reads them (client-output-buffer-limit pubsub), or an operator (CLIENT KILL) or a \
                 network device has closed it",
                opened.address
            ));
        }
        self.links.open(now, id, opened);
        self.note_eviction(id);
        for index in 0..self.partitions.len() {
            if self.partitions[index].link == Some(id) {
                self.restore(now, index);
            }
        }
    }

    /// A connection has ended. Pending commands have an unknown outcome.
    pub(super) fn handle_down(
        &mut self,
        now: MonotonicTime,
        id: LinkId,
        reason: UnavailableReason,
    ) {
        if self.partitions[0].link == Some(id) {
            self.registry.reason = None;
        }
        let text = reason.to_string();
        let connection = self.links.end(id, reason, self.random.next_u64());
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
        if let Some(topology) = &mut self.topology {
            topology.mark_stale();
        }
        self.forget_in_flight(now, id, connection);
    }

    fn forget_in_flight(&mut self, now: MonotonicTime, id: LinkId, connection: Option<ActiveLink>) {
        for partition in &mut self.partitions {
            if partition.link == Some(id) {
                partition.in_flight = 0;
                partition.refusal = None;
            }
        }
        // In reverse: requeued events go to the front and keep their order.
        let Some((in_flight, unsent)) = connection.map(ActiveLink::into_unanswered) else { return };
        for sent in in_flight.into_iter().rev() {
            match sent.purpose {
                Purpose::Request(pending) => self.fail(pending),
                purpose => self.handle_node_failure(now, purpose),
            }
        }
        unsent.into_iter().for_each(|pending| self.fail(pending));
    }

    pub(super) fn leave_silent(&mut self, now: MonotonicTime, id: LinkId) {
        self.leave(now, id, UnavailableReason::Silent);
    }

    /// Closes a connection deliberately.
    pub(super) fn leave(
        &mut self,
        now: MonotonicTime,
        id: LinkId,
        why: impl FnOnce(Address) -> UnavailableReason,
    ) {
        let Some(address) = self.links.close(id) else { return };
        self.handle_down(now, id, why(address));
    }

    /// Fails overdue requests, closes a hopeless connection and sends the next probe.
    pub(super) fn check_link(&mut self, now: MonotonicTime, id: LinkId) {
        let io_timeout = self.io_timeout;
        // A partition that is held or waits for a server cannot carry the probe.
        let is_settled =
            |partition: &Partition| partition.link == Some(id) && partition.hold.is_none();
        let index = self.partitions.iter().position(is_settled);
        let Some(connection) = self.links.connection(id) else { return };
        let (overdue_requests, health) = connection.check(now, io_timeout);
        let begins_probe =
            index.is_some() && health == LinkHealth::Good && connection.begins_probe(now);
        overdue_requests.into_iter().for_each(|pending| self.fail(pending));
        if health == LinkHealth::MustClose {
            return self.leave_silent(now, id);
        }
        if let (Some(index), true) = (index, begins_probe) {
            let name = self.keys.probe(index % PARTITIONS);
            // The first partition of this server may have changed.
            self.update_named_subscriptions(
                now,
                index,
                std::slice::from_ref(&name),
                SubscriptionChange::Probe,
            );
            let Some(connection) = self.links.usable(self.partitions[index].link) else { return };
            let target = CommandTarget {
                keys: &self.keys,
                opened: &connection.opened,
                partition: index % PARTITIONS,
            };
            target.probe(&name, connection.probe_scope, &mut connection.out);
            let deadline = now + io_timeout;
            connection.expect(SentCommand::new(index, deadline, Purpose::Probe));
            self.partitions[index].in_flight += 1;
        }
    }

    pub(super) fn refresh_slots(&mut self, now: MonotonicTime) {
        let is_down = |link: LinkId| !self.links.is_up(link);
        let has_gap = self.partitions.iter().any(|partition| partition.target.is_none_or(is_down));
        let Some(topology) = &mut self.topology else { return };
        if has_gap {
            topology.mark_stale();
        }
        if let Some(members) = topology.begin_refresh(now) {
            self.links.refresh_slots(members);
        }
    }

    /// Moves partitions to the masters that the cluster reports.
    pub(super) fn handle_slots(
        &mut self,
        now: MonotonicTime,
        slots: Result<Vec<SlotRange>, UnavailableReason>,
    ) {
        let Some(topology) = &mut self.topology else { return };
        topology.handle(now, slots);
        let masters: Vec<Option<Address>> =
            (0..PARTITIONS).map(|index| topology.master(self.keys.slot(index)).cloned()).collect();
        for (index, master) in masters.into_iter().enumerate() {
            let Some(address) = master else { continue };
            let target = LinkTarget::Member(address);
            let known = self.links.find(&target);
            let link = known.unwrap_or_else(|| {
                tracing::info!(?target, "Redis Cluster: a server has become a master");
                self.links.add(target)
            });
            self.partitions[index].target = Some(link);
        }
        self.partitions.iter_mut().for_each(|partition| {
            let is_down = |link: LinkId| !self.links.is_up(link);
            // No command is pending at a server that is down.
            if partition.link != partition.target && partition.link.is_none_or(is_down) {
                partition.hold(now).retry_at = now;
            }
        });
        for index in 0..self.partitions.len() {
            if self.partitions[index].link != self.partitions[index].target {
                self.resume(now, index);
            }
        }
        self.forget_links(now);
    }

    /// Drops servers that have no partition any more.
    fn forget_links(&mut self, now: MonotonicTime) {
        let partitions = &self.partitions;
        let is_needed = |id: LinkId| {
            let needs =
                |partition: &Partition| [partition.link, partition.target].contains(&Some(id));
            partitions.iter().any(needs)
        };
        for (id, connection) in self.links.forget(is_needed) {
            self.forget_in_flight(now, id, connection);
        }
    }

    /// Why the broker is unavailable; `None` when it is ready.
    pub(super) fn reason(&self) -> Option<UnavailableReason> {
        if let Some(reason) = self.topology.as_ref().and_then(Topology::reason) {
            return Some(reason.clone());
        }
        if self.partitions.iter().any(|partition| partition.link.is_none()) {
            return Some(UnavailableReason::Incomplete);
        }
        if let Some(reason) = &self.registry.reason {
            return Some(reason.clone());
        }
        if let Some(reason) = self.links.reason() {
            return Some(reason);
        }
        let mut refusals =
            self.partitions.iter().filter_map(|partition| partition.refusal.as_ref());
        match refusals.next() {
            Some(refusal) => Some(refusal.reason.clone()),
            None => self.must_send_options().then_some(UnavailableReason::Starting),
        }
    }

    /// Whether this node has channel options that other nodes cannot know yet.
    fn must_send_options(&self) -> bool {
        !self.registry.has_sent_options && !self.options.digest.is_empty()
    }
}
