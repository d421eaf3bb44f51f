//! This process at NATS: its thread, its link, its streams, its channel tasks.
//!
//! Invariant: a request that was taken is answered, whatever happens to the link; after a cut the
//! streams are there again, this node's clients are present again, and every subscribed stream is
//! verified. A failure of a task does not pass in silence: see [`super::task`].

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Event, ServerError, Subscriber};
use engine::broker::{BrokerError, BrokerEvent, BrokerReply, BrokerRequest, Control, Ticket};
use futures_util::StreamExt;
use futures_util::stream::{SelectAll, select_all};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::FaultPoint;
use super::Shared;
use super::address::{connect, without_secrets};
use super::announcements::Announcements;
use super::availability::UnavailableCause;
use super::channel_task::{self, Ask, BROKEN};
use super::lifecycle::LifecyclePublisher;
use super::link::{NatsLink, SILENT};
use super::options::{NatsError, NatsOptions};
use super::presence::PresenceStore;
use super::request::QueuedRequest;
use super::revocations::RevocationStore;
use super::stream::ChannelStream;
use super::subject::{self, Names, Store};
use super::survey::OpenSurveys;
use super::task::{TaskFailure, Tasks, caught};
use super::upkeep::Upkeep;
use crate::control::{self, NodeMessage};
use crate::limits::{LEASE_RENEWALS, TASK_PROBATION, TASK_RESTART, VERIFICATIONS_MAX};
use crate::{Clock, Endpoint};

/// What the broker hands to its thread.
#[expect(
    clippy::large_enum_variant,
    reason = "a request is the usual case, and a box would cost it an allocation"
)]
pub(super) enum NodeInput {
    Request(QueuedRequest),
    Detach(Endpoint),
    /// Tell other nodes the channel options, which have changed.
    Options,
    /// Fail, as by a mistake of ours.
    Break(FaultPoint),
    /// After everything before it.
    End,
}

/// See the module.
struct Node {
    link: Rc<NatsLink>,
    options: NatsOptions,
    presence: Rc<PresenceStore>,
    /// Only with JetStream.
    upkeep: Option<Rc<Upkeep>>,
    channel_tasks: HashMap<Arc<str>, UnboundedSender<Ask>>,
    surveys: Rc<OpenSurveys>,
    announcements: Rc<Announcements>,
    revocations: Rc<RevocationStore>,
    lifecycle: Rc<LifecyclePublisher>,
    shared: Arc<Shared>,
    beats: u64,
    /// Since when no task has failed, if one has of late.
    probation: Option<Instant>,
    /// Held by whatever must be done before the end.
    busy: mpsc::Sender<()>,
    is_done: mpsc::Receiver<()>,
}

/// Where everything comes from that this node handles.
struct Inputs {
    jobs: UnboundedReceiver<NodeInput>,
    /// Of the connection.
    events: UnboundedReceiver<Event>,
    failures: UnboundedReceiver<TaskFailure>,
    /// What this process hears that is about no channel.
    controls: SelectAll<Subscriber>,
    generations: Option<Subscriber>,
    /// That a server of a cluster has come to lead the history stream.
    leaders: Option<Subscriber>,
}

/// Connects and, once everything is in place, works until the broker is dropped.
pub(super) async fn run(
    options: NatsOptions,
    names: Names,
    clock: Arc<dyn Clock>,
    shared: Arc<Shared>,
    jobs: UnboundedReceiver<NodeInput>,
    started: oneshot::Sender<Result<(), NatsError>>,
) {
    let (mut node, mut inputs) = match Node::start(options, names, clock, shared, jobs).await {
        Ok(made) => made,
        Err(error) => {
            // Whoever started us waits for this.
            let _sent = started.send(Err(error));
            return;
        }
    };
    let _sent = started.send(Ok(()));
    let mut beat = tokio::time::interval(Duration::from_secs(1));
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // What the node knows is in its channel tasks and its presence: it goes on with them.
    loop {
        match caught(node.work(&mut inputs, &mut beat)).await {
            Ok(None) => break,
            Ok(Some(part)) => panic!("{BROKEN}: {part:?}"),
            Err(message) => {
                node.handle_failure(&TaskFailure { task: "node", message });
                tokio::time::sleep(TASK_RESTART).await;
                node.recover();
            }
        }
    }
    // What is not done then, other nodes find when the lease ends.
    let _late = tokio::time::timeout(END_TIMEOUT, node.end(inputs.jobs)).await;
}

impl Node {
    async fn start(
        options: NatsOptions,
        names: Names,
        clock: Arc<dyn Clock>,
        shared: Arc<Shared>,
        jobs: UnboundedReceiver<NodeInput>,
    ) -> Result<(Node, Inputs), NatsError> {
        let (events_in, events) = unbounded_channel();
        let client = connect(&options, &names, shared.clone(), events_in).await?;
        let (tasks, failures) = Tasks::new();
        let keeps = options.jetstream.is_some();
        let link =
            Rc::new(NatsLink::new(client, names, keeps, clock, tasks.clone(), shared.clone()));
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
        let (controls, generations, leaders) =
            entered.map_err(|error| missing_right(&link).unwrap_or(error))?;
        let surveys = Rc::new(OpenSurveys::new(link.clone(), presence.clone()));
        let announcements =
            Rc::new(Announcements::new(link.clone(), options.name.clone(), options.lease_ms));
        let revocations = Rc::new(RevocationStore::new(link.clone()));
        let lifecycle = Rc::new(LifecyclePublisher::new(presence.clone()));
        let publisher = lifecycle.clone();
        tasks.keep("lifecycle", move || publisher.clone().run());
        let (busy, is_done) = mpsc::channel(1);
        let node = Node {
            link,
            options,
            presence,
            upkeep,
            channel_tasks: HashMap::new(),
            surveys,
            announcements,
            revocations,
            lifecycle,
            shared,
            beats: 0,
            probation: None,
            busy,
            is_done,
        };
        node.compare_sizes();
        Ok((node, Inputs { jobs, events, failures, controls, generations, leaders }))
    }

    /// Subscribes to what is about no channel, and finds or makes the streams.
    async fn enter(
        link: &Rc<NatsLink>,
        upkeep: Option<&Upkeep>,
        options: &NatsOptions,
    ) -> Result<(SelectAll<Subscriber>, Option<Subscriber>, Option<Subscriber>), NatsError> {
        let silent = |_: BrokerError| NatsError::Unreachable {
            url: without_secrets(&options.url),
            reason: "it does not answer".into(),
        };
        let to_all = link.subscribe(link.names.control()).await.map_err(silent)?;
        let own = link.names.control_of(&link.names.node);
        let to_this = link.subscribe(own).await.map_err(silent)?;
        let controls = select_all([to_all, to_this]);
        let (mut generations, mut leaders) = (None, None);
        if link.keeps {
            generations = Some(link.subscribe(link.names.generation()).await.map_err(silent)?);
            leaders = Some(link.subscribe(link.names.leaders()).await.map_err(silent)?);
        }
        if let Some(refusal) = link.try_rights().await.map_err(silent)? {
            return Err(NatsError::Right(refusal.reason(&link.names)));
        }
        if let Some(upkeep) = upkeep {
            upkeep.set_up(silent).await?;
        }
        Ok((controls, generations, leaders))
    }

    /// Ends when the broker does, or with a part that takes everything with it.
    async fn work(
        &mut self,
        inputs: &mut Inputs,
        beat: &mut tokio::time::Interval,
    ) -> Option<FaultPoint> {
        let link = self.link.clone();
        loop {
            tokio::select! {
                job = inputs.jobs.recv() => match job {
                    Some(NodeInput::End) | None => return None,
                    Some(NodeInput::Break(part @ FaultPoint::Thread)) => return Some(part),
                    Some(job) => self.handle(job).await,
                },
                message = inputs.controls.next() => {
                    let message = message.unwrap_or_else(|| self.link_has_ended());
                    if let Some(message) = control::decode(&message.payload) {
                        self.handle_control(message);
                    }
                }
                Some(event) = inputs.events.recv() => self.handle_event(&event),
                Some(failure) = inputs.failures.recv() => self.handle_failure(&failure),
                // Whoever begins a generation is heard before it is known whether it was stored.
                Some(_) = next(&mut inputs.generations) => self.look(),
                Some(_) = next(&mut inputs.leaders) => self.look(),
                () = link.generations.has_doubts.notified() => self.look(),
                () = link.misses_stream.notified() => self.look(),
                () = link.generations.wants_verification.notified() => self.verify(),
                _ = beat.tick() => self.beat(),
            }
        }
    }

    async fn handle(&mut self, job: NodeInput) {
        match job {
            NodeInput::End => {}
            NodeInput::Detach(endpoint) => {
                if let Some(forgetting) = self.presence.forget(endpoint) {
                    let busy = self.busy.clone();
                    self.link.tasks.spawn("detach", async move {
                        forgetting.await;
                        drop(busy);
                    });
                }
                self.lifecycle.forget(endpoint);
                self.channel_tasks.retain(|_, task| task.send(Ask::Forget(endpoint)).is_ok());
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
        let QueuedRequest { endpoint, what, reply } = request;
        match what {
            BrokerRequest::Control(control) => self.send_order(&control).await,
            BrokerRequest::Survey { question, .. } => {
                let surveys = self.surveys.clone();
                self.link.tasks.spawn("survey", async move {
                    let result = surveys.ask(&question).await.map(BrokerReply::Survey);
                    reply.send(result);
                });
            }
            BrokerRequest::Revoke { revocation, .. } => {
                let (revocations, busy) = (self.revocations.clone(), self.busy.clone());
                self.link.tasks.spawn("revoke", async move {
                    reply.send(revocations.revoke(&revocation).await);
                    drop(busy);
                });
            }
            BrokerRequest::FindRevocation { subject, .. } => {
                let revocations = self.revocations.clone();
                self.link.tasks.spawn("revocation", async move {
                    reply.send(revocations.find(&subject).await);
                });
            }
            BrokerRequest::ReadRevocations { .. } => {
                let revocations = self.revocations.clone();
                self.link.tasks.spawn("revocations", async move {
                    reply.send(revocations.read().await);
                });
            }
            BrokerRequest::Answer { ticket, answer } => self.answer(&ticket, &answer).await,
            BrokerRequest::Lifecycle(lifecycle) => self.lifecycle.note(endpoint, lifecycle),
            what => {
                let Some(channel) = what.channel().cloned() else { return };
                self.ask(&channel, Ask::Request(QueuedRequest { endpoint, what, reply }));
            }
        }
    }

    async fn answer(&self, ticket: &Ticket, answer: &[u8]) {
        let names = &self.link.names;
        let said = control::encode_answer(&names.node, ticket.number, answer);
        let length = said.len();
        // The one that asks is told who has not answered.
        let answered = self.link.publish(names.control_of(&ticket.node), said.into()).await;
        if answered == Err(BrokerError::TooLarge) {
            self.shared.warnings.add(format!(
                "another node is not answered, since the answer is larger than NATS takes ({length} bytes, max_payload of nats-server)"
            ));
        }
    }

    /// A node has something to say.
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
                self.surveys.handle_answer(node, number, answer);
            }
        }
    }

    fn announce(&self) {
        let announcements = self.announcements.clone();
        self.link.tasks.spawn("options", async move { announcements.send().await });
    }

    /// An order goes to all nodes through NATS, or, while that is away, at least to the endpoints
    /// here.
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

    fn ask(&mut self, channel: &Arc<str>, mut ask: Ask) {
        loop {
            let task = self.channel_tasks.entry(channel.clone()).or_insert_with(|| {
                let token = subject::token(channel).into();
                let place =
                    ChannelStream { link: self.link.clone(), channel: channel.clone(), token };
                channel_task::open(place, self.presence.clone(), self.busy.clone())
            });
            match task.send(ask) {
                Ok(()) => return,
                // The channel task has ended after the idle timeout.
                Err(back) => ask = back.0,
            }
            self.channel_tasks.remove(channel);
        }
    }

    /// Does what was asked, tells what is new, and leaves nothing behind. What could not be told is
    /// left for others to find.
    async fn end(mut self, mut jobs: UnboundedReceiver<NodeInput>) {
        jobs.close();
        while let Some(job) = jobs.recv().await {
            self.handle(job).await;
        }
        for endpoint in self.shared.endpoints.all() {
            self.handle(NodeInput::Detach(endpoint)).await;
        }
        let Node { link, presence, channel_tasks, lifecycle, busy, mut is_done, .. } = self;
        drop((channel_tasks, busy));
        // Nothing is sent: it ends when nobody is busy any more.
        let _nobody = is_done.recv().await;
        // Channel tasks may have done for endpoints what was asked before these were gone.
        for endpoint in presence.endpoints() {
            if let Some(forgetting) = presence.forget(endpoint) {
                forgetting.await;
            }
        }
        lifecycle.end().await;
        // What was handed to the connection has left it then.
        let _unanswered = link.echo().await;
        if link.keeps && lifecycle.is_quiet() && presence.is_empty() {
            presence.end().await;
        }
    }

    fn handle_event(&mut self, event: &Event) {
        match event {
            Event::Connected => {
                let server = self.link.client.server_info();
                info!(server = %server.server_name, version = %server.version, "NATS: connected again");
                self.link.is_cut.notify_waiters();
                self.compare_sizes();
                self.recover();
            }
            Event::SlowConsumer(_) => {
                warn!(
                    "NATS: messages were dropped, since this node is too slow; every stream is verified"
                );
                self.recover();
            }
            Event::Disconnected | Event::Closed => {
                info!("NATS: the connection is lost");
                self.link.is_cut.notify_waiters();
                self.shared.availability.set(UnavailableCause::Link, SILENT);
            }
            Event::ServerError(ServerError::Other(text)) => self.handle_refusal(text),
            Event::ServerError(error) => warn!(%error, "NATS: error of the server"),
            Event::LameDuckMode => info!("NATS: the server is going to stop"),
            Event::Draining | Event::ClientError(_) => {}
        }
    }

    fn handle_refusal(&self, text: &str) {
        match self.shared.refusals.first() {
            Some(refusal) => {
                let reason = refusal.reason(&self.link.names);
                self.shared.availability.set(UnavailableCause::Rights, &reason);
            }
            None => warn!(error = text, "NATS: error of the server"),
        }
    }

    /// A task has failed: this node is not ready until what was started again has lived for a
    /// while.
    fn handle_failure(&mut self, failure: &TaskFailure) {
        let TaskFailure { task, message } = failure;
        error!(task, message, "NATS: a task of the broker has failed, and is started again");
        let reason = format!(
            "a task of the NATS broker ({task}) has failed and was started again: {message}"
        );
        self.shared.availability.set(UnavailableCause::Task, &reason);
        self.probation = Some(Instant::now());
    }

    /// A client of NATS that ends cannot be trusted any more; this node cannot do without it.
    fn link_has_ended<T>(&self) -> T {
        super::die("the client has ended")
    }

    async fn break_part(&mut self, part: FaultPoint) {
        match part {
            FaultPoint::Node | FaultPoint::Thread => panic!("{BROKEN}"),
            FaultPoint::Channel(channel) => self.ask(&channel, Ask::Break),
            FaultPoint::Lifecycle => self.lifecycle.break_it(),
            FaultPoint::Task => self.link.tasks.spawn("task", async { panic!("{BROKEN}") }),
            FaultPoint::Echo => self.link.break_echo(),
            // What it still has to say, nobody hears.
            FaultPoint::Client => drop(self.link.client.drain().await),
        }
    }

    /// A NATS that carries less than clients may send.
    fn compare_sizes(&self) {
        let (carried, sent) = (self.link.client.max_payload(), self.options.message_size_max);
        if carried < sent {
            self.shared.warnings.add(format!(
                "websocket.message_size_limit ({sent}) allows publications that are larger than max_payload of nats-server ({carried}); \
                 they are refused as too large (107): raise max_payload, or lower the limit"
            ));
        }
    }

    /// The link is back, or messages were dropped: everything is put right, and every subscribed
    /// stream is verified.
    fn recover(&mut self) {
        let (upkeep, presence) = (self.upkeep.clone(), self.presence.clone());
        let (channel_tasks, lifecycle) = (self.open_channel_tasks(), self.lifecycle.clone());
        let link = self.link.clone();
        self.link.tasks.spawn("recovery", async move {
            // That shows that NATS answers.
            let _later = link.echo().await;
            // Before the store is whole again, which may take long: whoever reads tries until that
            // succeeds.
            link.shared.endpoints.notify_all(&BrokerEvent::RevocationsStale);
            if let Some(upkeep) = upkeep {
                if upkeep.restore().await.is_err() {
                    return;
                }
                presence.doubt();
                renew(&presence, &lifecycle).await;
            }
            lifecycle.wake();
            verify(&channel_tasks);
            // Whatever was refused anew is known by now: the refusals came first.
            if link.echo().await.is_ok() && link.shared.refusals.first().is_none() {
                link.shared.availability.clear(UnavailableCause::Rights);
            }
        });
    }

    /// The store may have lost something without a cut of the link. Until that is known nothing is
    /// read.
    fn look(&self) {
        if let Some(upkeep) = self.upkeep.clone() {
            self.link.tasks.spawn("store", async move { upkeep.look().await });
        }
    }

    /// Something may have been lost: whoever has a position is told.
    fn verify(&mut self) {
        verify(&self.open_channel_tasks());
    }

    fn open_channel_tasks(&mut self) -> Vec<UnboundedSender<Ask>> {
        self.channel_tasks.retain(|_, task| !task.is_closed());
        self.channel_tasks.values().cloned().collect()
    }

    fn beat(&mut self) {
        self.beats += 1;
        if self.probation.is_some_and(|since| since.elapsed() >= TASK_PROBATION) {
            self.probation = None;
            self.shared.availability.clear(UnavailableCause::Task);
        }
        self.lifecycle.wake();
        let (link, presence) = (self.link.clone(), self.presence.clone());
        let lifecycle = self.lifecycle.clone();
        let interval = (self.options.lease_ms / LEASE_RENEWALS / 1000).max(1);
        let is_turn = self.beats.is_multiple_of(interval);
        if is_turn {
            self.announcements.note();
            self.announce();
        }
        let renews = link.keeps && (is_turn || presence.has_pending_work());
        let is_refused = self.shared.availability.has(UnavailableCause::Rights);
        let tries_rights = is_turn && (is_refused || self.shared.refusals.first().is_some());
        if self.beats.is_multiple_of(10) {
            self.channel_tasks.retain(|_, task| !task.is_closed());
        }
        if renews || !self.link.is_verified() || self.link.is_stream_missing.get() {
            self.look();
        }
        self.link.tasks.spawn("beat", async move {
            // What fails shows in the availability, and is tried again with the next beat.
            let sent = Instant::now();
            if link.echo().await.is_ok() {
                let lag_us = u64::try_from(sent.elapsed().as_micros()).unwrap_or(u64::MAX);
                link.shared.lag_us.store(lag_us, std::sync::atomic::Ordering::Relaxed);
            }
            if tries_rights {
                link.check_rights().await;
            }
            if renews {
                renew(&presence, &lifecycle).await;
            }
        });
    }
}

/// Says that this node lives; if another one has told of its death meanwhile, its clients are told
/// to be online again.
async fn renew(presence: &PresenceStore, lifecycle: &LifecyclePublisher) {
    // Another attempt follows with one of the next beats.
    let renewed = presence.renew().await;
    if presence.take_resend() {
        lifecycle.requeue_online();
    } else if renewed.is_ok() && presence.has_published_all() && lifecycle.is_quiet() {
        // What this node could not tell, another one has, and it has no event to try it with.
        presence.link.shared.availability.clear(UnavailableCause::Store(Store::Events));
    }
}

/// The next message of a subscription that may not be there.
async fn next(subscription: &mut Option<Subscriber>) -> Option<async_nats::Message> {
    match subscription {
        Some(subscription) => subscription.next().await,
        None => std::future::pending().await,
    }
}

/// The right without which a start has failed, however it has shown.
fn missing_right(link: &NatsLink) -> Option<NatsError> {
    let refusal = link.shared.refusals.first()?;
    Some(NatsError::Right(refusal.reason(&link.names)))
}

fn verify(channel_tasks: &[UnboundedSender<Ask>]) {
    let turns = Arc::new(Semaphore::new(VERIFICATIONS_MAX));
    for task in channel_tasks {
        // A channel task that has ended receives nothing.
        let _closed = task.send(Ask::Verify(turns.clone()));
    }
}

/// Time to end in.
const END_TIMEOUT: Duration = Duration::from_secs(4);
