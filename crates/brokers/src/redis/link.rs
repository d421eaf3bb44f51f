//! State of the link to one server: whether it can be used, and its pending commands.
//!
//! Invariant: replies arrive in the order of the commands, so each reply belongs to the first
//! pending command. Commands that Redis acknowledges with pushes only are followed by an ECHO,
//! whose reply is the fence.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::clock::MonotonicTime;
use super::driver_messages::{LinkTarget, Opened};
use super::keys::Keys;
use super::master_check::MasterCheck;
use super::open_request::OpenRequest;
use super::publish_batch::{BatchScope, BatchedPublication, PublishBatch, SentBatch};
use super::resp::encode;
use super::revocation_read::RevocationRead;
use super::unavailable::UnavailableReason;
use super::window::ReadWindow;
use crate::limits::{IN_FLIGHT_BYTES_MAX, IN_FLIGHT_MAX};

/// The link to one server, connected or not.
pub(super) struct RedisLink {
    pub(super) target: LinkTarget,
    /// Number of the current connection attempt.
    pub(super) attempt: u32,
    pub(super) connection: Option<ActiveLink>,
    pub(super) reason: UnavailableReason,
    pub(super) failures: u32,
    /// `run_id` of the server that closed the last connection.
    pub(super) closed_by: Option<String>,
}

/// State of an open connection.
pub(super) struct ActiveLink {
    pub(super) opened: Opened,
    /// Encoded commands for the next flush.
    out: Vec<u8>,
    /// Where the command begins in them that is being written.
    begin: usize,
    /// Publications behind them, for which a command will be written.
    batch: Option<PublishBatch>,
    in_flight: VecDeque<SentCommand>,
    /// Publications in the pending commands, beside one for each command.
    batched: usize,
    /// Bytes of the pending commands.
    pending_bytes: usize,
    /// Flow control of long replies.
    pub(super) window: ReadWindow,
    /// Number of pending commands, from the front, that are overdue.
    overdue: usize,
    next_fence: u64,
    /// When the pending probe was sent.
    probe_sent: Option<MonotonicTime>,
    next_probe: MonotonicTime,
    /// Whether a probe has returned over this connection.
    pub(super) is_verified: bool,
    /// Scope of the next probe: full over a new connection, and after a refusal until everything is
    /// allowed.
    pub(super) probe_scope: ProbeScope,
    /// Scope of the pending probe.
    pending_scope: ProbeScope,
    /// Why the server refuses a required command, while it does.
    pub(super) refusal: Option<UnavailableReason>,
    /// Why the server refuses this node's subscription to its own probes.
    pub(super) subscribe_refusal: Option<UnavailableReason>,
    /// Evidence that the server is still the master.
    pub(super) master_check: MasterCheck,
}

/// A pending command.
pub(super) struct SentCommand {
    pub(super) partition: usize,
    pub(super) deadline: MonotonicTime,
    pub(super) purpose: Purpose,
    /// Bytes reserved for its reply; 0 for a short one.
    pub(super) reserved: usize,
    /// Bytes of the command.
    pub(super) length: usize,
}

impl SentCommand {
    /// A command with a short reply.
    pub(super) fn new(partition: usize, deadline: MonotonicTime, purpose: Purpose) -> SentCommand {
        SentCommand { partition, deadline, purpose, reserved: 0, length: 0 }
    }

    /// Publications beside the first.
    fn batched(&self) -> usize {
        match &self.purpose {
            Purpose::Publications(batch) => batch.publications.len() - 1,
            _ => 0,
        }
    }
}

/// What a reply is for.
#[expect(
    clippy::large_enum_variant,
    reason = "a request is the usual purpose, and a box would cost it an allocation"
)]
pub(super) enum Purpose {
    /// A subscription change: answered by pushes or one error, then by the reply to ECHO.
    Fence(Fence),
    /// A request of an endpoint.
    Request(OpenRequest),
    /// Publications of endpoints.
    Publications(SentBatch),
    /// A channel's position, for all its subscribers.
    Position(Arc<str>),
    /// One part of the revocations.
    Revocations(Box<RevocationRead>),
    /// Lifecycle events.
    Lifecycle(Vec<engine::lifecycle::Lifecycle>),
    /// A renewal of this node's lease, and whether it contains the node's channel options.
    Lease { with_options: bool },
    /// A scan for clients that Redis records at this node.
    Scan,
    /// A survey, by number.
    Survey(u64),
    /// The channels of a failed node, by number of the cleanup.
    PresentChannels(u64),
    /// The removal of a failed node's clients from a channel.
    Evict(u64, Arc<str>),
    /// The cleanup of a failed node's clients.
    CleanUp(u64),
    /// A probe of the server.
    Probe,
    /// No use of the reply.
    Ignored,
}

/// A fence: the reply to the ECHO after a subscription change.
pub(super) struct Fence {
    pub(super) number: u64,
    pub(super) change: SubscriptionChange,
    /// Whether the server replied with an error instead of pushes.
    pub(super) is_refused: bool,
    /// Pub/sub names of the change.
    pub(super) names: Arc<[String]>,
}

/// A change of subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SubscriptionChange {
    Open,
    Close,
    /// Subscribes to this node's own probes.
    Probe,
}

/// Commands that a probe tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProbeScope {
    /// The minimum: scripts, writes and publishing.
    Basic,
    /// Every command in the scripts, each of which an ACL may deny.
    Full,
}

/// Health of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkHealth {
    Good,
    /// Replies are overdue.
    Overdue,
    /// Replies are so late that the connection must be closed.
    MustClose,
}

/// Interval of probes.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);

impl ActiveLink {
    pub(super) fn new(now: MonotonicTime, opened: Opened) -> ActiveLink {
        ActiveLink {
            opened,
            out: Vec::new(),
            begin: 0,
            batch: None,
            in_flight: VecDeque::new(),
            batched: 0,
            pending_bytes: 0,
            window: ReadWindow::default(),
            overdue: 0,
            next_fence: 0,
            probe_sent: None,
            next_probe: now,
            is_verified: false,
            probe_scope: ProbeScope::Full,
            pending_scope: ProbeScope::Full,
            refusal: None,
            subscribe_refusal: None,
            master_check: MasterCheck::new(now),
        }
    }

    /// Begins a command behind those that were submitted before: what it is written for, and to.
    pub(super) fn begin_command(&mut self, keys: &Keys) -> (&Opened, &mut Vec<u8>) {
        self.end_batch(keys);
        self.begin = self.out.len();
        (&self.opened, &mut self.out)
    }

    /// Adds a publication to those that one command will make. A new command has this deadline, and
    /// an epoch that was never used for streams that begin.
    pub(super) fn publish(
        &mut self,
        keys: &Keys,
        publication: BatchedPublication,
        scope: BatchScope,
        (deadline, unused_epoch): (MonotonicTime, u64),
    ) {
        let rejected = match &mut self.batch {
            Some(batch) => batch.add(publication, scope),
            None => Some(publication),
        };
        if let Some(first) = rejected {
            self.end_batch(keys);
            self.batch = Some(PublishBatch::new(deadline, unused_epoch, first));
        }
    }

    /// Whether publications wait for their command.
    pub(super) fn has_batch(&self) -> bool {
        self.batch.is_some()
    }

    fn end_batch(&mut self, keys: &Keys) {
        let Some(batch) = self.batch.take() else { return };
        let (partition, deadline) = batch.place();
        self.begin = self.out.len();
        let sent = batch.write(keys, &self.opened, &mut self.out);
        self.expect(SentCommand::new(partition, deadline, Purpose::Publications(sent)));
    }

    /// The bytes to be sent now.
    pub(super) fn take_output(&mut self, keys: &Keys) -> &mut Vec<u8> {
        self.end_batch(keys);
        &mut self.out
    }

    /// Records a written command.
    pub(super) fn expect(&mut self, mut sent: SentCommand) {
        sent.length = self.out.len().saturating_sub(self.begin);
        self.pending_bytes += sent.length;
        self.window.begin(sent.reserved);
        self.batched += sent.batched();
        self.in_flight.push_back(sent);
    }

    /// The command that the next reply belongs to.
    pub(super) fn head(&self) -> Option<&SentCommand> {
        self.in_flight.front()
    }

    /// The fence that the next reply belongs to, and its partition.
    pub(super) fn head_fence(&mut self) -> Option<(usize, &mut Fence)> {
        match self.in_flight.front_mut()? {
            SentCommand { partition, purpose: Purpose::Fence(fence), .. } => {
                Some((*partition, fence))
            }
            _ => None,
        }
    }

    /// The next reply has arrived.
    pub(super) fn answered(&mut self) -> Option<SentCommand> {
        self.overdue = self.overdue.saturating_sub(1);
        let sent = self.in_flight.pop_front()?;
        self.window.end(sent.reserved);
        self.batched -= sent.batched();
        self.pending_bytes -= sent.length;
        Some(sent)
    }

    /// Pending commands without a reply, and requests that were not sent.
    pub(super) fn into_unanswered(mut self) -> (VecDeque<SentCommand>, Vec<OpenRequest>) {
        let batched = self.batch.take().map(PublishBatch::into_requests).unwrap_or_default();
        let unsent = batched.into_iter().chain(self.window.take_all()).collect();
        (self.in_flight, unsent)
    }

    /// Number of pending commands and publications.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len() + self.batched
    }

    /// Whether so many bytes are pending that further requests are refused.
    pub(super) fn is_congested(&self) -> bool {
        self.pending_bytes > IN_FLIGHT_BYTES_MAX
    }

    /// Whether replies are overdue. Then new requests fail at once.
    pub(super) fn is_silent(&self) -> bool {
        self.overdue > 0
    }

    /// Writes a subscription change and its fence; returns the fence's number.
    pub(super) fn update_subscriptions(
        &mut self,
        keys: &Keys,
        (names, change): (&[String], SubscriptionChange),
        partition: usize,
        deadline: MonotonicTime,
    ) -> u64 {
        let command: &[u8] = match (change, self.opened.has_shards) {
            (SubscriptionChange::Open | SubscriptionChange::Probe, false) => b"SUBSCRIBE",
            (SubscriptionChange::Open | SubscriptionChange::Probe, true) => b"SSUBSCRIBE",
            (SubscriptionChange::Close, false) => b"UNSUBSCRIBE",
            (SubscriptionChange::Close, true) => b"SUNSUBSCRIBE",
        };
        let mut words = vec![command];
        words.extend(names.iter().map(String::as_bytes));
        self.end_batch(keys);
        self.begin = self.out.len();
        encode(&mut self.out, &words);
        self.next_fence += 1;
        let number = self.next_fence;
        encode(&mut self.out, &[b"ECHO", number.to_string().as_bytes()]);
        let fence = Fence { number, change, is_refused: false, names: names.into() };
        self.expect(SentCommand::new(partition, deadline, Purpose::Fence(fence)));
        number
    }

    /// Removes overdue requests and returns the connection's health.
    pub(super) fn check(
        &mut self,
        now: MonotonicTime,
        io_timeout: Duration,
    ) -> (Vec<OpenRequest>, LinkHealth) {
        let mut overdue_requests = self.window.take_overdue(now);
        while let Some(sent) = self.in_flight.get_mut(self.overdue)
            && sent.deadline <= now
        {
            self.overdue += 1;
            match &mut sent.purpose {
                Purpose::Publications(batch) => overdue_requests.extend(batch.take_requests()),
                purpose @ Purpose::Request(_) => {
                    if let Purpose::Request(pending) = std::mem::replace(purpose, Purpose::Ignored)
                    {
                        overdue_requests.push(pending);
                    }
                }
                _ => {}
            }
        }
        let oldest = self.in_flight.front();
        let is_hopeless = oldest.is_some_and(|sent| sent.deadline + io_timeout <= now)
            || self.in_flight() > IN_FLIGHT_MAX
            // Replies arrive but pushes do not.
            || self.probe_sent.is_some_and(|sent| sent + 2 * io_timeout <= now);
        let health = match (is_hopeless, self.is_silent()) {
            (true, _) => LinkHealth::MustClose,
            (false, true) => LinkHealth::Overdue,
            (false, false) => LinkHealth::Good,
        };
        (overdue_requests, health)
    }

    /// Whether a probe is due; the caller then sends it.
    pub(super) fn begins_probe(&mut self, now: MonotonicTime) -> bool {
        let begins = self.next_probe <= now && self.probe_sent.is_none() && !self.is_silent();
        if begins {
            (self.probe_sent, self.pending_scope) = (Some(now), self.probe_scope);
            self.next_probe = now + PROBE_INTERVAL;
        }
        begins
    }

    /// The server refused a probe. Requests that it accepts are still sent.
    pub(super) fn refuse(&mut self, text: &[u8]) {
        self.refusal = Some(UnavailableReason::of_answer(&self.opened.address, text));
        self.probe_scope = ProbeScope::Full;
        self.probe_sent = None;
    }

    /// The server denied a command: it is not ready until a full probe succeeds.
    pub(super) fn deny(&mut self, reason: UnavailableReason) {
        self.refusal = Some(reason);
        self.probe_scope = ProbeScope::Full;
    }

    /// The server refused the subscription to this node's probes.
    pub(super) fn refuse_probe(&mut self, text: &[u8]) {
        self.subscribe_refusal = Some(UnavailableReason::of_answer(&self.opened.address, text));
        self.probe_sent = None;
    }

    /// The probe was not published, for a transient reason.
    pub(super) fn forget_probe(&mut self) {
        self.probe_sent = None;
    }

    /// A probe has returned; returns its round-trip time.
    pub(super) fn ends_probe(&mut self, now: MonotonicTime) -> Option<Duration> {
        self.is_verified = true;
        if self.pending_scope == ProbeScope::Full && self.probe_sent.is_some() {
            (self.refusal, self.probe_scope) = (None, ProbeScope::Basic);
        }
        self.probe_sent.take().map(|sent| now.duration_since(sent))
    }
}
