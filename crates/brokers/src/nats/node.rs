//! This process at NATS: its thread, its link, its streams, its rooms.
//!
//! Invariant: a request that was taken is answered, whatever happens to the link; after a cut the streams are there
//! again, this node's clients are present again, and every stream that is heard is proven.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::{Event, Subscriber};
use engine::broker::{BrokerError, BrokerEvent, BrokerReply, BrokerRequest, Control};
use futures_util::StreamExt;
use futures_util::stream::{SelectAll, select_all};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use super::Shared;
use super::address::{connect, without_secrets};
use super::lifecycle::Teller;
use super::link::Link;
use super::options::{NatsError, NatsOptions};
use super::presence::Presence;
use super::room::{self, Ask};
use super::stream::Place;
use super::streams::{ensure_streams, set_up};
use super::subject::{self, Names};
use super::survey::Surveys;
use crate::control::{self, Message};
use crate::limits::{JETSTREAM_RETRY, LEASE_RENEWALS, PROOFS_MAX};
use crate::{Clock, Inbox, Party};

/// What the broker hands to its thread.
#[expect(
    clippy::large_enum_variant,
    reason = "a request is the usual case, and a box would cost it an allocation"
)]
pub(super) enum Job {
    Request(Party, Arc<dyn Inbox>, BrokerRequest),
    Detach(Party),
    /// After everything before it.
    End,
}

/// See the module.
struct Node {
    link: Rc<Link>,
    options: NatsOptions,
    presence: Rc<Presence>,
    rooms: HashMap<Arc<str>, UnboundedSender<Ask>>,
    surveys: Rc<Surveys>,
    teller: Rc<Teller>,
    shared: Arc<Shared>,
    /// Held by whatever must be done before the end.
    busy: mpsc::Sender<()>,
    is_done: mpsc::Receiver<()>,
}

/// What this process hears that is about no channel.
struct Heard {
    controls: SelectAll<Subscriber>,
    eras: Subscriber,
    /// That a server of a cluster has come to lead the history stream.
    leaders: Subscriber,
}

/// Connects and, once everything is in place, works until the broker is dropped.
pub(super) async fn run(
    options: NatsOptions,
    names: Names,
    clock: Arc<dyn Clock>,
    shared: Arc<Shared>,
    mut jobs: UnboundedReceiver<Job>,
    started: oneshot::Sender<Result<(), NatsError>>,
) {
    let (events_in, mut events) = unbounded_channel();
    let made = Node::start(options, names, clock, shared, events_in).await;
    let (mut node, Heard { mut controls, mut eras, mut leaders }) = match made {
        Ok(made) => made,
        Err(error) => {
            // Whoever started us waits for this.
            let _told = started.send(Err(error));
            return;
        }
    };
    let _told = started.send(Ok(()));
    let mut beat = tokio::time::interval(Duration::from_secs(1));
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut beats = 0u64;
    loop {
        tokio::select! {
            job = jobs.recv() => match job {
                Some(Job::End) | None => break,
                Some(job) => node.handle(job).await,
            },
            message = controls.next() => {
                let Some(message) = message else { break };
                if let Some(message) = control::decode(&message.payload) {
                    node.hear(message);
                }
            }
            Some(event) = events.recv() => node.handle_event(&event),
            // Whoever begins an era is heard before it is known whether it was stored.
            Some(_) = eras.next() => node.settle(),
            Some(_) = leaders.next() => node.settle(),
            () = node.link.eras.has_doubts.notified() => node.settle(),
            () = node.link.eras.wants_proof.notified() => node.prove(),
            _ = beat.tick() => {
                beats += 1;
                node.beat(beats);
            }
        }
    }
    // What is not done then, other nodes find when the lease ends.
    let _late = tokio::time::timeout(END_TIMEOUT, node.end(jobs)).await;
}

impl Node {
    async fn start(
        options: NatsOptions,
        names: Names,
        clock: Arc<dyn Clock>,
        shared: Arc<Shared>,
        events: UnboundedSender<Event>,
    ) -> Result<(Node, Heard), NatsError> {
        let client = connect(&options, &names, events).await?;
        let unreachable = |_: BrokerError| NatsError::Unreachable {
            url: without_secrets(&options.url),
            reason: "it does not answer".into(),
        };
        let link =
            Rc::new(Link::new(client, names, options.jetstream.is_some(), clock, shared.clone()));
        let heard = link.subscribe(link.names.echo()).await.map_err(unreachable)?;
        tokio::task::spawn_local(link.clone().run_echo(heard));
        let to_all = link.subscribe(link.names.control()).await.map_err(unreachable)?;
        let own = link.names.control_of(&link.names.node);
        let to_this = link.subscribe(own).await.map_err(unreachable)?;
        let controls = select_all([to_all, to_this]);
        let eras = link.subscribe(link.names.era()).await.map_err(unreachable)?;
        let leaders = link.subscribe(link.names.leaders()).await.map_err(unreachable)?;
        link.echo().await.map_err(unreachable)?;
        let presence = Rc::new(Presence::new(link.clone(), options.name.clone(), options.lease_ms));
        if let Some(jetstream) = &options.jetstream {
            set_up(&link, jetstream, &presence, unreachable).await?;
        }
        let surveys = Rc::new(Surveys::new(link.clone(), presence.clone()));
        let teller = Rc::new(Teller::new(presence.clone()));
        tokio::task::spawn_local(teller.clone().run());
        let rooms = HashMap::new();
        let (busy, is_done) = mpsc::channel(1);
        let node = Node { link, options, presence, rooms, surveys, teller, shared, busy, is_done };
        Ok((node, Heard { controls, eras, leaders }))
    }

    async fn handle(&mut self, job: Job) {
        match job {
            Job::End => {}
            Job::Detach(party) => {
                if let Some(forgetting) = self.presence.forget(party) {
                    let busy = self.busy.clone();
                    tokio::task::spawn_local(async move {
                        forgetting.await;
                        drop(busy);
                    });
                }
                self.teller.forget(party);
                self.rooms.retain(|_, room| room.send(Ask::Forget(party)).is_ok());
            }
            Job::Request(_, _, BrokerRequest::Control(control)) => {
                self.shared.length.fetch_sub(1, Ordering::Relaxed);
                self.tell(&control).await;
            }
            Job::Request(party, inbox, request) => {
                self.shared.length.fetch_sub(1, Ordering::Relaxed);
                match request {
                    BrokerRequest::Survey { id, question } => {
                        let surveys = self.surveys.clone();
                        tokio::task::spawn_local(async move {
                            let result = surveys.ask(&question).await.map(BrokerReply::Survey);
                            inbox.deliver(BrokerEvent::Reply { id, result });
                        });
                    }
                    BrokerRequest::Answer { ticket, answer } => {
                        let names = &self.link.names;
                        let said = control::encode_answer(&names.node, ticket.number, &answer);
                        let subject = names.control_of(&ticket.node);
                        // The one that asks is told who has not answered.
                        let _unheard = self.link.publish(subject, said.into()).await;
                    }
                    BrokerRequest::Lifecycle(lifecycle) => self.teller.note(party, lifecycle),
                    request => {
                        let Some(channel) = request.channel().cloned() else { return };
                        self.ask(&channel, Ask::Request(party, inbox, request));
                    }
                }
            }
        }
    }

    /// A node has something to say.
    fn hear(&self, message: Message) {
        match message {
            Message::Order(control) => self.shared.parties.tell(&Arc::new(control)),
            Message::Question { ticket, question } if ticket.node != self.link.names.node => {
                self.shared.parties.tell_all(&BrokerEvent::Question { ticket, question });
            }
            Message::Question { .. } => {}
            Message::Answer { node, number, answer } => self.surveys.hear(node, number, answer),
        }
    }

    /// An order goes to all nodes through NATS, or, while that is away, at least to the parties here.
    async fn tell(&self, order: &Arc<Control>) {
        let payload = control::encode(order).into();
        if self.link.publish(self.link.names.control(), payload).await.is_err() {
            self.shared.parties.tell(order);
        }
    }

    fn ask(&mut self, channel: &Arc<str>, mut ask: Ask) {
        loop {
            let room = self.rooms.entry(channel.clone()).or_insert_with(|| {
                let token = subject::token(channel).into();
                let place = Place { link: self.link.clone(), channel: channel.clone(), token };
                room::open(place, self.presence.clone(), self.busy.clone())
            });
            match room.send(ask) {
                Ok(()) => return,
                // The room has closed for want of visitors.
                Err(back) => ask = back.0,
            }
            self.rooms.remove(channel);
        }
    }

    /// Does what was asked, tells what is new, and leaves nothing behind. What could not be told is left for others to find.
    async fn end(mut self, mut jobs: UnboundedReceiver<Job>) {
        jobs.close();
        while let Some(job) = jobs.recv().await {
            self.handle(job).await;
        }
        for party in self.shared.parties.all() {
            self.handle(Job::Detach(party)).await;
        }
        let Node { link, presence, rooms, teller, busy, mut is_done, .. } = self;
        drop((rooms, busy));
        // Nothing is sent: it ends when nobody is busy any more.
        let _nobody = is_done.recv().await;
        // Rooms may have done for parties what was asked before these were gone.
        for party in presence.parties() {
            if let Some(forgetting) = presence.forget(party) {
                forgetting.await;
            }
        }
        teller.end().await;
        // What was handed to the connection has left it then.
        let _unanswered = link.echo().await;
        if link.keeps && teller.is_quiet() && presence.is_empty() {
            presence.end().await;
        }
    }

    fn handle_event(&mut self, event: &Event) {
        match event {
            Event::Connected | Event::SlowConsumer(_) => self.recover(),
            Event::Disconnected | Event::Closed => {
                self.shared.is_well.store(false, Ordering::Relaxed);
            }
            Event::LameDuckMode
            | Event::Draining
            | Event::ServerError(_)
            | Event::ClientError(_) => {}
        }
    }

    /// The link is back, or messages were dropped: everything is put right, and every stream that is heard is proven.
    fn recover(&mut self) {
        let (link, presence) = (self.link.clone(), self.presence.clone());
        let (rooms, teller) = (self.open_rooms(), self.teller.clone());
        let jetstream = self.options.jetstream.clone();
        tokio::task::spawn_local(async move {
            if let Some(jetstream) = jetstream {
                // JetStream is there some time after its server.
                while ensure_streams(&link, &jetstream).await.is_err()
                    || link.prove_store().await.is_err()
                {
                    if link.check().is_err() {
                        return;
                    }
                    tokio::time::sleep(JETSTREAM_RETRY).await;
                }
                presence.doubt();
                renew(&presence, &teller).await;
            }
            teller.wake();
            prove(&rooms);
        });
    }

    /// The store may have lost something without a cut of the link.
    fn settle(&self) {
        if self.link.keeps {
            let link = self.link.clone();
            // Until that is known nothing is read; the next beat looks again.
            tokio::task::spawn_local(async move {
                let _later = link.prove_store().await;
            });
        }
    }

    /// Something may have been lost: whoever has a position is told.
    fn prove(&mut self) {
        prove(&self.open_rooms());
    }

    fn open_rooms(&mut self) -> Vec<UnboundedSender<Ask>> {
        self.rooms.retain(|_, room| !room.is_closed());
        self.rooms.values().cloned().collect()
    }

    fn beat(&mut self, beats: u64) {
        self.teller.wake();
        let (link, presence) = (self.link.clone(), self.presence.clone());
        let teller = self.teller.clone();
        let interval = (self.options.lease_ms / LEASE_RENEWALS / 1000).max(1);
        let renews = link.keeps && (beats.is_multiple_of(interval) || presence.is_owing());
        if beats.is_multiple_of(10) {
            self.rooms.retain(|_, room| !room.is_closed());
        }
        if renews || !self.link.is_proven() {
            self.settle();
        }
        tokio::task::spawn_local(async move {
            // What fails shows in `is_well`, and is tried again with the next beat.
            let sent = Instant::now();
            if link.echo().await.is_ok() {
                let lag_us = u64::try_from(sent.elapsed().as_micros()).unwrap_or(u64::MAX);
                link.shared.lag_us.store(lag_us, Ordering::Relaxed);
            }
            if renews {
                renew(&presence, &teller).await;
            }
        });
    }
}

/// Says that this node lives; if another one has told of its death meanwhile, its clients are told to be online again.
async fn renew(presence: &Presence, teller: &Teller) {
    // Another attempt follows with one of the next beats.
    let _later = presence.renew().await;
    if presence.takes_news() {
        teller.tell_all();
    }
}

fn prove(rooms: &[UnboundedSender<Ask>]) {
    let turns = Arc::new(Semaphore::new(PROOFS_MAX));
    for room in rooms {
        // A room that has closed hears nothing.
        let _closed = room.send(Ask::Prove(turns.clone()));
    }
}

/// Time to end in.
const END_TIMEOUT: Duration = Duration::from_secs(4);
