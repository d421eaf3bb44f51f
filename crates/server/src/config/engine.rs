//! Resolves which engine or broker carries publications, with its settings.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ::engine::rules::{ChannelRules, Namespace};
use brokers::nats::{JetStreamOptions, NatsOptions, NatsTls};
use brokers::redis::RedisSettings;
use brokers::redis::settings::{
    Deployment, Login, ParsedAddress, ServerLocation, TlsPem, TlsSettings,
};

use super::coerce::shown;
use super::keys::{Feature, Kind};
use super::mistakes::KeyedMistakes;
use super::pem::read_pem;
use super::values::Values;

/// The engine or broker that carries publications.
#[derive(Clone, Debug)]
pub enum Engine {
    /// Memory of this process; for one node.
    Memory,
    /// Redis with these settings.
    Redis(Box<RedisEngine>),
    /// NATS with these settings.
    Nats(NatsOptions),
}

/// Settings of the Redis engine.
#[derive(Clone, Debug)]
pub struct RedisEngine {
    deployment: Deployment,
    login: Login,
    database: u32,
    tls: Option<TlsSettings>,
    prefix: String,
    connect_timeout: Duration,
    io_timeout: Duration,
    presence_ttl: Duration,
    lease: Duration,
    events_max: u32,
    /// Whether the start waits for a Redis that cannot be reached.
    pub waits_at_start: bool,
}

impl RedisEngine {
    /// The settings of the broker for the node `name`. `node` and `seed` must differ at every
    /// start.
    #[must_use]
    pub fn settings(&self, node: String, name: String, seed: u64) -> RedisSettings {
        RedisSettings {
            deployment: self.deployment.clone(),
            login: self.login.clone(),
            database: self.database,
            tls: self.tls.clone(),
            prefix: self.prefix.clone(),
            node,
            name,
            lease: self.lease,
            events_max: self.events_max,
            seed,
            connect_timeout: self.connect_timeout,
            io_timeout: self.io_timeout,
            presence_ttl: self.presence_ttl,
        }
    }

    /// Time after which a start that does not wait has succeeded or failed.
    #[must_use]
    pub fn start_timeout(&self) -> Duration {
        self.connect_timeout + 2 * self.io_timeout
    }
}

pub(super) fn resolve_engine(
    values: &Values<'_>,
    channels: &ChannelRules,
    mistakes: &mut KeyedMistakes,
) -> Engine {
    let is_redis = values.text("engine.type") == "redis";
    if values.u32("lifecycle.events_max") == 0 {
        mistakes.push(("lifecycle.events_max".to_owned(), NO_EVENTS.to_owned()));
    }
    if !values.flag("broker.enabled") {
        return match is_redis {
            true => resolve_redis(values, mistakes),
            false => Engine::Memory,
        };
    }
    let broker = values.text("broker.type");
    match (&*broker, is_redis) {
        ("nats", _) => {}
        ("memory", false) => return Engine::Memory,
        ("memory", true) => {
            let text = "memory would carry publications within each node only, unlike engine.type = \"redis\": \
                        remove broker.enabled";
            mistakes.push(("broker.type".to_owned(), text.to_owned()));
            return Engine::Memory;
        }
        _ => {
            let text = format!("{broker}: {}", Feature::BrokerBesideEngine.refusal());
            mistakes.push(("broker.type".to_owned(), text));
            return Engine::Memory;
        }
    }
    if is_redis {
        let text =
            "must be memory with broker.type = \"nats\", which replaces the engine".to_owned();
        mistakes.push(("engine.type".to_owned(), text));
    }
    if let Err(text) = brokers::nats::check_url(&values.text("broker.nats.url")) {
        mistakes.push(("broker.nats.url".to_owned(), text));
    }
    let prefix = values.text("broker.nats.prefix");
    let is_token = |token: &str| {
        !token.is_empty()
            && !token.contains(|c: char| "*>".contains(c) || c.is_whitespace() || c.is_control())
    };
    if !prefix.split('.').all(is_token) {
        let text = format!(
            "expected a subject of NATS without spaces, *, > and empty parts between dots, not {}",
            shown(&prefix.as_str().into())
        );
        mistakes.push(("broker.nats.prefix".to_owned(), text));
    }
    Engine::Nats(resolve_nats(values, channels, mistakes))
}

/// A stream of events without capacity would lose every event.
const NO_EVENTS: &str = "must be at least 1; to disable events, set lifecycle.enabled = false";

/// Addresses of brokers that are not in use. Such a node would run without its cluster.
pub(super) fn unused_engines(values: &Values<'_>) -> Vec<(&'static str, &'static str)> {
    let is_written = |path: &str| values.raw.value(path).is_some();
    let differs = |path: &str| is_written(path) && values.list(path) != values.default_list(path);
    let uses_nats = values.flag("broker.enabled");
    let mut unused = Vec::new();
    for path in
        ["engine.redis.address", "engine.redis.cluster_address", "engine.redis.sentinel_address"]
    {
        if differs(path) && !is_written("engine.type") && !uses_nats {
            unused
                .push((path, "is not used without engine.type = \"redis\": this node runs alone"));
        }
    }
    if uses_nats && is_written("broker.nats.url") && !is_written("broker.type") {
        unused.push((
            "broker.nats.url",
            "is not used without broker.type = \"nats\": this node runs alone",
        ));
    }
    if values.text("broker.type") == "nats" && !is_written("broker.enabled") {
        unused.push((
            "broker.type",
            "is not used without broker.enabled = true: this node runs alone",
        ));
    }
    unused
}

fn resolve_nats(
    values: &Values<'_>,
    channels: &ChannelRules,
    mistakes: &mut KeyedMistakes,
) -> NatsOptions {
    let all = || channels.namespaces.values().chain([&channels.without_namespace]);
    let history_size_max = all().map(|namespace| namespace.history_size).max().unwrap_or(0);
    let kept_ms =
        |namespace: &Namespace| namespace.history_meta_ttl_ms.max(namespace.channel_ttl_ms);
    // JetStream is needed only for history, presence and channels with a lifetime.
    let keeps = |namespace: &Namespace| {
        namespace.history_size > 0 || namespace.presence || namespace.channel_ttl_ms > 0
    };
    NatsOptions {
        url: values.text("broker.nats.url"),
        prefix: values.text("broker.nats.prefix"),
        name: String::new(),
        lease_ms: brokers::limits::LEASE_MS,
        dial_timeout_ms: values.ms("broker.nats.dial_timeout"),
        tls: resolve_nats_tls(values, mistakes),
        jetstream: all().any(keeps).then(|| JetStreamOptions {
            replicas: values.u32("broker.nats.jetstream.replicas"),
            history_size_max: history_size_max.max(channels.system.history_size),
            kept_ms_max: all().map(kept_ms).max().unwrap_or(0),
            events_max: values.u32("lifecycle.events_max"),
        }),
        message_size_max: values.count("websocket.message_size_limit"),
    }
}

/// Resolves TLS of NATS. The NATS client reads the files itself, so that the values must be paths.
fn resolve_nats_tls(values: &Values<'_>, mistakes: &mut KeyedMistakes) -> NatsTls {
    let enabled = values.flag("broker.nats.tls.enabled");
    let mut file = |name: &str| {
        let path = format!("broker.nats.tls.{name}");
        let value = values.some_text(&path)?;
        if enabled && !Path::new(&value).is_file() {
            let text =
                "expected the path of a readable file; PEM in the value is not supported here";
            mistakes.push((path, text.to_owned()));
        }
        Some(PathBuf::from(value))
    };
    let authorities = file("server_ca_pem_file").or_else(|| file("server_ca_pem"));
    let (certificate, key) = (file("cert_pem"), file("key_pem"));
    if certificate.is_some() != key.is_some() {
        let text =
            "a certificate needs its key, and a key needs its certificate: set both".to_owned();
        mistakes.push(("broker.nats.tls.cert_pem".to_owned(), text));
    }
    NatsTls { enabled, server_ca_pem_file: authorities, client_pem_files: certificate.zip(key) }
}

fn resolve_redis(values: &Values<'_>, mistakes: &mut KeyedMistakes) -> Engine {
    let mut refuse = |name: &str, text: String| {
        mistakes.push((format!("engine.redis.{name}"), text));
    };
    let text = |name: &str| values.text(&format!("engine.redis.{name}"));
    let (key, addresses) = match addresses(values) {
        Ok(addresses) => addresses,
        Err((key, text)) => {
            refuse(key, text.to_owned());
            return Engine::Memory;
        }
    };
    let place = match ParsedAddress::parse(&addresses) {
        Ok(place) => place,
        Err(error) => {
            refuse(key, error.to_string());
            return Engine::Memory;
        }
    };
    let database = place.database.unwrap_or_else(|| values.u32("engine.redis.db"));
    if database != 0 && matches!(place.deployment, Deployment::Cluster(_)) {
        refuse("db", "must be 0 in a Cluster".to_owned());
    }
    let prefix = text("prefix");
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
    if prefix.is_empty() || !prefix.chars().all(is_plain) {
        let text = format!(
            "expected letters, digits, '-', '_', '.' or ':', not {}",
            shown(&prefix.as_str().into())
        );
        refuse("prefix", text);
    }
    let mut time = |name: &str, least_ms: u64| {
        let ms = values.ms(&format!("engine.redis.{name}"));
        if ms < least_ms {
            refuse(name, format!("must be at least {least_ms}ms"));
        }
        Duration::from_millis(ms)
    };
    let (connect_timeout, io_timeout) = (time("connect_timeout", 10), time("io_timeout", 100));
    let presence_ttl = time("presence_ttl", 5_000);
    let lease = time("lease", 1_000);
    if presence_ttl < lease {
        let text = "must not be less than engine.redis.lease".to_owned();
        mistakes.push(("engine.redis.presence_ttl".to_owned(), text));
    }
    let has_tls = place.has_tls || values.flag("engine.redis.tls.enabled");
    let tls = if has_tls { resolve_tls(values, mistakes) } else { None };
    let sentinel_login = Login { user: text("sentinel_user"), password: text("sentinel_password") };
    let login =
        place.login.unwrap_or_else(|| Login { user: text("user"), password: text("password") });
    Engine::Redis(Box::new(RedisEngine {
        deployment: with_sentinel_login(place.deployment, &sentinel_login),
        login,
        database,
        tls,
        prefix,
        connect_timeout,
        io_timeout,
        presence_ttl,
        lease,
        events_max: values.u32("lifecycle.events_max"),
        waits_at_start: values.flag("engine.redis.wait_at_start"),
    }))
}

/// The addresses of Redis, with the key that contains them. Cluster addresses take precedence over
/// Sentinels, and Sentinels over servers, as in the compatible server.
fn addresses(
    values: &Values<'_>,
) -> Result<(&'static str, Vec<String>), (&'static str, &'static str)> {
    let list = |name: &str| values.list(&format!("engine.redis.{name}"));
    let (cluster, sentinels) = (list("cluster_address"), list("sentinel_address"));
    let master = values.text("engine.redis.sentinel_master_name");
    if !cluster.is_empty() && !sentinels.is_empty() {
        return Err((
            "cluster_address",
            "cannot be combined with engine.redis.sentinel_address: remove one of them",
        ));
    }
    // Hosts without a scheme get the scheme of the key.
    let with_scheme = |scheme: &str, hosts: &[String], query: &str| match hosts {
        [first, ..] if first.contains("://") => hosts.to_vec(),
        hosts => vec![format!("{scheme}://{}{query}", hosts.join(","))],
    };
    if !cluster.is_empty() {
        return Ok(("cluster_address", with_scheme("redis+cluster", &cluster, "")));
    }
    if !sentinels.is_empty() {
        if master.is_empty() {
            return Err(("sentinel_master_name", "is needed with engine.redis.sentinel_address"));
        }
        let query = format!("?sentinel_master_name={master}");
        return Ok(("sentinel_address", with_scheme("redis+sentinel", &sentinels, &query)));
    }
    let lacks_master = |address: &String| {
        address.contains("+sentinel://") && !address.contains("sentinel_master_name=")
    };
    let with_master = |address: String| match lacks_master(&address) && !master.is_empty() {
        true => {
            let mark = if address.contains('?') { '&' } else { '?' };
            format!("{address}{mark}sentinel_master_name={master}")
        }
        false => address,
    };
    Ok(("address", list("address").into_iter().map(with_master).collect()))
}

fn with_sentinel_login(mut deployment: Deployment, sentinel_login: &Login) -> Deployment {
    if let Deployment::Servers(servers) = &mut deployment {
        for server in servers {
            if let ServerLocation::Sentinel { login, .. } = server {
                login.clone_from(sentinel_login);
            }
        }
    }
    deployment
}

fn resolve_tls(values: &Values<'_>, mistakes: &mut KeyedMistakes) -> Option<TlsSettings> {
    let mut pem = |name: &str, kind| {
        let path = format!("engine.redis.tls.{name}");
        let read = read_pem(kind, &values.some_text(&path)?);
        read.map_err(|error| mistakes.push((path, error))).ok()
    };
    let roots = pem("server_ca_pem", Kind::Text);
    let own = pem("cert_pem", Kind::Text).zip(pem("key_pem", Kind::Secret));
    let own = own.as_ref().map(|(chain, key)| (&**chain, &**key));
    let pem = TlsPem { roots: roots.as_deref(), own };
    let name = values.some_text("engine.redis.tls.server_name");
    TlsSettings::new(pem, name)
        .map_err(|error| mistakes.push(("engine.redis.tls".to_owned(), error.to_string())))
        .ok()
}
