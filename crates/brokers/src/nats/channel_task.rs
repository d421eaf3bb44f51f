//! The task of one channel on this node: it does the I/O that the channel's core asks for, and
//! returns the results to the core.
//!
//! Invariant: no decision is made here. Messages that have arrived reach the core before the answer
//! to a call, so that a reply stands behind them.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use async_nats::{Message, Subscriber};
use engine::broker::BrokerError;
use futures_util::future::{LocalBoxFuture, join_all};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::channel::{ChannelAction, ChannelCore, ChannelInput};
use super::channel_call::{CallAnswer, CallResult, ChannelCall};
use super::idle_tasks::{IdleTasks, IdleTurn};
use super::link::NatsLink;
use super::presence::PresenceStore;
use super::reordering::MessageSequence;
use super::rights::Right;
use super::subject::ChannelName;
use super::task::{BROKEN, caught};
use crate::limits::{MESSAGES_PER_TURN, TASK_RESTART};

/// An input of a channel task.
#[expect(
    clippy::large_enum_variant,
    reason = "a request is the usual case, and a box would cost it an allocation"
)]
pub(super) enum ChannelTaskInput {
    /// An input of the channel's core.
    Core(ChannelInput),
    /// [`ChannelInput::Verify`]; a permit of the semaphore is held during the verification.
    Verify(Arc<Semaphore>),
    /// Panic, for tests of the supervision.
    Break,
}

/// See the module.
struct ChannelTask {
    core: ChannelCore,
    io: ChannelIo,
    /// Boxed, since a queue has room for 32 of them, also while it is empty.
    inputs: UnboundedReceiver<Box<ChannelTaskInput>>,
    idle: Rc<IdleTasks>,
    /// No further inputs come.
    is_closed: bool,
    calls: Calls,
}

/// What the calls of a channel work with.
#[derive(Clone)]
struct ChannelIo {
    name: ChannelName,
    link: Rc<NatsLink>,
    presence: Rc<PresenceStore>,
}

/// What the core waits for.
struct Calls {
    subscription: Option<Subscriber>,
    /// The call in progress.
    call: Option<LocalBoxFuture<'static, Performed>>,
    /// Echoes of publications, each of which is a request; and at most one removal of messages.
    background: FuturesUnordered<LocalBoxFuture<'static, Background>>,
    permits: Arc<Semaphore>,
    /// Held during a verification.
    _permit: Option<OwnedSemaphorePermit>,
}

/// The outcome of a call.
struct Performed {
    result: CallResult,
    permit: Option<OwnedSemaphorePermit>,
}

/// The outcome of work that the core goes on beside.
enum Background {
    Confirmed(u64, Result<(), BrokerError>),
    Trimmed,
}

/// What a task waits for.
enum Event {
    Message(Message),
    Performed(Performed),
    Background(Background),
    Timeout,
    Input(Box<ChannelTaskInput>),
    Closed,
    Idle,
}

/// Spawns the task of a channel and returns the sender of its inputs, which are handled in order.
///
/// The task holds `task_guard` until the sender is dropped and all inputs are handled.
pub(super) fn open(
    name: ChannelName,
    (presence, idle): (Rc<PresenceStore>, Rc<IdleTasks>),
    task_guard: mpsc::Sender<()>,
) -> mpsc::UnboundedSender<Box<ChannelTaskInput>> {
    // Bounded by the requests of the whole broker: see `REQUESTS_MAX`.
    let (sender, inputs) = mpsc::unbounded_channel();
    tokio::task::spawn_local(async move {
        let tasks = presence.link.tasks.clone();
        let core = ChannelCore::new(name.channel.clone(), name.token.clone());
        let io = ChannelIo { name, link: presence.link.clone(), presence };
        let calls = Calls::default();
        let mut task = ChannelTask { core, io, inputs, idle, is_closed: false, calls };
        while let Err(message) = caught(task.run()).await {
            tasks.report(TASK, message);
            tokio::time::sleep(TASK_RESTART).await;
            task.calls = Calls::default();
            task.io.link.with_view(|view| task.core.reset(view));
            // Calls that have failed with the task may have been about presence.
            task.io.presence.request_restore();
        }
        task.idle.handle_ended(task.io.name.channel.clone());
        drop(task_guard);
    });
    sender
}

impl ChannelTask {
    /// Ends after [`CHANNEL_TASK_IDLE`] without subscribers and requests.
    async fn run(&mut self) {
        loop {
            self.perform_actions().await;
            if self.is_closed && !self.core.has_work() {
                return;
            }
            match self.next_event().await {
                Event::Message(message) => self.handle_messages(message),
                Event::Performed(Performed { result, permit }) => {
                    self.calls.call = None;
                    if permit.is_some() {
                        self.calls._permit = permit;
                    }
                    self.io.link.with_view(|view| self.core.handle_answer(view, result));
                }
                Event::Background(Background::Confirmed(number, result)) => {
                    self.core.handle_confirmation(number, result);
                }
                Event::Background(Background::Trimmed) => self.core.handle_trimmed(),
                Event::Timeout => self.io.link.with_view(|view| self.core.handle_timeout(view)),
                Event::Input(input) => self.handle_inputs(input),
                Event::Closed => self.is_closed = true,
                Event::Idle => self.inputs.close(),
            }
        }
    }

    async fn next_event(&mut self) -> Event {
        let Calls { subscription, call, background, .. } = &mut self.calls;
        let is_idle = self.core.is_idle() && !self.inputs.is_closed();
        let idle_turn = is_idle.then(|| self.idle.begin());
        let timeout = self.core.next_timeout();
        tokio::select! {
            biased;
            message = next_message(subscription) => Event::Message(message),
            performed = performed(call) => Event::Performed(performed),
            Some(done) = background.next() => Event::Background(done),
            () = sleep_until(timeout) => Event::Timeout,
            input = self.inputs.recv(), if !self.is_closed => {
                input.map_or(Event::Closed, Event::Input)
            }
            () = is_over(idle_turn.as_ref()) => Event::Idle,
        }
    }

    /// Handles a message, and those that have arrived behind it.
    fn handle_messages(&mut self, first: Message) {
        let (core, subscription) = (&mut self.core, &mut self.calls.subscription);
        self.io.link.with_view(|view| {
            let mut next = Some(first);
            for _ in 0..MESSAGES_PER_TURN {
                let Some(message) = next.take() else { return };
                core.handle_message(view, message_sequence(&message), message.payload);
                next = next_message(subscription).now_or_never();
            }
            if let Some(message) = next {
                core.handle_message(view, message_sequence(&message), message.payload);
            }
        });
    }

    /// Handles an input, and those that are queued behind it.
    fn handle_inputs(&mut self, first: Box<ChannelTaskInput>) {
        let mut next = Some(first);
        while let Some(input) = next {
            match *input {
                ChannelTaskInput::Core(input) => self.core.handle_input(input),
                ChannelTaskInput::Verify(permits) => {
                    self.calls.permits = permits;
                    self.core.handle_input(ChannelInput::Verify);
                }
                ChannelTaskInput::Break => panic!("{BROKEN}"),
            }
            next = self.inputs.try_recv().ok();
        }
    }

    async fn perform_actions(&mut self) {
        loop {
            let action = self.io.link.with_view(|view| self.core.poll_action(view));
            let Some(action) = action else { return };
            match action {
                // These only wait for a place in the queue of the connection.
                ChannelAction::Call(ChannelCall::Subscribe) => {
                    let subscribed = self.io.link.subscribe(self.io.channel_subject()).await;
                    let result = subscribed.map(|subscription| {
                        self.calls.subscription = Some(subscription);
                        CallAnswer::Done
                    });
                    self.io.link.with_view(|view| self.core.handle_answer(view, result));
                }
                ChannelAction::Call(ChannelCall::Publish(payload)) => {
                    let published = self.io.link.publish(self.io.channel_subject(), payload).await;
                    let result = published.map(|()| CallAnswer::Done);
                    self.io.link.with_view(|view| self.core.handle_answer(view, result));
                }
                ChannelAction::Call(ChannelCall::AwaitPermit) => {
                    let permits = self.calls.permits.clone();
                    self.calls.call = Some(Box::pin(async move {
                        let permit = permits.acquire_owned().await.ok();
                        Performed { result: Ok(CallAnswer::Done), permit }
                    }));
                }
                ChannelAction::Call(call) => {
                    let call = self.io.clone().call(call);
                    let performed = call.map(|result| Performed { result, permit: None });
                    self.calls.call = Some(performed.boxed_local());
                }
                ChannelAction::AbandonCall => self.calls.call = None,
                ChannelAction::Unsubscribe => self.calls.subscription = None,
                ChannelAction::Confirm { number } => {
                    let io = self.io.clone();
                    self.calls.background.push(Box::pin(async move {
                        let result = io.echo(Some(Right::Publish)).await;
                        Background::Confirmed(number, result.map(|_| ()))
                    }));
                }
                ChannelAction::Trim { newest } => {
                    let ChannelIo { name, link, .. } = self.io.clone();
                    self.calls.background.push(Box::pin(async move {
                        let stream = link.names.history_stream();
                        // A failure is made up for by the next removal.
                        let _later =
                            link.keep(&stream, &link.names.stream(&name.token), newest).await;
                        Background::Trimmed
                    }));
                }
                ChannelAction::ReleasePermit => self.calls._permit = None,
            }
        }
    }
}

impl ChannelIo {
    fn channel_subject(&self) -> String {
        self.link.names.channel(&self.name.token)
    }

    /// Performs a call. Each kind is a future of its own size.
    fn call(self, call: ChannelCall) -> LocalBoxFuture<'static, CallResult> {
        let done = |_: ()| CallAnswer::Done;
        let (stream, subject) =
            (self.link.names.history_stream(), self.link.names.stream(&self.name.token));
        match call {
            ChannelCall::Echo => Box::pin(async move { self.echo(None).await }),
            ChannelCall::EchoWithRight(right) => {
                Box::pin(async move { self.echo(Some(right)).await })
            }
            ChannelCall::Barrier => {
                Box::pin(async move { self.link.barrier(&subject).await.map(done) })
            }
            ChannelCall::ReadTop => Box::pin(async move {
                self.link.newest(&stream, &subject).await.map(CallAnswer::Message)
            }),
            ChannelCall::ReadMessage { sequence } => Box::pin(async move {
                self.link.numbered(&stream, sequence).await.map(CallAnswer::Message)
            }),
            ChannelCall::ReadMessages { newest } => Box::pin(async move {
                self.link.range_up_to(&stream, &subject, newest).await.map(CallAnswer::Messages)
            }),
            ChannelCall::Store { after, identifier, payload } => Box::pin(async move {
                let stored = self.link.store(&subject, Some(after), &identifier, payload).await;
                stored.map(CallAnswer::Stored)
            }),
            ChannelCall::RemoveBefore { sequence } => Box::pin(async move {
                self.link.purge_before(&stream, &subject, sequence).await.map(done)
            }),
            ChannelCall::AwaitVerifiedStore => {
                Box::pin(async move { self.link.verified().await.map(done) })
            }
            ChannelCall::AddPresence(clients) => Box::pin(async move {
                let storing = clients
                    .iter()
                    .map(|(endpoint, info)| self.presence.store(*endpoint, &self.name, info));
                join_all(storing).await;
                Ok(CallAnswer::Done)
            }),
            ChannelCall::RemovePresence { endpoint, client } => Box::pin(async move {
                self.presence.remove(endpoint, &self.name, &client.client).await;
                Ok(CallAnswer::Done)
            }),
            ChannelCall::ReadPresence => {
                Box::pin(
                    async move { self.presence.clients(&self.name).await.map(CallAnswer::Clients) },
                )
            }
            ChannelCall::Subscribe | ChannelCall::Publish(_) | ChannelCall::AwaitPermit => {
                unreachable!("the task itself performs what changes its state")
            }
        }
    }

    /// Waits for an echo; a refusal of this right has arrived before it.
    async fn echo(&self, right: Option<Right>) -> CallResult {
        self.link.echo().await?;
        let denied = &self.link.shared.denied_subjects;
        match right {
            Some(right) if denied.has(right, &self.channel_subject()) => {
                Err(BrokerError::Unavailable)
            }
            _ => Ok(CallAnswer::Done),
        }
    }
}

impl Default for Calls {
    fn default() -> Calls {
        Calls {
            subscription: None,
            call: None,
            background: FuturesUnordered::new(),
            permits: Arc::new(Semaphore::new(1)),
            _permit: None,
        }
    }
}

/// The next message of the subscription; pending without one.
async fn next_message(subscription: &mut Option<Subscriber>) -> Message {
    if let Some(subscription) = subscription
        && let Some(message) = subscription.next().await
    {
        return message;
    }
    std::future::pending().await
}

/// The outcome of the call in progress; pending without one.
async fn performed(call: &mut Option<LocalBoxFuture<'static, Performed>>) -> Performed {
    match call {
        Some(call) => call.await,
        None => std::future::pending().await,
    }
}

/// The end of the time that an idle task waits; pending for others.
async fn is_over(turn: Option<&IdleTurn<'_>>) {
    match turn {
        Some(turn) => turn.is_over().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(timeout: Option<Instant>) {
    match timeout {
        Some(timeout) => tokio::time::sleep_until(timeout.into()).await,
        None => std::future::pending().await,
    }
}

/// The sequence headers of a message that the history stream republishes.
fn message_sequence(message: &Message) -> MessageSequence {
    let number = |name: &str| {
        let value = message.headers.as_ref()?.get(name)?;
        value.as_str().parse().ok()
    };
    MessageSequence {
        sequence: number("Nats-Sequence").unwrap_or(0),
        after: number("Nats-Last-Sequence").unwrap_or(0),
    }
}

/// The task's name in failure reports.
const TASK: &str = "channel";
