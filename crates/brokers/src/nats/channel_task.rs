//! The task of one channel on this node: it handles the channel's requests in their order.
//!
//! While a request waits for NATS, the task goes on delivering the channel's messages. Invariant:
//! every message that NATS delivered before a request was sent reaches the inboxes before the
//! reply to that request.

mod ending;
mod feed;
mod reader;

use std::rc::Rc;
use std::sync::Arc;

use engine::broker::{
    BrokerError, BrokerEvent, HistoryRemoved, Membership, PresenceRequest, PublicationsRequest,
    PublishOptions, RequestId,
};
use futures_util::future::join_all;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::time::Instant;
use wire::protocol::{Publication, PushEvent, StreamPosition};

use self::ending::ChannelEnd;
use self::feed::ChannelFeed;
use self::reader::{ReadKind, WaitingReader};
use super::presence::PresenceStore;
use super::record;
use super::request::{ChannelRequest, QueuedRequest, ReplyHandle};
use super::rights::Right;
use super::stream::{ChannelStream, StreamRead};
use super::task::{BROKEN, caught};
use crate::Endpoint;
use crate::limits::{CHANNEL_TASK_IDLE, TASK_RESTART};

/// An input of a channel task.
#[expect(
    clippy::large_enum_variant,
    reason = "a request is the usual case, and a box would cost it an allocation"
)]
pub(super) enum ChannelInput {
    /// A request of an endpoint about this channel.
    Request(QueuedRequest<ChannelRequest>),
    /// The endpoint is detached; its subscription ends.
    Forget(Endpoint),
    /// Messages may be lost: read the stream's position and deliver it to all subscribers. A
    /// permit of the semaphore is held during the read.
    Verify(Arc<Semaphore>),
    /// Panic, for tests of the supervision.
    Break,
}

/// See the module.
struct ChannelTask {
    feed: ChannelFeed,
    end: ChannelEnd,
    presence: Rc<PresenceStore>,
    inputs: UnboundedReceiver<ChannelInput>,
    /// Taken from `inputs` while requests were grouped, and handled next.
    deferred: Option<ChannelInput>,
}

/// Spawns the task of a channel and returns the sender of its inputs, which are handled in order.
///
/// The task holds `busy` until the sender is dropped and all inputs are handled.
pub(super) fn open(
    stream: ChannelStream,
    presence: Rc<PresenceStore>,
    busy: mpsc::Sender<()>,
) -> mpsc::UnboundedSender<ChannelInput> {
    // Bounded by the requests of the whole broker: see `REQUESTS_MAX`.
    let (sender, inputs) = mpsc::unbounded_channel();
    tokio::task::spawn_local(async move {
        let tasks = stream.link.tasks.clone();
        let mut task = ChannelTask {
            feed: ChannelFeed::new(stream),
            end: ChannelEnd::default(),
            presence,
            inputs,
            deferred: None,
        };
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

impl ChannelTask {
    /// Ends after [`CHANNEL_TASK_IDLE`] without subscribers and requests.
    async fn run(&mut self) {
        loop {
            let input = match self.deferred.take() {
                Some(input) => input,
                None => match self.wait().await {
                    Some(input) => input,
                    None => return,
                },
            };
            self.handle(input).await;
        }
    }

    async fn wait(&mut self) -> Option<ChannelInput> {
        loop {
            let is_idle = self.feed.subscribers.is_empty();
            tokio::select! {
                biased;
                message = self.feed.next() => self.feed.handle_message(message),
                () = self.end.due(), if !is_idle => self.end.handle_due(&mut self.feed).await,
                input = self.inputs.recv() => return input,
                () = tokio::time::sleep(CHANNEL_TASK_IDLE), if is_idle => {
                    self.inputs.close();
                    return self.inputs.recv().await;
                }
            }
        }
    }

    /// Continues after a panic: keeps the subscribers and the deferred input, and reads everything
    /// else again.
    async fn reset(&mut self) {
        self.feed.reset();
        self.verify(Arc::new(Semaphore::new(1))).await;
    }

    async fn handle(&mut self, input: ChannelInput) {
        match input {
            // Dropping the request replies that the broker is unavailable.
            ChannelInput::Request(request) if request.reply.is_late() => {}
            ChannelInput::Request(request) => self.handle_request(request).await,
            ChannelInput::Forget(endpoint) => self.leave(endpoint),
            ChannelInput::Verify(turns) => self.verify(turns).await,
            ChannelInput::Break => panic!("{BROKEN}"),
        }
    }

    async fn handle_request(&mut self, request: QueuedRequest<ChannelRequest>) {
        let QueuedRequest { endpoint, what, reply } = request;
        match what {
            ChannelRequest::Publications(what) => {
                self.handle_publications(QueuedRequest { endpoint, what, reply }).await;
            }
            ChannelRequest::Presence(what) => {
                self.handle_presence(QueuedRequest { endpoint, what, reply }).await;
            }
        }
    }

    async fn handle_publications(&mut self, request: QueuedRequest<PublicationsRequest>) {
        let QueuedRequest { endpoint, what, reply } = request;
        match what {
            PublicationsRequest::Subscribe { id, read, .. } => {
                let reader = WaitingReader { reply, what: ReadKind::Join(id, read) };
                self.subscribe(endpoint, reader).await;
            }
            PublicationsRequest::History { id, query, meta_ttl_ms, .. } => {
                let reader = WaitingReader { reply, what: ReadKind::History(id, query) };
                self.read_for(vec![reader], meta_ttl_ms).await;
            }
            PublicationsRequest::Unsubscribe { .. } => self.leave(endpoint),
            PublicationsRequest::Publish { id, publication, options, .. } => {
                self.publish((id, reply), publication, options).await;
            }
            PublicationsRequest::RemoveHistory { id, .. } => {
                let clearing = Box::pin(self.feed.stream.clone().clear());
                let result = self.feed.receive_until(reply.due(), clearing).await;
                self.feed.known = result.as_ref().ok().cloned();
                reply.send(id, result.map(|_| HistoryRemoved));
            }
            PublicationsRequest::Announce { info, change, .. } => {
                let event = match change {
                    Membership::Join => PushEvent::Join(info),
                    Membership::Leave => PushEvent::Leave(info),
                };
                // It has no reply, and without a connection no node would receive it.
                let _ignored = self.send(event).await;
            }
            PublicationsRequest::LimitTtl { ttl_ms, .. } => {
                self.end.limit(&mut self.feed, ttl_ms).await;
            }
            PublicationsRequest::ChannelTtl { id, .. } => {
                let reading = Box::pin(self.feed.stream.clone().ttl());
                let result = self.feed.receive_until(reply.due(), reading).await;
                reply.send(id, result);
            }
        }
    }

    async fn handle_presence(&mut self, request: QueuedRequest<PresenceRequest>) {
        let QueuedRequest { endpoint, what, reply } = request;
        let (presence, stream) = (self.presence.clone(), self.feed.stream.clone());
        match what {
            PresenceRequest::Add { info, .. } => {
                let adding = async move { presence.add(endpoint, &stream, info).await };
                self.feed.while_receiving(Box::pin(adding)).await;
            }
            PresenceRequest::Remove { client, .. } => {
                let removing =
                    async move { presence.remove(endpoint, &stream, &client.client).await };
                self.feed.while_receiving(Box::pin(removing)).await;
            }
            PresenceRequest::Clients { id, .. } => {
                let reading = Box::pin(async move { presence.clients(&stream).await });
                let result = self.feed.receive_until(reply.due(), reading).await;
                reply.send(id, result);
            }
            PresenceRequest::Stats { id, .. } => {
                let reading = Box::pin(async move { presence.stats(&stream).await });
                let result = self.feed.receive_until(reply.due(), reading).await;
                reply.send(id, result);
            }
        }
    }

    async fn publish(
        &mut self,
        (id, reply): (RequestId<StreamPosition>, ReplyHandle),
        publication: Publication,
        options: PublishOptions,
    ) {
        let feed = &mut self.feed;
        let is_slow = feed.subscribers.iter().any(|(_, inbox)| inbox.is_full());
        if is_slow || feed.stream.link.is_congested() {
            return reply.send(id, Err(BrokerError::Overloaded));
        }
        let publication = Arc::new(publication);
        let needs_stream =
            options.history_size > 0 || options.version > 0 || !options.idempotency_key.is_empty();
        if !needs_stream {
            return self.publish_plain(id, reply, publication).await;
        }
        if !feed.stream.link.has_jetstream {
            return reply.send(id, Err(BrokerError::Unavailable));
        }
        let size = u64::from(options.history_size);
        let publishing = feed.stream.clone().publish(feed.known.take(), publication, options);
        let due = reply.due();
        let publishing = async move {
            let late = |_| (Err(BrokerError::Unavailable), None);
            tokio::time::timeout_at(due, publishing).await.unwrap_or_else(late)
        };
        let (result, known) = feed.while_receiving(Box::pin(publishing)).await;
        if let Ok(position) = &result
            && feed.is_subscribed()
        {
            let sequence = known.as_ref().map_or(0, |known| known.sequence);
            feed.catch_up(position, sequence).await;
        }
        feed.known = known;
        if let Some(known) = &feed.known {
            feed.stream.trim(known, size);
        }
        reply.send(id, result);
    }

    /// Publishes without the stream; the reply follows the next echo.
    async fn publish_plain(
        &mut self,
        id: RequestId<StreamPosition>,
        reply: ReplyHandle,
        publication: Arc<Publication>,
    ) {
        if let Err(error) = self.send(PushEvent::Publication(publication)).await {
            return reply.send(id, Err(error));
        }
        let stream = self.feed.stream.clone();
        self.feed.stream.link.tasks.spawn("publication", async move {
            let due = reply.due();
            let echoed = tokio::time::timeout_at(due, stream.link.echo()).await;
            let result = echoed.unwrap_or(Err(BrokerError::Unavailable));
            // If the server refused the publication, its error has arrived before the echo.
            let result = result.and_then(|()| stream.check_right(Right::Publish));
            reply.send(id, result.map(|()| StreamPosition::default()));
        });
    }

    async fn send(&self, event: PushEvent) -> Result<(), BrokerError> {
        let ChannelStream { link, channel, token } = &self.feed.stream;
        link.publish(link.names.channel(token), record::plain(channel, event)).await
    }

    fn leave(&mut self, endpoint: Endpoint) {
        self.feed.leave(endpoint);
        if self.feed.subscribers.is_empty() {
            self.end.clear();
        }
    }

    async fn subscribe(&mut self, endpoint: Endpoint, reader: WaitingReader) {
        if let Err(error) = self.feed.enter(endpoint, &reader.reply.inbox.clone()).await {
            return reader.refuse(error);
        }
        self.read(reader).await;
    }

    /// Reads the stream once for `first` and for all subscribe requests that directly follow it,
    /// then adds the presence entries queued between these.
    async fn read(&mut self, first: WaitingReader) {
        let mut meta_ttl_ms = first.meta_ttl_ms();
        let (mut readers, mut present) = (vec![first], Vec::new());
        while let Ok(input) = self.inputs.try_recv() {
            let ChannelInput::Request(QueuedRequest { endpoint, what, reply }) = input else {
                self.deferred = Some(input);
                break;
            };
            let (id, read) = match what {
                ChannelRequest::Publications(PublicationsRequest::Subscribe {
                    id, read, ..
                }) => (id, read),
                ChannelRequest::Presence(PresenceRequest::Add { info, .. }) => {
                    present.push((endpoint, info));
                    continue;
                }
                what => {
                    let request = QueuedRequest { endpoint, what, reply };
                    self.deferred = Some(ChannelInput::Request(request));
                    break;
                }
            };
            if let Err(error) = self.feed.enter(endpoint, &reply.inbox.clone()).await {
                reply.send(id, Err(error));
                continue;
            }
            let reader = WaitingReader { reply, what: ReadKind::Join(id, read) };
            meta_ttl_ms = meta_ttl_ms.max(reader.meta_ttl_ms());
            readers.push(reader);
        }
        self.read_for(readers, meta_ttl_ms).await;
        let (presence, stream) = (self.presence.clone(), self.feed.stream.clone());
        let adding = Box::pin(async move {
            let adding =
                present.into_iter().map(|(endpoint, info)| presence.add(endpoint, &stream, info));
            join_all(adding).await;
        });
        self.feed.while_receiving(adding).await;
    }

    async fn read_for(&mut self, readers: Vec<WaitingReader>, meta_ttl_ms: u64) {
        let publications = readers.iter().map(|reader| reader.what.publications()).max();
        let needs_stream = readers.iter().any(WaitingReader::needs_stream);
        let needs_echo = readers.iter().any(|reader| matches!(reader.what, ReadKind::Join(..)));
        let read = StreamRead { meta_ttl_ms, publications: publications.unwrap_or_default() };
        let stream = self.feed.stream.clone();
        // The first reader has waited longest; the others joined it and get the latest deadline.
        let due = readers.iter().map(|reader| reader.reply.due()).max();
        let reading = Box::pin(async move {
            if needs_echo {
                stream.link.echo().await?;
                // If the server refused the subscription, its error has arrived before the echo.
                stream.check_right(Right::Subscribe)?;
            }
            match needs_stream {
                true if !stream.link.has_jetstream => Err(BrokerError::Unavailable),
                true => stream.read(read).await.map(Some),
                false => Ok(None),
            }
        });
        let feed = &mut self.feed;
        let result = feed.receive_until(due.unwrap_or_else(Instant::now), reading).await;
        if let Ok(Some((top, stream))) = &result {
            feed.catch_up(&stream.position(), top.sequence).await;
            if top.sequence > 0 {
                feed.learn(top);
            }
        }
        for reader in readers {
            match &result {
                Ok(read) => reader.answer(read.as_ref().map(|(_, stream)| stream)),
                Err(error) => reader.refuse(*error),
            }
        }
    }

    async fn verify(&mut self, turns: Arc<Semaphore>) {
        let feed = &mut self.feed;
        feed.known = None;
        if !feed.is_subscribed() && !feed.subscribers.is_empty() {
            // Without a connection this fails; the next connection verifies again.
            let _later = feed.subscribe_channel().await;
        }
        let is_positioned = feed.has_position() && feed.stream.link.has_jetstream;
        if feed.subscribers.is_empty() || !is_positioned && !self.end.is_set() {
            return;
        }
        let turn = feed.while_receiving(Box::pin(turns.acquire_owned())).await;
        self.end.confirm(feed).await;
        if !is_positioned {
            return;
        }
        let stream = feed.stream.clone();
        let reading = Box::pin(async move {
            let _turn = turn;
            stream.echo_and_read().await
        });
        let Ok(top) = feed.while_receiving(reading).await else { return };
        let sequence = top.sequence;
        let top = feed.stream.link.position(&top);
        feed.catch_up(&top, sequence).await;
        for (_, inbox) in &feed.subscribers {
            let (channel, top) = (feed.stream.channel.clone(), top.clone());
            inbox.deliver(BrokerEvent::Position { channel, top });
        }
    }
}

/// The task's name in failure reports.
const TASK: &str = "channel";
