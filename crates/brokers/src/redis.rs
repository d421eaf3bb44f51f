//! The broker over one Redis, 6.2 or newer: pub/sub for fan-out and orders, streams for history, hashes for presence.
//!
//! | Key or channel | Holds or carries |
//! |---|---|
//! | `PREFIX.message.{CHANNEL}` | pub/sub: everything that listeners of a channel hear |
//! | `PREFIX.control` | pub/sub: orders of the server API |
//! | `PREFIX.meta.{CHANNEL}` | hash: `epoch` and `offset` of the stream, `version` in 20 digits, `version_epoch` |
//! | `PREFIX.stream.{CHANNEL}` | stream: what is retained, the entry `OFFSET-0` with `ends` (Unix milliseconds) and `payload` |
//! | `PREFIX.accepted.{CHANNEL}.KEY` | hash: `epoch` and `offset` at which an idempotency key was accepted |
//! | `PREFIX.clients.{CHANNEL}` | hash: present clients, `NODE PARTY CLIENT` to what their leave looks like |
//! | `PREFIX.ends.{CHANNEL}` | sorted set: when each of them is gone unless its node says that it is there |
//! | `PREFIX.users.{CHANNEL}` | hash: how many clients each user has there |
//!
//! All keys end by themselves. There is one connection, so that answers and what is heard come in one order. Streams
//! are as durable as Redis is: when it comes back with older data than a node has heard, that node begins a new life of
//! the stream.
//!
//! Invariant: whoever submits never waits. All that touches Redis happens on one thread; what it hears goes into the
//! parties' inboxes.

mod connection;
mod heard;
mod link;
mod message;
mod names;
mod node;
mod options;
mod present;
mod resp;
mod scripts;
mod state;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use engine::broker::{BrokerError, BrokerEvent, BrokerRequest};
use tokio::sync::{mpsc, oneshot};

pub use options::{RedisError, RedisOptions};

use crate::limits::REQUESTS_MAX;
use crate::parties::{Parties, id_of};
use crate::{Broker, Inbox, Party};
use names::Names;
use node::Node;
use options::Address;

/// See the module.
pub struct RedisBroker {
    jobs: Option<mpsc::UnboundedSender<Job>>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the broker and its thread both know.
#[derive(Default)]
struct Shared {
    parties: Parties,
    /// Requests that the thread has not seen yet.
    length: AtomicUsize,
    is_well: AtomicBool,
}

/// What the broker hands to its thread.
#[expect(
    clippy::large_enum_variant,
    reason = "a request is the usual case, and a box would cost it an allocation"
)]
enum Job {
    Request(Party, Arc<dyn Inbox>, BrokerRequest),
    Detach(Party),
}

impl RedisBroker {
    /// Connects and sets up what is needed. `node` names this process and must differ at every start of every
    /// process: streams that begin here are named after it.
    ///
    /// # Errors
    /// When Redis cannot be used as configured; nothing goes on then.
    pub fn start(options: RedisOptions, node: &str) -> Result<RedisBroker, RedisError> {
        if !names::is_prefix(&options.prefix) {
            return Err(RedisError::Prefix(options.prefix));
        }
        let address = Address::parse(&options.address).ok_or(RedisError::Address)?;
        let node = node.replace('\\', "\\\\").replace(char::is_whitespace, "\\_");
        let names = Names { prefix: options.prefix, node };
        let shared = Arc::<Shared>::default();
        let (jobs, jobs_out) = mpsc::unbounded_channel();
        let (started, has_started) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let of_thread = shared.clone();
        let connect_timeout = Duration::from_millis(options.connect_timeout_ms);
        let node = Node { address, connect_timeout, jobs: jobs_out };
        let thread = std::thread::Builder::new()
            .name("redis".into())
            .spawn(move || runtime.block_on(node.run(names, of_thread, started)))?;
        match has_started.blocking_recv() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(std::io::Error::other("it ended at once").into()),
        }
        Ok(RedisBroker { jobs: Some(jobs), shared, thread: Some(thread) })
    }

    fn send(&self, job: Job) {
        if let Some(jobs) = &self.jobs {
            // The thread ends only with the broker.
            let _ended = jobs.send(job);
        }
    }
}

impl Broker for RedisBroker {
    fn attach(&self, inbox: Arc<dyn Inbox>) -> Party {
        self.shared.parties.attach(inbox)
    }

    fn submit(&self, party: Party, request: BrokerRequest) {
        let Some(inbox) = self.shared.parties.inbox(party) else { return };
        if self.shared.length.fetch_add(1, Ordering::Relaxed) >= REQUESTS_MAX
            && let Some(id) = id_of(&request)
        {
            self.shared.length.fetch_sub(1, Ordering::Relaxed);
            let result = Err(BrokerError::Overloaded);
            inbox.deliver(BrokerEvent::Reply { id, result });
            return;
        }
        self.send(Job::Request(party, inbox, request));
    }

    fn is_well(&self) -> bool {
        self.shared.is_well.load(Ordering::Relaxed)
    }

    fn detach(&self, party: Party) {
        self.shared.parties.detach(party);
        self.send(Job::Detach(party));
    }

    fn expire(&self) {}
}

impl Drop for RedisBroker {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported already.
            let _panicked = thread.join();
        }
    }
}
