//! The broker's state machine, without sockets: routes requests to servers and handles connects,
//! disconnects and slot moves.
//!
//! All commands of a channel go to its partition's server over one connection, in the order of
//! submission. With RESP3, publications and replies arrive in one stream, so a reply follows what
//! precedes it. Invariants: every request gets exactly one reply, if only `Unavailable`; a command
//! with an unknown outcome is never sent again, unless it is idempotent.

mod connections;
mod requests;

use std::sync::Arc;
use std::time::Duration;

use engine::broker::BrokerEvent;
use wire::protocol::StreamPosition;

use super::answer;
use super::clock::{ClockReading, MonotonicTime};
use super::command_request::CommandRequest;
use super::driver_messages::{ConnectionId, DriverEvent, Job, LinkCommand, LinkEvent, LinkId};
use super::error_reply::{is_error, is_retried, requires_reconnect};
use super::expirations::Expirations;
use super::keys::PubSubName;
use super::link::{Purpose, SentCommand};
use super::open_request::OpenRequest;
use super::orders::SentOrders;
use super::outputs::{CoreOutput, CoreOutputs, EndpointStates};
use super::pages::{self, Taken};
use super::payload::{self, ChannelPayload};
use super::presence::PresenceTable;
use super::publish_batch::{SentBatch, SentPublication};
use super::publish_call::PublishFailure;
use super::registry::{LeaseStatus, Registry};
use super::resp::Frame;
use super::servers::{CoreTurn, FIRST, Servers};
use super::settings::{RedisParts, RedisSettings};
use super::shared_reads::SharedReads;
use super::subscriptions::ChannelSubscriptions;
use super::surveys::SurveyTable;
use super::unavailable::{UnavailableReason, show};
use crate::control::{self, NodeMessage};

/// The state machine; see the module.
pub(super) struct RedisCore {
    outputs: CoreOutputs,
    /// Unix time of the last input.
    unix_ms: i64,
    prefix: String,
    /// What Redis carries; without publications, another broker announces leaves.
    parts: RedisParts,
    servers: Servers,
    subscriptions: ChannelSubscriptions,
    present: PresenceTable,
    registry: Registry,
    surveys: SurveyTable,
    orders: SentOrders,
    reads: SharedReads,
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
        let servers = Servers::new(settings);
        let count = servers.partitions.len();
        RedisCore {
            outputs: CoreOutputs::default(),
            unix_ms: 0,
            prefix: settings.prefix.clone(),
            parts: settings.parts,
            servers,
            subscriptions: ChannelSubscriptions::new(count),
            present: PresenceTable::new(count),
            registry: Registry::new(now, settings),
            surveys: SurveyTable::default(),
            orders: SentOrders::default(),
            reads: SharedReads::default(),
            expirations: Expirations::default(),
            next_tick: now,
            next_renewal: 0,
        }
    }

    /// The parts that handle what concerns all nodes, and what they work with.
    fn node_parts(
        &mut self,
        now: MonotonicTime,
    ) -> (&mut Registry, &mut SurveyTable, CoreTurn<'_>) {
        let now = ClockReading { time: now, unix_ms: self.unix_ms };
        let turn = CoreTurn { now, servers: &mut self.servers, outputs: &mut self.outputs };
        (&mut self.registry, &mut self.surveys, turn)
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
                self.accept(time, endpoint, request.into(), endpoints);
            }
            Job::Detach { endpoint } => self.detach(time, endpoint, endpoints),
            Job::LeavesConfirmed(leaves, result) => {
                self.registry.handle_confirmed(time, (leaves, result), &mut self.servers);
            }
            Job::Announce(options) => self.registry.announce_options(time, options),
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
        if !self.servers.links.is_current(connection_id) {
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
        for link in self.servers.links.ids() {
            self.check_link(now, link);
        }
        for partition in 0..self.servers.partitions.len() {
            self.resume(now, partition);
            self.servers.retry_refused(now, partition, &self.subscriptions);
        }
        self.send_postponed_presence(now);
        self.renew_next_presence(now);
        self.registry.renew(now, &mut self.servers);
        if self.registry.renews_presence(now) {
            self.renew_all_presence(now);
        }
        self.surveys.end_overdue(now, &mut self.outputs);
        let reading = ClockReading { time: now, unix_ms: self.unix_ms };
        let mut turn =
            CoreTurn { now: reading, servers: &mut self.servers, outputs: &mut self.outputs };
        self.expirations.expire(&mut turn, &self.subscriptions);
        self.servers.refresh_slots(now);
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

    /// Why the broker is unavailable; `None` when it is ready.
    fn reason(&self) -> Option<UnavailableReason> {
        let must_send_options = self.registry.must_send_options();
        self.servers
            .unassigned_reason()
            .or_else(|| self.registry.reason.clone())
            .or_else(|| self.servers.reason())
            .or_else(|| must_send_options.then_some(UnavailableReason::Starting))
    }

    /// Leaves the registry, as the broker ends.
    pub(super) fn leave_registry(&mut self, now: MonotonicTime) {
        self.registry.leave(now, &mut self.servers);
    }

    /// Takes the next output.
    pub(super) fn poll_output(&mut self) -> Option<CoreOutput> {
        self.outputs.poll()
    }

    /// This node's name.
    pub(super) fn name(&self) -> &str {
        &self.servers.encoder.name
    }

    /// Whether no reply is pending.
    pub(super) fn is_idle(&self) -> bool {
        self.servers.links.is_idle()
    }

    /// Writes pending lifecycle events and sends buffered output, one write for each server.
    pub(super) fn flush(
        &mut self,
        now: MonotonicTime,
        send: impl FnMut(ConnectionId, &mut Vec<u8>),
    ) {
        self.registry.send_lifecycle(now, &mut self.servers);
        self.servers.flush(send);
    }

    /// Whether [`RedisCore::poll_command`] has a command.
    pub(super) fn has_commands(&self) -> bool {
        self.servers.links.has_commands()
    }

    /// The next command to the driver.
    pub(super) fn poll_command(&mut self) -> Option<LinkCommand> {
        self.servers.links.poll_command()
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
        let connection = self.servers.links.connection(link).ok_or(MustClose)?;
        let head = connection.head().ok_or(MustClose)?;
        if let Purpose::Fence(fence) = &head.purpose {
            match &frame {
                Frame::Text(echo) if *echo == fence.number.to_string().as_bytes() => {}
                Frame::Error(text) => {
                    self.servers.handle_subscribe_refused(now, link, text);
                    // The reply to ECHO follows.
                    return if requires_reconnect(text) { Err(MustClose) } else { Ok(()) };
                }
                _ => return Err(MustClose),
            }
        }
        let sent = connection.answered().ok_or(MustClose)?;
        let has_waiting = !connection.window.is_empty();
        let result = match sent {
            SentCommand { purpose: Purpose::Publications(batch), .. } => {
                self.handle_batch(now, link, batch, &frame)
            }
            sent => self.handle_returned(now, link, sent, &frame),
        };
        if has_waiting {
            self.send_waiting(now, link);
        }
        result
    }

    /// Handles the reply to any command but a batch of publications.
    fn handle_returned(
        &mut self,
        now: MonotonicTime,
        link: LinkId,
        sent: SentCommand,
        frame: &Frame,
    ) -> Result<(), MustClose> {
        self.servers.count_returned(sent.partition);
        let refusal = match (frame, &sent.purpose) {
            (Frame::Error(text), _) => Some(&text[..]),
            (frame, Purpose::Request(pending)) => answer::refusal(&pending.request, frame),
            _ => None,
        };
        match refusal {
            Some(text) => self.handle_error(now, link, sent, text),
            None => {
                self.handle_reply(now, link, sent, frame);
                Ok(())
            }
        }
    }

    /// Handles the reply to a batch of publications: each has a result, unless the server has
    /// executed none.
    fn handle_batch(
        &mut self,
        now: MonotonicTime,
        link: LinkId,
        batch: SentBatch,
        frame: &Frame,
    ) -> Result<(), MustClose> {
        let results = match frame {
            Frame::Error(text) => {
                vec![Err(PublishFailure::Refused(text)); batch.publications.len()]
            }
            frame => batch.results(frame),
        };
        let mut outcome = Ok(());
        for (publication, result) in batch.publications.into_iter().zip(results) {
            let SentPublication { partition, request } = publication;
            self.servers.count_returned(partition);
            let Some(pending) = request else { continue };
            match result {
                Ok(position) => self.handle_published(partition, &pending, position),
                Err(PublishFailure::Malformed) => self.fail(pending),
                Err(PublishFailure::Refused(text)) => {
                    let deadline = pending.deadline;
                    let sent = SentCommand::new(partition, deadline, Purpose::Request(pending));
                    outcome = self.handle_error(now, link, sent, text).and(outcome);
                }
            }
        }
        outcome
    }

    fn handle_published(
        &mut self,
        partition: usize,
        pending: &OpenRequest,
        position: StreamPosition,
    ) {
        for overtaken in self.servers.partitions[partition].take_overtaken(pending) {
            self.fail(overtaken);
        }
        if let CommandRequest::Publish(command) = &pending.request {
            self.outputs.reply(pending.endpoint, command.id.answer(Ok(position)));
        }
    }

    /// Handles a reply that is not an error.
    fn handle_reply(&mut self, now: MonotonicTime, link: LinkId, sent: SentCommand, frame: &Frame) {
        let SentCommand { partition, purpose, .. } = sent;
        match purpose {
            Purpose::Request(pending) => self.handle_answer(now, link, (partition, pending), frame),
            Purpose::Position(channel) => {
                if let Some(top) = answer::position(frame) {
                    let event = BrokerEvent::Position { channel: channel.clone(), top };
                    self.subscriptions.notify(partition, &channel, &event, &mut self.outputs);
                }
            }
            Purpose::Fence(fence) => {
                if self.servers.handle_fence(link, partition, &fence) {
                    let last = self.restore(now, partition);
                    self.servers.partitions[partition].begin_retry_of_all(last);
                }
            }
            Purpose::Probe | Purpose::Ignored => {}
            Purpose::Revocations(reading) => self.handle_revocations(now, *reading, frame),
            Purpose::Survey(number) => self.handle_survey_nodes(number, frame),
            purpose => {
                let (registry, _, mut turn) = self.node_parts(now);
                if registry.handle_answer(&mut turn, &purpose, frame) == LeaseStatus::Lapsed {
                    self.renew_all_presence(now);
                }
            }
        }
    }

    /// Handles the reply to a request, or one page of it.
    fn handle_answer(
        &mut self,
        now: MonotonicTime,
        link: LinkId,
        (partition, mut pending): (usize, OpenRequest),
        frame: &Frame,
    ) {
        for overtaken in self.servers.partitions[partition].take_overtaken(&pending) {
            self.fail(overtaken);
        }
        match &pending.request {
            CommandRequest::LimitTtl { channel, .. } => {
                self.expirations.handle_ttl(now, channel, frame);
            }
            CommandRequest::Control(order) => {
                // All nodes that it concerns receive it from Redis.
                self.orders.end(order);
            }
            _ => {}
        }
        let connection = self.servers.links.connection(link);
        let held = connection.map(|connection| connection.window.held()).unwrap_or_default();
        match pages::take(now, &mut pending, frame, &held) {
            Taken::More => {
                self.send(now, partition, pending);
                self.send_waiting(now, link);
            }
            Taken::Whole(Some(reply)) => {
                let reply = self.servers.require_subscribed(partition, reply);
                self.answer_followers(now, partition, &pending, &reply);
                self.outputs.reply(pending.endpoint, reply);
            }
            Taken::Whole(None) => {}
        }
    }

    /// Redis has listed the nodes that received the question of a survey.
    fn handle_survey_nodes(&mut self, number: u64, frame: &Frame) {
        let drops_keys = self.servers.links.may_evict();
        let nodes = frame.list().unwrap_or_default().iter().filter_map(Frame::str);
        let others = nodes.filter(|node| *node != self.servers.encoder.node);
        // Redis may have evicted the leases of live nodes, so nodes seen earlier are added.
        // Otherwise its list is exact and excludes nodes that have left.
        let seen = self.registry.others().map(String::as_str).filter(|_| drops_keys);
        let others = others.chain(seen).map(str::to_owned).collect();
        if let Some(survey) = self.surveys.handle_nodes(number, others) {
            survey.end(&mut self.outputs);
        }
    }

    /// Handles a message of another node.
    fn handle_message(&mut self, now: MonotonicTime, message: NodeMessage) {
        match message {
            NodeMessage::Order(control) => {
                self.orders.handle_message(&control);
                self.outputs.notify(BrokerEvent::Control(control.into()));
            }
            NodeMessage::Question { ticket, question }
                if ticket.node != self.servers.encoder.node =>
            {
                self.outputs.notify(BrokerEvent::Question { ticket, question });
            }
            // Redis nodes announce channel options with their leases.
            NodeMessage::Question { .. } | NodeMessage::Options(_) => {}
            NodeMessage::Revocation(revocation) => {
                self.outputs.notify(BrokerEvent::Revocation(revocation.into()));
            }
            NodeMessage::Look => self.registry.request_renewal(now),
            NodeMessage::Answer { node, number, answer } => {
                if let Some(survey) = self.surveys.handle_answer(number, &node, answer) {
                    survey.end(&mut self.outputs);
                }
            }
        }
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
            && let Some(connection) = self.servers.links.connection(link)
        {
            connection.forget_probe();
        }
        if !is_retried {
            self.note_refusal(link, &purpose, text);
        }
        match purpose {
            Purpose::Request(pending) if is_retried => {
                self.servers.hold(now, partition, text).returned.push_back(pending);
            }
            Purpose::Request(pending) => self.fail(pending),
            Purpose::Position(_) if is_retried => {
                self.servers.hold(now, partition, text).must_resubscribe = true;
            }
            Purpose::Position(_) | Purpose::Fence(..) | Purpose::Ignored => {}
            purpose => {
                if is_retried {
                    self.servers.hold(now, partition, text);
                }
                self.handle_node_failure(now, purpose);
            }
        }
        if requires_reconnect(text) { Err(MustClose) } else { Ok(()) }
    }

    /// Records a permanent refusal as an unavailable reason or a warning.
    fn note_refusal(&mut self, link: LinkId, purpose: &Purpose, text: &[u8]) {
        let Some(connection) = self.servers.links.connection(link) else { return };
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
            true => format!(
                "; the key holds data of another application: choose another {}.prefix",
                self.parts.options_key()
            ),
            false => String::new(),
        };
        self.outputs
            .warn(format!("Redis at {address} refused a command{of}: {}{hint}", show(text)));
    }

    fn handle_push(&mut self, now: MonotonicTime, link: LinkId, items: &[Frame]) {
        let [kind, name, rest @ ..] = items else { return };
        let (Some(kind), Some(name)) = (kind.str(), name.str()) else { return };
        let Some(pubsub_name) = self.servers.keys.pubsub_name(name) else { return };
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
                if let Some(connection) = self.servers.links.connection(link)
                    && let Some(lag) = connection.ends_probe(now)
                {
                    self.outputs.add(CoreOutput::Lag(lag));
                }
            }
            // Either the slot has moved, or this node unsubscribed and has subscribed again since.
            ("sunsubscribe", PubSubName::Channel(channel)) => {
                let channel = channel.to_owned();
                let partition = self.servers.route(&channel);
                if self.subscriptions.has_subscribers(partition, &channel) {
                    self.servers.hold(now, partition, b"MOVED").must_resubscribe = true;
                }
            }
            ("sunsubscribe", PubSubName::Control) => {
                self.servers.hold(now, FIRST, b"MOVED").must_resubscribe = true;
            }
            _ => {}
        }
    }

    fn deliver(&mut self, channel: &str, payload: ChannelPayload<'_>) {
        let partition = self.servers.route(channel);
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

/// The connection is unusable and must be closed.
struct MustClose;
