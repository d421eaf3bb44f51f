//! Opens the configured broker and logs changes of its health.
//!
//! Invariant: the node uses the configured broker or does not start; it never falls back to memory.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use brokers::memory::Usage;
use brokers::nats::NatsOptions;
use brokers::redis::RedisParts;
use brokers::{Broker as _, BrokerParts, Health, MemoryBroker, NatsBroker, RedisBroker};
use engine::random::Random;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::StartError;
use crate::clock::ServerClock;
use crate::config::{Config, Engine, RedisEngine};
use crate::supervision::start::Starting;

/// Interval between checks of the broker's health.
const HEALTH_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Time after which waiting for the broker is logged.
const LOG_AFTER: Duration = Duration::from_secs(1);

/// Interval between two log lines about one kind of warning.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// Number of recent kinds of warnings that are remembered, so as not to log them again.
const WARNINGS_MAX: usize = 16;

/// Inputs of [`open`].
pub(crate) struct BrokerOpening<'a> {
    pub(crate) config: &'a Config,
    /// Counter of the memory engine's bytes.
    pub(crate) usage: &'a Arc<Usage>,
    /// Name of this node.
    pub(crate) name: &'a str,
    pub(crate) clock: ServerClock,
    /// Receives the reason for which opening takes long.
    pub(crate) starting: &'a Starting,
}

/// Opens the broker. Waits for an unreachable Redis if `wait_at_start` is set.
pub(crate) async fn open(
    opening: BrokerOpening<'_>,
    random: &mut Random,
) -> Result<Arc<BrokerParts>, StartError> {
    let parts = open_engine(&opening, random).await?;
    Ok(Arc::new(match &opening.config.presence {
        None => parts,
        Some(redis) => {
            let leaves = parts.leave_publisher();
            let settings =
                redis.settings(new_id(random), opening.name.to_owned(), random.next_u64());
            let broker = Arc::new(RedisBroker::start_for_presence(settings, leaves)?);
            wait(&broker, (redis, RedisParts::Presence), opening.starting).await?;
            parts.with_presence(broker)
        }
    }))
}

/// An id of this node: a new one at every start.
fn new_id(random: &mut Random) -> String {
    random.uuid()[..8].to_owned()
}

async fn open_engine(
    opening: &BrokerOpening<'_>,
    random: &mut Random,
) -> Result<BrokerParts, StartError> {
    let BrokerOpening { config, usage, name, clock, starting } = *opening;
    let id = new_id(random);
    match &config.engine {
        Engine::Memory => {
            let broker = MemoryBroker::new(Arc::new(clock), id).with_node(name.to_owned());
            let broker = broker.with_usage(usage.clone());
            Ok(BrokerParts::of(Arc::new(broker)))
        }
        Engine::Nats(options) => {
            let options = NatsOptions { name: name.to_owned(), ..options.clone() };
            let clock = Arc::new(clock);
            starting.waits_for("connecting to NATS");
            // Blocks until NATS has answered.
            let start = move || NatsBroker::start(options, clock, &id);
            let started = tokio::task::spawn_blocking(start).await.map_err(io::Error::other)??;
            started.set_rules(&config.rules);
            Ok(BrokerParts::of(Arc::new(started)))
        }
        Engine::Redis(redis) => {
            let broker = Arc::new(RedisBroker::start(redis.settings(
                id,
                name.to_owned(),
                random.next_u64(),
            ))?);
            // Set before the broker is ready, so that other nodes receive the options with the
            // first lease.
            broker.set_rules(&config.rules);
            wait(&broker, (redis, RedisParts::All), starting).await?;
            Ok(BrokerParts::of(broker))
        }
    }
}

async fn wait(
    broker: &RedisBroker,
    (redis, parts): (&RedisEngine, RedisParts),
    starting: &Starting,
) -> Result<(), StartError> {
    let start = Instant::now();
    let mut logged = String::new();
    loop {
        let (is_lasting, reason) = match broker.health() {
            Health::Ready => return Ok(()),
            Health::Unready { is_lasting, reason } => (is_lasting, reason),
        };
        let is_over = !redis.waits_at_start && start.elapsed() >= redis.start_timeout();
        if is_lasting || is_over {
            return Err(StartError::Broker(reason));
        }
        starting.waits_for(&reason);
        if redis.waits_at_start && reason != logged && start.elapsed() >= LOG_AFTER {
            let option = format!("{}.wait_at_start", parts.options_key());
            warn!(%reason, option, "waiting for Redis; only /health and /ready are served yet");
            logged = reason;
        }
        tokio::time::sleep(HEALTH_POLL_INTERVAL).await;
    }
}

/// Kind of a warning: its text without digits and quoted parts.
fn kind(warning: &str) -> String {
    let unquoted = warning.split('"').step_by(2);
    unquoted.flat_map(str::chars).filter(|c| !c.is_ascii_digit()).collect()
}

/// Logs when the broker becomes unavailable or available, and its warnings. Does not return.
pub(crate) async fn watch(broker: Arc<BrokerParts>) {
    let mut last = Health::Ready;
    let mut logged: VecDeque<(Instant, String)> = VecDeque::new();
    loop {
        tokio::time::sleep(HEALTH_POLL_INTERVAL).await;
        logged.retain(|(at, _)| at.elapsed() < WARN_EVERY);
        while let Some(warning) = broker.take_warning() {
            let kind = kind(&warning);
            if logged.iter().all(|(_, known)| *known != kind) {
                warn!("broker: {warning}");
                logged.truncate(WARNINGS_MAX - 1);
                logged.push_front((Instant::now(), kind));
            }
        }
        let health = broker.health();
        if health == last {
            continue;
        }
        match &health {
            Health::Ready => info!("broker available"),
            Health::Unready { reason, .. } => {
                warn!(%reason, "broker unavailable; clients stay connected, this node is not ready");
            }
        }
        last = health;
    }
}
