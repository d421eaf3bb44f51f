//! The broker over NATS: core NATS for fan-out and orders, JetStream for history and presence.
//!
//! | Subject | Carries |
//! |---|---|
//! | `PREFIX.channel.TOKEN` | messages for the subscribers of a channel: plain publications, joins, leaves, and records republished by the history stream |
//! | `PREFIX.stream.TOKEN` | records in the stream `PREFIX_history`, which numbers, stores and republishes them |
//! | `PREFIX.control`, `PREFIX.control.NODE` | orders of the server API and questions to all nodes; answers to one node |
//! | `PREFIX.node.NODE` | echoes: messages of a node to itself, whose return confirms all messages sent before |
//! | `PREFIX.presence.NODE.ENDPOINT.TOKEN.CLIENT` | a present client, in the stream `PREFIX_presence` |
//! | `PREFIX.events` | lifecycle events as JSON, in the stream `PREFIX_events` for backends |
//! | `PREFIX.lease.NODE` | the lease of a node, in the stream `PREFIX_presence` |
//! | `PREFIX.revocation.SUBJECT` | revocations, in the stream `PREFIX_revocations` |
//! | `PREFIX.era` | the generation of the store, in the stream `PREFIX_era` |
//!
//! Invariant: `submit` never blocks. One thread does all I/O with NATS and delivers events into the
//! inboxes of the endpoints.

mod address;
mod announcements;
mod availability;
mod channel;
mod channel_call;
mod channel_stream;
mod channel_task;
mod channel_tasks;
mod connection_events;
mod detach_guard;
mod generation;
mod idle_tasks;
mod inputs;
mod jetstream;
mod lease;
mod lease_core;
mod lifecycle;
mod lifecycle_events;
mod link;
mod node;
mod node_state;
mod options;
mod presence;
mod record;
mod reordering;
mod request;
mod request_queue;
mod revocations;
mod rights;
mod store_check;
mod stored_message;
mod streams;
mod subject;
mod survey;
mod task;
#[cfg(test)]
mod tests;
mod upkeep;

use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use engine::broker::{
    BrokerError, BrokerEvent, BrokerRequest, NodeBusRequest, PresenceRequest, PublicationsRequest,
    RegistryRequest,
};
use engine::rules::Rules;
use tokio::sync::{mpsc, oneshot};
use tracing::error;

pub use address::check_url;
pub use options::{JetStreamOptions, NatsError, NatsOptions, NatsTls};
pub use subject::{channel_length_max, plain_channel_length_max};

use crate::channel_options::ChannelOptions;
use crate::endpoints::Endpoints;
use crate::limits::NATS_PREFIX_MAX;
use crate::warnings::Warnings;
use crate::{
    Broker, Clock, Endpoint, Health, Inbox, NodeBus, PresenceBroker, PublicationBroker,
    RegistryBroker,
};
use availability::{Availability, UnavailableCause};
use inputs::NodeInput;
use link::LinkContext;
use node::NodeContext;
use request_queue::NodeQueue;
use rights::DeniedSubjects;

/// See the module.
pub struct NatsBroker {
    queue: Arc<NodeQueue>,
    shared: Arc<Shared>,
    prefix: String,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// State shared by the broker and its thread.
#[derive(Default)]
struct Shared {
    endpoints: Endpoints,
    availability: Availability,
    denied_subjects: DeniedSubjects,
    /// Round-trip time of the last echo, microseconds.
    lag_us: AtomicU64,
    warnings: Warnings,
    options: ChannelOptions,
    /// Number of channel tasks.
    channel_tasks: AtomicUsize,
}

impl NatsBroker {
    /// Connects, and creates missing streams. `node` identifies this process and must be unique
    /// among all starts of all processes: epochs that begin here contain it.
    ///
    /// # Errors
    /// If NATS cannot be used as configured; no thread is left running then.
    pub fn start(
        options: NatsOptions,
        clock: Arc<dyn Clock>,
        node: &str,
    ) -> Result<NatsBroker, NatsError> {
        if !is_prefix(&options.prefix) {
            return Err(NatsError::Prefix(options.prefix));
        }
        let names = subject::Names { prefix: options.prefix.clone(), node: subject::token(node) };
        let shared = Arc::<Shared>::default();
        let (inputs, requests) = mpsc::unbounded_channel();
        let queue = Arc::new(NodeQueue::new(inputs, shared.clone()));
        let (started, has_started) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let prefix = options.prefix.clone();
        let has_jetstream = options.jetstream.is_some();
        let link = LinkContext { names, has_jetstream, clock, shared: shared.clone() };
        let context = NodeContext { options, link, requests, queue: Arc::downgrade(&queue) };
        shared.availability.set(UnavailableCause::Link, link::SILENT);
        let thread = std::thread::Builder::new().name("nats".into()).spawn(move || {
            let local = tokio::task::LocalSet::new();
            let run = node::run(context, started);
            if catch_unwind(AssertUnwindSafe(|| local.block_on(&runtime, run))).is_err() {
                abort_process("the thread of the broker has panicked");
            }
        })?;
        match has_started.blocking_recv() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(std::io::Error::other("it ended during its start").into()),
        }
        Ok(NatsBroker { queue, shared, prefix, thread: Mutex::new(Some(thread)) })
    }
}

/// A part of the broker that a test can make fail.
#[doc(hidden)]
#[derive(Clone, Debug)]
pub enum FaultPoint {
    /// The loop of the node.
    Node,
    /// The task of a channel.
    Channel(Arc<str>),
    /// The publisher of lifecycle events.
    Lifecycle,
    /// A task of one request.
    Task,
    /// The task that sends echoes.
    Echo,
    /// The client library of NATS.
    Client,
    /// The whole thread.
    Thread,
}

impl NatsBroker {
    /// Makes a part panic, for tests of the supervision.
    #[doc(hidden)]
    pub fn break_part(&self, part: FaultPoint) {
        self.queue.send(NodeInput::Break(part));
    }

    /// Number of channels with a task, for tests of their bound.
    #[doc(hidden)]
    pub fn channel_tasks(&self) -> usize {
        self.shared.channel_tasks.load(Ordering::Relaxed)
    }

    /// Number of requests in all queues, for tests of their bounds.
    #[doc(hidden)]
    pub fn queued_requests(&self) -> usize {
        self.queue.length()
    }
}

/// Aborts the process, since a node without its broker cannot serve clients; a supervisor starts a
/// new one.
fn abort_process(reason: &str) -> ! {
    error!(reason, "NATS: this process aborts, so that its supervisor starts it again");
    // The log may be written by a thread that ends with the process.
    let _unread = writeln!(std::io::stderr(), "NATS: {reason}; this process aborts");
    std::process::abort()
}

impl NatsBroker {
    /// Submits a request of an endpoint. Never blocks; results are delivered as events.
    pub fn submit(&self, endpoint: Endpoint, mut request: BrokerRequest) {
        self.shared.options.adopt(&mut request);
        let Some(inbox) = self.shared.endpoints.inbox(endpoint) else { return };
        if request.channel().is_some_and(|channel| !subject::fits(&self.prefix, channel)) {
            // Requests without a reply need none: the channel cannot have subscribers.
            if let Some(refusal) = request.refuse(BrokerError::NameTooLong) {
                inbox.deliver(BrokerEvent::Reply(refusal));
            }
            return;
        }
        if let Some(refusal) = self.queue.submit(endpoint, request) {
            inbox.deliver(BrokerEvent::Reply(refusal));
        }
    }
}

impl Broker for NatsBroker {
    fn attach(&self, inbox: Arc<dyn Inbox>) -> Endpoint {
        self.shared.endpoints.attach(inbox)
    }

    fn set_rules(&self, rules: &Arc<Rules>) {
        self.shared.options.set_rules(rules);
        self.queue.send(NodeInput::Options);
    }

    fn health(&self) -> Health {
        self.shared.availability.health()
    }

    fn lag(&self) -> Duration {
        Duration::from_micros(self.shared.lag_us.load(Ordering::Relaxed))
    }

    fn take_warning(&self) -> Option<String> {
        self.shared.warnings.take()
    }

    fn detach(&self, endpoint: Endpoint) {
        self.shared.endpoints.detach(endpoint);
        self.queue.detach(endpoint);
    }

    fn expire(&self) {}

    fn end(&self) {
        self.queue.send(NodeInput::End);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic of the thread aborts the process.
            let _panicked = thread.join();
        }
    }
}

impl PublicationBroker for NatsBroker {
    fn submit_publications(&self, endpoint: Endpoint, request: PublicationsRequest) {
        self.submit(endpoint, request.into());
    }
}

impl PresenceBroker for NatsBroker {
    fn submit_presence(&self, endpoint: Endpoint, request: PresenceRequest) {
        self.submit(endpoint, request.into());
    }
}

impl NodeBus for NatsBroker {
    fn submit_node_bus(&self, endpoint: Endpoint, request: NodeBusRequest) {
        self.submit(endpoint, request.into());
    }
}

impl RegistryBroker for NatsBroker {
    fn submit_registry(&self, endpoint: Endpoint, request: RegistryRequest) {
        self.submit(endpoint, request.into());
    }
}

impl Drop for NatsBroker {
    fn drop(&mut self) {
        self.end();
    }
}

fn is_prefix(prefix: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    prefix.len() <= NATS_PREFIX_MAX
        && prefix.split('.').all(|token| !token.is_empty() && token.bytes().all(is_allowed))
}
