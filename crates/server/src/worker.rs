//! A worker: one thread with its sockets, sessions, hub and timers.
//!
//! Invariant: only the worker's own thread accesses its state. All other threads send an [`Input`]
//! to its inbox.

mod connection;
mod drain;
mod driver;
pub mod inbox;
mod sandbox;
mod socket;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use brokers::BrokerParts;
use engine::counters::Counters;
use engine::hash_keys::HashKeys;
use engine::rules::Rules;
use engine::shared_buckets::SharedBuckets;
use events::EventBus;
use tracing::error;
use wire::websocket::decoder::DecoderLimits;

use crate::admission::Admission;
use crate::admission::revoked::Revoked;
use crate::admission::verification::Verification;
use crate::backends::Backends;
use crate::clock::ServerClock;
use crate::telemetry::{CloseCounts, HttpCounts};

pub use connection::{Arrival, ArrivedStream};
pub use inbox::{Input, WorkerInbox};

/// What a worker needs from the rest of the server.
#[derive(Clone)]
pub struct WorkerParts {
    /// Limits and options of channels and clients.
    pub rules: Arc<Rules>,
    /// Broker that the worker attaches to as an endpoint.
    pub broker: Arc<BrokerParts>,
    /// Source of monotonic and Unix time.
    pub clock: ServerClock,
    /// Verifies tokens of clients.
    pub verification: Arc<Verification>,
    /// Backends of the application.
    pub backends: Arc<Backends>,
    /// Takes events for other systems.
    pub events: Arc<EventBus>,
    /// Counts and admits connections.
    pub admission: Arc<Admission>,
    /// Settings of decoding and compression.
    pub wire: WireSettings,
    /// Revoked users and tokens.
    pub revoked: Arc<Revoked>,
    /// Counters of refusals.
    pub counts: Arc<HttpCounts>,
    /// Rate limit buckets that all workers share.
    pub buckets: Arc<SharedBuckets>,
    /// Hash keys of tables whose entries are named by peers.
    pub hasher: HashKeys,
}

/// Settings of reading and writing frames.
#[derive(Clone, Copy, Debug)]
pub struct WireSettings {
    /// Bounds on the size of a message.
    pub limits: DecoderLimits,
    /// Compression level of permessage-deflate, 1 to 9.
    pub deflate_level: u32,
    /// Messages shorter than this number of bytes are not compressed.
    pub deflate_min_size: usize,
}

/// A running worker.
pub struct WorkerHandle {
    inbox: Arc<WorkerInbox>,
    connections: Arc<AtomicUsize>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Totals of one worker, for metrics and the API.
#[derive(Clone, Debug, Default)]
pub struct WorkerReport {
    /// Totals since the start.
    pub counters: Counters,
    /// Bytes read from and written to sockets, without the overhead of TLS.
    pub bytes: Traffic,
    /// Closed connections by close code.
    pub closes: CloseCounts,
    /// Current number of sessions.
    pub sessions: usize,
    /// Current number of subscriptions.
    pub subscriptions: usize,
    /// Hashes of the users with a session, to count distinct users over all workers.
    pub users: Vec<u64>,
    /// Hashes of the channels with a subscriber, to count distinct channels over all workers.
    pub channels: Vec<u64>,
}

/// Channels with subscribers, and the number of subscribers of each.
pub type ChannelCounts = Vec<(Arc<str>, usize)>;

/// Selects clients of a worker.
#[derive(Clone, Debug)]
pub struct ClientFilter {
    /// User id; `None` selects all users.
    pub user: Option<String>,
    /// Client id; `None` selects all clients of the user.
    pub client: Option<String>,
    /// Maximum number of clients to return.
    pub limit: usize,
}

/// Selects subscribers of a channel, in the order of their client ids.
#[derive(Clone, Debug)]
pub struct SubscriberFilter {
    /// Name of the channel.
    pub channel: String,
    /// Client id before the first one; empty for the beginning.
    pub after: String,
    /// Maximum number of subscribers to return.
    pub limit: usize,
}

/// A subscriber of a worker.
#[derive(Clone, Debug)]
pub struct WorkerSubscriber {
    /// Id of the client.
    pub client: String,
    /// Id of its user; empty for an anonymous user.
    pub user: String,
}

/// A client of a worker.
#[derive(Clone, Debug)]
pub struct WorkerClient {
    /// Id of the client.
    pub client: String,
    /// Id of its user; empty for an anonymous user.
    pub user: String,
    /// Unix time in milliseconds at which the client was admitted.
    pub connected_at: i64,
    /// Channels that it is subscribed to.
    pub channels: Vec<String>,
}

/// Bytes and system calls on the sockets of a worker.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    /// Bytes read from sockets.
    pub received: u64,
    /// Bytes written to sockets.
    pub sent: u64,
    /// Write system calls on sockets.
    pub writes: u64,
}

impl WorkerHandle {
    /// Starts the thread of worker `index`.
    ///
    /// # Errors
    /// When the kernel gives no poller or thread.
    pub fn start(index: usize, seed: u64, parts: WorkerParts) -> io::Result<WorkerHandle> {
        let (inbox, poll) = WorkerInbox::new()?;
        let connections = Arc::new(AtomicUsize::new(0));
        let driver = driver::Driver::new(seed, parts, poll, inbox.clone(), connections.clone());
        let thread =
            std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                // The state that sessions share may be inconsistent, and the clients of this worker
                // would not be served. A restart of the process recovers both.
                match catch_unwind(AssertUnwindSafe(|| driver.run())) {
                    Ok(Ok(())) => return,
                    Ok(Err(failure)) => error!(worker = index, %failure, "the poller failed"),
                    Err(_) => error!(worker = index, "a worker has panicked"),
                }
                std::process::abort();
            })?;
        Ok(WorkerHandle { inbox, connections, thread: Mutex::new(Some(thread)) })
    }

    /// Inbox of the worker.
    #[must_use]
    pub fn inbox(&self) -> &Arc<WorkerInbox> {
        &self.inbox
    }

    /// Number of connections, including those that are still in the inbox.
    #[must_use]
    pub fn load(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Passes a connection to the worker.
    pub fn hand_over(&self, arrival: Arrival) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.inbox.send(Input::Arrival(Box::new(arrival)));
    }

    /// Waits for the thread to end, which it does when all connections are drained.
    pub fn join(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic of the thread aborts the process.
            let _ended = thread.join();
        }
    }
}
