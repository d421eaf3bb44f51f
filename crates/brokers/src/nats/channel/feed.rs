//! The messages of one channel on this node: the subscribers here, the order of the messages, and
//! the position up to which the subscribers have received the stream.
//!
//! Invariant: subscribers receive records in the order of the stream; a record that is lost shows
//! as a gap in their positions.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use engine::broker::BrokerEvent;
use wire::protocol::StreamPosition;

use crate::nats::node_state::NodeView;
use crate::nats::record::{Record, RecordKind, StreamTop};
use crate::nats::reordering::{MessageSequence, Reordering};
use crate::{Endpoint, Inbox};

/// See the module.
pub(super) struct ChannelFeed {
    channel: Arc<str>,
    subscribers: Vec<(Endpoint, Arc<dyn Inbox>)>,
    /// The newest message of the stream, as far as it is known; saves a publisher a read.
    known_top: Option<StreamTop>,
    is_subscribed: bool,
    /// Epoch and offset up to which the subscribers have received the stream; an empty epoch
    /// before the first record.
    delivered: (Arc<str>, u64),
    /// JetStream sequence of the last message received.
    last_sequence: u64,
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

impl ChannelFeed {
    pub(super) fn new(channel: Arc<str>) -> ChannelFeed {
        ChannelFeed {
            channel,
            subscribers: Vec::new(),
            known_top: None,
            is_subscribed: false,
            delivered: ("".into(), 0),
            last_sequence: 0,
            order: Reordering::default(),
            epoch: ClientEpoch::default(),
        }
    }

    /// Forgets the subscription at NATS and the known top; the subscribers stay.
    pub(super) fn reset(&mut self) {
        self.known_top = None;
        self.is_subscribed = false;
    }

    pub(super) fn is_subscribed(&self) -> bool {
        self.is_subscribed
    }

    pub(super) fn has_subscribers(&self) -> bool {
        !self.subscribers.is_empty()
    }

    /// Returns whether the inbox of a subscriber is full, so that publishers must be refused.
    pub(super) fn is_slow(&self) -> bool {
        self.subscribers.iter().any(|(_, inbox)| inbox.is_full())
    }

    /// Returns whether the subscribers have a position in the stream.
    pub(super) fn has_position(&self) -> bool {
        !self.delivered.0.is_empty()
    }

    /// The channel was subscribed to at NATS, for subscribers that have no position yet.
    pub(super) fn handle_first_subscription(&mut self) {
        self.handle_subscription();
        self.delivered = ("".into(), 0);
    }

    /// The channel was subscribed to at NATS again.
    pub(super) fn handle_subscription(&mut self) {
        self.is_subscribed = true;
        self.last_sequence = 0;
        self.order.restart();
    }

    pub(super) fn add_subscriber(&mut self, endpoint: Endpoint, inbox: &Arc<dyn Inbox>) {
        if !self.subscribers.iter().any(|(subscriber, _)| *subscriber == endpoint) {
            self.subscribers.push((endpoint, inbox.clone()));
        }
    }

    /// Removes a subscriber; returns whether the subscription at NATS ends with it.
    pub(super) fn remove_subscriber(&mut self, endpoint: Endpoint) -> bool {
        self.subscribers.retain(|(subscriber, _)| *subscriber != endpoint);
        self.subscribers.is_empty() && std::mem::take(&mut self.is_subscribed)
    }

    pub(super) fn notify_all(&self, event: &BrokerEvent) {
        for (_, inbox) in &self.subscribers {
            inbox.deliver(event.clone());
        }
    }

    /// Takes over a top of the stream if it is newer than the known one.
    pub(super) fn learn_top(&mut self, top: &StreamTop) {
        if self.known_top.as_ref().is_none_or(|known| known.sequence < top.sequence) {
            self.known_top = Some(top.clone());
        }
    }

    pub(super) fn set_known_top(&mut self, top: Option<StreamTop>) {
        self.known_top = top;
    }

    pub(super) fn take_known_top(&mut self) -> Option<StreamTop> {
        self.known_top.take()
    }

    /// Delivers a message, or holds it back until its predecessors have come.
    pub(super) fn handle_message(
        &mut self,
        view: &mut NodeView<'_>,
        sequence: MessageSequence,
        payload: Bytes,
    ) {
        let Some(record) = Record::decode(&payload, sequence.sequence) else { return };
        let message = (payload.len(), (record, payload));
        if let Some((record, payload)) = self.order.handle(view.now, sequence, message) {
            self.deliver(view, record, &payload);
        }
        self.deliver_due(view);
    }

    /// Delivers the messages that need not wait any longer.
    pub(super) fn deliver_due(&mut self, view: &mut NodeView<'_>) {
        while let Some((record, payload)) = self.order.poll_next(view.now) {
            self.deliver(view, record, &payload);
        }
    }

    /// Marks the messages of no stream that have arrived; some may be held back.
    pub(super) fn arrived(&self) -> u64 {
        self.order.arrived()
    }

    /// Returns whether the subscribers have the messages of [`ChannelFeed::arrived`].
    pub(super) fn has_delivered(&self, arrived: u64) -> bool {
        self.order.has_released(arrived)
    }

    /// When [`ChannelFeed::deliver_due`] has something to do.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.order.due()
    }

    fn deliver(&mut self, view: &mut NodeView<'_>, record: Record, payload: &Bytes) {
        let sequence = record.top.sequence;
        if record.kind != RecordKind::Plain {
            if sequence > 0 {
                view.record(self.last_sequence, sequence, payload);
                self.last_sequence = sequence;
            }
            self.epoch.update(view, &record.top.epoch);
            self.learn_top(&record.top);
            let offset = record.top.offset;
            let is_known = self.delivered.0 == self.epoch.for_clients;
            if is_known && record.kind == RecordKind::Retained && offset <= self.delivered.1 {
                // It was given up as lost, or a read has covered it: subscribers have the position
                // of a later one.
                return;
            }
            if !is_known || offset > self.delivered.1 {
                self.delivered = (self.epoch.for_clients.clone(), offset);
            }
        }
        if let Some(event) = record.into_event(&self.channel, &self.epoch.for_clients) {
            self.notify_all(&event);
        }
    }

    /// Returns whether the subscribers have not received everything up to this position.
    pub(super) fn is_behind(&self, top: &StreamPosition) -> bool {
        *self.delivered.0 != *top.epoch || self.delivered.1 < top.offset
    }

    /// Delivers the messages held back as long as the subscribers are behind this position.
    pub(super) fn deliver_up_to(&mut self, view: &mut NodeView<'_>, top: &StreamPosition) {
        while self.is_behind(top)
            && let Some((record, payload)) = self.order.pop()
        {
            self.deliver(view, record, &payload);
        }
    }

    /// The subscribers learn this position from a read: what is missing up to its JetStream
    /// `sequence` was lost, and shows as a gap.
    pub(super) fn skip_to(&mut self, view: &mut NodeView<'_>, top: &StreamPosition, sequence: u64) {
        self.order.settle(sequence);
        self.deliver_due(view);
        if self.is_behind(top) {
            self.delivered = (top.epoch.as_str().into(), top.offset);
        }
    }
}

impl ClientEpoch {
    fn update(&mut self, view: &NodeView<'_>, of_record: &Arc<str>) {
        let generations = &view.state.generations;
        if self.generation != generations.number() || self.of_record != *of_record {
            *self = ClientEpoch {
                generation: generations.number(),
                of_record: of_record.clone(),
                for_clients: generations.client_epoch(of_record),
            };
        }
    }
}
