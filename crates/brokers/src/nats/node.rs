//! The node: the thread of the broker, with its connection to NATS, its streams and its channel
//! tasks.
//!
//! Invariant: every request taken is replied to, whatever happens to the connection. After a
//! connection was lost, the node creates missing streams, stores the presence of its clients again
//! and verifies every channel with subscribers. Failures of tasks are reported: see
//! [`super::task`].

use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_nats::ServerError;
use engine::broker::{
    BrokerError, BrokerEvent, BrokerRequest, Control, NodeBusRequest, RegistryRequest, Ticket,
};
use futures_util::StreamExt;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::FaultPoint;
use super::Shared;
use super::address::{connect, without_secrets};
use super::announcements::Announcements;
use super::availability::UnavailableCause;
use super::channel_task::ChannelTaskInput;
use super::channel_tasks::ChannelTasks;
use super::connection_events::{ConnectionEvent, ConnectionEvents};
use super::detach_guard::DetachGuard;
use super::inputs::{Inputs, NodeInput, NodeSubscriptions, next};
use super::lifecycle::LifecyclePublisher;
use super::link::{LinkContext, NatsLink, SILENT};
use super::options::{NatsError, NatsOptions};
use super::presence::PresenceStore;
use super::request::{QueuedRequest, ReplyContext};
use super::request_queue::NodeQueue;
use super::revocations::RevocationStore;
use super::subject::Store;
use super::survey::OpenSurveys;
use super::task::{BROKEN, SingleTask, TaskFailure, Tasks, caught};
use super::upkeep::Upkeep;
use crate::control::{self, NodeMessage};
use crate::limits::{LEASE_RENEWALS, TASK_PROBATION, TASK_RESTART};

/// What the thread of the broker starts with.
pub(super) struct NodeContext {
    pub(super) options: NatsOptions,
    pub(super) link: LinkContext,
    pub(super) requests: UnboundedReceiver<NodeInput>,
    /// The other end of `requests`.
    pub(super) queue: Weak<NodeQueue>,
}

/// See the module.
struct Node {
    link: Rc<NatsLink>,
    options: NatsOptions,
    presence: Rc<PresenceStore>,
    /// `None` without JetStream.
    upkeep: Option<Rc<Upkeep>>,
    channel_tasks: ChannelTasks,
    surveys: Rc<OpenSurveys>,
    announcements: Rc<Announcements>,
    revocations: Rc<RevocationStore>,
    lifecycle: Rc<LifecyclePublisher>,
    shared: Arc<Shared>,
    queue: Weak<NodeQueue>,
    /// Seconds since the start.
    ticks: u64,
    /// When the last task failed; `None` after [`TASK_PROBATION`] without another failure.
    probation: Option<Instant>,
    recovery: SingleTask,
    store_check: SingleTask,
    announcement: SingleTask,
    renewal: SingleTask,
    /// Cloned into every task that must be finished before the node ends.
    task_guard: mpsc::Sender<()>,
    all_tasks_ended: mpsc::Receiver<()>,
}

/// Connects, reports the outcome to `started`, and runs until the broker is dropped.
pub(super) async fn run(context: NodeContext, started: oneshot::Sender<Result<(), NatsError>>) {
    let (mut node, mut inputs) = match Node::start(context).await {
        Ok(made) => made,
        Err(error) => {
            // `NatsBroker::start` waits for this.
            let _sent = started.send(Err(error));
            return;
        }
    };
    let _sent = started.send(Ok(()));
    let mut ticker = tokio::time::interval(Duration::from_secs(1));
    ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // After a panic the node continues: its state is in its channel tasks and its presence.
    loop {
        match caught(node.work(&mut inputs, &mut ticker)).await {
            Ok(None) => break,
            Ok(Some(part)) => panic!("{BROKEN}: {part:?}"),
            Err(message) => {
                node.handle_failure(&TaskFailure { task: "node", message });
                tokio::time::sleep(TASK_RESTART).await;
                node.recover();
            }
        }
    }
    // Other nodes clean up the rest when the lease ends.
    let _late = tokio::time::timeout(END_TIMEOUT, node.end(inputs.requests)).await;
}

impl Node {
    async fn start(context: NodeContext) -> Result<(Node, Inputs), NatsError> {
        let NodeContext { options, link, requests, queue } = context;
        let shared = link.shared.clone();
        let events = Arc::<ConnectionEvents>::default();
        let client = connect(&options, &link.names, shared.clone(), events.clone()).await?;
        let (tasks, failures) = Tasks::new();
        let link = Rc::new(NatsLink::new(client, tasks.clone(), link));
        let server = link.client.server_info();
        info!(server = %server.server_name, version = %server.version, "NATS: connected");
        let echoing = link.clone();
        tasks.keep("echo", move || echoing.clone().run_echo());
        let presence =
            Rc::new(PresenceStore::new(link.clone(), options.name.clone(), options.lease_ms));
        let probe_after = Duration::from_millis(options.lease_ms / LEASE_RENEWALS);
        let upkeep = options.jetstream.clone();
        let upkeep =
            upkeep.map(|jetstream| Rc::new(Upkeep::new(presence.clone(), jetstream, probe_after)));
        let entered = Node::enter(&link, upkeep.as_deref(), &options).await;
        let subscriptions = entered.map_err(|error| missing_right(&link).unwrap_or(error))?;
        let surveys = Rc::new(OpenSurveys::new(link.clone(), presence.clone()));
        let announcements =
            Rc::new(Announcements::new(link.clone(), options.name.clone(), options.lease_ms));
        let revocations = Rc::new(RevocationStore::new(link.clone()));
        let lifecycle = Rc::new(LifecyclePublisher::new(presence.clone()));
        let publisher = lifecycle.clone();
        tasks.keep("lifecycle", move || publisher.clone().run());
        let (task_guard, all_tasks_ended) = mpsc::channel(1);
        let channel_tasks = ChannelTasks::new(presence.clone(), task_guard.clone());
        let node = Node {
            link,
            options,
            presence,
            upkeep,
            channel_tasks,
            surveys,
            announcements,
            revocations,
            lifecycle,
            shared,
            queue,
            ticks: 0,
            probation: None,
            recovery: SingleTask::default(),
            store_check: SingleTask::default(),
            announcement: SingleTask::default(),
            renewal: SingleTask::default(),
            task_guard,
            all_tasks_ended,
        };
        node.compare_sizes();
        Ok((node, Inputs { requests, events, failures, subscriptions }))
    }

    /// Subscribes to what concerns no channel, and creates missing streams.
    async fn enter(
        link: &NatsLink,
        upkeep: Option<&Upkeep>,
        options: &NatsOptions,
    ) -> Result<NodeSubscriptions, NatsError> {
        let silent = |_: BrokerError| NatsError::Unreachable {
            url: without_secrets(&options.url),
            reason: "it does not answer".into(),
        };
        let subscriptions = NodeSubscriptions::open(link).await.map_err(silent)?;
        if let Some(refusal) = link.try_rights().await.map_err(silent)? {
            return Err(NatsError::Right(refusal.reason(&link.names)));
        }
        if let Some(upkeep) = upkeep {
            upkeep.set_up(silent).await?;
        }
        Ok(subscriptions)
    }

    /// Handles inputs until the broker ends; returns a part that a test lets fail together with the
    /// whole thread.
    async fn work(
        &mut self,
        inputs: &mut Inputs,
        ticker: &mut tokio::time::Interval,
    ) -> Option<FaultPoint> {
        let link = self.link.clone();
        let subscriptions = &mut inputs.subscriptions;
        loop {
            tokio::select! {
                input = inputs.requests.recv() => match input {
                    Some(NodeInput::End) | None => return None,
                    Some(NodeInput::Break(part @ FaultPoint::Thread)) => return Some(part),
                    Some(input) => self.handle(input).await,
                },
                message = subscriptions.controls.next() => {
                    let message = message.unwrap_or_else(|| self.link_has_ended());
                    if let Some(message) = control::decode(&message.payload) {
                        self.handle_control(message);
                    }
                }
                event = inputs.events.next() => self.handle_event(&event),
                Some(failure) = inputs.failures.recv() => self.handle_failure(&failure),
                // The message may arrive before it is certain that the generation was stored.
                Some(_) = next(&mut subscriptions.generations) => self.check_store(),
                Some(_) = next(&mut subscriptions.leaders) => self.check_store(),
                () = link.wants_store_check.notified() => self.check_store(),
                () = link.wants_verification.notified() => self.verify(),
                _ = ticker.tick() => self.tick(),
            }
        }
    }

    async fn handle(&mut self, input: NodeInput) {
        match input {
            NodeInput::End => {}
            NodeInput::Detach(endpoint) => {
                let (guard, are_handled) = DetachGuard::new();
                if let Some(detaching) = self.presence.detach(endpoint, are_handled) {
                    let task_guard = self.task_guard.clone();
                    self.link.tasks.spawn("detach", async move {
                        detaching.await;
                        drop(task_guard);
                    });
                }
                self.lifecycle.forget(endpoint);
                self.channel_tasks.detach(endpoint, &guard);
            }
            NodeInput::Options => {
                let announcements = self.announcements.clone();
                self.link.tasks.spawn("options", async move { announcements.ask().await });
            }
            NodeInput::Request(request) => self.handle_request(request).await,
            NodeInput::Break(part) => self.break_part(part).await,
        }
    }

    async fn handle_request(&mut self, request: QueuedRequest) {
        if let Some(channel) = request.what().channel().cloned() {
            return self.channel_tasks.send_request(&channel, request);
        }
        let (what, context) = request.open();
        match what {
            BrokerRequest::NodeBus(what) => self.handle_node_bus(what, context).await,
            BrokerRequest::Registry(what) => self.handle_registry(what, context),
            BrokerRequest::Publications(_) | BrokerRequest::Presence(_) => {
                unreachable!("a request with a channel")
            }
        }
    }

    async fn handle_node_bus(&mut self, what: NodeBusRequest, context: ReplyContext) {
        match what {
            NodeBusRequest::Control(control) => self.send_order(&control).await,
            NodeBusRequest::Survey { id, question } => {
                let (surveys, reply) = (self.surveys.clone(), context.reply(id));
                self.link.tasks.spawn("survey", async move {
                    reply.send(surveys.ask(&question).await);
                });
            }
            NodeBusRequest::Answer { ticket, answer } => self.answer(&ticket, &answer).await,
            NodeBusRequest::Lifecycle(lifecycle) => {
                self.lifecycle.note(context.endpoint, lifecycle);
            }
        }
    }

    fn handle_registry(&self, what: RegistryRequest, context: ReplyContext) {
        let revocations = self.revocations.clone();
        match what {
            RegistryRequest::Revoke { id, revocation } => {
                let (reply, task_guard) = (context.reply(id), self.task_guard.clone());
                self.link.tasks.spawn("revoke", async move {
                    reply.send(revocations.revoke(&revocation).await);
                    drop(task_guard);
                });
            }
            RegistryRequest::Find { id, subject } => {
                let reply = context.reply(id);
                self.link.tasks.spawn("revocation", async move {
                    reply.send(revocations.find(&subject).await);
                });
            }
            RegistryRequest::Read { id } => {
                let reply = context.reply(id);
                self.link.tasks.spawn("revocations", async move {
                    reply.send(revocations.read().await);
                });
            }
        }
    }

    async fn answer(&self, ticket: &Ticket, answer: &[u8]) {
        let names = &self.link.names;
        let message = control::encode_answer(&names.node, ticket.number, answer);
        let length = message.len();
        // The survey lists nodes without an answer.
        let answered = self.link.publish(names.control_of(&ticket.node), message.into()).await;
        if answered == Err(BrokerError::TooLarge) {
            self.shared.warnings.add(format!(
                "another node is not answered, since the answer is larger than NATS takes ({length} bytes, max_payload of nats-server)"
            ));
        }
    }

    /// Handles a message of another node.
    fn handle_control(&self, message: NodeMessage) {
        match message {
            NodeMessage::Order(control) => self.shared.endpoints.notify_order(&Arc::new(control)),
            NodeMessage::Question { ticket, question } if ticket.node != self.link.names.node => {
                self.shared.endpoints.notify_all(&BrokerEvent::Question { ticket, question });
            }
            NodeMessage::Question { .. } | NodeMessage::Look => {}
            NodeMessage::Options(options) => {
                if self.announcements.handle(options) {
                    self.announce();
                }
            }
            NodeMessage::Revocation(revocation) => {
                self.shared.endpoints.notify_all(&BrokerEvent::Revocation(Arc::new(revocation)));
            }
            NodeMessage::Answer { node, number, answer } => {
                self.surveys.handle_answer(&node, number, answer);
            }
        }
    }

    fn announce(&self) {
        let announcements = self.announcements.clone();
        self.link.tasks.spawn_single("options", &self.announcement, move || {
            let announcements = announcements.clone();
            async move { announcements.send().await }
        });
    }

    /// Sends an order to all nodes, or, without a connection, to the endpoints of this node.
    async fn send_order(&self, order: &Arc<Control>) {
        let payload = control::encode(order).into();
        let published = self.link.publish(self.link.names.control(), payload).await;
        if published == Err(BrokerError::TooLarge) {
            self.shared.warnings.add(
                "an order of the server API has reached this node only, since it is larger than NATS takes (max_payload of nats-server)"
                    .to_owned(),
            );
        }
        if published.is_err() {
            self.shared.endpoints.notify_order(order);
        }
    }

    /// Handles the remaining requests, publishes the remaining events, and removes this node's
    /// entries and lease. Other nodes clean up what cannot be published.
    async fn end(mut self, mut requests: UnboundedReceiver<NodeInput>) {
        requests.close();
        while let Some(input) = requests.recv().await {
            self.handle(input).await;
        }
        for endpoint in self.shared.endpoints.all() {
            self.handle(NodeInput::Detach(endpoint)).await;
        }
        let Node { link, presence, channel_tasks, lifecycle, task_guard, .. } = self;
        let mut all_tasks_ended = self.all_tasks_ended;
        drop((channel_tasks, task_guard));
        // Nothing is sent: `recv` returns when the last task has dropped its sender.
        let _closed = all_tasks_ended.recv().await;
        lifecycle.end().await;
        // Flushes the connection.
        let _unanswered = link.echo().await;
        if link.has_jetstream && lifecycle.is_quiet() && presence.is_empty() {
            presence.end().await;
        }
    }

    fn handle_event(&mut self, event: &ConnectionEvent) {
        match event {
            ConnectionEvent::Connected => {
                let server = self.link.client.server_info();
                info!(server = %server.server_name, version = %server.version, "NATS: connected again");
                self.link.is_cut.notify_waiters();
                self.compare_sizes();
                self.recover();
            }
            ConnectionEvent::Dropped => {
                warn!(
                    "NATS: messages were dropped, since this node is too slow; every stream is verified"
                );
                self.recover();
            }
            ConnectionEvent::Lost => {
                info!("NATS: the connection is lost");
                self.link.is_cut.notify_waiters();
                self.shared.availability.set(UnavailableCause::Link, SILENT);
            }
            ConnectionEvent::Error(ServerError::Other(text)) => self.handle_refusal(text),
            ConnectionEvent::Error(error) => warn!(%error, "NATS: error of the server"),
            ConnectionEvent::Stopping => info!("NATS: the server is going to stop"),
        }
    }

    fn handle_refusal(&self, text: &str) {
        match self.shared.denied_subjects.first() {
            Some(refusal) => {
                let reason = refusal.reason(&self.link.names);
                self.shared.availability.set(UnavailableCause::Rights, &reason);
            }
            None => warn!(error = text, "NATS: error of the server"),
        }
    }

    /// Makes the node unready until no task has failed for [`TASK_PROBATION`].
    fn handle_failure(&mut self, failure: &TaskFailure) {
        let TaskFailure { task, message } = failure;
        error!(task, message, "NATS: a task of the broker has failed, and is started again");
        let reason = format!(
            "a task of the NATS broker ({task}) has failed and was started again: {message}"
        );
        self.shared.availability.set(UnavailableCause::Task, &reason);
        self.probation = Some(Instant::now());
    }

    /// The client library has ended, and the node cannot work without it.
    fn link_has_ended<T>(&self) -> T {
        super::abort_process("the client has ended")
    }

    async fn break_part(&mut self, part: FaultPoint) {
        match part {
            FaultPoint::Node | FaultPoint::Thread => panic!("{BROKEN}"),
            FaultPoint::Channel(channel) => {
                self.channel_tasks.send(&channel, ChannelTaskInput::Break);
            }
            FaultPoint::Lifecycle => self.lifecycle.break_it(),
            FaultPoint::Task => self.link.tasks.spawn("task", async { panic!("{BROKEN}") }),
            FaultPoint::Echo => self.link.break_echo(),
            // The outcome does not matter: the test waits for the process to end.
            FaultPoint::Client => drop(self.link.client.drain().await),
        }
    }

    /// Adds a warning if NATS takes smaller messages than clients may send.
    fn compare_sizes(&self) {
        let (carried, sent) = (self.link.client.max_payload(), self.options.message_size_max);
        if carried < sent {
            self.shared.warnings.add(format!(
                "websocket.message_size_limit ({sent}) allows publications that are larger than max_payload of nats-server ({carried}); \
                 they are refused as too large (107): raise max_payload, or lower the limit"
            ));
        }
    }

    /// After a lost connection or dropped messages: restores the store and the presence entries,
    /// and verifies every channel with subscribers.
    fn recover(&mut self) {
        let (upkeep, presence) = (self.upkeep.clone(), self.presence.clone());
        let lifecycle = self.lifecycle.clone();
        let link = self.link.clone();
        self.link.tasks.spawn_single("recovery", &self.recovery, move || {
            let (upkeep, presence) = (upkeep.clone(), presence.clone());
            let (link, lifecycle) = (link.clone(), lifecycle.clone());
            async move {
                // Clears the cause `Link` if NATS answers.
                let _later = link.echo().await;
                // Not delayed by the store, whose restoration may take long: readers retry until
                // then.
                link.shared.endpoints.notify_all(&BrokerEvent::RevocationsStale);
                if let Some(upkeep) = upkeep {
                    if upkeep.restore().await.is_err() {
                        return;
                    }
                    presence.request_restore();
                    renew(&presence, &lifecycle).await;
                }
                lifecycle.wake();
                link.wants_verification.notify_one();
                // Errors for subjects that are refused again arrive before the echo.
                if link.echo().await.is_ok() && link.shared.denied_subjects.first().is_none() {
                    link.shared.availability.clear(UnavailableCause::Rights);
                }
            }
        });
    }

    /// Checks the store, which may have lost messages without a lost connection. Reads wait for the
    /// result.
    fn check_store(&self) {
        if let Some(upkeep) = self.upkeep.clone() {
            self.link.tasks.spawn_single("store", &self.store_check, move || {
                let upkeep = upkeep.clone();
                async move { upkeep.check().await }
            });
        }
    }

    /// Notifies subscribers with a position of the position that the store has now.
    fn verify(&mut self) {
        self.channel_tasks.running().verify();
    }

    /// The work of each second: measures the lag, and in turn renews the lease, announces the
    /// options and retries what failed.
    fn tick(&mut self) {
        self.ticks += 1;
        if self.probation.is_some_and(|since| since.elapsed() >= TASK_PROBATION) {
            self.probation = None;
            self.shared.availability.clear(UnavailableCause::Task);
        }
        self.lifecycle.wake();
        if let Some(queue) = self.queue.upgrade() {
            queue.resume();
        }
        let (link, presence) = (self.link.clone(), &self.presence);
        let interval = (self.options.lease_ms / LEASE_RENEWALS / 1000).max(1);
        let is_turn = self.ticks.is_multiple_of(interval);
        if is_turn {
            self.announcements.refresh();
            self.announce();
        }
        let renews = link.has_jetstream && (is_turn || presence.has_pending_work());
        let is_refused = self.shared.availability.has(UnavailableCause::Rights);
        let tries_rights = is_turn && (is_refused || self.shared.denied_subjects.first().is_some());
        self.channel_tasks.remove_ended();
        if renews {
            self.renew();
        }
        if renews || !self.link.is_verified() || self.link.is_stream_missing.get() {
            self.check_store();
        }
        self.link.tasks.spawn("tick", async move {
            // Failures are recorded in the availability and retried with the next tick.
            let sent = Instant::now();
            if link.echo().await.is_ok() {
                let lag_us = u64::try_from(sent.elapsed().as_micros()).unwrap_or(u64::MAX);
                link.shared.lag_us.store(lag_us, std::sync::atomic::Ordering::Relaxed);
            }
            if tries_rights {
                link.check_rights().await;
            }
        });
    }

    /// Renews the lease. While NATS does not answer, further renewals become one.
    fn renew(&self) {
        let (presence, lifecycle) = (self.presence.clone(), self.lifecycle.clone());
        self.link.tasks.spawn_single("renewal", &self.renewal, move || {
            let (presence, lifecycle) = (presence.clone(), lifecycle.clone());
            async move { renew(&presence, &lifecycle).await }
        });
    }
}

/// Renews the lease; if another node has cleaned up this one meanwhile, sends the lifecycle events
/// of all online clients again.
async fn renew(presence: &PresenceStore, lifecycle: &LifecyclePublisher) {
    // A failure is retried with one of the next ticks.
    let renewed = presence.renew().await;
    if presence.take_resend() {
        lifecycle.requeue_online();
    } else if renewed.is_ok() && presence.has_published_all() && lifecycle.is_quiet() {
        // Another node has published what this one could not, and no event is left to test the
        // stream with.
        presence.link.shared.availability.clear(UnavailableCause::Store(Store::Events));
    }
}

/// The right that was refused when a start failed with another error.
fn missing_right(link: &NatsLink) -> Option<NatsError> {
    let refusal = link.shared.denied_subjects.first()?;
    Some(NatsError::Right(refusal.reason(&link.names)))
}

/// Time limit for the end of a node.
const END_TIMEOUT: Duration = Duration::from_secs(4);
