//! Subscriptions and reads of a channel. Requests that directly follow each other share one read.
//!
//! Invariant: each request is answered as if it had read alone.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use engine::broker::{
    BrokerError, BrokerRequest, HistoryQuery, JoinRead, JoinedStream, PresenceRequest,
    PublicationsRequest,
};
use engine::history::Stream;
use wire::protocol::{ClientInfo, HistoryResult, PresenceStats};

use super::{Next, Operation, refused};
use crate::nats::channel::catch_up::CatchUp;
use crate::nats::channel::{ChannelInput, ChannelParts};
use crate::nats::channel_call::{CallResult, ChannelCall, Step};
use crate::nats::channel_stream::{Publications, ReadStream, Reading, StreamRead};
use crate::nats::node_state::NodeView;
use crate::nats::request::{ReplyContext, ReplyHandle};
use crate::nats::rights::Right;
use crate::{Endpoint, Inbox};

/// A request to subscribe, while the subscription at NATS is made.
pub(in crate::nats::channel) struct Subscribing {
    pub(super) endpoint: Endpoint,
    pub(super) inbox: Arc<dyn Inbox>,
    pub(super) reply: ReplyHandle<JoinedStream>,
    pub(super) read: JoinRead,
}

/// A request that waits for a read.
pub(in crate::nats::channel) enum StreamReader {
    Join(ReplyHandle<JoinedStream>, JoinRead),
    History(ReplyHandle<HistoryResult>, HistoryQuery),
}

/// A read for several requests.
pub(in crate::nats::channel) struct GroupedRead {
    readers: Vec<StreamReader>,
    /// Clients whose presence was requested between the subscriptions.
    present: Vec<(ReplyContext, Arc<ClientInfo>)>,
    meta_ttl_ms: u64,
    due: Instant,
    wait: Wait,
}

/// What a grouped read waits for.
#[expect(clippy::large_enum_variant, reason = "a box would cost every read an allocation")]
enum Wait {
    Echo,
    Stream(Reading),
    CaughtUp(ReadStream),
}

/// A request about the clients present in the channel.
pub(in crate::nats::channel) enum PresenceRead {
    Clients(ReplyHandle<Vec<Arc<ClientInfo>>>),
    Stats(ReplyHandle<PresenceStats>),
}

impl Subscribing {
    pub(super) fn begin(self, parts: &mut ChannelParts, view: &mut NodeView<'_>) -> Next {
        if let Err(error) = view.check_connected() {
            return refused(self.reply, error);
        }
        match parts.feed.is_subscribed() {
            true => self.read(parts, view),
            false => Next::Call(ChannelCall::Subscribe, Operation::Subscribe(self)),
        }
    }

    pub(super) fn handle(
        self,
        parts: &mut ChannelParts,
        view: &mut NodeView<'_>,
        result: &CallResult,
    ) -> Next {
        if let Err(error) = result {
            return refused(self.reply, *error);
        }
        parts.feed.handle_first_subscription();
        self.read(parts, view)
    }

    /// Reads the stream for this subscription and all that directly follow it.
    fn read(self, parts: &mut ChannelParts, view: &mut NodeView<'_>) -> Next {
        parts.feed.add_subscriber(self.endpoint, &self.inbox);
        let first = StreamReader::Join(self.reply, self.read);
        let mut read = GroupedRead::new(view, first, 0);
        read.take_followers(parts, view);
        Next::Call(ChannelCall::EchoWithRight(Right::Subscribe), Operation::Read(read))
    }
}

impl GroupedRead {
    fn new(view: &NodeView<'_>, first: StreamReader, meta_ttl_ms: u64) -> GroupedRead {
        let due = first.due().max(view.now);
        let meta_ttl_ms = meta_ttl_ms.max(first.meta_ttl_ms());
        let (readers, present) = (vec![first], Vec::new());
        GroupedRead { readers, present, meta_ttl_ms, due, wait: Wait::Echo }
    }

    pub(super) fn begin_history(
        parts: &mut ChannelParts,
        view: &mut NodeView<'_>,
        reader: StreamReader,
        meta_ttl_ms: u64,
    ) -> Next {
        GroupedRead::new(view, reader, meta_ttl_ms).begin_stream(parts, view)
    }

    /// The first reader has waited longest; the others joined it and get the latest deadline.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Takes the subscriptions at the head of the queue, with the presence entries between them.
    fn take_followers(&mut self, parts: &mut ChannelParts, view: &NodeView<'_>) {
        let is_follower = |input: &mut ChannelInput| match input {
            ChannelInput::Request(request) => matches!(
                request.what(),
                BrokerRequest::Publications(PublicationsRequest::Subscribe { .. })
                    | BrokerRequest::Presence(PresenceRequest::Add { .. })
            ),
            ChannelInput::Detach(..) | ChannelInput::Verify => false,
        };
        while let Some(ChannelInput::Request(request)) = parts.queue.pop_front_if(is_follower) {
            let (what, context) = request.open();
            match what {
                BrokerRequest::Publications(PublicationsRequest::Subscribe {
                    id, read, ..
                }) => {
                    if let Err(error) = view.check_connected() {
                        context.reply(id).send(Err(error));
                        continue;
                    }
                    parts.feed.add_subscriber(context.endpoint, &context.inbox);
                    let reader = StreamReader::Join(context.reply(id), read);
                    self.meta_ttl_ms = self.meta_ttl_ms.max(reader.meta_ttl_ms());
                    self.due = self.due.max(reader.due());
                    self.readers.push(reader);
                }
                BrokerRequest::Presence(PresenceRequest::Add { info, .. }) => {
                    self.present.push((context, info));
                }
                _ => unreachable!("only these are taken"),
            }
        }
    }

    fn begin_stream(mut self, parts: &mut ChannelParts, view: &mut NodeView<'_>) -> Next {
        if !self.readers.iter().any(StreamReader::needs_stream) {
            return self.answer(parts, Ok(None));
        }
        if !view.link.has_jetstream {
            return self.answer(parts, Err(BrokerError::Unavailable));
        }
        let publications = self.readers.iter().map(StreamReader::publications).max();
        let publications = publications.unwrap_or_default();
        let read = StreamRead { meta_ttl_ms: self.meta_ttl_ms, publications };
        let (reading, call) = Reading::begin(view, &parts.channel, read);
        self.wait = Wait::Stream(reading);
        Next::Call(call, Operation::Read(self))
    }

    pub(super) fn handle(
        mut self,
        parts: &mut ChannelParts,
        view: &mut NodeView<'_>,
        result: CallResult,
    ) -> Next {
        match std::mem::replace(&mut self.wait, Wait::Echo) {
            Wait::Echo => match result {
                Ok(_) => self.begin_stream(parts, view),
                Err(error) => self.answer(parts, Err(error)),
            },
            Wait::Stream(mut reading) => match reading.handle(view, result) {
                Step::Call(call) => {
                    self.wait = Wait::Stream(reading);
                    Next::Call(call, Operation::Read(self))
                }
                Step::Done(Err(error)) => self.answer(parts, Err(error)),
                Step::Done(Ok(read)) => {
                    let catch_up = CatchUp::new(read.stream.position(), read.top.sequence);
                    self.wait = Wait::CaughtUp(read);
                    Next::CatchUp(catch_up, Operation::Read(self))
                }
            },
            Wait::CaughtUp(read) => {
                if read.top.sequence > 0 {
                    parts.feed.learn_top(&read.top);
                }
                self.answer(parts, Ok(Some(&read.stream)))
            }
        }
    }

    /// Answers all requests, then adds the presence entries.
    fn answer(self, _: &mut ChannelParts, result: Result<Option<&Stream>, BrokerError>) -> Next {
        for reader in self.readers {
            reader.answer(result);
        }
        if self.present.is_empty() {
            return Next::Done;
        }
        let present = self.present.iter();
        let added = present.map(|(context, info)| (context.endpoint, info.clone())).collect();
        let requests = self.present.into_iter().map(|(context, _)| context).collect();
        Next::Call(ChannelCall::AddPresence(added), Operation::Last { _requests: requests })
    }
}

impl StreamReader {
    fn due(&self) -> Instant {
        match self {
            StreamReader::Join(reply, _) => reply.due(),
            StreamReader::History(reply, _) => reply.due(),
        }
    }

    fn needs_stream(&self) -> bool {
        !matches!(self, StreamReader::Join(_, JoinRead::Nothing))
    }

    fn meta_ttl_ms(&self) -> u64 {
        match self {
            StreamReader::Join(
                _,
                JoinRead::Position { meta_ttl_ms }
                | JoinRead::Since { meta_ttl_ms, .. }
                | JoinRead::Newest { meta_ttl_ms },
            ) => *meta_ttl_ms,
            StreamReader::Join(_, JoinRead::Nothing) | StreamReader::History(..) => 0,
        }
    }

    fn publications(&self) -> Publications {
        match self {
            StreamReader::Join(_, JoinRead::Nothing | JoinRead::Position { .. }) => {
                Publications::None
            }
            StreamReader::Join(_, JoinRead::Newest { .. }) => Publications::Newest,
            StreamReader::History(_, HistoryQuery { limit: Some(0), .. }) => Publications::None,
            StreamReader::Join(_, JoinRead::Since { .. }) | StreamReader::History(..) => {
                Publications::All
            }
        }
    }

    /// `read` is `None` when no request needed the stream.
    fn answer(self, read: Result<Option<&Stream>, BrokerError>) {
        match self {
            StreamReader::Join(reply, join) => {
                reply
                    .send(read.map(|stream| stream.map(|one| one.join(&join)).unwrap_or_default()));
            }
            StreamReader::History(reply, query) => {
                let stream = read.and_then(|stream| stream.ok_or(BrokerError::Unavailable));
                reply.send(stream.and_then(|stream| stream.read(&query)));
            }
        }
    }
}

impl PresenceRead {
    pub(super) fn due(&self) -> Instant {
        match self {
            PresenceRead::Clients(reply) => reply.due(),
            PresenceRead::Stats(reply) => reply.due(),
        }
    }

    pub(super) fn answer(self, result: CallResult) {
        let clients = result.map(|answer| answer.clients());
        match self {
            PresenceRead::Clients(reply) => reply.send(clients),
            PresenceRead::Stats(reply) => reply.send(clients.map(|clients| stats(&clients))),
        }
    }
}

fn stats(clients: &[Arc<ClientInfo>]) -> PresenceStats {
    let users: HashSet<&str> = clients.iter().map(|info| &*info.user).collect();
    let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    PresenceStats { num_clients: count(clients.len()), num_users: count(users.len()) }
}
