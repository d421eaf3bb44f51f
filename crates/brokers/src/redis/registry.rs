//! This node's registration: its lease, its clients' lifecycle events, the other nodes and the
//! cleanup that it performs. All of it lies in the first partition.
//!
//! Invariant: a lease that may have expired is renewed before lifecycle events are sent. Each
//! command may be lost or repeated; the next one continues from what Redis holds.

use std::collections::HashSet;
use std::time::Duration;

use engine::broker::BrokerError;
use engine::lifecycle::Lifecycle;

use super::clock::MonotonicTime;
use super::command::LeaseReport;
use super::link::Purpose;
use super::master_check::OtherNodes;
use super::node_cleanup::{CleanupProgress, NodeCleanup};
use super::outputs::{CoreOutput, CoreOutputs, NodeRecord};
use super::published_leaves::PublishedLeaves;
use super::resp::Frame;
use super::servers::{CoreTurn, FIRST, Servers};
use super::settings::RedisSettings;
use super::unavailable::UnavailableReason;
use crate::channel_options::EncodedOptions;
use crate::lifecycle::LifecycleQueue;
use crate::limits::CLOCK_SKEW_MAX;

/// State of this node in the registry.
pub(super) struct Registry {
    /// Lifecycle events of this node's clients that Redis has not acknowledged.
    pub(super) lifecycle: LifecycleQueue,
    /// Channel options of this node, as announced with its lease.
    options: EncodedOptions,
    lease: Duration,
    next_renewal: MonotonicTime,
    /// Whether Redis has confirmed the lease.
    is_member: bool,
    /// Lifecycle events are not sent again before this time.
    paused_until: MonotonicTime,
    /// When the presence of all clients is written once more.
    renews_presence_at: Option<MonotonicTime>,
    /// Id of another node with this node's name, and when it was first seen.
    twin: Option<(String, MonotonicTime)>,
    cleanup: NodeCleanup,
    /// Why Redis refuses the lease.
    pub(super) reason: Option<UnavailableReason>,
    /// Ids of the other live nodes.
    others: HashSet<String>,
    /// Whether Redis holds this node's channel options.
    has_sent_options: bool,
}

/// Whether a lease was valid until its renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeaseStatus {
    Valid,
    /// Other nodes consider this node failed.
    Lapsed,
}

/// Field that marks a hash of clients as complete; written by the scripts.
const WHOLE: &str = "\0";

/// Delay after which another node has seen that this node is alive, and ended its cleanup.
const REENTER_AFTER: Duration = Duration::from_secs(2);

/// Renewals of a lease within its duration.
const RENEWALS_PER_LEASE: u32 = 4;

/// Delay before a failed renewal is retried.
const RETRY_AFTER: Duration = Duration::from_millis(250);

impl Registry {
    pub(super) fn new(now: MonotonicTime, settings: &RedisSettings) -> Registry {
        Registry {
            lifecycle: LifecycleQueue::default(),
            options: EncodedOptions::default(),
            lease: settings.lease,
            next_renewal: now,
            is_member: false,
            paused_until: now,
            renews_presence_at: None,
            twin: None,
            cleanup: NodeCleanup::new(settings.parts),
            reason: None,
            others: HashSet::new(),
            has_sent_options: false,
        }
    }

    /// Stores the channel options of this node, and announces them with a renewal at once.
    pub(super) fn announce_options(&mut self, now: MonotonicTime, options: EncodedOptions) {
        self.options = options;
        self.request_renewal(now);
    }

    /// Whether this node has channel options that other nodes cannot know yet.
    pub(super) fn must_send_options(&self) -> bool {
        !self.has_sent_options && !self.options.digest.is_empty()
    }

    /// Renews the lease when that is due.
    pub(super) fn renew(&mut self, now: MonotonicTime, servers: &mut Servers) {
        if !self.begins_renewal(now) {
            return;
        }
        let report = LeaseReport {
            is_free: self.cleanup.is_idle(),
            clients: self.lifecycle.known_count(),
            options: self.options.clone(),
        };
        let with_options = !report.options.digest.is_empty();
        let purpose = Purpose::Lease { with_options };
        let is_sent = servers.write(now, FIRST, purpose, |encoder, target, out| {
            encoder.lease(target, &report, out);
        });
        if !is_sent {
            tracing::debug!("Redis: the lease cannot be renewed; it is retried");
            self.handle_renewal_failed(now);
        }
    }

    /// Whether the presence of all clients is to be written once more.
    pub(super) fn renews_presence(&mut self, now: MonotonicTime) -> bool {
        self.renews_presence_at.take_if(|at| *at <= now).is_some()
    }

    /// Sends pending lifecycle events.
    pub(super) fn send_lifecycle(&mut self, now: MonotonicTime, servers: &mut Servers) {
        if !self.is_member || self.paused_until > now {
            return;
        }
        let Some(events) = self.lifecycle.take() else { return };
        let purpose = Purpose::Lifecycle(events.clone());
        let is_sent = servers.write(now, FIRST, purpose, |encoder, target, out| {
            encoder.lifecycle(target, &events, out);
        });
        if !is_sent {
            self.handle_lifecycle_failed(now, events);
        }
    }

    /// The first partition has a server, which may lack what the previous one held.
    pub(super) fn join(&mut self, now: MonotonicTime, servers: &mut Servers) {
        // The lease first: other nodes look up clients by live node.
        self.request_renewal(now);
        self.renew(now, servers);
        self.lifecycle.requeue_online();
        scan(now, b"0", servers);
    }

    /// Removes this node at shutdown, with clients that have not left yet.
    pub(super) fn leave(&mut self, now: MonotonicTime, servers: &mut Servers) {
        self.send_lifecycle(now, servers);
        if self.is_member && self.lifecycle.is_quiet() {
            self.is_member = false;
            self.cleanup.begin_own(now, servers);
        }
    }

    /// Handles the reply to a command of the registry. Returns whether the lease was still valid.
    pub(super) fn handle_answer(
        &mut self,
        turn: &mut CoreTurn<'_>,
        purpose: &Purpose,
        frame: &Frame,
    ) -> LeaseStatus {
        match purpose {
            Purpose::Lifecycle(_) => self.lifecycle.handle_sent(),
            &Purpose::Lease { with_options } => {
                self.reason = None;
                self.has_sent_options |= with_options;
                return self.handle_lease(turn, frame);
            }
            Purpose::Scan => self.handle_scan(turn, frame),
            purpose => {
                if self.cleanup.handle(turn, purpose, frame) == CleanupProgress::Finished {
                    // Others may need a cleanup.
                    self.request_renewal(turn.now.time);
                }
            }
        }
        LeaseStatus::Valid
    }

    /// Leaves of a node that is cleaned up have reached the broker that publishes them, or not.
    pub(super) fn handle_confirmed(
        &mut self,
        now: MonotonicTime,
        (leaves, result): (PublishedLeaves, Result<(), BrokerError>),
        servers: &mut Servers,
    ) {
        match result {
            Ok(()) => self.cleanup.remove_left(now, &leaves, servers),
            Err(_) => self.cleanup.abandon(leaves.number),
        }
    }

    fn handle_scan(&mut self, turn: &mut CoreTurn<'_>, frame: &Frame) {
        let Some([cursor, clients]) = frame.list() else { return };
        for pair in clients.list().unwrap_or_default().chunks_exact(2) {
            if let (Some(client), Some(user)) = (pair[0].str(), pair[1].str())
                && client != WHOLE
            {
                self.lifecycle.check(client, user, turn.now.unix_ms);
            }
        }
        if let Some(cursor) = cursor.text().filter(|cursor| &cursor[..] != b"0") {
            scan(turn.now.time, cursor, turn.servers);
        }
    }

    fn handle_lease(&mut self, turn: &mut CoreTurn<'_>, frame: &Frame) -> LeaseStatus {
        let Some([lasted, time, dead, twin, whole, others]) = frame.list() else {
            return LeaseStatus::Valid;
        };
        let now = turn.now.time;
        self.note_others(others.list().unwrap_or_default(), turn.outputs);
        let was_member = std::mem::replace(&mut self.is_member, true);
        if !was_member {
            tracing::info!(node = %turn.servers.encoder.node, "Redis: this node has a lease");
        }
        let mut state = LeaseStatus::Valid;
        if lasted.u64() == Some(0) && was_member {
            tracing::warn!(
                "Redis: the lease of this node had ended; the lifecycle events of its clients are sent again"
            );
            // Other nodes consider this node failed: its clients are announced again, and once more
            // after a cleanup that may be in progress.
            self.lifecycle.requeue_online();
            self.renews_presence_at = Some(now + REENTER_AFTER);
            state = LeaseStatus::Lapsed;
        }
        if whole.u64() == Some(0) {
            let text = "Redis has evicted records of this node's clients; their lifecycle events are sent again";
            turn.outputs.warn(text.to_owned());
            self.lifecycle.requeue_removed();
        }
        let unix_ms = turn.now.unix_ms;
        let skew_ms = time.u64().map_or(0, |time| unix_ms - i64::try_from(time).unwrap_or(0));
        if Duration::from_millis(skew_ms.unsigned_abs()) > CLOCK_SKEW_MAX {
            let text = format!(
                "the clock of this node is {skew_ms} ms before that of Redis: tokens and subscriptions end at other times here than on other nodes"
            );
            turn.outputs.warn(text);
        }
        // The lease of a node that was just killed is still valid.
        if self.has_twin(now, twin.str().unwrap_or_default()) {
            turn.outputs.add(CoreOutput::WarnOfSameName);
        }
        if let Some(dead) = dead.str().filter(|dead| !dead.is_empty())
            && self.cleanup.is_idle()
        {
            self.cleanup.begin(now, dead, turn.servers);
        }
        state
    }

    /// Stores the other live nodes, from triples of id, name and channel options.
    fn note_others(&mut self, others: &[Frame], outputs: &mut CoreOutputs) {
        let text = |frame: &Frame| frame.str().map(str::to_owned);
        let nodes = others.chunks_exact(3).filter_map(|other| {
            let [id, name, options] = other else { return None };
            Some(NodeRecord { id: text(id)?, name: text(name)?, text: text(options)? })
        });
        let nodes: Vec<NodeRecord> = nodes.collect();
        self.set_others(nodes.iter().map(|node| node.id.clone()).collect());
        outputs.add(CoreOutput::Nodes(nodes));
    }

    /// A command of the registry has failed or has an unknown outcome.
    pub(super) fn handle_failure(&mut self, now: MonotonicTime, purpose: Purpose) {
        match purpose {
            Purpose::Lifecycle(events) => self.handle_lifecycle_failed(now, events),
            Purpose::Lease { .. } => self.handle_renewal_failed(now),
            // The node's lease remains expired, so Redis assigns its cleanup again.
            Purpose::PresentChannels(number)
            | Purpose::Evict(number, _)
            | Purpose::CleanUp(number) => self.cleanup.abandon(number),
            _ => {}
        }
    }

    fn handle_lifecycle_failed(&mut self, now: MonotonicTime, events: Vec<Lifecycle>) {
        self.lifecycle.requeue(events);
        self.paused_until = now + RETRY_AFTER;
    }

    /// Stores the other live nodes.
    fn set_others(&mut self, others: HashSet<String>) {
        for node in others.difference(&self.others) {
            tracing::info!(%node, "Redis: another node has joined");
        }
        for node in self.others.difference(&others) {
            tracing::info!(%node, "Redis: another node has left");
        }
        self.others = others;
    }

    /// Other nodes that were live at the last renewal.
    pub(super) fn others(&self) -> impl Iterator<Item = &String> {
        self.others.iter()
    }

    /// Whether other nodes use the same Redis.
    pub(super) fn other_nodes(&self) -> OtherNodes {
        if self.others.is_empty() { OtherNodes::Absent } else { OtherNodes::Present }
    }

    /// Whether another node of this name outlives the lease of a node that was killed.
    fn has_twin(&mut self, now: MonotonicTime, twin: &str) -> bool {
        if twin.is_empty() {
            self.twin = None;
            return false;
        }
        match &self.twin {
            Some((known, since)) if known == twin => now.duration_since(*since) > self.lease,
            _ => {
                self.twin = Some((twin.to_owned(), now));
                false
            }
        }
    }

    /// Whether a renewal is due; the caller then sends it.
    fn begins_renewal(&mut self, now: MonotonicTime) -> bool {
        let begins = self.next_renewal <= now;
        if begins {
            self.next_renewal = now + self.lease / RENEWALS_PER_LEASE;
        }
        begins
    }

    /// Makes a renewal due at once.
    pub(super) fn request_renewal(&mut self, now: MonotonicTime) {
        self.next_renewal = now;
    }

    /// Schedules a retry of a failed renewal.
    fn handle_renewal_failed(&mut self, now: MonotonicTime) {
        self.next_renewal = now + RETRY_AFTER.min(self.lease / RENEWALS_PER_LEASE);
    }
}

/// Reads the clients that Redis records as online at this node.
fn scan(now: MonotonicTime, cursor: &[u8], servers: &mut Servers) {
    // If the server cannot be used, the next reconnect scans again.
    let _later = servers.write(now, FIRST, Purpose::Scan, |encoder, target, out| {
        encoder.scan(target, cursor, out);
    });
}
