//! One server as the broker knows it: whether it can be asked, what was asked and is not answered
//! yet.
//!
//! Invariant: answers come in the order of the commands, so the first command that waits is the one
//! that is answered; what Redis answers only by pushes is followed by an echo, which is.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::broker::BrokerRequest;

use super::connection::LinkTarget;
use super::core::{MasterCheck, RevocationRead};
use super::exchange::Opened;
use super::pages::PageProgress;
use super::resp::encode;
use super::unavailable::UnavailableReason;
use super::window::ReadWindow;
use crate::Endpoint;
use crate::limits::IN_FLIGHT_MAX;

/// See the module.
pub(super) struct RedisLink {
    pub(super) target: LinkTarget,
    /// Tells connections apart.
    pub(super) attempt: u32,
    pub(super) up: Option<Up>,
    pub(super) reason: UnavailableReason,
    pub(super) failures: u32,
    /// The `run_id` of the server that has closed the last connection.
    pub(super) closed_by: Option<String>,
}

/// A server that can be asked.
pub(super) struct Up {
    pub(super) opened: Opened,
    /// What leaves with the next flush.
    pub(super) out: Vec<u8>,
    in_flight: VecDeque<SentCommand>,
    /// Room for long answers, and what waits for it.
    pub(super) window: ReadWindow,
    /// How many of the first in flight are overdue and given up.
    late: usize,
    next_fence: u64,
    /// When the publication to ourselves left that is not back yet.
    probe_sent: Option<Instant>,
    next_probe: Instant,
    /// Whether such a publication came back over this connection.
    pub(super) is_verified: bool,
    /// What the next one tries: all over a new connection, and from a refusal on until all is
    /// allowed.
    pub(super) trial: Trial,
    /// What the one tries that is not back yet.
    probing: Trial,
    /// Why it does not do what is needed, while it does not.
    pub(super) refusal: Option<UnavailableReason>,
    /// Why it does not let this node hear what it publishes to itself.
    pub(super) subscribe_refusal: Option<UnavailableReason>,
    /// Whether it is the right one.
    pub(super) master_check: MasterCheck,
}

/// A command that is not answered.
pub(super) struct SentCommand {
    pub(super) partition: usize,
    pub(super) deadline: Instant,
    pub(super) purpose: Purpose,
    /// Bytes that its answer may have, when it may be long.
    pub(super) reserved: usize,
}

impl SentCommand {
    /// A command whose answer is short.
    pub(super) fn new(partition: usize, deadline: Instant, purpose: Purpose) -> SentCommand {
        SentCommand { partition, deadline, purpose, reserved: 0 }
    }
}

/// What its answer is for.
#[expect(
    clippy::large_enum_variant,
    reason = "an endpoint is the usual purpose, and a box would cost it an allocation"
)]
pub(super) enum Purpose {
    /// Hearing channels, or not hearing them any more: answered by pushes or by one error, and then
    /// by the echo.
    Fence(Fence),
    /// An endpoint.
    Ask(OpenRequest),
    /// Everybody who hears the channel: where it stands.
    Position(Arc<str>),
    /// Whoever reads what is revoked.
    Revocations(Box<RevocationRead>),
    /// Backends: these came and went.
    Lifecycle(Vec<engine::lifecycle::Lifecycle>),
    /// This node's lease, and whether it tells the node's channel options.
    Lease { with_options: bool },
    /// Whether Redis knows clients of this node that this node does not.
    Scan,
    /// Whoever has asked all nodes.
    Survey(u64),
    /// The channels of a node that is gone.
    PresentChannels(u64),
    /// One of them.
    Evict(u64, Arc<str>),
    /// The clients of a node that is gone.
    CleanUp(u64),
    /// This node: whether the server works.
    Probe,
    /// Nobody.
    Nobody,
}

/// The echo behind a command to hear channels, or not to hear them any more.
pub(super) struct Fence {
    pub(super) number: u64,
    pub(super) ear: SubscriptionChange,
    /// Whether an error has come in place of pushes.
    pub(super) is_refused: bool,
    /// What the command was about.
    pub(super) names: Arc<[String]>,
}

/// A request of an endpoint, kept until it is answered.
pub(super) struct OpenRequest {
    pub(super) endpoint: Endpoint,
    pub(super) request: BrokerRequest,
    pub(super) deadline: Instant,
    /// What was read of a long answer, when it is not whole.
    pub(super) progress: Option<Box<PageProgress>>,
}

impl OpenRequest {
    pub(super) fn new(
        endpoint: Endpoint,
        request: BrokerRequest,
        deadline: Instant,
    ) -> OpenRequest {
        OpenRequest { endpoint, request, deadline, progress: None }
    }
}

/// To hear or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SubscriptionChange {
    Open,
    Close,
    /// What this node publishes to itself is heard.
    Probe,
}

/// What a publication to ourselves tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trial {
    /// What every server must do.
    Usual,
    /// Every command that scripts use, each of which its user may lack.
    All,
}

/// How a server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Fine,
    /// It owes answers.
    Silent,
    /// It owes so much that the connection must be given up.
    Hopeless,
}

/// Time between publications to ourselves.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);

impl Up {
    pub(super) fn new(now: Instant, opened: Opened) -> Up {
        Up {
            opened,
            out: Vec::new(),
            in_flight: VecDeque::new(),
            window: ReadWindow::default(),
            late: 0,
            next_fence: 0,
            probe_sent: None,
            next_probe: now,
            is_verified: false,
            trial: Trial::All,
            probing: Trial::All,
            refusal: None,
            subscribe_refusal: None,
            master_check: MasterCheck::new(now),
        }
    }

    /// Notes that a command was written.
    pub(super) fn expect(&mut self, sent: SentCommand) {
        self.window.begin(sent.reserved);
        self.in_flight.push_back(sent);
    }

    /// What the next answer is for.
    pub(super) fn head(&self) -> Option<&SentCommand> {
        self.in_flight.front()
    }

    /// The command to hear, or not to, that is answered next.
    pub(super) fn head_fence(&mut self) -> Option<(usize, &mut Fence)> {
        match self.in_flight.front_mut()? {
            SentCommand { partition, purpose: Purpose::Fence(fence), .. } => {
                Some((*partition, fence))
            }
            _ => None,
        }
    }

    /// The next answer has come.
    pub(super) fn answered(&mut self) -> Option<SentCommand> {
        self.late = self.late.saturating_sub(1);
        let sent = self.in_flight.pop_front()?;
        self.window.end(sent.reserved);
        Some(sent)
    }

    /// Everything that will not be answered, and what was not sent at all.
    pub(super) fn into_unanswered(mut self) -> (VecDeque<SentCommand>, Vec<OpenRequest>) {
        (self.in_flight, self.window.take_all())
    }

    /// Commands that are not answered.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Whether answers are overdue. Then nothing more is asked: whoever asks knows at once.
    pub(super) fn is_silent(&self) -> bool {
        self.late > 0
    }

    /// Writes that channels of Redis are heard from here on, or not; gives the number of the fence
    /// behind that.
    pub(super) fn listen(
        &mut self,
        names: &[String],
        ear: SubscriptionChange,
        partition: usize,
        deadline: Instant,
    ) -> u64 {
        let command: &[u8] = match (ear, self.opened.has_shards) {
            (SubscriptionChange::Open | SubscriptionChange::Probe, false) => b"SUBSCRIBE",
            (SubscriptionChange::Open | SubscriptionChange::Probe, true) => b"SSUBSCRIBE",
            (SubscriptionChange::Close, false) => b"UNSUBSCRIBE",
            (SubscriptionChange::Close, true) => b"SUNSUBSCRIBE",
        };
        let mut words = vec![command];
        words.extend(names.iter().map(String::as_bytes));
        encode(&mut self.out, &words);
        self.next_fence += 1;
        let number = self.next_fence;
        encode(&mut self.out, &[b"ECHO", number.to_string().as_bytes()]);
        let fence = Fence { number, ear, is_refused: false, names: names.into() };
        self.expect(SentCommand::new(partition, deadline, Purpose::Fence(fence)));
        number
    }

    /// Takes what is overdue from those who wait for it, and says how the server does.
    pub(super) fn check(
        &mut self,
        now: Instant,
        io_timeout: Duration,
    ) -> (Vec<OpenRequest>, Condition) {
        let mut given_up = self.window.take_late(now);
        while let Some(sent) = self.in_flight.get_mut(self.late)
            && sent.deadline <= now
        {
            self.late += 1;
            if matches!(sent.purpose, Purpose::Ask(_))
                && let Purpose::Ask(asked) = std::mem::replace(&mut sent.purpose, Purpose::Nobody)
            {
                given_up.push(asked);
            }
        }
        let oldest = self.in_flight.front();
        let is_hopeless = oldest.is_some_and(|sent| sent.deadline + io_timeout <= now)
            || self.in_flight.len() > IN_FLIGHT_MAX
            // It answers, but nothing comes through its channels.
            || self.probe_sent.is_some_and(|sent| sent + 2 * io_timeout <= now);
        let condition = match (is_hopeless, self.is_silent()) {
            (true, _) => Condition::Hopeless,
            (false, true) => Condition::Silent,
            (false, false) => Condition::Fine,
        };
        (given_up, condition)
    }

    /// Whether it is time for a publication to ourselves; the caller sends it.
    pub(super) fn begins_probe(&mut self, now: Instant) -> bool {
        let begins = self.next_probe <= now && self.probe_sent.is_none() && !self.is_silent();
        if begins {
            (self.probe_sent, self.probing) = (Some(now), self.trial);
            self.next_probe = now + PROBE_INTERVAL;
        }
        begins
    }

    /// It does not do what is needed; what it does is used still.
    pub(super) fn refuse(&mut self, text: &[u8]) {
        self.refusal = Some(UnavailableReason::of_answer(&self.opened.address, text));
        self.trial = Trial::All;
        self.probe_sent = None;
    }

    /// Its user lacks a right to something that was asked: it is not what is needed until
    /// everything is allowed.
    pub(super) fn deny(&mut self, reason: UnavailableReason) {
        self.refusal = Some(reason);
        self.trial = Trial::All;
    }

    /// It does not let this node hear what it publishes to itself.
    pub(super) fn refuse_probe(&mut self, text: &[u8]) {
        self.subscribe_refusal = Some(UnavailableReason::of_answer(&self.opened.address, text));
        self.probe_sent = None;
    }

    /// The publication to ourselves was not made, for a reason that passes.
    pub(super) fn forget_probe(&mut self) {
        self.probe_sent = None;
    }

    /// A publication to ourselves is back; says how long that took.
    pub(super) fn ends_probe(&mut self, now: Instant) -> Option<Duration> {
        self.is_verified = true;
        if self.probing == Trial::All && self.probe_sent.is_some() {
            (self.refusal, self.trial) = (None, Trial::Usual);
        }
        self.probe_sent.take().map(|sent| now.duration_since(sent))
    }
}
