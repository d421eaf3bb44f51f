//! The broker over NATS: core subjects for fan-out and orders, JetStream for history and presence.
//!
//! | Subject | Carries |
//! |---|---|
//! | `PREFIX.channel.TOKEN` | everything for the subscribers of a channel: plain publications, joins, leaves, and what the history stream republishes |
//! | `PREFIX.stream.TOKEN` | publications on their way into the stream `PREFIX_history`, which numbers, keeps and republishes them |
//! | `PREFIX.control`, `PREFIX.control.NODE` | orders of the server API, questions of nodes; answers to one |
//! | `PREFIX.node.NODE` | what a node says to itself, to know that NATS has taken what it said before |
//! | `PREFIX.presence.NODE.ENDPOINT.TOKEN.CLIENT` | a present client, in the stream `PREFIX_presence` |
//! | `PREFIX.events` | clients that come and go as JSON, in the stream `PREFIX_events` for backends |
//! | `PREFIX.lease.NODE` | that a node lives, in the same stream |
//! | `PREFIX.revocation.SUBJECT` | what is revoked, in the stream `PREFIX_revocations` |
//! | `PREFIX.generation` | that the store has lost something, in the stream `PREFIX_era` |
//!
//! Invariant: whoever submits never waits. All that touches NATS happens on one thread; what it
//! hears goes into the endpoints' inboxes.

mod address;
mod announcements;
mod availability;
mod channel_task;
mod generation;
mod jetstream;
mod lease;
mod lifecycle;
mod link;
mod node;
mod options;
mod order;
mod presence;
mod record;
mod request;
mod revocations;
mod rights;
mod stream;
mod streams;
mod subject;
mod survey;
mod task;
mod upkeep;

use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use engine::broker::{BrokerError, BrokerEvent, BrokerRequest};
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
use crate::{Broker, Clock, Endpoint, Health, Inbox};
use availability::{Availability, UnavailableCause};
use node::NodeInput;
use request::{QueuedRequest, RequestLoad};
use rights::DeniedSubjects;

/// See the module.
pub struct NatsBroker {
    jobs: mpsc::UnboundedSender<NodeInput>,
    shared: Arc<Shared>,
    load: Arc<RequestLoad>,
    prefix: String,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the broker and its thread both know.
#[derive(Default)]
struct Shared {
    endpoints: Endpoints,
    availability: Availability,
    refusals: DeniedSubjects,
    /// How long an echo took last.
    lag_us: AtomicU64,
    warnings: Warnings,
    options: ChannelOptions,
}

impl NatsBroker {
    /// Connects and sets up what is needed. `node` names this process and must differ at every
    /// start of every process: streams that begin here are named after it.
    ///
    /// # Errors
    /// When NATS cannot be used as configured; nothing goes on then.
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
        let (jobs, jobs_out) = mpsc::unbounded_channel();
        let (started, has_started) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let of_thread = shared.clone();
        let prefix = options.prefix.clone();
        shared.availability.set(UnavailableCause::Link, link::SILENT);
        let thread = std::thread::Builder::new().name("nats".into()).spawn(move || {
            let local = tokio::task::LocalSet::new();
            let run = node::run(options, names, clock, of_thread, jobs_out, started);
            if catch_unwind(AssertUnwindSafe(|| local.block_on(&runtime, run))).is_err() {
                die("the thread of the broker has failed");
            }
        })?;
        match has_started.blocking_recv() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(std::io::Error::other("it ended at once").into()),
        }
        let load = Arc::default();
        Ok(NatsBroker { jobs, shared, load, prefix, thread: Mutex::new(Some(thread)) })
    }
}

/// A part of the broker that tests let fail.
#[doc(hidden)]
#[derive(Clone, Debug)]
pub enum FaultPoint {
    /// The loop of the node.
    Node,
    /// The task of a channel.
    Channel(Arc<str>),
    /// What tells of clients that come and go.
    Lifecycle,
    /// A task that ends by itself.
    Task,
    /// What shows that NATS has everything.
    Echo,
    /// The client library.
    Client,
    /// The whole thread.
    Thread,
}

impl NatsBroker {
    /// Lets a part fail as by a mistake of ours, for tests of what follows.
    #[doc(hidden)]
    pub fn break_part(&self, part: FaultPoint) {
        // It has ended already otherwise.
        let _ended = self.jobs.send(NodeInput::Break(part));
    }
}

/// The broker cannot be trusted any more, and a node without one serves nobody. Let a new process
/// do it.
fn die(reason: &str) -> ! {
    error!(reason, "NATS: this process ends, so that another takes its place");
    // The log may be written by a thread that ends with the process.
    let _unread = writeln!(std::io::stderr(), "NATS: {reason}; this process ends");
    std::process::abort()
}

impl Broker for NatsBroker {
    fn attach(&self, inbox: Arc<dyn Inbox>) -> Endpoint {
        self.shared.endpoints.attach(inbox)
    }

    fn set_rules(&self, rules: &Arc<Rules>) {
        self.shared.options.set_rules(rules);
        // A broker that has ended tells nobody.
        let _ended = self.jobs.send(NodeInput::Options);
    }

    fn submit(&self, endpoint: Endpoint, mut request: BrokerRequest) {
        self.shared.options.adopt(&mut request);
        let Some(inbox) = self.shared.endpoints.inbox(endpoint) else { return };
        if request.channel().is_some_and(|channel| !subject::fits(&self.prefix, channel)) {
            // What has no answer is about a channel that nobody could subscribe to.
            if let Some(id) = request.id() {
                inbox.deliver(BrokerEvent::Reply { id, result: Err(BrokerError::NameTooLong) });
            }
            return;
        }
        if let Some(request) = QueuedRequest::admit(&self.load, endpoint, inbox, request) {
            // A broker that has ended answers by dropping it.
            let _ended = self.jobs.send(NodeInput::Request(request));
        }
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
        // Nobody is left to forget it otherwise.
        let _ended = self.jobs.send(NodeInput::Detach(endpoint));
    }

    fn expire(&self) {}

    fn end(&self) {
        // It has ended already otherwise.
        let _ended = self.jobs.send(NodeInput::End);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic there has been reported already.
            let _panicked = thread.join();
        }
    }
}

impl Drop for NatsBroker {
    fn drop(&mut self) {
        self.end();
    }
}

fn is_prefix(prefix: &str) -> bool {
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    prefix.len() <= NATS_PREFIX_MAX
        && prefix.split('.').all(|token| !token.is_empty() && token.bytes().all(is_fine))
}
