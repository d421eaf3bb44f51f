//! The messages of one channel on this node: the subscription at NATS, the subscribers here, and
//! the position up to which these have received the stream.
//!
//! Invariant: subscribers receive records in the order of the stream; a record that is lost shows
//! as a gap in their positions.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_nats::{Message, Subscriber};
use bytes::Bytes;
use engine::broker::BrokerError;
use futures_util::StreamExt;
use tokio::time::Instant;
use wire::protocol::StreamPosition;

use crate::limits::TURN_WAIT;
use crate::nats::link::NatsLink;
use crate::nats::record::{Record, RecordKind, StreamTop};
use crate::nats::reordering::{MessageSequence, Reordering};
use crate::nats::stream::ChannelStream;
use crate::{Endpoint, Inbox};

/// See the module.
pub(super) struct ChannelFeed {
    pub(super) stream: ChannelStream,
    pub(super) subscribers: Vec<(Endpoint, Arc<dyn Inbox>)>,
    /// The newest message of the stream, as far as it is known; saves a publisher a read.
    pub(super) known: Option<StreamTop>,
    subscription: Option<Subscriber>,
    /// Epoch and offset up to which the subscribers have received the stream; an empty epoch
    /// before the first record.
    reported: (Arc<str>, u64),
    /// JetStream sequence of the last message received.
    last: u64,
    order: Reordering<(Record, Bytes)>,
    epoch: ClientEpoch,
}

/// The epoch of the last record received, and the epoch that clients see for it. Caches a
/// formatted text, since both seldom change.
#[derive(Default)]
struct ClientEpoch {
    generation: u64,
    of_record: Arc<str>,
    for_clients: Arc<str>,
}

/// A future that runs while messages are received.
pub(super) type BoxedOperation<T> = Pin<Box<dyn Future<Output = T>>>;

impl ChannelFeed {
    pub(super) fn new(stream: ChannelStream) -> ChannelFeed {
        ChannelFeed {
            stream,
            subscribers: Vec::new(),
            known: None,
            subscription: None,
            reported: ("".into(), 0),
            last: 0,
            order: Reordering::default(),
            epoch: ClientEpoch::default(),
        }
    }

    /// Drops the subscription and the known top; the subscribers stay.
    pub(super) fn reset(&mut self) {
        self.known = None;
        self.subscription = None;
    }

    pub(super) fn is_subscribed(&self) -> bool {
        self.subscription.is_some()
    }

    /// Returns whether the subscribers have a position in the stream.
    pub(super) fn has_position(&self) -> bool {
        !self.reported.0.is_empty()
    }

    /// Adds a subscriber, and subscribes at NATS for the first one.
    pub(super) async fn enter(
        &mut self,
        endpoint: Endpoint,
        inbox: &Arc<dyn Inbox>,
    ) -> Result<(), BrokerError> {
        self.stream.link.check()?;
        if self.subscription.is_none() {
            self.subscribe_channel().await?;
            self.reported = ("".into(), 0);
        }
        if !self.subscribers.iter().any(|(subscriber, _)| *subscriber == endpoint) {
            self.subscribers.push((endpoint, inbox.clone()));
        }
        Ok(())
    }

    /// Removes a subscriber; the last one ends the subscription at NATS.
    pub(super) fn leave(&mut self, endpoint: Endpoint) {
        self.subscribers.retain(|(subscriber, _)| *subscriber != endpoint);
        if self.subscribers.is_empty() {
            self.subscription = None;
        }
    }

    pub(super) async fn subscribe_channel(&mut self) -> Result<(), BrokerError> {
        let link = &self.stream.link;
        let subject = link.names.channel(&self.stream.token);
        self.subscription = Some(link.subscribe(subject).await?);
        self.last = 0;
        self.order = Reordering::default();
        Ok(())
    }

    /// Awaits an operation until `due` and handles messages of the channel meanwhile.
    pub(super) async fn receive_until<T: 'static>(
        &mut self,
        due: Instant,
        operation: BoxedOperation<Result<T, BrokerError>>,
    ) -> Result<T, BrokerError> {
        let late = |_| Err(BrokerError::Unavailable);
        self.while_receiving(Box::pin(async move {
            tokio::time::timeout_at(due, operation).await.unwrap_or_else(late)
        }))
        .await
    }

    /// Awaits an operation and handles messages of the channel meanwhile.
    pub(super) async fn while_receiving<T>(&mut self, mut operation: BoxedOperation<T>) -> T {
        loop {
            tokio::select! {
                biased;
                message = self.next() => self.handle_message(message),
                result = &mut operation => return result,
            }
        }
    }

    /// The next message; `None` when a message that is held back is due.
    pub(super) async fn next(&mut self) -> Option<Message> {
        let due = self.order.due();
        let subscription = &mut self.subscription;
        let next = async {
            if let Some(subscriber) = subscription
                && let Some(message) = subscriber.next().await
            {
                return message;
            }
            std::future::pending().await
        };
        match due {
            Some(due) => tokio::time::timeout_at(due, next).await.ok(),
            None => Some(next.await),
        }
    }

    /// Delivers a message, or holds it back until its predecessors have come. `None` only delivers
    /// what need not wait any longer.
    pub(super) fn handle_message(&mut self, message: Option<Message>) {
        let now = Instant::now();
        if let Some(message) = message {
            let turn = message_sequence(&message);
            let Some(record) = Record::decode(&message.payload, turn.sequence) else { return };
            if let Some((record, payload)) = self.order.handle(now, turn, (record, message.payload))
            {
                self.deliver(record, &payload);
            }
        }
        while let Some((record, payload)) = self.order.poll_next(now) {
            self.deliver(record, &payload);
        }
    }

    fn deliver(&mut self, record: Record, payload: &Bytes) {
        let sequence = record.top.sequence;
        if record.kind != RecordKind::Plain {
            let link = &self.stream.link;
            if sequence > 0 {
                link.note(self.last, sequence, payload);
                self.last = sequence;
            }
            self.epoch.update(link, &record.top.epoch);
            let is_late =
                self.reported.0 == self.epoch.for_clients && self.reported.1 > record.top.offset;
            if !is_late {
                self.reported = (self.epoch.for_clients.clone(), record.top.offset);
            }
            self.learn(&record.top);
        }
        if let Some(event) = record.into_event(&self.stream.channel, &self.epoch.for_clients) {
            for (_, inbox) in &self.subscribers {
                inbox.deliver(event.clone());
            }
        }
    }

    /// Takes over a top of the stream if it is newer than the known one.
    pub(super) fn learn(&mut self, top: &StreamTop) {
        if self.known.as_ref().is_none_or(|known| known.sequence < top.sequence) {
            self.known = Some(top.clone());
        }
    }

    /// Delivers the messages up to this position, whose JetStream number is `sequence`, as far as
    /// they arrive. Lost messages are skipped: then the position shows the gap.
    pub(super) async fn catch_up(&mut self, top: &StreamPosition, sequence: u64) {
        let is_new = self.reported.0.is_empty();
        if self.subscription.is_none() || top.epoch.is_empty() {
            return;
        }
        if self.is_behind(top) && !is_new {
            let (link, token) = (self.stream.link.clone(), self.stream.token.clone());
            let barrier = Box::pin(async move { link.barrier(&link.names.stream(&token)).await });
            // On failure no more messages come; the position that was read still holds.
            let _unanswered = self.while_receiving(barrier).await;
            self.wait_for(top).await;
        }
        self.order.settle(sequence);
        self.handle_message(None);
        if self.is_behind(top) {
            self.reported = (top.epoch.as_str().into(), top.offset);
        }
    }

    /// Waits for messages that the barrier may have overtaken.
    async fn wait_for(&mut self, top: &StreamPosition) {
        let until = Instant::now() + TURN_WAIT;
        while self.is_behind(top) {
            let Ok(message) = tokio::time::timeout_at(until, self.next()).await else { break };
            self.handle_message(message);
        }
        while self.is_behind(top)
            && let Some((record, payload)) = self.order.pop()
        {
            self.deliver(record, &payload);
        }
    }

    fn is_behind(&self, top: &StreamPosition) -> bool {
        *self.reported.0 != *top.epoch || self.reported.1 < top.offset
    }
}

impl ClientEpoch {
    fn update(&mut self, link: &NatsLink, of_record: &Arc<str>) {
        let generation = link.generations.number();
        if self.generation != generation || self.of_record != *of_record {
            *self = ClientEpoch {
                generation,
                of_record: of_record.clone(),
                for_clients: link.generations.client_epoch(of_record),
            };
        }
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
