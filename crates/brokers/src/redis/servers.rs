//! The servers as the rest of the state machine sees them: which one a partition belongs to, and
//! how commands, subscriptions and requests are written to it.
//!
//! Invariant: every command is counted at its partition and expected at its connection, so each
//! reply finds the command that it belongs to.

use std::sync::Arc;
use std::time::Duration;

use engine::broker::{BrokerError, BrokerReply, PresenceRequest};
use engine::random::Random;

use super::clock::{ClockReading, MonotonicTime};
use super::command::{CommandEncoder, CommandTarget, RemainingClients, RequestContext};
use super::command_request::CommandRequest;
use super::driver_messages::{ConnectionId, LinkId, LinkTarget};
use super::error_reply::is_retried;
use super::keys::{Keys, PubSubName, shard};
use super::link::{ActiveLink, Fence, LinkHealth, Purpose, SentCommand, SubscriptionChange};
use super::links::Links;
use super::open_request::OpenRequest;
use super::outputs::CoreOutputs;
use super::pages;
use super::partition::{Hold, Partition};
use super::presence::PresenceTable;
use super::publish_batch::{BatchScope, BatchedPublication};
use super::resp::encode;
use super::scripts;
use super::settings::{Address, Deployment, RedisSettings};
use super::subscriptions::ChannelSubscriptions;
use super::topology::{SlotRange, Topology};
use super::unavailable::UnavailableReason;
use super::window::ReadWindow;
use crate::limits::{HELD_REQUESTS_BYTES_MAX, NAMES_PER_COMMAND, PARTITIONS};

/// See the module.
pub(super) struct Servers {
    pub(super) keys: Keys,
    pub(super) encoder: CommandEncoder,
    pub(super) links: Links,
    pub(super) partitions: Vec<Partition>,
    /// Slot assignment; `None` without a cluster.
    topology: Option<Topology>,
    batch_scope: BatchScope,
    /// Number of independent servers.
    shards: usize,
    io_timeout: Duration,
    random: Random,
}

/// What a part of the state machine works with while it handles one input.
pub(super) struct CoreTurn<'t> {
    pub(super) now: ClockReading,
    pub(super) servers: &'t mut Servers,
    pub(super) outputs: &'t mut CoreOutputs,
}

/// Partition of the registry.
pub(super) const FIRST: usize = 0;

/// Partition of commands that belong to none.
const NO_PARTITION: usize = usize::MAX;

impl Servers {
    pub(super) fn new(settings: &RedisSettings) -> Servers {
        let (shards, topology) = match &settings.deployment {
            Deployment::Servers(servers) => (servers.len(), None),
            Deployment::Cluster(seeds) => (1, Some(Topology::new(seeds.clone()))),
        };
        let count = shards * PARTITIONS;
        let mut servers = Servers {
            keys: Keys::new(&settings.root(), &settings.node),
            encoder: CommandEncoder::new(settings),
            links: Links::default(),
            partitions: std::iter::repeat_with(Partition::default).take(count).collect(),
            batch_scope: match &topology {
                Some(_) => BatchScope::Partition,
                None => BatchScope::Server,
            },
            topology,
            shards,
            io_timeout: settings.io_timeout,
            random: Random::new(settings.seed),
        };
        if let Deployment::Servers(locations) = &settings.deployment {
            for (index, location) in locations.iter().enumerate() {
                let link = servers.links.add(LinkTarget::Server(location.clone()));
                for partition in &mut servers.partitions[index * PARTITIONS..][..PARTITIONS] {
                    (partition.link, partition.target) = (Some(link), Some(link));
                }
            }
        }
        servers
    }

    /// The partition of a channel.
    pub(super) fn route(&self, channel: &str) -> usize {
        let shard = if self.shards > 1 { shard(channel, self.shards) } else { 0 };
        shard * PARTITIONS + Keys::partition(channel)
    }

    /// Deadline of a command that is written now.
    pub(super) fn deadline(&self, now: MonotonicTime) -> MonotonicTime {
        now + self.io_timeout
    }

    pub(super) fn random_number(&mut self) -> u64 {
        self.random.next_u64()
    }

    /// The connection of a partition, unless its replies are overdue.
    fn usable(&mut self, index: usize) -> Option<&mut ActiveLink> {
        self.links.usable(self.partitions[index].link)
    }

    /// Whether so much is pending at the server of a partition, or waits for partitions to resume,
    /// that requests are refused.
    pub(super) fn is_congested(&mut self, index: usize) -> bool {
        if self.partitions[index].hold.is_some() {
            let held: usize = self.partitions.iter().map(Partition::held_bytes).sum();
            return held > HELD_REQUESTS_BYTES_MAX;
        }
        self.usable(index).is_some_and(|connection| connection.is_congested())
    }

    /// Whether a command of a partition can be written now, and is not held.
    pub(super) fn can_write(&mut self, index: usize) -> bool {
        self.partitions[index].hold.is_none() && self.usable(index).is_some()
    }

    /// Writes a command of a partition unless it is held. Returns whether it was written.
    pub(super) fn write(
        &mut self,
        now: MonotonicTime,
        index: usize,
        purpose: Purpose,
        form: impl FnOnce(&CommandEncoder, CommandTarget<'_>, &mut Vec<u8>),
    ) -> bool {
        self.partitions[index].hold.is_none() && self.write_anyway(now, index, purpose, form)
    }

    /// Writes a command of a partition, even while its requests are held. Returns whether its
    /// server can be used.
    pub(super) fn write_anyway(
        &mut self,
        now: MonotonicTime,
        index: usize,
        purpose: Purpose,
        form: impl FnOnce(&CommandEncoder, CommandTarget<'_>, &mut Vec<u8>),
    ) -> bool {
        let sent = SentCommand::new(index, self.deadline(now), purpose);
        let Some(connection) = self.links.usable(self.partitions[index].link) else { return false };
        let (opened, out) = connection.begin_command(&self.keys);
        form(&self.encoder, CommandTarget::new(&self.keys, opened, index), out);
        connection.expect(sent);
        self.partitions[index].in_flight += 1;
        true
    }

    /// Whether a request would wait for room for its reply, or for earlier requests. Then it is
    /// kept until [`Servers::next_waiting`] returns it; any other is returned.
    pub(super) fn admit(&mut self, index: usize, pending: OpenRequest) -> Option<OpenRequest> {
        match self.usable(index) {
            Some(connection)
                if !connection.window.is_empty() || pages::is_long(&pending.request) =>
            {
                connection.window.admit(index, pending)
            }
            _ => Some(pending),
        }
    }

    /// The next waiting request for whose reply there is room, and its partition.
    pub(super) fn next_waiting(&mut self, link: LinkId) -> Option<(usize, OpenRequest)> {
        self.links.connection(link)?.window.next()
    }

    /// Writes a request; returns it if its server cannot be used.
    pub(super) fn write_request(
        &mut self,
        now: MonotonicTime,
        index: usize,
        pending: OpenRequest,
        present: &PresenceTable,
    ) -> Option<OpenRequest> {
        let remaining_clients = match &pending.request {
            CommandRequest::Presence(PresenceRequest::Remove { channel, .. })
                if !present.has_any(index, channel) =>
            {
                RemainingClients::None
            }
            _ => RemainingClients::Some,
        };
        let context = RequestContext { unused_epoch: self.random.next_u64(), remaining_clients };
        // Waiting for room does not count against the deadline.
        let deadline = now + self.io_timeout;
        let Some(connection) = self.links.usable(self.partitions[index].link) else {
            return Some(pending);
        };
        let pending = match pending.request {
            CommandRequest::Publish(command)
                if connection.has_batch() || command.needs_script() && command.is_small() =>
            {
                let OpenRequest { endpoint, deadline: expires, .. } = pending;
                let publication =
                    BatchedPublication { partition: index, endpoint, deadline: expires, command };
                let new = (deadline, context.unused_epoch);
                connection.publish(&self.keys, publication, self.batch_scope, new);
                self.partitions[index].in_flight += 1;
                return None;
            }
            request => OpenRequest { request, ..pending },
        };
        let (opened, out) = connection.begin_command(&self.keys);
        let target = CommandTarget::new(&self.keys, opened, index);
        self.encoder.request(target, context, &pending, out);
        let reserved = ReadWindow::reserve(&pending);
        let purpose = Purpose::Request(pending);
        let sent = SentCommand::new(index, deadline, purpose);
        connection.expect(SentCommand { reserved, ..sent });
        self.partitions[index].in_flight += 1;
        None
    }

    /// Writes a read of a channel's position for its subscribers. Returns whether it was written.
    pub(super) fn read_position(
        &mut self,
        now: MonotonicTime,
        index: usize,
        channel: Arc<str>,
        meta_ttl_ms: u64,
    ) -> bool {
        let (epoch, name) = (self.random.next_u64(), channel.clone());
        self.write_anyway(now, index, Purpose::Position(channel), |_, target, out| {
            target.position(&name, epoch, meta_ttl_ms, out);
        })
    }

    /// Subscribes to channels of one partition, or unsubscribes. While the server is down nothing
    /// is sent; the reconnect subscribes everything. Returns the number of the last fence.
    pub(super) fn update_subscriptions(
        &mut self,
        now: MonotonicTime,
        index: usize,
        channels: &[Arc<str>],
        change: SubscriptionChange,
    ) -> Option<u64> {
        let tag = index % PARTITIONS;
        let names: Vec<String> =
            channels.iter().map(|channel| self.keys.key(tag, "c", channel)).collect();
        self.update_named_subscriptions(now, index, &names, change)
    }

    /// Like [`Servers::update_subscriptions`], with pub/sub names.
    pub(super) fn update_named_subscriptions(
        &mut self,
        now: MonotonicTime,
        index: usize,
        names: &[String],
        change: SubscriptionChange,
    ) -> Option<u64> {
        let deadline = self.deadline(now);
        let connection = self.links.connection(self.partitions[index].link?)?;
        let mut last = None;
        for names in names.chunks(NAMES_PER_COMMAND) {
            last =
                Some(connection.update_subscriptions(&self.keys, (names, change), index, deadline));
            self.partitions[index].in_flight += 1;
        }
        last
    }

    /// Holds requests of the partition until its pending commands have returned.
    pub(super) fn hold(&mut self, now: MonotonicTime, index: usize, why: &[u8]) -> &mut Hold {
        let has_forgotten = why.starts_with(b"NOSCRIPT");
        if let Some(topology) = &mut self.topology
            && !has_forgotten
        {
            topology.mark_stale();
        }
        let hold = self.partitions[index].hold(now);
        hold.must_load |= has_forgotten;
        hold
    }

    /// Leaves the previous server: unsubscribes channels that are not sharded, which would be
    /// received twice. Returns requests that were not sent.
    pub(super) fn leave_link(
        &mut self,
        now: MonotonicTime,
        index: usize,
        subscriptions: &ChannelSubscriptions,
    ) -> Vec<OpenRequest> {
        let tag = index % PARTITIONS;
        let deadline = self.deadline(now);
        let link = self.partitions[index].link;
        let Some(connection) = link.and_then(|link| self.links.connection(link)) else {
            return Vec::new();
        };
        if !connection.opened.has_shards {
            let channels = subscriptions.channels(index).into_iter();
            let names: Vec<String> =
                channels.map(|(channel, _)| self.keys.key(tag, "c", &channel)).collect();
            let change = SubscriptionChange::Close;
            for names in names.chunks(NAMES_PER_COMMAND) {
                connection.update_subscriptions(
                    &self.keys,
                    (names, change),
                    NO_PARTITION,
                    deadline,
                );
            }
        }
        connection.window.take_partition(index)
    }

    pub(super) fn load_scripts(&mut self, now: MonotonicTime, index: usize) {
        for script in scripts::ALL {
            // The next reconnect loads them all.
            let _later = self.write_anyway(now, index, Purpose::Ignored, |_, _, out| {
                encode(out, &[b"SCRIPT", b"LOAD", script.text().as_bytes()]);
            });
        }
    }

    /// A command has returned; removes it from the count of its partition.
    pub(super) fn count_returned(&mut self, index: usize) {
        if let Some(partition) = self.partitions.get_mut(index) {
            partition.in_flight -= 1;
        }
    }

    /// No command of a connection is pending any more.
    pub(super) fn forget_pending(&mut self, link: LinkId) {
        for partition in &mut self.partitions {
            if partition.link == Some(link) {
                partition.in_flight = 0;
                partition.refusal = None;
            }
        }
    }

    /// The partitions that are sent to a link.
    pub(super) fn partitions_of(&self, link: LinkId) -> Vec<usize> {
        let partitions = self.partitions.iter().enumerate();
        partitions.filter(|(_, it)| it.link == Some(link)).map(|(index, _)| index).collect()
    }

    /// The partitions that do not belong to the server that they are sent to.
    pub(super) fn misplaced(&self) -> Vec<usize> {
        let partitions = self.partitions.iter().enumerate();
        partitions.filter(|(_, it)| it.link != it.target).map(|(index, _)| index).collect()
    }

    /// A subscription command was refused; the reply to its ECHO follows.
    pub(super) fn handle_subscribe_refused(
        &mut self,
        now: MonotonicTime,
        link: LinkId,
        text: &[u8],
    ) {
        let Some(connection) = self.links.connection(link) else { return };
        let reason = UnavailableReason::of_answer(&connection.opened.address, text);
        let Some((partition, fence)) = connection.head_fence() else { return };
        fence.is_refused = true;
        let (change, names) = (fence.change, fence.names.clone());
        match change {
            SubscriptionChange::Close => {}
            SubscriptionChange::Open | SubscriptionChange::Probe if is_retried(text) => {
                self.hold(now, partition, text).must_resubscribe = true;
            }
            SubscriptionChange::Probe => connection.refuse_probe(text),
            SubscriptionChange::Open => self.partitions[partition].refuse(now, names, reason),
        }
    }

    /// The fence after a subscription command has been reached. Returns whether all channels of the
    /// partition must be subscribed again.
    pub(super) fn handle_fence(&mut self, link: LinkId, index: usize, fence: &Fence) -> bool {
        match fence.change {
            _ if fence.is_refused => false,
            SubscriptionChange::Close => false,
            SubscriptionChange::Probe => {
                if let Some(connection) = self.links.connection(link) {
                    connection.subscribe_refusal = None;
                }
                false
            }
            SubscriptionChange::Open => self.partitions[index].ends_retry(fence.number),
        }
    }

    /// Retries refused subscriptions when a retry is due.
    pub(super) fn retry_refused(
        &mut self,
        now: MonotonicTime,
        index: usize,
        subscriptions: &ChannelSubscriptions,
    ) {
        let Some(names) = self.partitions[index].refused_names(now) else { return };
        let open = SubscriptionChange::Open;
        let Some(fence) = self.update_named_subscriptions(now, index, &names, open) else { return };
        self.partitions[index].begin_retry(fence);
        // Some of these channels may have lost their last subscriber.
        let is_unused = |name: &&String| match self.keys.pubsub_name(name) {
            Some(PubSubName::Channel(channel)) => !subscriptions.has_subscribers(index, channel),
            _ => false,
        };
        let unused: Vec<String> = names.iter().filter(is_unused).cloned().collect();
        self.update_named_subscriptions(now, index, &unused, SubscriptionChange::Close);
    }

    /// Fails a subscribe request while its partition has refused subscriptions, whatever the read
    /// of its stream returned.
    pub(super) fn require_subscribed(&self, index: usize, reply: BrokerReply) -> BrokerReply {
        match reply {
            BrokerReply::Subscribed(id, _) if self.partitions[index].refusal.is_some() => {
                id.answer(Err(BrokerError::Unavailable))
            }
            reply => reply,
        }
    }

    /// Removes overdue requests of a connection, and sends the next probe when it is due.
    pub(super) fn check_link(
        &mut self,
        now: MonotonicTime,
        id: LinkId,
    ) -> (Vec<OpenRequest>, LinkHealth) {
        let io_timeout = self.io_timeout;
        // A partition that is held or waits for a server cannot carry the probe.
        let is_settled =
            |partition: &Partition| partition.link == Some(id) && partition.hold.is_none();
        let index = self.partitions.iter().position(is_settled);
        let Some(connection) = self.links.connection(id) else {
            return (Vec::new(), LinkHealth::Good);
        };
        let (overdue_requests, health) = connection.check(now, io_timeout);
        if health == LinkHealth::Good
            && let Some(index) = index
            && connection.begins_probe(now)
        {
            self.send_probe(now, id, index);
        }
        (overdue_requests, health)
    }

    fn send_probe(&mut self, now: MonotonicTime, id: LinkId, index: usize) {
        let name = self.keys.probe(index % PARTITIONS);
        // The first partition of this server may have changed.
        let names = std::slice::from_ref(&name);
        self.update_named_subscriptions(now, index, names, SubscriptionChange::Probe);
        let Some(scope) = self.links.connection(id).map(|connection| connection.probe_scope) else {
            return;
        };
        // A server that cannot be used is not probed.
        let _later = self.write_anyway(now, index, Purpose::Probe, |_, target, out| {
            target.probe(&name, scope, out);
        });
    }

    /// Reads the slots of the cluster when that is due.
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

    /// Assigns partitions to the masters that the cluster reports.
    pub(super) fn assign_slots(
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
    }

    /// Removes links that no partition needs any more.
    pub(super) fn forget_links(&mut self) -> Vec<(LinkId, Option<ActiveLink>)> {
        let partitions = &self.partitions;
        let is_needed = |id: LinkId| {
            let needs =
                |partition: &Partition| [partition.link, partition.target].contains(&Some(id));
            partitions.iter().any(needs)
        };
        self.links.forget(is_needed)
    }

    /// Sends buffered output, one write for each server.
    pub(super) fn flush(&mut self, send: impl FnMut(ConnectionId, &mut Vec<u8>)) {
        self.links.flush(&self.keys, send);
    }

    /// The slot assignment may be stale.
    pub(super) fn mark_slots_stale(&mut self) {
        if let Some(topology) = &mut self.topology {
            topology.mark_stale();
        }
    }

    /// Why partitions have no server; `None` when all have one.
    pub(super) fn unassigned_reason(&self) -> Option<UnavailableReason> {
        if let Some(reason) = self.topology.as_ref().and_then(Topology::reason) {
            return Some(reason.clone());
        }
        let is_unassigned = self.partitions.iter().any(|partition| partition.link.is_none());
        is_unassigned.then_some(UnavailableReason::Incomplete)
    }

    /// Why a server cannot be used; `None` when all can.
    pub(super) fn reason(&self) -> Option<UnavailableReason> {
        let mut refusals =
            self.partitions.iter().filter_map(|partition| partition.refusal.as_ref());
        self.links.reason().or_else(|| refusals.next().map(|refusal| refusal.reason.clone()))
    }
}
