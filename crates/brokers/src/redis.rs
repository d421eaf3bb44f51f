//! The broker over Redis 6.2 or later, or Valkey: one server, several independent servers,
//! Sentinels, or a Cluster.
//!
//! One thread owns the state and one connection to each server. Subscriptions, publications and
//! requests share one ordered RESP3 stream, so a reply follows every publication that it covers. A
//! thread that submits a request while no reply is pending writes it directly, without waking the
//! broker's thread. Operations that must be atomic are Lua scripts. While a server is unreachable,
//! requests to it fail at once or within the timeout; clients stay connected. After a reconnect,
//! every channel is subscribed again and its position is sent to subscribers that track one.
//!
//! A promoted replica, or a server restarted from its disk, may lack the last publications and
//! would assign their offsets a second time. So a stream's epoch ends when the replication id of
//! its server (`master_replid`) changes. Invariant: a command that was sent and has no reply is
//! never sent again, unless it is idempotent.
//!
//! # Keys
//!
//! All keys begin with `<prefix>:{<tag>}:`. Databases other than 0 use
//! `<prefix>/<database>:{<tag>}:`, since pub/sub ignores databases. The tag is one of 256, chosen
//! by the channel's hash; the tags' slots are spread evenly over a Cluster. All keys of a channel
//! have its tag. Every key has an expiry.
//!
//! - `meta:<channel>`, hash: `e` epoch, `r` replication id of the server to which the epoch
//!   belongs, `s` offset, `v` version, `ve` version epoch. Expires `history_meta_ttl` after the
//!   last use; ten minutes while nothing was published.
//! - `stream:<channel>`, stream: id `<offset>-0`; `x` its end in Unix milliseconds, `d` the
//!   publication. Expires `history_ttl` after the last publication.
//! - `once:<length>:<channel>:<key>`, string: `<offset>:<epoch>` of the publication accepted with
//!   the idempotency key. Expires after five minutes.
//! - `life:<channel>`, string: when a temporary channel began, Unix milliseconds. Expires with the
//!   channel.
//! - `lived:<channel>`, string: marks that a temporary channel existed before. Expires an hour
//!   after twice its TTL.
//! - `clients:<channel>`, hash: client → `<node>:<0 or 1>:<length>:<user><info>`. Expires after
//!   twice `presence_ttl` without renewal.
//! - `users:<channel>`, hash: user → clients. Expires with the clients.
//! - `ends:<channel>`, sorted set: client by the time at which its presence ends unless renewed.
//!   Expires with the clients.
//! - `node:<node>`, set: channels of this tag in which clients of the node are present. Expires
//!   with the clients.
//! - `nodes` (first tag, like all keys below), sorted set: node by the time at which its lease
//!   ends. Expires a day after the last renewal, like all keys of nodes.
//! - `names`, `claims`, hash: node → its name; failed node → end of the claim of the node that
//!   cleans it up.
//! - `options`, hash: node → digest and text of its channel options.
//! - `online:<node>`, `owners:<node>`, hash: client → user; user → clients; the field `\0` marks
//!   them as complete.
//! - `events`, stream: `event`: JSON of a lifecycle event, for consumer groups of backends. Expires
//!   seven days after the last.
//! - `revocations`, hash: `user:<id>`, `token:<id>`, `issued:<user>`, `issued` → the change.
//!   Expires a minute after the last change.
//! - `revocation_ends`, sorted set: subject by the Unix seconds at which its change expires.
//!   Expires with the changes.
//! - `probe:<node>`, string: empty; written to verify that the server accepts writes. Deleted at
//!   once.
//! - `layout`, string: mark of Tidings' data, and its layout version. Expires 90 days after the
//!   last start.
//!
//! Pub/sub channels, sharded in a Cluster from version 7 on: `c:<channel>` for publications, joins
//! and leaves; `control` and `control:<node>` (first tag) for control messages of the server API
//! and survey questions; `probe:<node>` for the messages that a node publishes to itself as a
//! health check.

mod answer;
mod cleanup;
mod clock;
mod command;
mod command_request;
mod connection;
mod core;
mod driver_messages;
mod error_reply;
mod expirations;
mod identity;
mod keys;
mod link;
mod links;
mod machine;
mod master_check;
mod node_cleanup;
mod open_request;
mod orders;
mod outputs;
mod page_progress;
mod pages;
mod partition;
mod payload;
mod presence;
mod publish_batch;
mod publish_call;
mod published_leaves;
mod registry;
mod request_connection;
mod resp;
mod revocation_read;
mod scripts;
mod sentinel;
mod servers;
pub mod settings;
mod shared;
mod shared_reads;
mod stream_range;
mod subscriptions;
mod surveys;
mod topology;
mod unavailable;
mod watch;
mod window;
mod write_queue;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use engine::broker::{
    BrokerError, BrokerEvent, BrokerRequest, NodeBusRequest, PresenceRequest, PublicationsRequest,
    RegistryRequest,
};
use engine::rules::Rules;
use futures_util::FutureExt as _;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use self::connection::Dialer;
use self::driver_messages::{ConnectionId, DriverEvent, Job, LinkCommand, LinkEvent};
use self::machine::Machine;
use self::shared::Shared;
use self::write_queue::WriteQueue;
use crate::{
    Broker, Endpoint, Health, Inbox, LeavePublisher, NodeBus, PresenceBroker, PublicationBroker,
    RegistryBroker,
};

pub use settings::{RedisParts, RedisSettings};
pub use unavailable::UnavailableReason;

/// The broker; a thread of its own runs it until [`Broker::end`] or drop.
pub struct RedisBroker {
    parts: RedisParts,
    shared: Arc<Shared>,
    machine: Arc<Mutex<Machine>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Capacity of the queue of connection events; beyond it, data waits in the sockets.
const EVENTS_MAX: usize = 256;

/// Events handled in one turn before output is flushed.
const TURN_MAX: usize = 64;

/// Time after `end` in which requests already submitted are still sent.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

impl RedisBroker {
    /// Starts the broker's thread, which connects until it succeeds; [`Broker::health`] reports the
    /// progress.
    ///
    /// # Errors
    /// When the thread or its event loop cannot be created.
    pub fn start(settings: RedisSettings) -> io::Result<RedisBroker> {
        RedisBroker::start_with(settings, None)
    }

    /// Starts a broker that carries only presence. It publishes the leaves of clients that it
    /// removes by itself through another broker. Its keys have a prefix of their own, so that its
    /// leases are not counted as nodes where another broker of this process uses the same Redis.
    ///
    /// # Errors
    /// As [`RedisBroker::start`].
    pub fn start_for_presence(
        settings: RedisSettings,
        leaves: Arc<dyn LeavePublisher>,
    ) -> io::Result<RedisBroker> {
        let prefix = format!("{}:presence", settings.prefix);
        let settings = RedisSettings { parts: RedisParts::Presence, prefix, ..settings };
        RedisBroker::start_with(settings, Some(leaves))
    }

    fn start_with(
        settings: RedisSettings,
        leaves: Option<Arc<dyn LeavePublisher>>,
    ) -> io::Result<RedisBroker> {
        let (parts, shared) = (settings.parts, Arc::new(Shared::new(leaves)));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let machine = Arc::new(Mutex::new(Machine::new(&settings, shared.clone())));
        let driver = Driver::new(settings, shared.clone(), machine.clone());
        let thread = std::thread::Builder::new().name("redis".to_owned()).spawn(move || {
            // Spawned as a task: waking the future passed to `block_on` costs two system calls.
            let driver = runtime.spawn(driver.run());
            if runtime.block_on(driver).is_err() {
                die("its thread panicked");
            }
        })?;
        Ok(RedisBroker { parts, shared, machine, thread: Mutex::new(Some(thread)) })
    }

    /// Sends queued requests from the calling thread when no reply is pending: batching would gain
    /// nothing, and the broker's thread need not be woken. Returns whether everything was sent.
    fn send_at_once(&self) -> bool {
        let mut machine = match self.machine.try_lock() {
            Ok(machine) => machine,
            Err(TryLockError::WouldBlock) => return false,
            Err(TryLockError::Poisoned(_)) => die("a panic left its state inconsistent"),
        };
        if !machine.is_idle() {
            return false;
        }
        let now = machine.clock.now();
        machine.handle_jobs(now);
        machine.flush(now);
        !machine.has_commands()
    }
}

impl RedisBroker {
    /// Submits a request of an endpoint. Never blocks; results are delivered as events.
    pub fn submit(&self, endpoint: Endpoint, mut request: BrokerRequest) {
        self.shared.options.adopt(&mut request);
        let refusal = match (self.shared.is_closed(), self.shared.has_room()) {
            (true, _) => Some(BrokerError::Unavailable),
            (false, false) => Some(BrokerError::Overloaded),
            (false, true) => None,
        };
        if let Some(reply) = refusal.and_then(|error| request.refuse(error)) {
            if let Some(inbox) = self.shared.endpoints.inbox(endpoint) {
                inbox.deliver(BrokerEvent::Reply(reply));
            }
            return;
        }
        let has_reply = request.has_reply();
        let is_first = self.shared.push(Job::Request { endpoint, request }, usize::from(has_reply));
        if is_first && !self.send_at_once() {
            self.shared.wake();
        }
    }
}

impl Broker for RedisBroker {
    fn attach(&self, inbox: Arc<dyn Inbox>) -> Endpoint {
        self.shared.endpoints.attach(inbox)
    }

    fn set_rules(&self, rules: &Arc<Rules>) {
        self.shared.options.set_rules(rules);
        self.shared.announce_options();
    }

    fn detach(&self, endpoint: Endpoint) {
        self.shared.detach(endpoint);
    }

    /// Keys have an expiry in Redis.
    fn expire(&self) {}

    fn end(&self) {
        self.shared.close();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // The panic was reported where it happened.
            let _ended = thread.join();
        }
    }

    fn health(&self) -> Health {
        self.shared.reason().map_or(Health::Ready, |reason| Health::Unready {
            is_lasting: reason.is_lasting(),
            reason: reason.text(self.parts),
        })
    }

    fn lag(&self) -> Duration {
        self.shared.lag()
    }

    fn take_warning(&self) -> Option<String> {
        self.shared.warnings.take()
    }
}

impl PublicationBroker for RedisBroker {
    fn submit_publications(&self, endpoint: Endpoint, request: PublicationsRequest) {
        self.submit(endpoint, request.into());
    }
}

impl PresenceBroker for RedisBroker {
    fn submit_presence(&self, endpoint: Endpoint, request: PresenceRequest) {
        self.submit(endpoint, request.into());
    }
}

impl NodeBus for RedisBroker {
    fn submit_node_bus(&self, endpoint: Endpoint, request: NodeBusRequest) {
        self.submit(endpoint, request.into());
    }
}

impl RegistryBroker for RedisBroker {
    fn submit_registry(&self, endpoint: Endpoint, request: RegistryRequest) {
        self.submit(endpoint, request.into());
    }
}

impl Drop for RedisBroker {
    fn drop(&mut self) {
        self.end();
    }
}

/// Aborts the process after a panic in the broker: its state may be inconsistent, replies could
/// reach the wrong endpoint, and requests would wait for ever. A supervisor starts a new process.
fn die(why: &str) -> ! {
    tracing::error!(why, "the Redis broker has failed; the process exits and must be restarted");
    // The log may not be flushed before the abort.
    let _nobody_reads = writeln!(
        io::stderr(),
        "the Redis broker has failed ({why}); the process exits and must be restarted"
    );
    std::process::abort()
}

/// Spawns a task whose panic aborts the process; otherwise the broker would wait for it for ever.
fn spawn(task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
    let task = AssertUnwindSafe(task).catch_unwind();
    let watched = async move {
        if task.await.is_err() {
            die("one of its tasks panicked");
        }
    };
    tokio::spawn(watched).abort_handle()
}

/// What the driver's tasks send to its event loop.
#[expect(
    clippy::large_enum_variant,
    reason = "an event is the usual message, and a box would cost it an allocation"
)]
enum DriverMessage {
    /// The output of a connection that is open; the event follows.
    WriteQueue(ConnectionId, Arc<WriteQueue>),
    Event(DriverEvent),
}

impl From<DriverEvent> for DriverMessage {
    fn from(event: DriverEvent) -> DriverMessage {
        DriverMessage::Event(event)
    }
}

/// The machine, which no other thread may have left in the middle of a change.
fn lock(machine: &Mutex<Machine>) -> MutexGuard<'_, Machine> {
    machine.lock().unwrap_or_else(|_| die("a panic left its state inconsistent"))
}

/// The event loop of the broker's thread.
struct Driver {
    shared: Arc<Shared>,
    machine: Arc<Mutex<Machine>>,
    dialer: Arc<Dialer>,
    sender: mpsc::Sender<DriverMessage>,
    messages: mpsc::Receiver<DriverMessage>,
    connections: HashMap<ConnectionId, AbortHandle>,
}

impl Driver {
    fn new(settings: RedisSettings, shared: Arc<Shared>, machine: Arc<Mutex<Machine>>) -> Driver {
        let (sender, messages) = mpsc::channel(EVENTS_MAX);
        let clock = lock(&machine).clock;
        let dialer = Arc::new(Dialer::new(settings, clock));
        Driver { shared, machine, dialer, sender, messages, connections: HashMap::new() }
    }

    async fn run(mut self) {
        let mut messages = Vec::new();
        let mut closes_at = None;
        let mut next_timeout = Some(Instant::now());
        while let Some(at) = next_timeout {
            tokio::select! {
                () = self.shared.woken() => {}
                _ = self.messages.recv_many(&mut messages, TURN_MAX) => {}
                () = tokio::time::sleep_until(at.into()) => {}
            }
            if self.shared.is_closed() {
                // Requests already submitted are still sent, such as departures of clients.
                closes_at.get_or_insert(Instant::now() + CLOSE_TIMEOUT);
            }
            next_timeout = self.turn(&mut messages, closes_at);
        }
    }

    /// Handles events, queued requests and timers. Returns the time of the next turn; `None` when
    /// the broker has ended.
    fn turn(
        &mut self,
        messages: &mut Vec<DriverMessage>,
        closes_at: Option<Instant>,
    ) -> Option<Instant> {
        let machine = self.machine.clone();
        let mut machine = lock(&machine);
        let now = machine.clock.now();
        machine.handle_messages(now, messages.drain(..));
        machine.handle_jobs(now);
        machine.handle_timeout(now);
        if closes_at.is_some() {
            machine.leave_registry(now);
        }
        machine.flush(now);
        while let Some(command) = machine.poll_command() {
            self.execute(command);
        }
        let closes_now = closes_at.is_some_and(|at| at <= machine.clock.instant(now.time));
        let is_over = closes_now || closes_at.is_some() && machine.is_idle();
        (!is_over).then(|| machine.clock.instant(machine.next_timeout()))
    }

    fn execute(&mut self, command: LinkCommand) {
        let (dialer, sender) = (self.dialer.clone(), self.sender.clone());
        match command {
            LinkCommand::Connect { connection_id, target, after } => {
                let connection = spawn(async move {
                    tokio::time::sleep(after).await;
                    let reason = dialer.run(connection_id, &target, &sender).await;
                    // The receiver is dropped when the broker has ended.
                    let _nobody = sender
                        .send(DriverEvent::Link(connection_id, LinkEvent::Down(reason)).into())
                        .await;
                });
                self.connections.retain(|_, connection| !connection.is_finished());
                self.connections.insert(connection_id, connection);
            }
            LinkCommand::Close { connection_id } => {
                if let Some(connection) = self.connections.remove(&connection_id) {
                    connection.abort();
                }
            }
            LinkCommand::Watch { link, server } => {
                spawn(dialer.watch(link, server, sender));
            }
            LinkCommand::ReadSlots { members } => {
                spawn(async move {
                    let slots = dialer.slots(&members).await;
                    let _nobody = sender.send(DriverEvent::Slots(slots).into()).await;
                });
            }
        }
    }
}
