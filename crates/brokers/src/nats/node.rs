//! This process at NATS: its thread, its link, its streams, its rooms.
//!
//! Invariant: a request that was taken is answered, whatever happens to the link; after a cut the streams are there
//! again, this node's clients are present again, and every stream that is heard is proven.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, Subscriber};
use engine::broker::{BrokerError, BrokerEvent, BrokerReply, BrokerRequest, Control};
use futures_util::StreamExt;
use futures_util::stream::{SelectAll, select_all};
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use super::Shared;
use super::lifecycle::Teller;
use super::link::{ApiError, Link, nanoseconds};
use super::options::{JetStreamOptions, NatsError, NatsOptions};
use super::presence::Presence;
use super::room::{self, Ask};
use super::stream::Place;
use super::subject::{self, Names};
use super::survey::Surveys;
use crate::control::{self, Message};
use crate::limits::{
    ANSWER_TIMEOUT, JETSTREAM_RETRY, JETSTREAM_WAIT, LEASE_RENEWALS, LIFECYCLE_TTL_MS,
    PING_INTERVAL, PROOFS_MAX, RECONNECT_DELAY_MAX, TRIM_EVERY,
};
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

async fn connect(
    options: &NatsOptions,
    names: &Names,
    events: UnboundedSender<Event>,
) -> Result<Client, NatsError> {
    let is_first = AtomicBool::new(true);
    let mut connecting = ConnectOptions::new()
        .name(format!("tidings {}", names.node))
        .connection_timeout(Duration::from_millis(options.dial_timeout_ms))
        .request_timeout(Some(ANSWER_TIMEOUT))
        .ping_interval(PING_INTERVAL)
        .max_reconnects(None)
        .reconnect_delay_callback(|attempts| {
            let attempts = u32::try_from(attempts).unwrap_or(u32::MAX);
            Duration::from_millis(20).saturating_mul(attempts).min(RECONNECT_DELAY_MAX)
        })
        .event_callback(move |event| {
            let is_start =
                matches!(event, Event::Connected) && is_first.swap(false, Ordering::Relaxed);
            if !is_start {
                // The node has ended; so has what it would do.
                let _ended = events.send(event);
            }
            std::future::ready(())
        });
    if options.tls.enabled {
        connecting = connecting.require_tls(true);
    }
    if let Some(file) = &options.tls.server_ca_pem_file {
        connecting = connecting.add_root_certificates(file.clone());
    }
    if let Some((certificate, key)) = &options.tls.client_pem_files {
        connecting = connecting.add_client_certificate(certificate.clone(), key.clone());
    }
    let urls: Vec<&str> = options.url.split(',').map(str::trim).collect();
    // The client does not look for these in an address.
    match urls.iter().find_map(|url| secrets(url)) {
        Some((user, Some(password))) => connecting = connecting.user_and_password(user, password),
        Some((token, None)) => connecting = connecting.token(token),
        None => {}
    }
    connecting.connect(urls).await.map_err(|error| {
        let url = without_secrets(&options.url);
        match error.kind() {
            ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                NatsError::Credentials { url }
            }
            ConnectErrorKind::Tls => NatsError::Tls { url, reason: error.to_string() },
            _ if is_about_tls(&error) => NatsError::Tls { url, reason: error.to_string() },
            _ => NatsError::Unreachable { url, reason: error.to_string() },
        }
    })
}

/// Whether TLS is what failed: the client calls a failed handshake an error of input and output.
fn is_about_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    let io = error.source().and_then(|source| source.downcast_ref::<std::io::Error>());
    let inner = io.and_then(std::io::Error::get_ref);
    inner.is_some_and(|inner| inner.is::<rustls::Error>())
}

/// Finds or makes the streams. Servers of a cluster first agree on who leads what, which is waited for.
async fn set_up(
    link: &Link,
    jetstream: &JetStreamOptions,
    presence: &Presence,
    silent: impl Fn(BrokerError) -> NatsError,
) -> Result<(), NatsError> {
    let until = Instant::now() + JETSTREAM_WAIT;
    loop {
        let attempt = async {
            ensure_streams(link, jetstream).await?;
            link.prove_store().await.map_err(&silent)?;
            presence.learn_time().await.map_err(&silent)
        };
        let error = match attempt.await {
            Err(error) if !matches!(error, NatsError::ForeignStream { .. }) => error,
            result => return result,
        };
        let server = link.client.server_info();
        if !(server.jetstream && server.cluster.is_some()) || Instant::now() >= until {
            return Err(error);
        }
        tokio::time::sleep(JETSTREAM_RETRY).await;
    }
}

async fn ensure_streams(link: &Link, options: &JetStreamOptions) -> Result<(), NatsError> {
    let prefix = &link.names.prefix;
    // The newest message of a channel holds its offset and epoch, so that messages live as long as those do.
    let max_age_ms = options.kept_ms_max.max(2 * DUPLICATES.as_secs() * 1000);
    let per_channel = 2 * u64::from(options.history_size_max) + 4 * TRIM_EVERY;
    let history = json!({
        "name": link.names.history_stream(),
        "subjects": [format!("{prefix}.stream.*")],
        "retention": "limits",
        "discard": "old",
        "storage": "file",
        "num_replicas": options.replicas.max(1),
        "max_age": nanoseconds(Duration::from_millis(max_age_ms)),
        "max_msgs_per_subject": per_channel,
        "duplicate_window": nanoseconds(DUPLICATES),
        "republish": {
            "src": format!("{prefix}.stream.*"),
            "dest": format!("{prefix}.channel.{{{{wildcard(1)}}}}"),
        },
    });
    let presence = json!({
        "name": link.names.presence_stream(),
        "subjects": [format!("{prefix}.presence.>"), format!("{prefix}.lease.*")],
        "retention": "limits",
        "discard": "old",
        "storage": "memory",
        "num_replicas": options.replicas.max(1),
        "max_msgs_per_subject": 1,
    });
    let events = json!({
        "name": link.names.events_stream(),
        "subjects": [link.names.events()],
        "retention": "limits",
        "discard": "old",
        "storage": "file",
        "num_replicas": options.replicas.max(1),
        "max_age": nanoseconds(Duration::from_millis(LIFECYCLE_TTL_MS)),
        "max_msgs": options.events_max,
        "duplicate_window": nanoseconds(DUPLICATES),
    });
    // The last of them holds as long as the streams do.
    let era = json!({
        "name": link.names.era_stream(),
        "subjects": [link.names.era()],
        "retention": "limits",
        "discard": "old",
        "storage": "file",
        "num_replicas": options.replicas.max(1),
        "max_msgs_per_subject": 1,
    });
    ensure_stream(link, era).await?;
    ensure_stream(link, history).await?;
    ensure_stream(link, presence).await?;
    ensure_stream(link, events).await
}

async fn ensure_stream(link: &Link, mut wanted: Value) -> Result<(), NatsError> {
    let stream = wanted["name"].as_str().unwrap_or_default().to_owned();
    let refused = |error: ApiError| match error {
        ApiError::Unavailable | ApiError::Refused { code: NOT_ENABLED | NOT_FOR_ACCOUNT, .. } => {
            NatsError::NoJetStream
        }
        ApiError::Refused { text, .. } => {
            NatsError::Stream { stream: stream.clone(), reason: text }
        }
    };
    let found = match link.api(&format!("STREAM.INFO.{stream}"), &json!({})).await {
        Ok(found) => found,
        Err(ApiError::Refused { code: NO_STREAM, .. }) => {
            let made = link.api(&format!("STREAM.CREATE.{stream}"), &wanted).await;
            return made.map(|_| ()).map_err(refused);
        }
        Err(error) => return Err(refused(error)),
    };
    let found = &found["config"];
    if found["subjects"] != wanted["subjects"] || found["republish"] != wanted["republish"] {
        return Err(NatsError::ForeignStream { stream });
    }
    // Nodes with other namespaces may share it: it only grows.
    let mut grows = false;
    for key in ["max_age", "max_msgs_per_subject", "num_replicas"] {
        let (is, wants) = (found[key].as_u64().unwrap_or(0), wanted[key].as_u64().unwrap_or(0));
        grows |= is < wants;
        if wants > 0 {
            wanted[key] = is.max(wants).into();
        }
    }
    if !grows {
        return Ok(());
    }
    link.api(&format!("STREAM.UPDATE.{stream}"), &wanted).await.map(|_| ()).map_err(refused)
}

/// Time to end in.
const END_TIMEOUT: Duration = Duration::from_secs(4);

/// What stands before `@` in an address: user and password, or a token.
fn secrets(url: &str) -> Option<(String, Option<String>)> {
    let (before, _) = url.rsplit_once('@')?;
    let before = before.split_once("://").map_or(before, |(_, behind)| behind);
    match before.split_once(':') {
        Some((user, password)) => Some((decoded(user), Some(decoded(password)))),
        None => Some((decoded(before), None)),
    }
}

/// Text in which `%` and two hexadecimal digits stand for a byte.
fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let byte = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte {
            Some(byte) => {
                bytes.push(byte);
                bytes.extend(&part.as_bytes()[2..]);
            }
            None => {
                bytes.push(b'%');
                bytes.extend(part.as_bytes());
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The addresses without what stands before `@`.
fn without_secrets(urls: &str) -> String {
    let shown = urls.split(',').map(|url| match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{}://{host}", scheme.trim()),
        (None, Some((_, host))) => host.to_owned(),
        _ => url.trim().to_owned(),
    });
    shown.collect::<Vec<_>>().join(",")
}

/// For how long JetStream remembers idempotency keys: longer than we do, so that its memory is never the shorter.
const DUPLICATES: Duration = Duration::from_secs(330);
/// JetStream: no stream of that name.
const NO_STREAM: u64 = 10059;
/// JetStream: switched off.
const NOT_ENABLED: u64 = 10076;
/// JetStream: not for this account.
const NOT_FOR_ACCOUNT: u64 = 10039;
