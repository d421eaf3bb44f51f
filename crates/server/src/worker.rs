//! A worker: one thread with its sockets, sessions, hub and timers.
//!
//! Invariant: nothing outside the thread touches its state; everything that others want goes
//! through its inbox.

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

use brokers::Broker;
use engine::counters::Counters;
use engine::hash_keys::HashKeys;
use engine::rules::Rules;
use engine::shared_buckets::SharedBuckets;
use tracing::error;
use wire::websocket::decoder::DecoderLimits;

use crate::admission::Admission;
use crate::admission::revoked::Revoked;
use crate::admission::verification::Verification;
use crate::clock::ServerClock;
use crate::telemetry::{CloseCounts, HttpCounts};

pub use connection::{Arrival, ArrivedStream};
pub use inbox::{Input, WorkerInbox};

/// Everything that a worker is built from.
#[derive(Clone)]
pub struct WorkerParts {
    /// What is allowed.
    pub rules: Arc<Rules>,
    /// What carries publications.
    pub broker: Arc<dyn Broker>,
    /// What time it is.
    pub clock: ServerClock,
    /// Who verifies tokens.
    pub verification: Arc<Verification>,
    /// Who is let in.
    pub admission: Arc<Admission>,
    /// How connections are decoded and compressed.
    pub wire: WireSettings,
    /// Who is let in no more.
    pub revoked: Arc<Revoked>,
    /// Where refusals are counted.
    pub counts: Arc<HttpCounts>,
    /// Buckets that the workers share.
    pub buckets: Arc<SharedBuckets>,
    /// Keys of the tables whose names peers choose.
    pub hasher: HashKeys,
}

/// How frames are read and written.
#[derive(Clone, Copy, Debug)]
pub struct WireSettings {
    /// Bounds of a message.
    pub limits: DecoderLimits,
    /// Level of compression, 1 to 9.
    pub deflate_level: u32,
    /// Bytes below which messages are not compressed.
    pub deflate_min_size: usize,
}

/// A running worker.
pub struct WorkerHandle {
    inbox: Arc<WorkerInbox>,
    connections: Arc<AtomicUsize>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What a worker says of itself when asked.
#[derive(Clone, Debug, Default)]
pub struct WorkerReport {
    /// Totals since the start.
    pub counters: Counters,
    /// Bytes read from and written to sockets, frames before TLS.
    pub bytes: Traffic,
    /// Closed connections by code.
    pub closes: CloseCounts,
    /// Sessions now.
    pub sessions: usize,
    /// Subscriptions now.
    pub subscriptions: usize,
    /// Hashes of the users with a session, for counting them over all workers.
    pub users: Vec<u64>,
    /// Hashes of the channels with a subscriber.
    pub channels: Vec<u64>,
}

/// Channels with a subscriber, and how many.
pub type Census = Vec<(Arc<str>, usize)>;

/// Whom somebody looks for.
#[derive(Clone, Debug)]
pub struct ClientFilter {
    /// User id; `None` for any.
    pub user: Option<String>,
    /// Client id; `None` for all of the user.
    pub client: Option<String>,
    /// Clients at most.
    pub limit: usize,
}

/// A client of a worker.
#[derive(Clone, Debug)]
pub struct WorkerClient {
    /// Client id.
    pub client: String,
    /// User id.
    pub user: String,
    /// Unix milliseconds.
    pub connected_at: i64,
    /// What it hears.
    pub channels: Vec<String>,
}

/// Bytes and system calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    /// Bytes received.
    pub received: u64,
    /// Bytes sent.
    pub sent: u64,
    /// Writes to sockets.
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
                // What its sessions share may be broken, and nobody would serve its clients: let a
                // new process do it.
                match catch_unwind(AssertUnwindSafe(|| driver.run())) {
                    Ok(Ok(())) => return,
                    Ok(Err(failure)) => error!(worker = index, %failure, "the poller failed"),
                    Err(_) => error!(worker = index, "a worker has panicked"),
                }
                std::process::abort();
            })?;
        Ok(WorkerHandle { inbox, connections, thread: Mutex::new(Some(thread)) })
    }

    /// Where to send it things.
    #[must_use]
    pub fn inbox(&self) -> &Arc<WorkerInbox> {
        &self.inbox
    }

    /// Connections that it has, those on their way included.
    #[must_use]
    pub fn load(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Hands over a connection.
    pub fn hand_over(&self, arrival: Arrival) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.inbox.send(Input::Arrival(Box::new(arrival)));
    }

    /// Waits for the thread to end, which it does once drained.
    pub fn join(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic has ended the process already.
            let _ended = thread.join();
        }
    }
}
