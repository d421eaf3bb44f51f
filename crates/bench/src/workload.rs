//! From a scenario to the plans of its processes.
//!
//! Invariant: together the plans hold every client and every stream once, and no process needs more
//! descriptors than it may have.

use std::net::{SocketAddr, ToSocketAddrs as _};

use anyhow::bail;
use client::Authority;

use crate::usage::{UsageError, usage_error};

use super::arguments::{Arguments, PublishBy, Scenario};
use super::payload::PayloadSpec;
use super::plan::{
    ApiProtocol, ApiTarget, ClientLogin, Load, Plan, PublisherPlan, RedisBaselinePlan, Security,
    SendBaselinePlan, ServerTarget, StormPlan,
};
use super::publication_tag::SIZE_MIN;
use super::transport;

/// What a scenario comes to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Workload {
    pub(crate) channels: u32,
    pub(crate) per_channel: u32,
    streams_per_channel: u32,
    load: Load,
}

/// Descriptors of a process that are no clients.
const DESCRIPTORS_BESIDES: u64 = 64;

impl Workload {
    pub(crate) fn of(scenario: &Scenario) -> anyhow::Result<Workload> {
        let given = scenario.arguments();
        let Arguments { connections, subscribers, channels, rate, window, .. } = *given;
        let rate_load = Load::Rate(rate);
        let (channels, per_channel, streams_per_channel, load) = match scenario {
            Scenario::Idle(_) => (connections, 1, 0, Load::Hold),
            Scenario::Fanout(_) => (channels, subscribers, 1, rate_load),
            Scenario::Rooms(_) => (channels, subscribers, subscribers, rate_load),
            Scenario::Direct(_) => (connections, 1, 1, rate_load),
            Scenario::Saturate(_) => (channels, subscribers, 1, Load::Window(window)),
            Scenario::Storm(_) => (channels, 1, 0, Load::Hold),
            Scenario::Jitter(_) => (connections.div_ceil(subscribers), subscribers, 1, rate_load),
            Scenario::Raw(_) => (1, subscribers, 1, Load::Hold),
            Scenario::Relay(_) => (1, 1, 1, rate_load),
        };
        let clients = channels.saturating_mul(per_channel);
        if clients == 0 || clients > 1_000_000 {
            usage_error!("between 1 and 1,000,000 clients are possible, not {clients}");
        }
        if !rate.is_finite() || rate < 0.0 || (rate == 0.0 && load == rate_load) {
            usage_error!("--rate must be above 0");
        }
        if !given.deaths.is_finite() || given.deaths < 0.0 {
            usage_error!("--deaths must not be below 0");
        }
        if load == Load::Window(0) {
            usage_error!("--window must be above 0");
        }
        Ok(Workload { channels, per_channel, streams_per_channel, load })
    }

    pub(crate) fn clients(&self) -> u32 {
        self.channels * self.per_channel
    }

    /// How many processes it takes.
    fn workers(&self, given: &Arguments) -> anyhow::Result<u32> {
        let limit = rlimit::increase_nofile_limit(u64::MAX)?;
        let besides = DESCRIPTORS_BESIDES + u64::from(given.api_connections);
        let most = limit.saturating_sub(besides).max(1);
        let least = u32::try_from(u64::from(self.clients()).div_ceil(most))?;
        // A closed loop sees its completions only where all of a channel's clients are.
        let splits = matches!(self.load, Load::Window(_));
        let workers = given.workers.unwrap_or(least).clamp(1, self.clients());
        let workers = if splits { workers.min(self.channels) } else { workers };
        if workers < least {
            let needed = u64::from(self.clients().div_ceil(workers)) + besides;
            bail!(
                "{workers} process(es) would need {needed} descriptors each, but may have {limit}: \
                 use --workers {least}, or raise the limit (ulimit -n)"
            );
        }
        Ok(workers)
    }

    /// The plans, one for each process.
    pub(crate) fn plans(
        &self,
        scenario: &Scenario,
        target: &ServerTarget,
        publisher: &PublisherPlan,
        duration_ms: u64,
    ) -> anyhow::Result<Vec<Plan>> {
        let given = scenario.arguments();
        let workers = self.workers(given)?;
        let payload = PayloadSpec::new(&given.size, given.template.as_deref())?;
        let by_channel = matches!(self.load, Load::Window(_));
        let units = if by_channel { self.channels } else { self.clients() };
        let unit = if by_channel { self.per_channel } else { 1 };
        let bound = |worker: u32| share(units, worker, workers) * unit;
        let mut plans = Vec::new();
        for worker in 0..workers {
            let (first, end) = (bound(worker), bound(worker + 1));
            let streams = self.channels * self.streams_per_channel;
            let is_silent = target.is_bare || self.streams_per_channel == 0;
            let (first_stream, streams_end) = match publisher {
                _ if is_silent => (0, 0),
                PublisherPlan::Subscribers => (first, end),
                _ if by_channel => (first / self.per_channel, end / self.per_channel),
                _ if worker == 0 => (0, streams),
                _ => (0, 0),
            };
            let streams_here = streams_end - first_stream;
            plans.push(Plan {
                target: target.clone(),
                first_client: first,
                clients: end - first,
                per_channel: self.per_channel,
                streams_per_channel: self.streams_per_channel.max(u32::from(target.is_bare)),
                first_stream,
                streams: streams_here,
                publisher: if streams_here > 0 { publisher.clone() } else { PublisherPlan::Nobody },
                load: self.load.part(streams_here, streams.max(1)),
                deaths: match scenario {
                    Scenario::Jitter(_) => given.deaths / f64::from(workers),
                    _ => 0.0,
                },
                payload: payload.clone(),
                duration_ms,
                sample_ms: sample_ms(duration_ms),
            });
        }
        Ok(plans)
    }
}

/// The plans of processes full of clients that come and go.
pub(crate) fn storm_plans(
    given: &Arguments,
    target: &ServerTarget,
    publisher: &PublisherPlan,
    duration_ms: u64,
) -> anyhow::Result<Vec<StormPlan>> {
    let workers = given.workers.unwrap_or(1).clamp(1, given.channels.min(given.window).max(1));
    let window = given.window.div_ceil(workers);
    let descriptors = u64::from(window) + DESCRIPTORS_BESIDES;
    let limit = rlimit::increase_nofile_limit(u64::MAX)?;
    if window == 0 || descriptors > limit {
        bail!("--window {}: a process may have {limit} descriptors; see --workers", given.window);
    }
    let payload = PayloadSpec::new(&given.size, given.template.as_deref())?;
    let plan = |worker| {
        let (first, end) =
            (share(given.channels, worker, workers), share(given.channels, worker + 1, workers));
        StormPlan {
            target: target.clone(),
            publisher: publisher.clone(),
            first_channel: first,
            channels: end - first,
            window,
            recover: given.recover,
            payload: payload.clone(),
            duration_ms,
            sample_ms: sample_ms(duration_ms),
        }
    };
    Ok((0..workers).map(plan).collect())
}

impl Load {
    /// What falls to so many of all streams.
    fn part(self, streams: u32, of: u32) -> Load {
        let part = f64::from(streams) / f64::from(of);
        match self {
            _ if streams == 0 => Load::Hold,
            Load::Hold => Load::Hold,
            Load::Rate(rate) => Load::Rate(rate * part),
            Load::Window(window) => {
                Load::Window(((f64::from(window) * part).round() as u32).max(1))
            }
        }
    }
}

/// Where the part of a worker begins.
fn share(units: u32, worker: u32, workers: u32) -> u32 {
    let begin = u64::from(units) * u64::from(worker) / u64::from(workers);
    u32::try_from(begin).expect("a part is no more than the whole")
}

/// Some 60 samples, but none shorter than can be seen.
pub(crate) fn sample_ms(duration_ms: u64) -> u64 {
    (duration_ms / 60).clamp(100, 1000)
}

/// The server that clients connect to.
pub(crate) fn target(given: &Arguments) -> anyhow::Result<ServerTarget> {
    endpoint(given, &given.url)
}

fn endpoint(given: &Arguments, url: &str) -> anyhow::Result<ServerTarget> {
    let Place { address, authority, path, security } = place(given, url, ["ws", "wss"])?;
    let path = if path.is_empty() { "/connection/websocket".to_owned() } else { path };
    let admission = match (&given.token, &given.token_secret) {
        (Some(token), _) => ClientLogin::Token(token.clone()),
        (None, Some(secret)) => ClientLogin::Secret(secret.clone()),
        (None, None) => ClientLogin::Anonymous,
    };
    let (encoding, channel) = (given.codec, given.channel.clone());
    if channel.contains(['"', '\\']) || channel.chars().any(char::is_control) {
        usage_error!("--channel {channel}: a name without quotes and backslashes is needed");
    }
    let is_bare = false;
    Ok(ServerTarget { address, authority, path, security, encoding, admission, channel, is_bare })
}

/// Who publishes.
pub(crate) fn publisher(
    scenario: &Scenario,
    target: &ServerTarget,
) -> anyhow::Result<PublisherPlan> {
    let given = scenario.arguments();
    let by_default = if given.api_key.is_some() { PublishBy::Api } else { PublishBy::Client };
    match (scenario, given.publish_by.unwrap_or(by_default)) {
        (Scenario::Idle(_) | Scenario::Raw(_) | Scenario::Relay(_), _) => Ok(PublisherPlan::Nobody),
        (Scenario::Rooms(_), _) => Ok(PublisherPlan::Subscribers),
        (Scenario::Storm(_), PublishBy::Client) if given.recover > 0 => {
            usage_error!(
                "storm publishes what clients recover through the server API: give --api-key"
            )
        }
        (_, PublishBy::Client) => {
            let url = given.publish_url.as_deref().unwrap_or(&given.url);
            Ok(PublisherPlan::Client(Box::new(endpoint(given, url)?)))
        }
        (_, PublishBy::Api) => {
            let scheme = if target.security.is_some() { "https" } else { "http" };
            let beside = format!("{scheme}://{}/api", target.authority);
            let url = given.api_url.as_deref().unwrap_or(&beside);
            let protocol = match url.starts_with("grpc") {
                true => ApiProtocol::Grpc,
                false => ApiProtocol::Http,
            };
            let schemes = match protocol {
                ApiProtocol::Http => ["http", "https"],
                ApiProtocol::Grpc => ["grpc", "grpcs"],
            };
            let Place { address, authority, path, security } = place(given, url, schemes)?;
            let path = match path.trim_end_matches('/') {
                "" => "/api".to_owned(),
                path => path.to_owned(),
            };
            let key = given.api_key.clone().unwrap_or_default();
            let connections = given.api_connections.clamp(1, 1000);
            let batch = given.batch.clamp(1, 1000);
            let api = ApiTarget { protocol, address, authority, security, path, key };
            Ok(PublisherPlan::Api { api, connections, batch })
        }
    }
}

pub(crate) fn raw_plan(given: &Arguments, duration_ms: u64) -> SendBaselinePlan {
    SendBaselinePlan {
        receivers: given.subscribers,
        rate: given.rate,
        size: given.size.first().copied().unwrap_or(SIZE_MIN),
        duration_ms,
        encoding: given.codec,
        channel: given.channel.clone(),
        core: given.raw_core,
    }
}

pub(crate) fn relay_plan(given: &Arguments, duration_ms: u64) -> anyhow::Result<RedisBaselinePlan> {
    let Place { address, security, .. } = place(given, &given.url, ["redis", "rediss"])?;
    if security.is_some() {
        usage_error!("relay speaks without TLS: give redis://");
    }
    Ok(RedisBaselinePlan {
        address,
        rate: given.rate,
        size: given.size.first().copied().unwrap_or(SIZE_MIN),
        channel: given.channel.clone(),
        duration_ms,
        sample_ms: sample_ms(duration_ms),
    })
}

/// Where a URL leads.
struct Place {
    address: SocketAddr,
    authority: String,
    path: String,
    security: Option<Security>,
}

/// Takes a URL apart, of which the second scheme stands for TLS.
fn place(given: &Arguments, url: &str, [plain, secure]: [&str; 2]) -> anyhow::Result<Place> {
    let (scheme, rest) = url.split_once("://").unwrap_or((plain, url));
    match scheme {
        _ if scheme == plain || scheme == secure => {}
        "http" | "https" if plain == "ws" => {
            let authority = rest.split('/').next().unwrap_or_default();
            let meant = scheme.replace("http", "ws");
            usage_error!(
                "{url}: expected an address that begins with ws:// or wss://; did you mean {meant}://{authority}/connection/websocket?"
            );
        }
        _ => usage_error!("{url}: expected an address that begins with {plain}:// or {secure}://"),
    }
    let is_secure = scheme == secure;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let Authority { host, port } =
        Authority::parse(url, authority).map_err(|error| UsageError(error.to_string()))?;
    let port = port.unwrap_or(if is_secure { 443 } else { 80 });
    let address = match (host, port).to_socket_addrs().map(|mut addresses| addresses.next()) {
        Ok(Some(address)) => address,
        Ok(None) => usage_error!("{url}: {host} has no address"),
        Err(error) => usage_error!("{url}: {host} has no address: {error}"),
    };
    if let Some(file) = &given.ca {
        transport::authorities(file)?;
    }
    let security = is_secure.then(|| Security { host: host.to_owned(), ca: given.ca.clone() });
    Ok(Place { address, authority: authority.to_owned(), path: path.to_owned(), security })
}
