//! Checks of ports, certificate, key sets and broker.
//!
//! Invariant: every check ends after a bounded time. A failure contains the key of the
//! configuration.

use std::sync::Arc;
use std::time::Duration;

use brokers::Health;
use brokers::memory::Usage;
use engine::random::Random;
use tokio::time::{Instant, sleep, timeout};

use super::Finding;
use crate::StartError;
use crate::broker::BrokerOpening;
use crate::clock::ServerClock;
use crate::config::{Config, Engine, HttpServer};
use crate::limits::BROKER_END_TIMEOUT;
use crate::listener::check_certificates;
use crate::listeners::Listeners;
use crate::supervision::start::Starting;
use crate::token::probe_key_sets;

/// Time in which an available broker must become ready.
const BROKER_TIMEOUT: Duration = Duration::from_secs(10);

/// Timeout of the liveness check of a server on this machine.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(1);

/// Interval between two checks of the state of a broker.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Binds the configured addresses and releases them.
pub(super) async fn ports(config: &Config) -> Finding {
    const SUBJECT: &str = "http_server.port";
    let http = &config.http;
    let error = match Listeners::open(config).await {
        Ok(_released) => {
            let grpc = config.grpc_api.as_ref().map(|grpc| grpc.port);
            let ports = [Some(http.port), http.internal_port, grpc];
            let ports: Vec<_> = ports.iter().flatten().map(ToString::to_string).collect();
            return Finding::fine(SUBJECT, format!("{} can be bound", ports.join(" and ")));
        }
        Err(error) => error.to_string(),
    };
    if let Some(url) = health_url(config)
        && tokio::task::spawn_blocking(move || is_tidings(&url)).await.unwrap_or(false)
    {
        return Finding::fine(SUBJECT, "in use by a running Tidings server");
    }
    Finding::problem(SUBJECT, error, "stop the process that uses it, or choose another port")
}

/// URL of the liveness check of a server with this configuration; `None` with TLS or a Unix socket.
fn health_url(config: &Config) -> Option<String> {
    let HttpServer { address, port, internal_address, internal_port, tls, .. } = &config.http;
    let (host, port) = match internal_port {
        Some(port) => (internal_address, port),
        None if tls.is_none() => (address, port),
        None => return None,
    };
    if host.starts_with("unix:") {
        return None;
    }
    let host = match &**host {
        "" | "0.0.0.0" => "127.0.0.1".to_owned(),
        "::" | "[::]" => "[::1]".to_owned(),
        ipv6 if ipv6.contains(':') && !ipv6.starts_with('[') => format!("[{ipv6}]"),
        host => host.to_owned(),
    };
    config.health.as_ref().map(|path| format!("http://{host}:{port}{path}"))
}

fn is_tidings(url: &str) -> bool {
    let agent = ureq::Agent::config_builder().timeout_global(Some(HEALTH_TIMEOUT)).build();
    let answer = ureq::Agent::from(agent).get(url).call();
    answer
        .is_ok_and(|mut answer| answer.body_mut().read_to_string().is_ok_and(|text| text == "ok\n"))
}

/// Checks that certificates and keys can be read and match; `None` without TLS.
pub(super) fn certificate(config: &Config) -> Option<Finding> {
    let of_grpc = config.grpc_api.as_ref().and_then(|grpc| grpc.tls.as_ref());
    let subject = match (&config.http.tls, of_grpc) {
        (None, None) => return None,
        (Some(_), None) => "http_server.tls",
        (None, Some(_)) => "grpc_api.tls",
        (Some(_), Some(_)) => "http_server.tls, grpc_api.tls",
    };
    Some(match check_certificates(config) {
        Ok(()) => Finding::fine(subject, "certificate and key match"),
        Err(error) => Finding::problem(subject, error.to_string(), "correct the file"),
    })
}

const KEY_SET_ADVICE: &str = "tokens cannot be verified without it: check the address, DNS, the firewall and the certificate";

/// Checks that the key sets of tokens can be fetched.
pub(super) async fn key_sets(config: &Config) -> Vec<Finding> {
    let mut sections = vec![("client.token", config.token.clone())];
    let subscription = config.subscription_token.clone();
    sections.extend(subscription.map(|settings| ("client.subscription_token", settings)));
    let mut findings = Vec::new();
    for (section, settings) in sections {
        let subject = format!("{section}.jwks_public_endpoint");
        let probed = tokio::task::spawn_blocking(move || probe_key_sets(&settings)).await;
        let probed = match probed {
            Ok(Ok(probed)) => probed,
            Ok(Err(error)) => {
                findings.push(Finding::problem(subject, error.to_string(), "correct the setting"));
                continue;
            }
            Err(error) => {
                findings.push(Finding::problem(subject, error.to_string(), KEY_SET_ADVICE));
                continue;
            }
        };
        findings.extend(probed.into_iter().map(|one| match one.keys {
            Ok(0) => {
                let found = format!("{}: no supported key", one.address);
                Finding::problem(
                    &subject,
                    found,
                    "publish the keys of tokens with kty, kid and alg",
                )
            }
            Ok(keys) => Finding::fine(&subject, format!("{}: {keys} keys", one.address)),
            Err(failure) => {
                let found = format!("{}: {failure}", one.address);
                Finding::problem(&subject, found, KEY_SET_ADVICE)
            }
        }));
    }
    findings
}

/// Joins the cluster for a moment as a separate node, to check that the broker is available, that
/// permissions are complete, and whether there are warnings.
pub(super) async fn broker(config: &Config, clock: ServerClock) -> Vec<Finding> {
    let subject = match config.engine {
        Engine::Memory => {
            let text = "memory of this process: for one node, and nothing is kept over a restart";
            return vec![Finding::fine("engine.type", text)];
        }
        Engine::Redis(_) => "engine.redis",
        Engine::Nats(_) => "broker.nats",
    };
    let unreachable = |error: String| {
        Finding::problem(subject, error, "see docs/clustering.md for addresses and permissions")
    };
    let opened = timeout(BROKER_TIMEOUT, open(config, clock)).await;
    let broker = match opened {
        Ok(Ok(broker)) => broker,
        Ok(Err(error)) => return vec![unreachable(error.to_string())],
        Err(_) => return vec![unreachable(format!("no reply within {BROKER_TIMEOUT:?}"))],
    };
    let began = Instant::now();
    let mut findings = Vec::new();
    let health = loop {
        match broker.health() {
            Health::Unready { is_lasting: false, .. } if began.elapsed() < BROKER_TIMEOUT => {
                sleep(POLL_INTERVAL).await;
            }
            health => break health,
        }
    };
    findings.push(match health {
        Health::Ready => Finding::fine(subject, format!("ready after {:.0?}", began.elapsed())),
        Health::Unready { reason, .. } => unreachable(reason),
    });
    while let Some(warning) = broker.take_warning() {
        findings.push(Finding::warning(subject, warning, "see docs/clustering.md"));
    }
    let ended = tokio::task::spawn_blocking(move || broker.end());
    // If the broker does not reply, the lease of this node expires.
    let _in_time = timeout(BROKER_END_TIMEOUT, ended).await;
    findings
}

async fn open(
    config: &Config,
    clock: ServerClock,
) -> Result<std::sync::Arc<brokers::BrokerParts>, StartError> {
    let mut random = Random::new(crate::server::seed()?);
    let name = format!("{} (doctor)", crate::server::node_name(config));
    let usage = Arc::new(Usage::new(config.memory));
    let starting = Starting::new();
    let opening = BrokerOpening { config, usage: &usage, name: &name, clock, starting: &starting };
    crate::broker::open(opening, &mut random).await
}
