//! The core of one channel on this node: it handles the channel's requests in their order.
//!
//! Inputs are requests, messages, answers of NATS and time; outputs are [`ChannelAction`]s and the
//! events in the inboxes of subscribers. One operation is in progress at a time, and the channel's
//! messages are delivered meanwhile. Invariant: every message that NATS delivered before a request
//! was sent reaches the inboxes before the reply to that request. Pure: the task in
//! [`super::channel_task`] does the I/O.

mod catch_up;
mod ending;
mod feed;
mod operation;
mod unconfirmed;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use engine::broker::BrokerError;

use self::catch_up::CatchUp;
use self::ending::ChannelEnd;
use self::feed::ChannelFeed;
use self::operation::{Next, Operation};
use self::unconfirmed::UnconfirmedPublications;
use super::channel_call::{CallAnswer, CallResult, ChannelCall};
use super::detach_guard::DetachGuard;
use super::node_state::NodeView;
use super::reordering::MessageSequence;
use super::request::QueuedRequest;
use crate::Endpoint;

/// See the module.
pub(super) struct ChannelCore {
    parts: ChannelParts,
    current: Option<InProgress>,
}

/// An input that waits until the operation in progress is done.
#[expect(
    clippy::large_enum_variant,
    reason = "a request is the usual case, and a box would cost it an allocation"
)]
pub(super) enum ChannelInput {
    /// A request of an endpoint about this channel.
    Request(QueuedRequest),
    /// The endpoint is detached; its subscription ends. The guard is dropped then.
    Detach(Endpoint, DetachGuard),
    /// Messages may be lost: read the stream's position and deliver it to all subscribers.
    Verify,
}

/// What a core wants done.
#[derive(Debug)]
pub(super) enum ChannelAction {
    /// Answer this with [`ChannelCore::handle_answer`]. No other call is in progress.
    Call(ChannelCall),
    /// The answer to the call in progress is not awaited any longer.
    AbandonCall,
    /// End the subscription to the channel's subject.
    Unsubscribe,
    /// Wait for an echo, check the right to publish, and answer with
    /// [`ChannelCore::handle_confirmation`]. Several may be in progress.
    Confirm { number: u64 },
    /// Remove all messages of the stream except the newest ones, then call
    /// [`ChannelCore::handle_trimmed`].
    Trim { newest: u64 },
    /// The verification of this channel is over.
    ReleasePermit,
}

/// The state of a channel, without the operation in progress.
struct ChannelParts {
    channel: Arc<str>,
    /// The channel as one token of a subject.
    token: Arc<str>,
    feed: ChannelFeed,
    end: ChannelEnd,
    /// Requests are bounded by [`crate::limits::REQUESTS_MAX`]; beside them there is one
    /// verification, and one end of each endpoint.
    queue: VecDeque<ChannelInput>,
    unconfirmed: UnconfirmedPublications,
    is_trimming: bool,
    actions: VecDeque<ChannelAction>,
}

/// The operation in progress, and what it waits for.
enum InProgress {
    Call(Operation),
    CatchUp(CatchUp, Operation),
}

impl ChannelCore {
    pub(super) fn new(channel: Arc<str>, token: Arc<str>) -> ChannelCore {
        let parts = ChannelParts {
            feed: ChannelFeed::new(channel.clone()),
            channel,
            token,
            end: ChannelEnd::default(),
            queue: VecDeque::new(),
            unconfirmed: UnconfirmedPublications::default(),
            is_trimming: false,
            actions: VecDeque::new(),
        };
        ChannelCore { parts, current: None }
    }

    /// Queues an input. [`ChannelCore::poll_action`] begins it.
    pub(super) fn handle_input(&mut self, input: ChannelInput) {
        let is_verification = matches!(input, ChannelInput::Verify);
        let is_queued = |input: &ChannelInput| matches!(input, ChannelInput::Verify);
        if !is_verification || !self.parts.queue.iter().any(is_queued) {
            self.parts.queue.push_back(input);
        }
    }

    /// Handles a message on the channel's subject.
    pub(super) fn handle_message(
        &mut self,
        view: &mut NodeView<'_>,
        sequence: MessageSequence,
        payload: Bytes,
    ) {
        self.parts.feed.handle_message(view, sequence, payload);
        self.parts.answer_delivered();
        self.end_catch_up(view);
    }

    /// Handles the answer to the call in progress.
    pub(super) fn handle_answer(&mut self, view: &mut NodeView<'_>, result: CallResult) {
        match self.current.take() {
            Some(InProgress::Call(operation)) => {
                let next = operation.handle(&mut self.parts, view, result);
                self.proceed(view, next);
            }
            Some(InProgress::CatchUp(mut catch_up, operation)) => {
                catch_up.handle_barrier(view.now);
                self.current = Some(InProgress::CatchUp(catch_up, operation));
                self.end_catch_up(view);
            }
            // It was abandoned.
            None => {}
        }
    }

    /// Handles the outcome of [`ChannelAction::Confirm`].
    pub(super) fn handle_confirmation(&mut self, number: u64, result: Result<(), BrokerError>) {
        self.parts.unconfirmed.handle(number, result, self.parts.feed.arrived());
        self.parts.answer_delivered();
    }

    pub(super) fn handle_trimmed(&mut self) {
        self.parts.is_trimming = false;
    }

    /// Does what is due at this time.
    pub(super) fn handle_timeout(&mut self, view: &mut NodeView<'_>) {
        self.parts.feed.deliver_due(view);
        self.parts.answer_delivered();
        self.parts.unconfirmed.expire(view.now);
        self.end_catch_up(view);
        let is_late = |current: &mut InProgress| match current {
            InProgress::Call(operation) => operation.due().is_some_and(|due| due <= view.now),
            InProgress::CatchUp(..) => false,
        };
        if let Some(InProgress::Call(operation)) = self.current.take_if(is_late) {
            self.parts.actions.push_back(ChannelAction::AbandonCall);
            let next = operation.handle(&mut self.parts, view, Err(BrokerError::Unavailable));
            self.proceed(view, next);
        }
    }

    /// When [`ChannelCore::handle_timeout`] or [`ChannelCore::poll_action`] has something to do.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        let due = match &self.current {
            Some(InProgress::Call(operation)) => operation.due(),
            Some(InProgress::CatchUp(catch_up, _)) => catch_up.next_timeout(),
            None if self.parts.feed.has_subscribers() => self.parts.end.next_timeout(),
            None => None,
        };
        let feed = self.parts.feed.next_timeout();
        let unconfirmed = self.parts.unconfirmed.next_timeout();
        [due, feed, unconfirmed].into_iter().flatten().min()
    }

    /// The next action; begins the next operation when none is in progress.
    pub(super) fn poll_action(&mut self, view: &mut NodeView<'_>) -> Option<ChannelAction> {
        self.parts.answer_delivered();
        if let Some(action) = self.parts.actions.pop_front() {
            return Some(action);
        }
        if self.current.is_none()
            && let Some(next) = self.begin_next(view)
        {
            self.proceed(view, next);
        }
        let action = self.parts.actions.pop_front();
        action.or_else(|| self.parts.unconfirmed.poll_confirm())
    }

    /// Returns whether there are neither subscribers nor requests.
    pub(super) fn is_idle(&self) -> bool {
        !self.has_work() && !self.parts.feed.has_subscribers()
    }

    /// Returns whether a request or an action is not done yet.
    pub(super) fn has_work(&self) -> bool {
        let parts = &self.parts;
        self.current.is_some()
            || !parts.queue.is_empty()
            || !parts.unconfirmed.is_empty()
            || parts.is_trimming
    }

    /// Continues after a failure: keeps the subscribers and the queue, and reads everything else
    /// again. The task has ended the calls and the subscription, and lets presence entries that may
    /// be missing be stored again.
    pub(super) fn reset(&mut self, view: &mut NodeView<'_>) {
        if let Some(InProgress::Call(operation)) = self.current.take() {
            operation.abandon(&mut self.parts, view);
        }
        self.parts.actions.clear();
        self.parts.unconfirmed.clear();
        self.parts.is_trimming = false;
        self.parts.feed.reset();
        self.parts.queue.push_front(ChannelInput::Verify);
    }

    /// Takes up the end of the channel if it is due, or the next input.
    fn begin_next(&mut self, view: &mut NodeView<'_>) -> Option<Next> {
        let parts = &mut self.parts;
        if parts.feed.has_subscribers()
            && let Some(due) = parts.end.poll_due(view.now)
        {
            return Some(Operation::begin_due_end(parts, view, due));
        }
        let input = parts.queue.pop_front()?;
        Some(Operation::begin(parts, view, input))
    }

    /// Goes on until an operation waits or nothing is left to do.
    fn proceed(&mut self, view: &mut NodeView<'_>, mut next: Next) {
        loop {
            next = match next {
                Next::Call(call, operation) => {
                    self.parts.actions.push_back(ChannelAction::Call(call));
                    self.current = Some(InProgress::Call(operation));
                    return;
                }
                Next::CatchUp(catch_up, operation) => {
                    if catch_up.needs_barrier(&self.parts.feed) {
                        self.parts.actions.push_back(ChannelAction::Call(ChannelCall::Barrier));
                        self.current = Some(InProgress::CatchUp(catch_up, operation));
                        return;
                    }
                    catch_up.finish(view, &mut self.parts.feed);
                    operation.handle(&mut self.parts, view, Ok(CallAnswer::Done))
                }
                Next::Done => match self.begin_next(view) {
                    Some(next) => next,
                    None => return,
                },
            };
        }
    }

    /// Ends the wait for messages up to a position, if it is over.
    fn end_catch_up(&mut self, view: &mut NodeView<'_>) {
        let feed = &self.parts.feed;
        let is_over = |current: &mut InProgress| match current {
            InProgress::CatchUp(catch_up, _) => catch_up.is_over(view.now, feed),
            InProgress::Call(_) => false,
        };
        if let Some(InProgress::CatchUp(catch_up, operation)) = self.current.take_if(is_over) {
            catch_up.finish(view, &mut self.parts.feed);
            let next = operation.handle(&mut self.parts, view, Ok(CallAnswer::Done));
            self.proceed(view, next);
        }
    }
}

impl ChannelParts {
    /// Answers the publications that were confirmed and that the subscribers have.
    fn answer_delivered(&mut self) {
        self.unconfirmed.answer(|arrived| self.feed.has_delivered(arrived));
    }

    /// Removes a subscriber; the last one ends the subscription at NATS.
    fn remove_subscriber(&mut self, endpoint: Endpoint) {
        if self.feed.remove_subscriber(endpoint) {
            self.actions.push_back(ChannelAction::Unsubscribe);
        }
        if !self.feed.has_subscribers() {
            self.end.clear();
        }
    }
}
