//! Resolves which engine or broker carries publications, with its settings.

use std::ops::Deref;
use std::path::PathBuf;
use std::time::Duration;

use ::engine::rules::{ChannelRules, Namespace};
use brokers::nats::{JetStreamOptions, NatsOptions, NatsTls};
use brokers::redis::settings::{
    Deployment, Login, ParsedAddress, ServerLocation, TlsPem, TlsSettings,
};
use brokers::redis::{RedisParts, RedisSettings};

use super::coerce::shown;
use super::feature::Feature;
use super::kind::OptionValue;
use super::mistakes::{KeyedMistake, KeyedMistakes};
use super::options::Options;
use super::options::engine::{
    BrokerType, EngineType, NatsTlsSection, PresenceManagerSection, RedisSection, RedisTlsSection,
};
use super::pem::read_pem;
use super::schema::Setting;

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
            parts: RedisParts::All,
        }
    }

    /// Whether the keys of both are the same ones.
    fn has_keys_of(&self, other: &RedisEngine) -> bool {
        (&self.deployment, self.database, &self.prefix)
            == (&other.deployment, other.database, &other.prefix)
    }

    /// Time after which a start that does not wait has succeeded or failed.
    #[must_use]
    pub fn start_timeout(&self) -> Duration {
        self.connect_timeout + 2 * self.io_timeout
    }
}

/// Resolves the engine or broker, and the Redis that keeps presence if it is another one.
pub(super) fn resolve_brokers(
    options: &Options,
    channels: &ChannelRules,
    mistakes: &mut KeyedMistakes,
) -> (Engine, Option<Box<RedisEngine>>) {
    let presence = resolve_presence(options, mistakes);
    let mut engine = resolve_engine(options, channels, mistakes);
    let is_alone = matches!(engine, Engine::Memory);
    let manager = &options.presence_manager;
    if *manager.enabled && *manager.r#type == EngineType::Memory && !is_alone {
        let text = "memory would keep presence of each node apart: use redis, or remove presence_manager.enabled";
        mistakes.push(manager.r#type.fault(text));
    }
    match (&mut engine, presence) {
        // Of two brokers with the same keys, each would be a node of its own to the other nodes.
        (Engine::Redis(engine_redis), Some(redis)) if redis.has_keys_of(engine_redis) => {
            engine_redis.presence_ttl = redis.presence_ttl;
            (engine, None)
        }
        (_, presence) => (engine, presence),
    }
}

/// Redis keeps presence beside another broker if it is the presence manager, or if it is the engine
/// and NATS carries the publications.
fn resolve_presence(options: &Options, mistakes: &mut KeyedMistakes) -> Option<Box<RedisEngine>> {
    let (manager, broker) = (&options.presence_manager, &options.broker);
    if !keeps_presence_in_redis(options) {
        return None;
    }
    let redis = match *manager.enabled {
        true => &manager.redis,
        false if *broker.r#type == BrokerType::Nats => &options.engine.redis,
        false => return None,
    };
    resolve_redis(redis, options, mistakes).map(Box::new)
}

/// Whether Redis keeps presence beside a broker that carries publications.
fn keeps_presence_in_redis(options: &Options) -> bool {
    let manager = &options.presence_manager;
    match *manager.enabled {
        true => *manager.r#type == EngineType::Redis,
        false => *options.broker.enabled && *options.engine.r#type == EngineType::Redis,
    }
}

fn resolve_engine(
    options: &Options,
    channels: &ChannelRules,
    mistakes: &mut KeyedMistakes,
) -> Engine {
    let (engine, broker) = (&options.engine, &options.broker);
    let is_redis = *engine.r#type == EngineType::Redis;
    if *options.lifecycle.events_max == 0 {
        mistakes.push(options.lifecycle.events_max.fault(NO_EVENTS));
    }
    if !*broker.enabled {
        return match is_redis {
            true => match resolve_redis(&options.engine.redis, options, mistakes) {
                Some(redis) => Engine::Redis(Box::new(redis)),
                None => Engine::Memory,
            },
            false => Engine::Memory,
        };
    }
    match (*broker.r#type, is_redis) {
        (BrokerType::Nats, _) => {}
        (BrokerType::Memory, false) => return Engine::Memory,
        (BrokerType::Memory, true) => {
            let text = "memory would carry publications within each node only, unlike engine.type = \"redis\": \
                        remove broker.enabled";
            mistakes.push(broker.r#type.fault(text));
            return Engine::Memory;
        }
        (BrokerType::Unsupported(name), _) => {
            let text = format!("{name}: {}", Feature::BrokerBesideEngine.refusal());
            mistakes.push(broker.r#type.fault(text));
            return Engine::Memory;
        }
    }
    if let Err(text) = brokers::nats::check_url(&broker.nats.url) {
        mistakes.push(broker.nats.url.fault(text));
    }
    let is_token = |token: &str| {
        !token.is_empty()
            && !token.contains(|c: char| "*>".contains(c) || c.is_whitespace() || c.is_control())
    };
    let prefix = &broker.nats.prefix;
    if !prefix.split('.').all(is_token) {
        let text = format!(
            "expected a subject of NATS without spaces, *, > and empty parts between dots, not {}",
            shown(&prefix.as_str().into())
        );
        mistakes.push(prefix.fault(text));
    }
    Engine::Nats(resolve_nats(options, channels, mistakes))
}

/// A stream of events without capacity would lose every event.
const NO_EVENTS: &str = "must be at least 1; to disable events, set lifecycle.enabled = false";

/// Addresses of brokers that are not in use. Such a node would run without its cluster.
pub(super) fn unused_engines(options: &Options) -> KeyedMistakes {
    let (engine, broker) = (&options.engine, &options.broker);
    let redis = &engine.redis;
    let uses_nats = *broker.enabled;
    let mut unused = Vec::new();
    for addresses in [&redis.address, &redis.cluster_address, &redis.sentinel_address] {
        if !addresses.is_default && !engine.r#type.is_written && !uses_nats {
            let text = "is not used without engine.type = \"redis\": this node runs alone";
            unused.push(addresses.fault(text));
        }
    }
    unused.extend(unused_presence(&options.presence_manager));
    if uses_nats && broker.nats.url.is_written && !broker.r#type.is_written {
        let text = "is not used without broker.type = \"nats\": this node runs alone";
        unused.push(broker.nats.url.fault(text));
    }
    if *broker.r#type == BrokerType::Nats && !broker.enabled.is_written {
        let text = "is not used without broker.enabled = true: this node runs alone";
        unused.push(broker.r#type.fault(text));
    }
    unused
}

/// Options of the presence manager without its switches.
fn unused_presence(manager: &PresenceManagerSection) -> KeyedMistakes {
    let is_redis = *manager.r#type == EngineType::Redis;
    let missing = match (*manager.enabled, is_redis) {
        // A switch that is written is meant so.
        (true, true) => return Vec::new(),
        (true, false) if manager.r#type.is_written => return Vec::new(),
        (false, _) if manager.enabled.is_written => return Vec::new(),
        (true, false) => "presence_manager.type = \"redis\"",
        (false, true) => "presence_manager.enabled = true",
        (false, false) => "presence_manager.enabled = true and presence_manager.type = \"redis\"",
    };
    let text =
        format!("is not used without {missing}: the engine or the broker keeps presence itself");
    let redis = &manager.redis;
    let addresses = [&redis.address, &redis.cluster_address, &redis.sentinel_address];
    let mut unused: KeyedMistakes = addresses
        .into_iter()
        .filter(|addresses| !addresses.is_default)
        .map(|addresses| addresses.fault(&*text))
        .collect();
    if *manager.enabled {
        unused.push(manager.enabled.fault(&*text));
    } else if is_redis {
        unused.push(manager.r#type.fault(&*text));
    }
    unused
}

fn resolve_nats(
    options: &Options,
    channels: &ChannelRules,
    mistakes: &mut KeyedMistakes,
) -> NatsOptions {
    let nats = &options.broker.nats;
    let all = || channels.namespaces.values().chain([&channels.without_namespace]);
    let history_size_max = all().map(|namespace| namespace.history_size).max().unwrap_or(0);
    let kept_ms =
        |namespace: &Namespace| namespace.history_meta_ttl_ms.max(namespace.channel_ttl_ms);
    // JetStream is needed only for history, channels with a lifetime, and presence unless Redis
    // keeps it.
    let has_presence = !keeps_presence_in_redis(options);
    let keeps = |namespace: &Namespace| {
        namespace.history_size > 0
            || has_presence && namespace.presence
            || namespace.channel_ttl_ms > 0
    };
    NatsOptions {
        url: nats.url.to_string(),
        prefix: nats.prefix.clone(),
        name: String::new(),
        lease_ms: brokers::limits::LEASE_MS,
        dial_timeout_ms: nats.dial_timeout.ms(),
        tls: resolve_nats_tls(&nats.tls, mistakes),
        jetstream: all().any(keeps).then(|| JetStreamOptions {
            replicas: nats.jetstream.replicas.number() as u32,
            history_size_max: history_size_max.max(channels.system.history_size),
            kept_ms_max: all().map(kept_ms).max().unwrap_or(0),
            events_max: *options.lifecycle.events_max,
        }),
        message_size_max: options.websocket.message_size_limit.count(),
    }
}

/// Resolves TLS of NATS. The NATS client reads the files itself, so that the values must be paths.
fn resolve_nats_tls(tls: &NatsTlsSection, mistakes: &mut KeyedMistakes) -> NatsTls {
    let authorities = pem_file(tls, &tls.server_ca_pem_file, mistakes)
        .or_else(|| pem_file(tls, &tls.server_ca_pem, mistakes));
    let certificate = pem_file(tls, &tls.cert_pem, mistakes);
    let key = pem_file(tls, &tls.key_pem, mistakes);
    if certificate.is_some() != key.is_some() {
        let text = "a certificate needs its key, and a key needs its certificate: set both";
        mistakes.push(tls.cert_pem.fault(text));
    }
    NatsTls {
        enabled: *tls.enabled,
        server_ca_pem_file: authorities,
        client_pem_files: certificate.zip(key),
    }
}

fn pem_file<T: Deref<Target = str>>(
    tls: &NatsTlsSection,
    setting: &Setting<T>,
    mistakes: &mut KeyedMistakes,
) -> Option<PathBuf> {
    let path = PathBuf::from(setting.some()?);
    if *tls.enabled && !path.is_file() {
        let text = "expected the path of a readable file; PEM in the value is not supported here";
        mistakes.push(setting.fault(text));
    }
    Some(path)
}

fn resolve_redis(
    redis: &RedisSection,
    options: &Options,
    mistakes: &mut KeyedMistakes,
) -> Option<RedisEngine> {
    let (key, addresses) = match addresses(redis) {
        Ok(addresses) => addresses,
        Err(mistake) => {
            mistakes.push(mistake);
            return None;
        }
    };
    let place = match ParsedAddress::parse(&addresses) {
        Ok(place) => place,
        Err(error) => {
            mistakes.push(key.fault(error.to_string()));
            return None;
        }
    };
    let database = place.database.unwrap_or(*redis.db);
    if database != 0 && matches!(place.deployment, Deployment::Cluster(_)) {
        mistakes.push(redis.db.fault("must be 0 in a Cluster"));
    }
    let prefix = &redis.prefix;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
    if prefix.is_empty() || !prefix.chars().all(is_plain) {
        let text = format!(
            "expected letters, digits, '-', '_', '.' or ':', not {}",
            shown(&prefix.as_str().into())
        );
        mistakes.push(prefix.fault(text));
    }
    for (time, least_ms) in [
        (&redis.connect_timeout, 10),
        (&redis.io_timeout, 100),
        (&redis.presence_ttl, 5_000),
        (&redis.lease, 1_000),
    ] {
        if time.ms() < least_ms {
            mistakes.push(time.fault(format!("must be at least {least_ms}ms")));
        }
    }
    if *redis.presence_ttl < *redis.lease {
        let text = format!("must not be less than {}", redis.lease.key);
        mistakes.push(redis.presence_ttl.fault(text));
    }
    let has_tls = place.has_tls || *redis.tls.enabled;
    let tls = if has_tls { resolve_tls(&redis.tls, mistakes) } else { None };
    let login =
        |user: &str, password: &str| Login { user: user.to_owned(), password: password.to_owned() };
    let sentinel_login = login(&redis.sentinel_user, &redis.sentinel_password);
    Some(RedisEngine {
        deployment: with_sentinel_login(place.deployment, &sentinel_login),
        login: place.login.unwrap_or_else(|| login(&redis.user, &redis.password)),
        database,
        tls,
        prefix: prefix.to_string(),
        connect_timeout: *redis.connect_timeout,
        io_timeout: *redis.io_timeout,
        presence_ttl: *redis.presence_ttl,
        lease: *redis.lease,
        events_max: *options.lifecycle.events_max,
        waits_at_start: *redis.wait_at_start,
    })
}

/// The option with the addresses of Redis, and the addresses. Cluster addresses take precedence
/// over Sentinels, and Sentinels over servers, as in the compatible server.
fn addresses(redis: &RedisSection) -> Result<(&Setting<Vec<String>>, Vec<String>), KeyedMistake> {
    let (cluster, sentinels) = (&redis.cluster_address, &redis.sentinel_address);
    let master = &*redis.sentinel_master_name;
    if !cluster.is_empty() && !sentinels.is_empty() {
        let text = format!("cannot be combined with {}: remove one of them", sentinels.key);
        return Err(cluster.fault(text));
    }
    // Hosts without a scheme get the scheme of the key.
    let with_scheme = |scheme: &str, hosts: &[String], query: &str| match hosts {
        [first, ..] if first.contains("://") => hosts.to_vec(),
        hosts => vec![format!("{scheme}://{}{query}", hosts.join(","))],
    };
    if !cluster.is_empty() {
        return Ok((cluster, with_scheme("redis+cluster", cluster, "")));
    }
    if !sentinels.is_empty() {
        if master.is_empty() {
            let text = format!("is required with {}", sentinels.key);
            return Err(redis.sentinel_master_name.fault(text));
        }
        let query = format!("?sentinel_master_name={master}");
        return Ok((sentinels, with_scheme("redis+sentinel", sentinels, &query)));
    }
    let lacks_master = |address: &String| {
        address.contains("+sentinel://") && !address.contains("sentinel_master_name=")
    };
    let with_master = |address: &String| match lacks_master(address) && !master.is_empty() {
        true => {
            let mark = if address.contains('?') { '&' } else { '?' };
            format!("{address}{mark}sentinel_master_name={master}")
        }
        false => address.clone(),
    };
    Ok((&redis.address, redis.address.iter().map(with_master).collect()))
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

fn resolve_tls(tls: &RedisTlsSection, mistakes: &mut KeyedMistakes) -> Option<TlsSettings> {
    let roots = pem(&tls.server_ca_pem, mistakes);
    let own = pem(&tls.cert_pem, mistakes).zip(pem(&tls.key_pem, mistakes));
    let own = own.as_ref().map(|(chain, key)| (&**chain, &**key));
    let pem = TlsPem { roots: roots.as_deref(), own };
    TlsSettings::new(pem, tls.server_name.some())
        .map_err(|error| mistakes.push((tls.enabled.section().to_owned(), error.to_string())))
        .ok()
}

/// Reads an option that contains PEM, if it is set.
pub(super) fn pem<T: OptionValue + Deref<Target = str>>(
    setting: &Setting<T>,
    mistakes: &mut KeyedMistakes,
) -> Option<String> {
    let read = read_pem(T::KIND, &setting.some()?);
    read.map_err(|error| mistakes.push(setting.fault(error))).ok()
}
