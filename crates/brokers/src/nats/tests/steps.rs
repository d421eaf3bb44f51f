//! What clients do in the simulated world, and the faults between.

use std::sync::Arc;
use std::time::Instant;

use engine::broker::{
    BrokerRequest, HistoryQuery, JoinRead, Membership, PresenceRequest, PublicationsRequest,
    PublishOptions, RequestId,
};
use wire::protocol::{ClientInfo, Publication, StreamPosition};

use super::observer::OpenRequest;
use super::world::{CHANNELS, ENDPOINTS, Event, Faults, NODES, World, channel_name};
use crate::limits::ANSWER_TIMEOUT;
use crate::nats::channel::ChannelInput;
use crate::nats::request::QueuedRequest;
use crate::{Endpoint, Inbox};

/// Milliseconds for which streams and publications are stored.
const LONG_MS: u64 = 600_000;
/// Number of publications that a stream retains.
const HISTORY_SIZE: u32 = 5;

/// The endpoint that takes a step, and the channel.
#[derive(Clone, Copy)]
struct Actor {
    node: usize,
    observer: usize,
    channel: usize,
}

impl World {
    /// One step of a client, or a fault.
    pub(super) fn step(&mut self) {
        let node = self.random.index(NODES);
        if self.faults == Faults::All && self.random.once_in(12) {
            return self.fault(node);
        }
        let observer = node * ENDPOINTS + self.random.index(ENDPOINTS);
        let channel = self.random.index(CHANNELS);
        let actor = Actor { node, observer, channel };
        match self.random.below(20) {
            0..3 => self.subscribe(actor),
            3 => self.unsubscribe(actor),
            4..13 => self.publish(actor),
            13 => self.read_history(actor),
            14 => {
                let channel = channel_name(channel).into();
                self.ask(actor, |number| {
                    let id = RequestId::new(number);
                    PublicationsRequest::RemoveHistory { id, channel }.into()
                });
            }
            15 => {
                let channel = channel_name(channel).into();
                self.ask(actor, |number| {
                    let id = RequestId::new(number);
                    PublicationsRequest::ChannelTtl { id, channel }.into()
                });
            }
            16 => self.change_presence(actor),
            17 => {
                let channel = channel_name(channel).into();
                self.ask(actor, |number| {
                    PresenceRequest::Clients { id: RequestId::new(number), channel }.into()
                });
            }
            18 if self.random.once_in(4) => {
                let ttl_ms = 200 + self.random.below(3_000);
                let channel = channel_name(channel).into();
                self.submit(actor, PublicationsRequest::LimitTtl { channel, ttl_ms }.into());
            }
            _ => self.burst(actor),
        }
    }

    fn fault(&mut self, node: usize) {
        match self.random.below(5) {
            0 => self.cut(node),
            3 => {
                let channel = self.random.index(CHANNELS);
                self.fail_task(node, channel);
            }
            1 => self.frozen_until = self.now + self.random.below(5_000_000),
            2 => {
                // All nodes at once, as when the server restarts.
                (0..NODES).for_each(|node| self.cut(node));
            }
            _ => {
                let after = self.random.below(10_000);
                self.schedule(after, Event::Verify { node });
            }
        }
    }

    fn subscribe(&mut self, actor: Actor) {
        let name = channel_name(actor.channel);
        let meta_ttl_ms = LONG_MS;
        let seen = self.observers[actor.observer].seen(&name);
        let is_first = !std::mem::replace(&mut seen.is_subscribed, true);
        let since = seen.position.clone();
        if is_first {
            // What was published meanwhile comes with the read.
            seen.position = None;
        }
        let since = since.map(|(epoch, offset)| StreamPosition { epoch, offset });
        let read = match (self.random.below(4), &since) {
            (0, _) => JoinRead::Nothing,
            (1, Some(since)) => JoinRead::Since {
                since: since.clone(),
                limit: u32::MAX,
                bytes_max: None,
                meta_ttl_ms,
            },
            (2, _) => JoinRead::Newest { meta_ttl_ms },
            _ => JoinRead::Position { meta_ttl_ms },
        };
        let since = since.filter(|_| matches!(read, JoinRead::Since { .. }));
        let open = OpenRequest::Subscribe { channel: name.clone(), since };
        self.request(actor, open, |number| {
            let (id, channel) = (RequestId::new(number), name.into());
            PublicationsRequest::Subscribe { id, channel, read }.into()
        });
    }

    fn unsubscribe(&mut self, actor: Actor) {
        let name = channel_name(actor.channel);
        let subscribed_after = self.next_number();
        let seen = self.observers[actor.observer].seen(&name);
        (seen.is_subscribed, seen.joined_by) = (false, None);
        seen.subscribed_after = subscribed_after;
        let channel = name.into();
        self.submit(actor, PublicationsRequest::Unsubscribe { channel }.into());
    }

    fn publish(&mut self, actor: Actor) {
        let is_retained = !self.random.once_in(4);
        let key = match self.random.below(5) {
            0 if is_retained => format!("key {}", self.random.below(6)),
            _ => String::new(),
        };
        let history_size = if is_retained { HISTORY_SIZE } else { 0 };
        // Attempts with one key are one publication.
        let text = match key.is_empty() {
            true => format!("{}", self.next_number()),
            false => format!("{key} in {}", actor.channel),
        };
        let options = PublishOptions {
            history_size,
            history_ttl_ms: LONG_MS,
            history_meta_ttl_ms: LONG_MS,
            idempotency_key: key.clone(),
            ..PublishOptions::default()
        };
        let data = text.clone().into_bytes().into();
        let publication = Publication { data, ..Publication::default() };
        let channel = channel_name(actor.channel);
        let has_key = !key.is_empty();
        let open = OpenRequest::Publish { channel: channel.clone(), text, is_retained, has_key };
        self.request(actor, open, |number| {
            let (id, channel) = (RequestId::new(number), channel.into());
            PublicationsRequest::Publish { id, channel, publication, options }.into()
        });
    }

    /// Publications of all nodes at once, which conflict.
    fn burst(&mut self, actor: Actor) {
        for node in 0..NODES {
            let observer = node * ENDPOINTS;
            self.publish(Actor { node, observer, ..actor });
            self.publish(Actor { node, observer, ..actor });
        }
    }

    fn read_history(&mut self, actor: Actor) {
        let channel = channel_name(actor.channel).into();
        self.ask(actor, |number| {
            let (id, query) = (RequestId::new(number), HistoryQuery::default());
            let meta_ttl_ms = LONG_MS;
            PublicationsRequest::History { id, channel, query, meta_ttl_ms }.into()
        });
    }

    fn change_presence(&mut self, actor: Actor) {
        let channel: Arc<str> = channel_name(actor.channel).into();
        let info = Arc::new(ClientInfo { client: "c".into(), ..ClientInfo::default() });
        let request: BrokerRequest = match self.random.below(3) {
            0 => PresenceRequest::Add { channel, info, announces: true }.into(),
            1 => PresenceRequest::Remove { channel, client: info }.into(),
            _ => {
                let change = Membership::Join;
                PublicationsRequest::Announce { channel, info, change }.into()
            }
        };
        self.submit(actor, request);
    }

    fn ask(&mut self, actor: Actor, make: impl FnOnce(u64) -> BrokerRequest) {
        self.request(actor, OpenRequest::Other, make);
    }

    fn request(
        &mut self,
        actor: Actor,
        open: OpenRequest,
        make: impl FnOnce(u64) -> BrokerRequest,
    ) {
        let number = self.next_number();
        self.observers[actor.observer].open.insert(number, open);
        self.submit(actor, make(number));
    }

    fn submit(&mut self, actor: Actor, request: BrokerRequest) {
        let due: Instant = self.instant() + ANSWER_TIMEOUT;
        let inbox: Arc<dyn Inbox> = self.observers[actor.observer].inbox.clone();
        let endpoint = Endpoint(u32::try_from(actor.observer).unwrap());
        let request = QueuedRequest::new(&self.load, due, (endpoint, inbox), request);
        let task = &mut self.nodes[actor.node].channels[actor.channel];
        task.core.handle_input(ChannelInput::Request(request));
    }
}
