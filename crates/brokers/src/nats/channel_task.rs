//! One channel on this node: its subscribers, the known top of its stream, the requests about it.
//!
//! A channel task handles one request after the other, and messages of the channel meanwhile.
//! Invariant: everything that NATS delivered before an answer was asked for stands in the inboxes
//! before that answer.

mod ending;
mod reader;

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use async_nats::{Message, Subscriber};
use bytes::Bytes;
use engine::broker::{
    BrokerError, BrokerEvent, BrokerReply, BrokerRequest, JoinRead, Membership, PublishOptions,
};
use futures_util::StreamExt;
use futures_util::future::join_all;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::time::Instant;
use wire::protocol::{Publication, PushEvent, StreamPosition};

use self::ending::{Ending, due};
use self::reader::{ReadKind, WaitingReader};
use super::link::NatsLink;
use super::order::{MessageSequence, Reordering};
use super::presence::PresenceStore;
use super::record::{self, Record, RecordKind, Top};
use super::request::{QueuedRequest, ReplyHandle};
use super::rights::Right;
use super::stream::{ChannelStream, Want};
use super::task::caught;
use crate::limits::{CHANNEL_TASK_IDLE, TASK_RESTART, TURN_WAIT};
use crate::{Endpoint, Inbox};

/// A message to a channel task.
#[expect(
    clippy::large_enum_variant,
    reason = "a request is the usual case, and a box would cost it an allocation"
)]
pub(super) enum Ask {
    /// A request of an endpoint about this channel.
    Request(QueuedRequest),
    /// The endpoint is gone.
    Forget(Endpoint),
    /// The link was cut: show where the stream stands.
    Verify(Arc<Semaphore>),
    /// Fail, as by a mistake of ours.
    Break,
}

/// See the module.
pub(super) struct ChannelTask {
    place: ChannelStream,
    presence: Rc<PresenceStore>,
    asks: UnboundedReceiver<Ask>,
    /// Taken from `asks`, but to be done later.
    next: Option<Ask>,
    subscribers: Vec<(Endpoint, Arc<dyn Inbox>)>,
    subscription: Option<Subscriber>,
    /// Position up to which the subscribers know the stream.
    reported: (Arc<str>, u64),
    known: Option<Top>,
    /// Number of the last message received.
    last: u64,
    order: Reordering<(Record, Bytes)>,
    epoch: ClientEpoch,
    ending: Option<Ending>,
}

/// The epoch of the last record received, and the epoch that clients see for it: they seldom
/// change.
#[derive(Default)]
struct ClientEpoch {
    generation: u64,
    of_record: Arc<str>,
    for_clients: Arc<str>,
}

type Doing<T> = Pin<Box<dyn Future<Output = T>>>;

impl ChannelTask {
    fn new(
        place: ChannelStream,
        presence: Rc<PresenceStore>,
        asks: UnboundedReceiver<Ask>,
    ) -> ChannelTask {
        ChannelTask {
            place,
            presence,
            asks,
            next: None,
            subscribers: Vec::new(),
            subscription: None,
            reported: ("".into(), 0),
            known: None,
            last: 0,
            order: Reordering::default(),
            epoch: ClientEpoch::default(),
            ending: None,
        }
    }

    /// Ends after [`CHANNEL_TASK_IDLE`] without subscribers and requests.
    async fn run(&mut self) {
        loop {
            let ask = match self.next.take() {
                Some(ask) => ask,
                None => match self.wait().await {
                    Some(ask) => ask,
                    None => return,
                },
            };
            self.handle(ask).await;
        }
    }

    async fn wait(&mut self) -> Option<Ask> {
        loop {
            let is_idle = self.subscribers.is_empty();
            tokio::select! {
                biased;
                message = next_message(&mut self.subscription, self.order.due()) => self.handle_message(message),
                () = due(self.ending.as_ref()), if !is_idle => self.handle_due().await,
                ask = self.asks.recv() => return ask,
                () = tokio::time::sleep(CHANNEL_TASK_IDLE), if is_idle => {
                    self.asks.close();
                    return self.asks.recv().await;
                }
            }
        }
    }

    /// After a failure: who hears the channel is known, and whatever else was known is found out
    /// again. What was set aside has not failed, and is done next.
    async fn reset(&mut self) {
        self.known = None;
        self.subscription = None;
        self.verify(Arc::new(Semaphore::new(1))).await;
    }

    /// The same, until whoever asked for it has given up: then it is dropped.
    async fn receive_until<T: 'static>(
        &mut self,
        due: Instant,
        doing: Doing<Result<T, BrokerError>>,
    ) -> Result<T, BrokerError> {
        let late = |_| Err(BrokerError::Unavailable);
        self.while_receiving(Box::pin(async move {
            tokio::time::timeout_at(due, doing).await.unwrap_or_else(late)
        }))
        .await
    }

    /// Awaits a future and handles messages of the channel meanwhile.
    async fn while_receiving<T>(&mut self, mut doing: Doing<T>) -> T {
        loop {
            tokio::select! {
                biased;
                message = next_message(&mut self.subscription, self.order.due()) => self.handle_message(message),
                result = &mut doing => return result,
            }
        }
    }

    /// Takes a message, or looks whose turn it is when none came for too long.
    fn handle_message(&mut self, message: Option<Message>) {
        let now = Instant::now();
        if let Some(message) = message {
            let turn = turn(&message);
            let Some(record) = Record::decode(&message.payload, turn.sequence) else { return };
            if let Some((record, payload)) = self.order.handle(now, turn, (record, message.payload))
            {
                self.let_in(record, &payload);
            }
        }
        while let Some((record, payload)) = self.order.poll_next(now) {
            self.let_in(record, &payload);
        }
    }

    fn let_in(&mut self, record: Record, payload: &Bytes) {
        let sequence = record.top.sequence;
        if record.kind != RecordKind::Plain {
            let link = &self.place.link;
            if sequence > 0 {
                link.note(self.last, sequence, payload);
                self.last = sequence;
            }
            self.epoch.turn(link, &record.top.epoch);
            let is_late =
                self.reported.0 == self.epoch.for_clients && self.reported.1 > record.top.offset;
            if !is_late {
                self.reported = (self.epoch.for_clients.clone(), record.top.offset);
            }
            if self.known.as_ref().is_none_or(|known| known.sequence < sequence) {
                self.known = Some(record.top.clone());
            }
        }
        if let Some(event) = record.into_event(&self.place.channel, &self.epoch.for_clients) {
            for (_, inbox) in &self.subscribers {
                inbox.deliver(event.clone());
            }
        }
    }

    async fn handle(&mut self, ask: Ask) {
        match ask {
            // Whoever asked has given up, and is told so.
            Ask::Request(request) if request.reply.is_late() => {}
            Ask::Request(request) => self.handle_request(request).await,
            Ask::Forget(endpoint) => self.leave(endpoint),
            Ask::Verify(turns) => self.verify(turns).await,
            Ask::Break => panic!("{BROKEN}"),
        }
    }

    async fn handle_request(&mut self, request: QueuedRequest) {
        let QueuedRequest { endpoint, what, reply } = request;
        match what {
            BrokerRequest::Subscribe { read, .. } => self.subscribe(endpoint, reply, read).await,
            BrokerRequest::History { query, meta_ttl_ms, .. } => {
                let reader = WaitingReader { reply, what: ReadKind::History(query) };
                self.read_for(vec![reader], meta_ttl_ms).await;
            }
            BrokerRequest::Unsubscribe { .. } => self.leave(endpoint),
            BrokerRequest::Publish { publication, options, .. } => {
                self.publish(reply, publication, options).await;
            }
            BrokerRequest::RemoveHistory { .. } => {
                let doing = Box::pin(self.place.clone().clear());
                let result = self.receive_until(reply.due(), doing).await;
                self.known = result.as_ref().ok().cloned();
                reply.send(result.map(|_| BrokerReply::HistoryRemoved));
            }
            BrokerRequest::Announce { info, change, .. } => {
                let event = match change {
                    Membership::Join => PushEvent::Join(info),
                    Membership::Leave => PushEvent::Leave(info),
                };
                // Nobody waits for an answer; while NATS is away, nobody could hear it either.
                let _ignored = self.send(record::plain(&self.place.channel, event)).await;
            }
            BrokerRequest::LimitTtl { ttl_ms, .. } => self.limit(ttl_ms).await,
            BrokerRequest::ChannelTtl { .. } => {
                let doing = Box::pin(self.place.clone().length());
                let result = self.receive_until(reply.due(), doing).await;
                reply.send(result.map(BrokerReply::ChannelTtl));
            }
            BrokerRequest::AddPresence { .. }
            | BrokerRequest::RemovePresence { .. }
            | BrokerRequest::Presence { .. }
            | BrokerRequest::PresenceStats { .. } => {
                self.handle_presence(QueuedRequest { endpoint, what, reply }).await;
            }
            BrokerRequest::Control(_)
            | BrokerRequest::Lifecycle(_)
            | BrokerRequest::Survey { .. }
            | BrokerRequest::Revoke { .. }
            | BrokerRequest::FindRevocation { .. }
            | BrokerRequest::ReadRevocations { .. }
            | BrokerRequest::Answer { .. } => unreachable!("what concerns nodes has no room"),
        }
    }

    async fn handle_presence(&mut self, request: QueuedRequest) {
        let QueuedRequest { endpoint, what, reply } = request;
        let (presence, place) = (self.presence.clone(), self.place.clone());
        match what {
            BrokerRequest::AddPresence { info, .. } => {
                let adding = async move { presence.add(endpoint, &place, info).await };
                self.while_receiving(Box::pin(adding)).await;
            }
            BrokerRequest::RemovePresence { client, .. } => {
                let removing =
                    async move { presence.remove(endpoint, &place, &client.client).await };
                self.while_receiving(Box::pin(removing)).await;
            }
            BrokerRequest::Presence { .. } => {
                let asking = Box::pin(async move { presence.clients(&place).await });
                let result = self.receive_until(reply.due(), asking).await;
                reply.send(result.map(BrokerReply::Presence));
            }
            _ => {
                let asking = Box::pin(async move { presence.stats(&place).await });
                let result = self.receive_until(reply.due(), asking).await;
                reply.send(result.map(BrokerReply::PresenceStats));
            }
        }
    }

    async fn publish(
        &mut self,
        reply: ReplyHandle,
        publication: Publication,
        options: PublishOptions,
    ) {
        let is_behind = self.subscribers.iter().any(|(_, inbox)| inbox.is_full());
        if is_behind || self.place.link.is_congested() {
            return reply.send(Err(BrokerError::Overloaded));
        }
        let publication = Arc::new(publication);
        let has_place =
            options.history_size > 0 || options.version > 0 || !options.idempotency_key.is_empty();
        if !has_place {
            return self.publish_plain(reply, publication).await;
        }
        if !self.place.link.keeps {
            return reply.send(Err(BrokerError::Unavailable));
        }
        let size = u64::from(options.history_size);
        let doing = self.place.clone().publish(self.known.take(), publication, options);
        let due = reply.due();
        let doing = async move {
            let late = |_| (Err(BrokerError::Unavailable), None);
            tokio::time::timeout_at(due, doing).await.unwrap_or_else(late)
        };
        let (result, known) = self.while_receiving(Box::pin(doing)).await;
        if let (Ok(position), Some(_)) = (&result, &self.subscription) {
            let sequence = known.as_ref().map_or(0, |known| known.sequence);
            self.catch_up(position, sequence).await;
        }
        self.known = known;
        if let Some(known) = &self.known {
            self.place.trim(known, size);
        }
        reply.send(result.map(BrokerReply::Published));
    }

    /// Without a place in a stream; the answer follows with the echo.
    async fn publish_plain(&mut self, reply: ReplyHandle, publication: Arc<Publication>) {
        let event = PushEvent::Publication(publication);
        if let Err(error) = self.send(record::plain(&self.place.channel, event)).await {
            return reply.send(Err(error));
        }
        let place = self.place.clone();
        self.place.link.tasks.spawn("publication", async move {
            let due = reply.due();
            let echoed = tokio::time::timeout_at(due, place.link.echo()).await;
            let result = echoed.unwrap_or(Err(BrokerError::Unavailable));
            // The refusal of the server comes before the echo.
            let result = result.and_then(|()| place.check_right(Right::Publish));
            reply.send(result.map(|()| BrokerReply::Published(StreamPosition::default())));
        });
    }

    async fn send(&self, payload: Bytes) -> Result<(), BrokerError> {
        let link = &self.place.link;
        link.publish(link.names.channel(&self.place.token), payload).await
    }

    async fn enter(
        &mut self,
        endpoint: Endpoint,
        inbox: &Arc<dyn Inbox>,
    ) -> Result<(), BrokerError> {
        let link = self.place.link.clone();
        link.check()?;
        if self.subscription.is_none() {
            self.subscribe_channel().await?;
            self.reported = ("".into(), 0);
        }
        if !self.subscribers.iter().any(|(subscriber, _)| *subscriber == endpoint) {
            self.subscribers.push((endpoint, inbox.clone()));
        }
        Ok(())
    }

    async fn subscribe_channel(&mut self) -> Result<(), BrokerError> {
        let link = self.place.link.clone();
        self.subscription = Some(link.subscribe(link.names.channel(&self.place.token)).await?);
        self.last = 0;
        self.order = Reordering::default();
        Ok(())
    }

    fn leave(&mut self, endpoint: Endpoint) {
        self.subscribers.retain(|(subscriber, _)| *subscriber != endpoint);
        if self.subscribers.is_empty() {
            self.subscription = None;
            self.ending = None;
        }
    }

    async fn subscribe(&mut self, endpoint: Endpoint, reply: ReplyHandle, read: JoinRead) {
        if let Err(error) = self.enter(endpoint, &reply.inbox.clone()).await {
            return reply.send(Err(error));
        }
        self.read(WaitingReader { reply, what: ReadKind::Join(read) }).await;
    }

    /// Reads for one, and in the same read for all that join right behind it, each with its
    /// presence.
    async fn read(&mut self, first: WaitingReader) {
        let mut meta_ttl_ms = first.meta_ttl_ms();
        let (mut readers, mut present) = (vec![first], Vec::new());
        while let Ok(ask) = self.asks.try_recv() {
            let Ask::Request(QueuedRequest { endpoint, what, reply }) = ask else {
                self.next = Some(ask);
                break;
            };
            let read = match what {
                BrokerRequest::Subscribe { read, .. } => read,
                BrokerRequest::AddPresence { info, .. } => {
                    present.push((endpoint, info));
                    continue;
                }
                what => {
                    self.next = Some(Ask::Request(QueuedRequest { endpoint, what, reply }));
                    break;
                }
            };
            if let Err(error) = self.enter(endpoint, &reply.inbox.clone()).await {
                reply.send(Err(error));
                continue;
            }
            let reader = WaitingReader { reply, what: ReadKind::Join(read) };
            meta_ttl_ms = meta_ttl_ms.max(reader.meta_ttl_ms());
            readers.push(reader);
        }
        self.read_for(readers, meta_ttl_ms).await;
        let (presence, place) = (self.presence.clone(), self.place.clone());
        self.while_receiving(Box::pin(async move {
            let adding =
                present.into_iter().map(|(endpoint, info)| presence.add(endpoint, &place, info));
            join_all(adding).await;
        }))
        .await;
    }

    async fn read_for(&mut self, readers: Vec<WaitingReader>, meta_ttl_ms: u64) {
        let publications = readers.iter().map(|reader| reader.what.publications()).max();
        let needs_stream = readers.iter().any(WaitingReader::needs_stream);
        let needs_echo = readers.iter().any(|reader| matches!(reader.what, ReadKind::Join(_)));
        let want = Want { meta_ttl_ms, publications: publications.unwrap_or_default() };
        let place = self.place.clone();
        // The first has waited longest, and those behind it have come with it.
        let due = readers.iter().map(|reader| reader.reply.due()).max();
        let doing = Box::pin(async move {
            if needs_echo {
                place.link.echo().await?;
                // The refusal of the server comes before the echo.
                place.check_right(Right::Subscribe)?;
            }
            match needs_stream {
                true if !place.link.keeps => Err(BrokerError::Unavailable),
                true => place.read(want).await.map(Some),
                false => Ok(None),
            }
        });
        let result = self.receive_until(due.unwrap_or_else(Instant::now), doing).await;
        if let Ok(Some((top, stream))) = &result {
            self.catch_up(&stream.position(), top.sequence).await;
            if top.sequence > 0 && self.known.as_ref().is_none_or(|k| k.sequence < top.sequence) {
                self.known = Some(top.clone());
            }
        }
        for reader in readers {
            let result = match &result {
                Ok(read) => reader.what.answer(read.as_ref().map(|(_, stream)| stream)),
                Err(error) => Err(*error),
            };
            reader.reply.send(result);
        }
    }

    /// Lets whatever is on its way up to this position, the message of this number, come first.
    /// What was lost does not come: then the position shows the gap.
    async fn catch_up(&mut self, top: &StreamPosition, sequence: u64) {
        let is_new = self.reported.0.is_empty();
        if self.subscription.is_none() || top.epoch.is_empty() {
            return;
        }
        if self.is_behind(top) && !is_new {
            let (link, token) = (self.place.link.clone(), self.place.token.clone());
            let doing = Box::pin(async move { link.barrier(&link.names.stream(&token)).await });
            // Without an answer nothing more comes; what was read still holds.
            let _unanswered = self.while_receiving(doing).await;
            self.wait_for(top).await;
        }
        self.order.settle(sequence);
        self.handle_message(None);
        if self.is_behind(top) {
            self.reported = (top.epoch.as_str().into(), top.offset);
        }
    }

    /// The barrier may have overtaken what stands before it.
    async fn wait_for(&mut self, top: &StreamPosition) {
        let until = Instant::now() + TURN_WAIT;
        while self.is_behind(top) {
            let next = next_message(&mut self.subscription, self.order.due());
            let Ok(message) = tokio::time::timeout_at(until, next).await else { break };
            self.handle_message(message);
        }
        while self.is_behind(top)
            && let Some((record, payload)) = self.order.pop()
        {
            self.let_in(record, &payload);
        }
    }

    fn is_behind(&self, top: &StreamPosition) -> bool {
        *self.reported.0 != *top.epoch || self.reported.1 < top.offset
    }

    async fn verify(&mut self, turns: Arc<Semaphore>) {
        self.known = None;
        if self.subscription.is_none() && !self.subscribers.is_empty() {
            // It follows when the link is back.
            let _later = self.subscribe_channel().await;
        }
        let is_positioned = !self.reported.0.is_empty() && self.place.link.keeps;
        if self.subscribers.is_empty() || !is_positioned && self.ending.is_none() {
            return;
        }
        let turn = self.while_receiving(Box::pin(turns.acquire_owned())).await;
        self.confirm_end().await;
        if !is_positioned {
            return;
        }
        let place = self.place.clone();
        let doing = Box::pin(async move {
            let _turn = turn;
            place.echo_and_read().await
        });
        let Ok(top) = self.while_receiving(doing).await else { return };
        let sequence = top.sequence;
        let top = self.place.link.position(&top);
        self.catch_up(&top, sequence).await;
        for (_, inbox) in &self.subscribers {
            let (channel, top) = (self.place.channel.clone(), top.clone());
            inbox.deliver(BrokerEvent::Position { channel, top });
        }
    }
}

impl ClientEpoch {
    fn turn(&mut self, link: &NatsLink, of_record: &Arc<str>) {
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

/// The inbox of a channel task: what is sent into it is done in order.
///
/// It is busy until the sender is dropped and everything is done.
pub(super) fn open(
    place: ChannelStream,
    presence: Rc<PresenceStore>,
    busy: mpsc::Sender<()>,
) -> mpsc::UnboundedSender<Ask> {
    let (sender, asks) = mpsc::unbounded_channel();
    tokio::task::spawn_local(async move {
        let tasks = place.link.tasks.clone();
        let mut task = ChannelTask::new(place, presence, asks);
        let mut run = caught(task.run()).await;
        while let Err(message) = run {
            tasks.report(TASK, message);
            tokio::time::sleep(TASK_RESTART).await;
            run = caught(async {
                task.reset().await;
                task.run().await;
            })
            .await;
        }
        drop(busy);
    });
    sender
}

/// What a channel task is called when it fails.
const TASK: &str = "channel";

/// What a part says that is broken on purpose.
pub(super) const BROKEN: &str = "broken on purpose";

/// The next message; `None` when none comes before the time is up.
async fn next_message(
    subscription: &mut Option<Subscriber>,
    due: Option<Instant>,
) -> Option<Message> {
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

/// Where a message stands that the history stream sends on.
fn turn(message: &Message) -> MessageSequence {
    let number = |name: &str| {
        let value = message.headers.as_ref()?.get(name)?;
        value.as_str().parse().ok()
    };
    MessageSequence {
        sequence: number("Nats-Sequence").unwrap_or(0),
        after: number("Nats-Last-Sequence").unwrap_or(0),
    }
}
