//! The broker's state machine, without sockets: routes requests to servers and handles connects,
//! disconnects and slot moves.
//!
//! All commands of a channel go to its partition's server over one connection, in the order of
//! submission. With RESP3, publications and replies arrive in one stream, so a reply follows what
//! precedes it. Invariants: every request gets exactly one reply, if only `Unavailable`; a command
//! with an unknown outcome is never sent again, unless it is idempotent.

mod cleanup;
mod expirations;
mod nodes;
mod observations;
mod presence;
mod reads;
mod requests;
mod revocations;
mod servers;
mod subscriptions;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use engine::broker::{
    BrokerError, BrokerEvent, BrokerReply, BrokerRequest, NodeBusRequest, PresenceRequest,
    PublicationsRequest, RegistryRequest, ReplyValue,
};
use engine::random::Random;

use self::expirations::Expirations;
use self::reads::Reads;

use super::answer;
use super::clock::{ClockReading, MonotonicTime};
use super::command::{CommandEncoder, CommandTarget};
use super::driver_messages::{
    ConnectionId, DriverEvent, Job, LinkCommand, LinkEvent, LinkId, LinkTarget,
};
use super::error_reply::{is_error, is_retried, requires_reconnect};
use super::keys::{Keys, PubSubName, shard};
use super::link::{Purpose, SentCommand, SubscriptionChange};
use super::links::Links;
use super::open_request::{Asker, OpenRequest};
use super::outputs::{CoreOutput, CoreOutputs, EndpointStates};
use super::pages::{self, Taken};
use super::partition::Partition;
use super::payload::{self, ChannelPayload};
use super::presence::PresenceTable;
use super::registry::Registry;
use super::resp::Frame;
use super::settings::{Deployment, RedisParts, RedisSettings};
use super::stream_range::meta_ttl_ms;
use super::subscriptions::ChannelSubscriptions;
use super::surveys::SurveyTable;
use super::topology::Topology;
use super::unavailable::{UnavailableReason, show};
use crate::channel_options::EncodedOptions;
use crate::limits::PARTITIONS;
use crate::{Endpoint, control};

/// The state machine; see the module.
pub(super) struct RedisCore {
    outputs: CoreOutputs,
    /// Unix time of the last input.
    unix_ms: i64,
    /// Channel options of this node, as announced with its lease.
    options: EncodedOptions,
    keys: Keys,
    prefix: String,
    parts: RedisParts,
    random: Random,
    encoder: CommandEncoder,
    io_timeout: Duration,
    shards: usize,
    /// Slot assignment; `None` without a cluster.
    topology: Option<Topology>,
    links: Links,
    partitions: Vec<Partition>,
    subscriptions: ChannelSubscriptions,
    present: PresenceTable,
    registry: Registry,
    surveys: SurveyTable,
    reads: Reads,
    expirations: Expirations,
    next_tick: MonotonicTime,
    /// Partition whose presence is renewed next.
    next_renewal: usize,
}

/// Interval of the timer that checks deadlines.
const TICK: Duration = Duration::from_millis(50);

/// Renewals of presence within its TTL.
const RENEWALS_PER_TTL: u64 = 3;

impl RedisCore {
    pub(super) fn new(now: MonotonicTime, settings: &RedisSettings) -> RedisCore {
        let (shards, topology) = match &settings.deployment {
            Deployment::Servers(servers) => (servers.len(), None),
            Deployment::Cluster(seeds) => (1, Some(Topology::new(seeds.clone()))),
        };
        let count = shards * PARTITIONS;
        let presence_ttl_ms = u64::try_from(settings.presence_ttl.as_millis()).unwrap_or(u64::MAX);
        let mut core = RedisCore {
            outputs: CoreOutputs::default(),
            unix_ms: 0,
            options: EncodedOptions::default(),
            keys: Keys::new(&settings.root(), &settings.node),
            prefix: settings.prefix.clone(),
            parts: settings.parts,
            random: Random::new(settings.seed),
            encoder: CommandEncoder {
                node: settings.node.clone(),
                name: settings.name.clone(),
                lease_ms: u64::try_from(settings.lease.as_millis()).unwrap_or(u64::MAX),
                events_max: settings.events_max,
                presence_ttl_ms,
            },
            io_timeout: settings.io_timeout,
            shards,
            topology,
            links: Links::default(),
            partitions: std::iter::repeat_with(Partition::default).take(count).collect(),
            subscriptions: ChannelSubscriptions::new(count),
            present: PresenceTable::new(count),
            registry: Registry::new(now, settings.lease),
            surveys: SurveyTable::default(),
            reads: Reads::default(),
            expirations: Expirations::default(),
            next_tick: now,
            next_renewal: 0,
        };
        if let Deployment::Servers(servers) = &settings.deployment {
            for (index, server) in servers.iter().enumerate() {
                let link = core.links.add(LinkTarget::Server(server.clone()));
                for partition in &mut core.partitions[index * PARTITIONS..][..PARTITIONS] {
                    (partition.link, partition.target) = (Some(link), Some(link));
                }
            }
        }
        core
    }

    /// Handles a job of an endpoint.
    pub(super) fn handle_job(
        &mut self,
        now: ClockReading,
        job: Job,
        endpoints: &dyn EndpointStates,
    ) {
        let time = self.begin(now);
        match job {
            Job::Request { endpoint, request } => {
                let deadline = time + self.io_timeout;
                let request = OpenRequest::new(endpoint, request, deadline);
                self.accept(time, request, endpoints);
            }
            Job::Detach { endpoint } => self.detach(time, endpoint, endpoints),
            Job::Announce(options) => {
                self.options = options;
                self.registry.request_renewal(time);
            }
        }
    }

    fn begin(&mut self, now: ClockReading) -> MonotonicTime {
        self.unix_ms = now.unix_ms;
        now.time
    }

    /// Handles an event of a connection.
    pub(super) fn handle_event(&mut self, now: ClockReading, event: DriverEvent) {
        let now = self.begin(now);
        let (connection_id, event) = match event {
            DriverEvent::Link(connection_id, event) => (connection_id, event),
            DriverEvent::Slots(slots) => return self.handle_slots(now, slots),
            DriverEvent::Observation(link, seen) => {
                return self.handle_observation(now, link, seen);
            }
        };
        // Events of an earlier connection are stale.
        if !self.links.is_current(connection_id) {
            return;
        }
        match event {
            LinkEvent::Up(opened) => {
                self.handle_up(now, connection_id.link, *opened);
                self.report_health();
            }
            LinkEvent::Frames(frames) => {
                for frame in frames {
                    if self.handle_frame(now, connection_id.link, frame).is_err() {
                        return self.leave_silent(now, connection_id.link);
                    }
                }
            }
            LinkEvent::Down(reason) => {
                self.handle_down(now, connection_id.link, reason);
                self.report_health();
            }
        }
    }

    /// Handles everything that is due.
    pub(super) fn handle_timeout(&mut self, now: ClockReading) {
        let now = self.begin(now);
        if now < self.next_tick {
            return;
        }
        self.next_tick = now + TICK;
        for link in self.links.ids() {
            self.check_link(now, link);
        }
        for partition in 0..self.partitions.len() {
            self.resume(now, partition);
            self.retry_refused(now, partition);
        }
        self.renew_next_presence(now);
        self.send_lease(now);
        self.expire_channels(now);
        self.refresh_slots(now);
        self.leave_isolated_servers(now);
        self.report_health();
    }

    /// Time of the next call of [`RedisCore::handle_timeout`].
    pub(super) fn next_timeout(&self) -> MonotonicTime {
        self.next_tick
    }

    fn report_health(&mut self) {
        let reason = self.reason();
        self.outputs.add(CoreOutput::Health(reason));
    }

    /// Takes the next output.
    pub(super) fn poll_output(&mut self) -> Option<CoreOutput> {
        self.outputs.poll()
    }

    /// This node's name.
    pub(super) fn name(&self) -> &str {
        &self.encoder.name
    }

    /// Whether no reply is pending.
    pub(super) fn is_idle(&self) -> bool {
        self.links.is_idle()
    }

    /// Writes pending lifecycle events and sends buffered output, one write for each server.
    pub(super) fn flush(
        &mut self,
        now: MonotonicTime,
        send: impl FnMut(ConnectionId, &mut Vec<u8>),
    ) {
        self.send_lifecycle(now);
        self.links.flush(send);
    }

    /// Whether [`RedisCore::poll_command`] has a command.
    pub(super) fn has_commands(&self) -> bool {
        self.links.has_commands()
    }

    /// The next command to the driver.
    pub(super) fn poll_command(&mut self) -> Option<LinkCommand> {
        self.links.poll_command()
    }

    fn route(&self, channel: &str) -> usize {
        let shard = if self.shards > 1 { shard(channel, self.shards) } else { 0 };
        shard * PARTITIONS + Keys::partition(channel)
    }

    /// Updates local state, then sends the request or holds it while its partition moves.
    fn accept(&mut self, now: MonotonicTime, pending: OpenRequest, endpoints: &dyn EndpointStates) {
        let partition = pending.request.channel().map_or(0, |channel| self.route(channel));
        match &pending.request {
            BrokerRequest::Publications(request) => {
                if self.accept_publications(now, pending.endpoint, request, endpoints).is_break() {
                    return;
                }
            }
            BrokerRequest::Presence(request) => {
                self.accept_presence(partition, pending.endpoint, request);
            }
            BrokerRequest::NodeBus(NodeBusRequest::Survey { id, question }) => {
                let asker = Asker { endpoint: pending.endpoint, id: *id };
                return self.survey(now, asker, &question.clone());
            }
            BrokerRequest::NodeBus(NodeBusRequest::Lifecycle(lifecycle)) => {
                return self.registry.lifecycle.note(pending.endpoint, lifecycle.clone());
            }
            BrokerRequest::Registry(RegistryRequest::Read { id }) => {
                let asker = Asker { endpoint: pending.endpoint, id: *id };
                return self.read_revocations(now, asker);
            }
            BrokerRequest::NodeBus(_) | BrokerRequest::Registry(_) => {}
        }
        let Some(pending) = self.reads.follow(pending) else { return };
        match &mut self.partitions[partition].hold {
            Some(hold) => hold.held.push_back(pending),
            None => self.send(now, partition, pending),
        }
    }

    /// Updates the subscriptions; breaks if nothing is to be sent for the request itself.
    fn accept_publications(
        &mut self,
        now: MonotonicTime,
        endpoint: Endpoint,
        request: &PublicationsRequest,
        endpoints: &dyn EndpointStates,
    ) -> ControlFlow<()> {
        let partition = self.route(request.channel());
        match request {
            PublicationsRequest::Subscribe { channel, read, .. } => {
                if !endpoints.is_attached(endpoint) {
                    return ControlFlow::Break(());
                }
                if self.subscriptions.add(partition, channel, endpoint, meta_ttl_ms(read)) {
                    let names = std::slice::from_ref(channel);
                    self.update_subscriptions(now, partition, names, SubscriptionChange::Open);
                }
            }
            PublicationsRequest::Unsubscribe { channel } => {
                if self.subscriptions.remove(partition, channel, endpoint) {
                    self.reads.close(channel);
                    self.expirations.forget(channel);
                    let names = std::slice::from_ref(channel);
                    self.update_subscriptions(now, partition, names, SubscriptionChange::Close);
                }
                return ControlFlow::Break(());
            }
            PublicationsRequest::LimitTtl { channel, ttl_ms } => {
                self.expirations.limit(channel, *ttl_ms);
            }
            PublicationsRequest::Publish { id, channel, .. }
                if self.subscriptions.is_full(partition, channel, endpoints) =>
            {
                self.reply(endpoint, id.answer(Err(BrokerError::Overloaded)));
                return ControlFlow::Break(());
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn reply(&mut self, endpoint: Endpoint, reply: BrokerReply) {
        self.outputs.reply(endpoint, reply);
    }

    fn answer<T: ReplyValue>(&mut self, asker: &Asker<T>, result: Result<T, BrokerError>) {
        self.reply(asker.endpoint, asker.id.answer(result));
    }

    fn detach(&mut self, now: MonotonicTime, endpoint: Endpoint, endpoints: &dyn EndpointStates) {
        for (partition, channel) in self.subscriptions.remove_endpoint(endpoint) {
            self.reads.close(&channel);
            self.expirations.forget(&channel);
            self.update_subscriptions(now, partition, &[channel], SubscriptionChange::Close);
        }
        let deadline = now + self.io_timeout;
        for (channel, client, announces) in self.present.of_endpoint(endpoint) {
            let (of, info) = (channel.clone(), client.clone());
            let left = PresenceRequest::Remove { channel, client }.into();
            self.accept(now, OpenRequest::new(endpoint, left, deadline), endpoints);
            if announces {
                self.announce_leave(now, endpoint, (of, info), endpoints);
            }
        }
        self.registry.lifecycle.forget(endpoint, self.unix_ms);
    }

    /// Handles one frame; an error when the connection must be closed.
    fn handle_frame(
        &mut self,
        now: MonotonicTime,
        link: LinkId,
        frame: Frame,
    ) -> Result<(), MustClose> {
        if let Frame::Push(items) = frame {
            self.handle_push(now, link, &items);
            return Ok(());
        }
        let connection = self.links.connection(link).ok_or(MustClose)?;
        let head = connection.head().ok_or(MustClose)?;
        let partition = head.partition;
        if let Purpose::Fence(fence) = &head.purpose {
            match &frame {
                Frame::Text(echo) if *echo == fence.number.to_string().as_bytes() => {}
                Frame::Error(text) => {
                    self.handle_subscribe_refused(now, link, text);
                    // The reply to ECHO follows.
                    return if requires_reconnect(text) { Err(MustClose) } else { Ok(()) };
                }
                _ => return Err(MustClose),
            }
        }
        let sent = connection.answered().ok_or(MustClose)?;
        let (held, has_waiting) = (connection.window.held(), !connection.window.is_empty());
        if let Some(partition) = self.partitions.get_mut(partition) {
            partition.in_flight -= 1;
        }
        if let Frame::Error(text) = &frame {
            return self.handle_error(now, link, sent, text);
        }
        match sent.purpose {
            Purpose::Request(mut pending) => {
                for overtaken in self.partitions[partition].take_overtaken(&pending) {
                    self.fail(overtaken);
                }
                if let BrokerRequest::Publications(PublicationsRequest::LimitTtl {
                    channel, ..
                }) = &pending.request
                {
                    self.handle_ttl(now, channel, &frame);
                }
                match pages::take(now, &mut pending, &frame, &held) {
                    Taken::More => {
                        self.send(now, partition, pending);
                        self.send_waiting(now, link);
                        return Ok(());
                    }
                    Taken::Whole(Some(reply)) => {
                        let reply = self.require_subscribed(partition, reply);
                        self.answer_followers(now, partition, &pending, &reply);
                        self.reply(pending.endpoint, reply);
                    }
                    Taken::Whole(None) => {}
                }
            }
            Purpose::Position(channel) => {
                if let Some(top) = answer::position(&frame) {
                    let event = BrokerEvent::Position { channel: channel.clone(), top };
                    self.subscriptions.notify(partition, &channel, &event, &mut self.outputs);
                }
            }
            Purpose::Fence(fence) => self.handle_fence(now, link, partition, &fence),
            Purpose::Probe | Purpose::Ignored => {}
            Purpose::Revocations(reading) => self.handle_revocations(now, *reading, &frame),
            purpose => self.handle_node_answer(now, &purpose, &frame),
        }
        if has_waiting {
            self.send_waiting(now, link);
        }
        Ok(())
    }

    fn handle_error(
        &mut self,
        now: MonotonicTime,
        link: LinkId,
        sent: SentCommand,
        text: &[u8],
    ) -> Result<(), MustClose> {
        let SentCommand { partition, purpose, .. } = sent;
        let is_retried = is_retried(text);
        if is_retried
            && matches!(purpose, Purpose::Probe)
            && let Some(connection) = self.links.connection(link)
        {
            connection.forget_probe();
        }
        if !is_retried {
            self.note_refusal(link, &purpose, text);
        }
        match purpose {
            Purpose::Request(pending) if is_retried => {
                self.hold(now, partition, text).returned.push_back(pending);
            }
            Purpose::Request(pending) => self.fail(pending),
            Purpose::Position(_) if is_retried => {
                self.hold(now, partition, text).must_resubscribe = true;
            }
            Purpose::Position(_) | Purpose::Fence(..) | Purpose::Ignored => {}
            purpose => {
                if is_retried {
                    self.hold(now, partition, text);
                }
                self.handle_node_failure(now, purpose);
            }
        }
        if requires_reconnect(text) { Err(MustClose) } else { Ok(()) }
    }

    /// Records a permanent refusal as an unavailable reason or a warning.
    fn note_refusal(&mut self, link: LinkId, purpose: &Purpose, text: &[u8]) {
        let Some(connection) = self.links.connection(link) else { return };
        let address = &connection.opened.address;
        let is_foreign = is_error(text, b"WRONGTYPE");
        let channel = match purpose {
            Purpose::Probe => return connection.refuse(text),
            Purpose::Lease { .. } if is_foreign => {
                self.registry.reason =
                    Some(UnavailableReason::Foreign(address.clone(), self.prefix.clone()));
                return;
            }
            Purpose::Lease { .. } => {
                self.registry.reason = Some(UnavailableReason::of_answer(address, text));
                return;
            }
            Purpose::Request(pending) => pending.request.channel(),
            Purpose::Position(channel) => Some(channel),
            _ => None,
        };
        let reason = UnavailableReason::of_answer(address, text);
        let address = address.clone();
        if matches!(reason, UnavailableReason::Denied(..)) {
            connection.deny(reason);
        }
        let of = channel.map(|channel| format!(" about channel {channel:?}")).unwrap_or_default();
        let hint = match is_foreign {
            true => {
                "; the key holds data of another application: choose another engine.redis.prefix"
            }
            false => "",
        };
        self.outputs
            .warn(format!("Redis at {address} refused a command{of}: {}{hint}", show(text)));
    }

    fn handle_push(&mut self, now: MonotonicTime, link: LinkId, items: &[Frame]) {
        let [kind, name, rest @ ..] = items else { return };
        let (Some(kind), Some(name)) = (kind.str(), name.str()) else { return };
        let Some(pubsub_name) = self.keys.pubsub_name(name) else { return };
        let payload = rest.first().and_then(Frame::text).map_or(&[][..], |payload| payload);
        match (kind, pubsub_name) {
            ("message" | "smessage", PubSubName::Channel(channel)) => {
                if let Some(payload) = payload::decode(payload) {
                    self.deliver(channel, payload);
                }
            }
            ("message" | "smessage", PubSubName::Control) => {
                if let Some(message) = control::decode(payload) {
                    self.handle_message(now, message);
                }
            }
            ("message" | "smessage", PubSubName::Probe) => {
                if let Some(connection) = self.links.connection(link)
                    && let Some(lag) = connection.ends_probe(now)
                {
                    self.outputs.add(CoreOutput::Lag(lag));
                }
            }
            // Either the slot has moved, or this node unsubscribed and has subscribed again since.
            ("sunsubscribe", PubSubName::Channel(channel)) => {
                let channel = channel.to_owned();
                let partition = self.route(&channel);
                if self.subscriptions.has_subscribers(partition, &channel) {
                    self.hold(now, partition, b"MOVED").must_resubscribe = true;
                }
            }
            ("sunsubscribe", PubSubName::Control) => {
                self.hold(now, 0, b"MOVED").must_resubscribe = true;
            }
            _ => {}
        }
    }

    fn deliver(&mut self, channel: &str, payload: ChannelPayload<'_>) {
        let partition = self.route(channel);
        let epoch = match &payload {
            ChannelPayload::Publication { epoch, .. } => epoch,
            ChannelPayload::Membership { .. } => "",
        };
        let Some(names) = self.subscriptions.names(partition, channel, epoch) else { return };
        let channel = names.channel.clone();
        let event = match payload {
            ChannelPayload::Publication { publication, .. } => BrokerEvent::Publication {
                channel: names.channel,
                publication: Arc::new(publication),
                epoch: names.epoch,
            },
            ChannelPayload::Membership { info, change } => {
                BrokerEvent::Membership { channel: names.channel, info: Arc::new(info), change }
            }
        };
        self.subscriptions.notify(partition, &channel, &event, &mut self.outputs);
    }
}

/// Partition of commands that belong to none.
const NO_PARTITION: usize = usize::MAX;

/// The connection is unusable and must be closed.
struct MustClose;
