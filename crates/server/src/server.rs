//! The running server: start, reload and stop of its parts.
//!
//! Invariant: a start that fails leaves nothing running, and a stop ends every task and thread.

mod routes;
mod start_error;
mod tasks;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};

use ::events::{EventBus, Occurrence};
use brokers::memory::Usage;
use engine::hash_keys::HashKeys;
use engine::random::Random;
use engine::shared_buckets::SharedBuckets;
use tokio::runtime::Handle;
use tracing::{info, warn};

use crate::admission::revoked::Revoked;
use crate::admission::verification::{Verification, Verifiers};
use crate::admission::{Admission, AdmissionLimits};
use crate::backends::Backends;
use crate::broker::{self, BrokerOpening};
use crate::clock::ServerClock;
use crate::cluster::members::Members;
use crate::cluster::node::{Node, Surveys};
use crate::config::{Config, Engine, Shutdown};
use crate::consumers::Consumers;
use crate::demo;
use crate::limits::throttle::Throttle;
use crate::limits::{BROKER_END_TIMEOUT, EVENTS_STOP_TIMEOUT, START_PATIENCE};
use crate::listener::ListenAddress;
use crate::listeners::{Listeners, Serving};
use crate::service::{Service, ServiceContext};
use crate::supervision::start::Starting;
use crate::supervision::supervisor::Supervisor;
use crate::telemetry::{ConsumerList, HttpCounts};
use crate::token::{KeyError, Verifier};
use crate::welcome::Welcome;
use crate::worker::{Input, WireSettings, WorkerHandle, WorkerParts};

use self::routes::{KeySets, routes};
use self::tasks::start_tasks;

pub use self::start_error::StartError;

/// A running server. Dropping it does not stop it; call [`Server::stop`].
pub struct Server {
    node: Arc<Node>,
    keys: KeySets,
    serving: Serving,
    tasks: Supervisor,
    consumers: Consumers,
    shutdown: Shutdown,
}

impl Server {
    /// Starts workers and listeners; must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running.
    pub async fn start(config: Config) -> Result<Server, StartError> {
        let mut random = Random::new(seed()?);
        let clock = ServerClock::start();
        let (name, usage) = (node_name(&config), Arc::new(Usage::new(config.memory)));
        let (mut tasks, starting) = (Supervisor::default(), Starting::new());
        let listeners = Listeners::open(&config).await?;
        let counts: Arc<HttpCounts> = Arc::default();
        let hasher = HashKeys::new([seed()?, seed()?]);
        let buckets = Arc::new(SharedBuckets::new(hasher));
        let rates = config.rules.rates.clone();
        let throttle = Arc::new(Throttle::new(buckets.clone(), clock, rates, counts.clone()));
        let serving = listeners.serve(&config, &starting, &tasks.faults(), &throttle)?;
        let opening = BrokerOpening {
            config: &config,
            usage: &usage,
            name: &name,
            clock,
            starting: &starting,
        };
        let broker = broker::open(opening, &mut random).await?;
        let admission = Arc::new(admission(&config));
        let revoked = Arc::new(Revoked::new(clock));
        let backends = Arc::new(Backends::new(&config.proxies, Handle::current()));
        let events = Arc::new(EventBus::new(&name, &random.uuid(), &config.events));
        let parts = WorkerParts {
            rules: config.rules.clone(),
            broker: broker.clone(),
            clock,
            verification: Arc::new(Verification::start(verifiers(&config)?, clock)?),
            backends: backends.clone(),
            events: events.clone(),
            admission: admission.clone(),
            wire: wire_settings(&config),
            revoked: revoked.clone(),
            counts: counts.clone(),
            buckets,
            hasher,
        };
        let workers = start_workers(config.workers, &parts, &mut random)?;
        let node = Arc::new(Node {
            uid: random.uuid(),
            name,
            workers: Arc::new(workers),
            clock,
            counts,
            is_ready: AtomicBool::new(true),
            broker: broker.clone(),
            rules: RwLock::new(config.rules.clone()),
            surveys: Surveys::default(),
            throttle,
            usage,
            revoked,
            backends,
            events,
            faults: tasks.faults(),
            consumers: ConsumerList::new(config.consumers.iter().map(|one| &*one.name)),
        });
        starting.waits_for("reading the dynamic configuration (sys:config) from the broker");
        let members = join(&config, &node).await?;
        let keys = KeySets::of(&config);
        let service = Arc::new(Service::new(&ServiceContext::of(&members)));
        let routes = routes(&config, &node, admission, &service, &keys);
        start_tasks(&mut tasks, &members, &serving);
        if config.demo {
            start_ticker(&mut tasks, &service, clock, random.next_u64());
        }
        serving.start(routes, &Welcome::of(&config));
        let consumers = Consumers::start(&mut tasks, &config.consumers, &node.consumers, &service);
        Ok(Server { node, keys, serving, tasks, consumers, shutdown: config.shutdown })
    }

    /// Addresses for clients.
    #[must_use]
    pub fn addresses(&self) -> &[ListenAddress] {
        &self.serving.addresses
    }

    /// Addresses of the internal port with API, metrics and health; empty if there is none.
    #[must_use]
    pub fn internal_addresses(&self) -> &[ListenAddress] {
        &self.serving.internal_addresses
    }

    /// Addresses of the gRPC API; empty if it is not served.
    #[must_use]
    pub fn grpc_addresses(&self) -> &[ListenAddress] {
        &self.serving.grpc_addresses
    }

    /// First TCP address for clients; `None` if they connect through a Unix socket.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        first_tcp(self.addresses())
    }

    /// First TCP address of the internal port; `None` if there is none.
    #[must_use]
    pub fn internal_address(&self) -> Option<SocketAddr> {
        first_tcp(self.internal_addresses())
    }

    /// Applies settings that may change without a restart: keys of the server API, and the contents
    /// of the certificates' files.
    pub fn reload(&self, config: &Config) {
        self.keys.replace(config);
        self.reload_certificates();
    }

    /// Reads the files of TLS certificates again, if any are configured.
    pub fn reload_certificates(&self) {
        self.serving.certificates.iter().for_each(|(_, certificate)| certificate.reload());
    }

    /// Stops the server: reports that it is not ready, refuses handshakes and closes connections
    /// over the drain window, with advice to reconnect. Returns when all connections are closed or
    /// after `shutdown.timeout`. Health, readiness and API are served until then.
    pub async fn stop(mut self) {
        self.node.is_ready.store(false, Ordering::Relaxed);
        info!("stopping");
        record(&self.node, &Occurrence::NodeDraining);
        let clients = self.node.workers.iter().map(WorkerHandle::load).sum();
        let window = self.shutdown.window(clients);
        let window_ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
        for worker in self.node.workers.iter() {
            worker.inbox().send(Input::Drain { window_ms });
        }
        let node = self.node.clone();
        let drained = async {
            let threads = tokio::task::spawn_blocking(move || {
                node.workers.iter().for_each(WorkerHandle::join);
            });
            let closed = async {
                let _panicked = threads.await;
                self.serving.stop().await;
            };
            // Other nodes take the partitions over while clients are disconnected.
            tokio::join!(self.consumers.stop(), closed);
        };
        if tokio::time::timeout(self.shutdown.timeout, drained).await.is_err() {
            warn!("shutdown.timeout is over; remaining connections are cut off");
        }
        record(&self.node, &Occurrence::NodeLeft);
        self.node.events.stop(EVENTS_STOP_TIMEOUT).await;
        drop(self.tasks);
        let broker = self.node.broker.clone();
        // Notifies other nodes that this one has stopped. If the broker is unavailable, they find
        // out when its lease expires.
        let ended = tokio::task::spawn_blocking(move || broker.end());
        if tokio::time::timeout(BROKER_END_TIMEOUT, ended).await.is_err() {
            warn!(
                "the broker does not answer; other nodes will notice the end of this node when its lease expires"
            );
        }
        self.node.events.finish();
        info!("stopped");
    }
}

/// Records an event of this node.
fn record(node: &Node, what: &Occurrence<'_>) {
    node.events.record(node.clock.unix_ms(), what);
}

fn start_ticker(tasks: &mut Supervisor, service: &Arc<Service>, clock: ServerClock, seed: u64) {
    let service = service.clone();
    tasks.spawn("demo-ticker", move || demo::run_ticker(service.clone(), clock, seed));
}

fn first_tcp(addresses: &[ListenAddress]) -> Option<SocketAddr> {
    addresses.iter().find_map(|address| match address {
        ListenAddress::Tcp(address) => Some(*address),
        ListenAddress::Unix { .. } => None,
    })
}

/// Joins the cluster.
async fn join(config: &Config, node: &Arc<Node>) -> Result<Arc<Members>, StartError> {
    let waits = matches!(&config.engine, Engine::Redis(redis) if redis.waits_at_start);
    let patience = (!waits).then_some(START_PATIENCE);
    let (broker, changeable) = (node.broker.clone(), config.changeable.clone());
    let joined = Members::join(broker, node.clone(), changeable, patience).await;
    joined.ok_or(StartError::DynamicConfig)
}

/// Starts `count` workers, or one per core if `count` is 0.
fn start_workers(
    count: usize,
    parts: &WorkerParts,
    random: &mut Random,
) -> io::Result<Vec<WorkerHandle>> {
    let count = match count {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        count => count,
    };
    (0..count).map(|index| WorkerHandle::start(index, random.next_u64(), parts.clone())).collect()
}

fn wire_settings(config: &Config) -> WireSettings {
    WireSettings {
        limits: config.websocket.limits,
        deflate_level: config.websocket.compression_level,
        deflate_min_size: config.websocket.compression_min_size,
    }
}

fn admission(config: &Config) -> Admission {
    Admission::new(AdmissionLimits {
        connections_max: config.admission.connection_limit,
        unauthenticated_max: config.admission.unauthenticated_connection_limit,
        message_size_max: config.websocket.limits.message_size as usize,
        handshakes_per_second: config.admission.connection_rate_limit,
        per_user_max: config.admission.user_connection_limit,
    })
}

fn verifiers(config: &Config) -> Result<Verifiers, KeyError> {
    let connection = Arc::new(Verifier::new(&config.token)?);
    let subscription = match &config.subscription_token {
        Some(settings) => Arc::new(Verifier::new(settings)?),
        None => connection.clone(),
    };
    Ok(Verifiers { connection, subscription })
}

pub(crate) fn seed() -> io::Result<u64> {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| io::Error::other("the system gives no random bytes"))?;
    Ok(u64::from_le_bytes(bytes))
}

/// The configured name, or the host name.
pub(crate) fn node_name(config: &Config) -> String {
    if !config.node_name.is_empty() {
        return config.node_name.clone();
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname");
    host.map_or("tidings".to_owned(), |name| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use axum::extract::State;
    use axum::http::StatusCode;
    use axum::response::IntoResponse as _;

    use super::routes::ready;
    use super::*;
    use crate::config::{Source, load};

    #[tokio::test(flavor = "multi_thread")]
    async fn the_end_of_any_task_makes_the_node_unready_until_the_task_runs_again() {
        let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
        let text = "[http_server]\naddress = \"127.0.0.1\"\nport = 0\n[http_api]\nkey = \"key\"\n";
        std::fs::write(file.path(), text).unwrap();
        let source = Source { file: Some(file.path().to_path_buf()), ..Source::default() };
        let (config, _) = load(&source).unwrap();
        let server = Server::start(config).await.unwrap();
        let names = ["broker-watch", "cluster-questions", "dynamic-configuration", "expiry"];
        let mut unready = server.tasks.faults().changes();
        for name in names {
            server.tasks.end(name);
            let is_named =
                |reason: &Option<String>| reason.as_ref().is_some_and(|text| text.contains(name));
            unready.wait_for(is_named).await.unwrap();
            let answer = ready(State(server.node.clone())).await.into_response();
            assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{name}");
            unready.wait_for(Option::is_none).await.unwrap();
        }
        let answer = ready(State(server.node.clone())).await.into_response();
        assert_eq!(answer.status(), StatusCode::OK);
        server.stop().await;
    }
}
