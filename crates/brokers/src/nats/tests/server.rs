//! The server of the simulated world: it handles requests, republishes, and loses connections.

use bytes::Bytes;
use engine::broker::BrokerError;

use super::observer::text;
use super::store::Republished;
use super::world::{CHANNELS, Event, Faults, Place, ServerRequest, World};
use crate::nats::channel_call::{CallAnswer, ChannelCall};
use crate::nats::record::{Record, RecordKind};
use crate::nats::reordering::MessageSequence;

impl World {
    /// The server handles a request.
    pub(super) fn serve(&mut self, at: Place, request: ServerRequest) {
        if !self.is_connection(at) && !self.random.once_in(2) {
            // It was lost with the connection; otherwise only its answer is lost.
            return;
        }
        match request {
            ServerRequest::Confirm { number } => {
                let event = Event::Confirmation { at, number, result: Ok(()) };
                self.reply_in_order(at.node, event);
            }
            ServerRequest::Subscribe { subscription } => {
                self.registered.insert((at.node, at.channel), subscription);
            }
            ServerRequest::Publish(payload) => {
                for (node, subscription) in self.subscribed(at.channel) {
                    let sequence = MessageSequence::default();
                    let at = Place {
                        node,
                        channel: at.channel,
                        connection: self.nodes[node].connection,
                    };
                    let payload = payload.clone();
                    let event = Event::Message { at, subscription, sequence, payload };
                    self.reply_in_order(node, event);
                }
            }
            ServerRequest::Trim { newest } => {
                self.store.keep(at.channel, newest);
                self.schedule(1_000, Event::Trimmed { at });
            }
            ServerRequest::Call { call, what } => self.answer(at, call, what),
        }
    }

    fn subscribed(&self, channel: usize) -> Vec<(usize, u64)> {
        let of_channel = self.registered.iter().filter(|((_, one), _)| *one == channel);
        of_channel.map(|((node, _), subscription)| (*node, *subscription)).collect()
    }

    /// Answers a call. Stored records, barriers and reads take ways of their own.
    fn answer(&mut self, at: Place, call: u64, what: ChannelCall) {
        let result = match what {
            ChannelCall::Echo | ChannelCall::EchoWithRight(_) => {
                let event = Event::Answer { at, call, result: Ok(CallAnswer::Done) };
                return self.reply_in_order(at.node, event);
            }
            ChannelCall::ReadTop => CallAnswer::Message(self.store.newest(at.channel)),
            ChannelCall::ReadMessage { sequence } => {
                CallAnswer::Message(self.store.numbered(sequence))
            }
            ChannelCall::ReadMessages { .. } => CallAnswer::Messages(self.store.all(at.channel)),
            ChannelCall::Store { after, identifier, payload } => {
                let content = (&*identifier, &payload);
                let (ack, republished) =
                    self.store.store(self.now_ms(), at.channel, after, content);
                if let Some(republished) = republished {
                    self.republish(at.channel, &republished, &payload);
                }
                CallAnswer::Stored(ack)
            }
            ChannelCall::RemoveBefore { sequence } => {
                self.store.remove_before(at.channel, sequence);
                CallAnswer::Done
            }
            ChannelCall::ReadPresence => CallAnswer::Clients(Vec::new()),
            _ => CallAnswer::Done,
        };
        let after = 50 + self.random.below(4_000);
        self.schedule(after, Event::Answer { at, call, result: Ok(result) });
    }

    /// Sends a stored message to all subscribers. It may overtake others, and be lost.
    fn republish(&mut self, channel: usize, republished: &Republished, payload: &Bytes) {
        let Republished { sequence, after } = *republished;
        let record = Record::decode(payload, sequence).expect("a record of a core");
        if let (RecordKind::Retained, Some(publication)) = (record.kind, record.publication()) {
            self.truth.add(&record.top.epoch, record.top.offset, &text(&publication));
        }
        for (node, subscription) in self.subscribed(channel) {
            let connection = self.nodes[node].connection;
            let at = Place { node, channel, connection };
            if self.faults == Faults::All && self.random.once_in(12) {
                // The node is too slow, and notices it.
                let after = self.random.below(200_000);
                self.schedule(after, Event::Verify { node });
                continue;
            }
            let sequence = MessageSequence { sequence, after };
            let event = Event::Message { at, subscription, sequence, payload: payload.clone() };
            let delay = 50 + self.random.below(4_000);
            self.schedule(delay, event);
        }
    }

    /// Ends the connection of a node. What is on its way to the node is lost.
    pub(super) fn cut(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        if !std::mem::take(&mut node.is_connected) {
            return;
        }
        self.registered.retain(|(one, _), _| *one != number);
        for channel in 0..CHANNELS {
            let connection = self.nodes[number].connection;
            let at = Place { node: number, channel, connection };
            for echo in std::mem::take(&mut self.task(at).confirmations) {
                self.task(at).confirmations.push(echo);
                self.confirm(at, echo, Err(BrokerError::Unavailable));
            }
            let call = self.task(at).call;
            let result = Err(BrokerError::Unavailable);
            self.schedule(0, Event::Answer { at, call, result });
            // A removal of messages ends without an outcome.
            self.task(at).core.handle_trimmed();
        }
        let after = self.random.below(600_000);
        self.schedule(after, Event::Connect { node: number });
    }

    /// Connects a node again: the client library subscribes again, and the node verifies.
    pub(super) fn connect(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        if std::mem::replace(&mut node.is_connected, true) {
            return;
        }
        node.connection += 1;
        let connection = node.connection;
        (node.to_server, node.from_server) = (self.now, self.now);
        for channel in 0..CHANNELS {
            let subscription = self.nodes[number].channels[channel].subscription;
            if subscription > 0 {
                self.registered.insert((number, channel), subscription);
            }
        }
        let after = self.random.below(50_000);
        self.schedule(after, Event::Verified { node: number, connection });
        self.schedule(after + 1_000, Event::Verify { node: number });
    }
}
