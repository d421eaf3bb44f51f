//! The broker over Redis 6.2 and later, or Valkey: one server, several independent ones, Sentinels,
//! or a Cluster.
//!
//! One thread does most of it, with one connection to each server: subscriptions, publications and
//! questions in one ordered stream (RESP3), so that an answer stands behind every publication that
//! it knows of. Whoever submits something while nothing is under way sends it without waking that
//! thread. Whatever must happen as one is a script. While a server cannot be reached, what needs it
//! fails at once or within the time-out; nobody is disconnected. When it is back, every channel is
//! subscribed again and its position told to those who hold one.
//!
//! A server that took over from another, or came back from its disk, may not have what was
//! published last, and would number anew what others have received already. So epochs end with the
//! term of the server as a master (`master_replid`). Invariant: what was sent to a server and not
//! answered is never sent again, unless doing it twice is doing it once.
//!
//! # Keys
//!
//! All begin with `<prefix>:{<tag>}:`, in another database than the first with
//! `<prefix>/<database>:{<tag>}:`, since pub/sub knows no databases. The tag is one of 256, by the
//! channel's hash; the tags' slots are spread evenly over a Cluster. All of a channel's keys have
//! its tag. Every key has an end.
//!
//! | Key | Type | Holds | Ends |
//! |---|---|---|---|
//! | `meta:<channel>` | hash | `e` epoch, `r` replication id of the server to which the epoch belongs, `s` offset, `v` version, `ve` version epoch | `history_meta_ttl` after the last use; ten minutes while nothing was published |
//! | `stream:<channel>` | stream | id `<offset>-0`; `x` its end in Unix milliseconds, `d` the publication | `history_ttl` after the last publication |
//! | `once:<length>:<channel>:<key>` | string | `<offset>:<epoch>` of what was accepted under the idempotency key | five minutes |
//! | `life:<channel>` | string | when a temporary channel began, Unix milliseconds | with the channel |
//! | `lived:<channel>` | string | that a temporary channel has begun before | twice its TTL and an hour after that |
//! | `clients:<channel>` | hash | client → `<node>:<0 or 1>:<length>:<user><info>` | twice `presence_ttl` after the last renewal |
//! | `users:<channel>` | hash | user → clients | with the clients |
//! | `ends:<channel>` | sorted set | client by the time at which it is gone unless renewed | with the clients |
//! | `node:<node>` | set | channels of this tag in which clients of the node are present | with the clients |
//! | `nodes` (first tag, as what follows) | sorted set | node by the time at which its lease ends | a day after the last renewal, as all of nodes |
//! | `names`, `claims` | hash | node → its name; node that is gone → until when another clears it away | |
//! | `options` | hash | node → digest and text of its channel options | |
//! | `online:<node>`, `owners:<node>` | hash | client → user; user → clients; the field `\0` says that they are whole | |
//! | `events` | stream | `event`: JSON of a client that came or went, for consumer groups of backends | seven days after the last |
//! | `revocations` | hash | `user:<id>`, `token:<id>`, `issued:<user>`, `issued` → the change | a minute after the last of them |
//! | `revocation_ends` | sorted set | the same by the Unix seconds at which they end | with them |
//! | `probe:<node>` | string | nothing: that it can be written is known then | at once |
//! | `layout` | string | that this data is ours, and its version | 90 days after the last start |
//!
//! Channels of pub/sub, sharded ones in a Cluster from version 7 on: `c:<channel>` for
//! publications, joins and leaves; `control` and `control:<node>` (first tag) for orders of the
//! server API and questions of nodes; `probe:<node>` for what a node publishes to itself, to know
//! that everything works.

mod answer;
mod command;
mod connection;
mod core;
mod exchange;
mod identity;
mod keys;
mod link;
mod links;
mod pages;
mod part;
mod partition;
mod payload;
mod pipe;
mod presence;
mod registry;
mod resp;
mod scripts;
mod sentinel;
pub mod settings;
mod shared;
mod subscriptions;
mod topology;
mod unavailable;
mod watch;
mod window;

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use engine::broker::{BrokerError, BrokerEvent, BrokerRequest};
use engine::rules::Rules;
use futures_util::FutureExt as _;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use self::connection::Dialer;
use self::core::Core;
use self::exchange::{ConnectionId, DriverEvent, Job, LinkCommand, LinkEvent};
use self::shared::Shared;
use crate::{Broker, Endpoint, Health, Inbox};

pub use settings::RedisSettings;
pub use unavailable::UnavailableReason;

/// See the module.
pub struct RedisBroker {
    shared: Arc<Shared>,
    core: Arc<Mutex<Core>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Events of connections that wait for the broker's thread; more wait in the sockets.
const EVENTS_MAX: usize = 256;

/// Events and requests that are looked at before what follows from them leaves.
const TURN_MAX: usize = 64;

/// Time for what was submitted before the end.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

impl RedisBroker {
    /// Starts the broker's thread. It goes on trying until Redis can be used; [`Broker::health`]
    /// says how that goes.
    ///
    /// # Errors
    /// When the system gives no thread or poller.
    pub fn start(settings: RedisSettings) -> io::Result<RedisBroker> {
        let shared = Arc::new(Shared::new());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let core = Arc::new(Mutex::new(Core::new(Instant::now(), &settings, shared.clone())));
        let driver = Driver::new(settings, shared.clone(), core.clone());
        let thread = std::thread::Builder::new().name("redis".to_owned()).spawn(move || {
            // As a task: what connections tell the future that blocks takes two calls of the
            // system.
            let driver = runtime.spawn(driver.run());
            if runtime.block_on(driver).is_err() {
                die("its thread has panicked");
            }
        })?;
        Ok(RedisBroker { shared, core, thread: Mutex::new(Some(thread)) })
    }

    /// Sends what waits when no answer is under way: then there is nothing to gather for, and the
    /// broker's thread need not be woken. Says whether it did.
    fn send_at_once(&self) -> bool {
        let mut core = match self.core.try_lock() {
            Ok(core) => core,
            Err(TryLockError::WouldBlock) => return false,
            Err(TryLockError::Poisoned(_)) => die("its state was left half changed"),
        };
        if !core.is_idle() {
            return false;
        }
        let now = Instant::now();
        core.handle_jobs(now);
        core.flush(now);
        !core.has_orders()
    }
}

impl Broker for RedisBroker {
    fn attach(&self, inbox: Arc<dyn Inbox>) -> Endpoint {
        self.shared.endpoints.attach(inbox)
    }

    fn submit(&self, endpoint: Endpoint, mut request: BrokerRequest) {
        self.shared.options.adopt(&mut request);
        let id = request.id();
        let refusal = match (self.shared.is_closed(), self.shared.has_room()) {
            (true, _) => Some(BrokerError::Unavailable),
            (false, false) => Some(BrokerError::Overloaded),
            (false, true) => None,
        };
        if let (Some(id), Some(refusal)) = (id, refusal) {
            if let Some(inbox) = self.shared.endpoints.inbox(endpoint) {
                inbox.deliver(BrokerEvent::Reply { id, result: Err(refusal) });
            }
            return;
        }
        let is_first =
            self.shared.push(Job::Request { endpoint, request }, usize::from(id.is_some()));
        if is_first && !self.send_at_once() {
            self.shared.wake();
        }
    }

    fn set_rules(&self, rules: &Arc<Rules>) {
        self.shared.options.set_rules(rules);
        self.shared.renew_lease();
    }

    fn detach(&self, endpoint: Endpoint) {
        self.shared.detach(endpoint);
    }

    /// Redis does that by itself.
    fn expire(&self) {}

    fn end(&self) {
        self.shared.close();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic has been reported where it happened.
            let _ended = thread.join();
        }
    }

    fn health(&self) -> Health {
        self.shared.reason().map_or(Health::Ready, |reason| Health::Unready {
            is_lasting: reason.is_lasting(),
            reason: reason.to_string(),
        })
    }

    fn lag(&self) -> Duration {
        self.shared.lag()
    }

    fn take_warning(&self) -> Option<String> {
        self.shared.warnings.take()
    }
}

impl Drop for RedisBroker {
    fn drop(&mut self) {
        self.end();
    }
}

/// Ends the process after a panic in the broker: answers could go to the wrong ones, what was
/// submitted would wait for ever, and a node that cannot trust its broker serves nobody. A new
/// process does.
fn die(why: &str) -> ! {
    tracing::error!(why, "the Redis broker has failed; this process ends so that a new one serves");
    // What logs may not be written any more.
    let _nobody_reads = writeln!(
        io::stderr(),
        "the Redis broker has failed ({why}); this process ends so that a new one serves"
    );
    std::process::abort()
}

/// Starts a task whose panic ends the process: the broker would wait for it for ever.
fn spawn(task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
    let task = AssertUnwindSafe(task).catch_unwind();
    let watched = async move {
        if task.await.is_err() {
            die("one of its tasks has panicked");
        }
    };
    tokio::spawn(watched).abort_handle()
}

/// The loop of the broker's thread.
struct Driver {
    shared: Arc<Shared>,
    core: Arc<Mutex<Core>>,
    dialer: Arc<Dialer>,
    sender: mpsc::Sender<DriverEvent>,
    events: mpsc::Receiver<DriverEvent>,
    connections: HashMap<ConnectionId, AbortHandle>,
}

impl Driver {
    fn new(settings: RedisSettings, shared: Arc<Shared>, core: Arc<Mutex<Core>>) -> Driver {
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let dialer = Arc::new(Dialer::new(settings));
        Driver { shared, core, dialer, sender, events, connections: HashMap::new() }
    }

    async fn run(mut self) {
        let mut events = Vec::new();
        let mut closes_at = None;
        let mut next_timeout = Some(Instant::now());
        while let Some(at) = next_timeout {
            tokio::select! {
                () = self.shared.woken() => {}
                _ = self.events.recv_many(&mut events, TURN_MAX) => {}
                () = tokio::time::sleep_until(at.into()) => {}
            }
            if self.shared.is_closed() {
                // What was submitted is still sent, such as that clients have left.
                closes_at.get_or_insert(Instant::now() + CLOSE_TIMEOUT);
            }
            next_timeout = self.turn(&mut events, closes_at);
        }
    }

    /// What follows from events, requests and time; says until when there is nothing to do, or that
    /// all is done.
    fn turn(
        &mut self,
        events: &mut Vec<DriverEvent>,
        closes_at: Option<Instant>,
    ) -> Option<Instant> {
        let core = self.core.clone();
        let mut core = core.lock().unwrap_or_else(|_| die("its state was left half changed"));
        let now = Instant::now();
        events.drain(..).for_each(|event| core.handle_event(now, event));
        core.handle_jobs(now);
        core.handle_timeout(now);
        if closes_at.is_some() {
            core.leave_registry(now);
        }
        core.flush(now);
        while let Some(order) = core.poll_order() {
            self.obey(order);
        }
        let is_over = closes_at.is_some_and(|at| at <= now || core.is_idle());
        (!is_over).then(|| core.next_timeout())
    }

    fn obey(&mut self, order: LinkCommand) {
        let (dialer, sender) = (self.dialer.clone(), self.sender.clone());
        match order {
            LinkCommand::Connect { line, target, after } => {
                let connection = spawn(async move {
                    tokio::time::sleep(after).await;
                    let reason = dialer.run(line, &target, &sender).await;
                    // The broker may be gone, and then nobody wants to know.
                    let _nobody =
                        sender.send(DriverEvent::Link(line, LinkEvent::Down(reason))).await;
                });
                self.connections.retain(|_, connection| !connection.is_finished());
                self.connections.insert(line, connection);
            }
            LinkCommand::Close { line } => {
                if let Some(connection) = self.connections.remove(&line) {
                    connection.abort();
                }
            }
            LinkCommand::Watch { link, server } => {
                spawn(dialer.watch(link, server, sender));
            }
            LinkCommand::AskSlots { members } => {
                spawn(async move {
                    let slots = dialer.slots(&members).await;
                    let _nobody = sender.send(DriverEvent::Slots(slots)).await;
                });
            }
        }
    }
}
