//! Resolves checked options into a [`Config`], and checks options that depend on each other.

use std::sync::Arc;

use engine::rules::{ChannelRules, ClientRules, PersonalChannel, Rules};
use wire::limits::INFLATED_SIZE_FACTOR;
use wire::websocket::decoder::DecoderLimits;

use super::address;
use super::api_keys::{self, ApiKey, DEFAULT_NAME};
use super::ceilings::resolve_ceilings;
use super::change::{Bounds, Changeable};
use super::consumers::resolve_consumers;
use super::contradictions::check_names;
use super::danger::dangers;
use super::engine::{resolve_brokers, unused_engines};
use super::events::{reported, resolve_events, unused_sinks};
use super::formats::warn_of_formats;
use super::grpc_api;
use super::kind::Kind;
use super::listening::{resolve_address, resolve_tls};
use super::mistakes::{KeyedMistakes, WarningKind};
use super::namespaces::{demo_namespace, resolve_channels};
use super::nats_lengths::check_channel_length;
use super::options::Options;
use super::options::client::{ClientSection, TokenSection};
use super::options::http::{ApiSection, HttpServerSection, WebSocketSection};
use super::options::{LogSection, ShutdownSection};
use super::paths::check_paths;
use super::pem::read_pem;
use super::proxies::{resolve_proxies, resolve_rpc, unused_proxies};
use super::rates::resolve_rates;
use super::raw_config::RawConfig;
use super::schema::{Section as _, Setting};
use super::text_list::items;
use super::{
    AdmissionSettings, Api, Config, Development, ForwardedHeader, HttpServer, Log, OriginPolicy,
    Shutdown, TokenSettings, TrustedProxies, WebSocket,
};

/// Origins of pages that this machine serves on any port: the demo page may be opened through a
/// tunnel (`ssh -L`), and the application under development has a server of its own. An origin
/// without a port means the default port of its scheme.
const LOOPBACK_ORIGINS: &str = "http://localhost:* http://*.localhost:* http://127.0.0.1:* \
                                http://[::1]:* http://localhost http://127.0.0.1 http://[::1]";

/// Defaults of development mode where they differ from the declared ones.
fn develop(options: &mut Options) {
    options.http_server.address.set_default("127.0.0.1".to_owned());
    options.http_server.internal_address.set_default("127.0.0.1".to_owned());
    options.demo.enabled.set_default(true);
    options.client.allow_anonymous_connect_without_token.set_default(true);
    let origins = items(LOOPBACK_ORIGINS).map(str::to_owned).collect();
    options.client.allowed_origins.set_default(origins);
}

/// Resolves all options. The result is valid if no mistakes were added to `raw`.
pub(super) fn resolve(
    raw: &mut RawConfig,
    development: Option<&Development>,
    now_unix: i64,
) -> Config {
    let development = development.filter(|_| !raw.is_configured());
    let mut options = Options::read("", &raw.tree);
    if development.is_some() {
        develop(&mut options);
    }
    let mut mistakes = Vec::new();
    let mut channels = resolve_channels(&options.channel, &mut mistakes);
    let mut api = resolve_api(&options.http_api, &mut mistakes);
    if *options.demo.enabled {
        channels.namespaces.entry("demo".to_owned()).or_insert_with(demo_namespace);
    }
    if let Some(development) = development {
        api.key.clone_from(&development.api_key);
        api.keys.push(ApiKey::unlimited(DEFAULT_NAME, &development.api_key));
    }
    let proxies = resolve_proxies(&options, &mut mistakes);
    let mut client = resolve_client(&options, &channels, &mut mistakes);
    client.emulated_headers = proxies.emulated_headers();
    let rpc = resolve_rpc(&options.rpc, &mut mistakes);
    let rates = resolve_rates(&options.limits, client.channel_limit, &mut mistakes);
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let shutdown = resolve_shutdown(&options.shutdown, &mut mistakes);
    let (engine, presence) = resolve_brokers(&options, &channels, &mut mistakes);
    let lengths = check_channel_length(&options, &mut mistakes);
    let http = resolve_http(&options, &mut mistakes);
    let grpc_api = grpc_api::resolve(&options.grpc_api, &api, &http, &mut mistakes);
    let config = Config {
        rules: Arc::new(Rules { channels, client, rates, rpc, version }),
        changeable: Changeable::new(&raw.tree, Bounds::of(&engine)).with_backends(&proxies),
        proxies,
        engine,
        presence,
        http,
        websocket: resolve_websocket(&options.websocket, &mut mistakes),
        admission: resolve_admission(&options.client, &mut mistakes),
        token: resolve_token(&options.client, &options.client.token, &mut mistakes),
        subscription_token: options.client.subscription_token.enabled.then(|| {
            let subscription_token = &options.client.subscription_token.token;
            resolve_token(&options.client, subscription_token, &mut mistakes)
        }),
        api,
        consumers: resolve_consumers(&options.consumers, &mut mistakes),
        events: resolve_events(&options.events, &mut mistakes),
        grpc_api,
        health: options.health.enabled.then(|| options.health.handler_prefix.url_path()),
        metrics: options.prometheus.enabled.then(|| options.prometheus.handler_prefix.url_path()),
        log: resolve_log(&options.log),
        shutdown,
        workers: options.server.workers.count(),
        demo: *options.demo.enabled,
        node_name: options.node.name.clone(),
        is_development: development.is_some(),
        memory: resolve_ceilings(&options.engine.memory),
    };
    check_paths(&config, &options, &mut mistakes);
    check_names(&options.channel, &config.rules, &mut mistakes);
    for (key, text) in mistakes {
        raw.mistake(key, text);
    }
    for (key, text) in unused(&options) {
        raw.warn(WarningKind::Contradiction, key, text);
    }
    warn_of_formats(raw, &options.channel, &config.rules.channels);
    for (key, text) in lengths {
        raw.warn(WarningKind::Limit, key, text);
    }
    for (kind, key, text) in dangers(&options, &config, now_unix) {
        raw.warn(kind, key, text);
    }
    config
}

/// Options of parts that no switch turns on.
fn unused(options: &Options) -> impl Iterator<Item = (String, String)> + use<> {
    let engines = unused_engines(options).into_iter();
    engines.chain(unused_proxies(options)).chain(unused_sinks(&options.events))
}

fn resolve_admission(client: &ClientSection, mistakes: &mut KeyedMistakes) -> AdmissionSettings {
    let origins = OriginPolicy::new(&client.allowed_origins).unwrap_or_else(|faults| {
        mistakes.extend(faults.into_iter().map(|fault| client.allowed_origins.fault(fault)));
        OriginPolicy::default()
    });
    let trusted_proxies = TrustedProxies::new(&client.trusted_proxies).unwrap_or_else(|error| {
        mistakes.push(client.trusted_proxies.fault(error.to_string()));
        TrustedProxies::default()
    });
    let header = ForwardedHeader::new(&client.trusted_proxies_header).unwrap_or_else(|error| {
        mistakes.push(client.trusted_proxies_header.fault(error.to_string()));
        ForwardedHeader::default()
    });
    AdmissionSettings {
        origins,
        trusted_proxies: trusted_proxies.with_header(header),
        connection_limit: client.connection_limit.count(),
        unauthenticated_connection_limit: client.unauthenticated_connection_limit.count(),
        connection_rate_limit: client.connection_rate_limit.number(),
        user_connection_limit: client.user_connection_limit.count(),
        user_id_http_header: client.user_id_http_header.some().map(|name| name.to_lowercase()),
    }
}

fn resolve_http(options: &Options, mistakes: &mut KeyedMistakes) -> HttpServer {
    let http = &options.http_server;
    let public = resolve_address(&http.address, &http.port, mistakes);
    let internal = resolve_address(&http.internal_address, &http.internal_port, mistakes);
    let internal = address::internal((&public, *http.port), (&internal, *http.internal_port));
    let (internal_address, internal_port) = internal.unwrap_or_else(|text| {
        mistakes.push(http.internal_port.fault(text));
        (String::new(), None)
    });
    let tls = resolve_tls(&http.tls, mistakes);
    let unix_socket_mode = resolve_mode(http, mistakes);
    if *http.proxy_protocol && options.client.trusted_proxies.is_empty() {
        let text = "needs client.trusted_proxies: the proxies whose PROXY headers are accepted";
        mistakes.push(http.proxy_protocol.fault(text));
    }
    HttpServer {
        address: public,
        port: *http.port,
        internal_address,
        internal_port,
        tls,
        unix_socket_mode,
        proxy_protocol: *http.proxy_protocol,
        keep_alive_timeout: *http.keep_alive_timeout,
    }
}

/// Parses file permissions in octal digits, such as 660.
fn resolve_mode(http: &HttpServerSection, mistakes: &mut KeyedMistakes) -> u32 {
    let text = &*http.unix_socket_mode;
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => mode,
        _ => {
            let fault =
                format!("expected file permissions in octal digits such as 660, not {text:?}");
            mistakes.push(http.unix_socket_mode.fault(fault));
            0
        }
    }
}

fn resolve_websocket(websocket: &WebSocketSection, mistakes: &mut KeyedMistakes) -> WebSocket {
    let message_size = *websocket.message_size_limit;
    if message_size == 0 {
        mistakes.push(websocket.message_size_limit.fault("must be above 0"));
    }
    let inflated_size = match *websocket.decompressed_message_size_limit {
        0 => message_size.saturating_mul(INFLATED_SIZE_FACTOR as u32),
        size => size,
    };
    let is_served = !*websocket.disabled;
    WebSocket {
        path: is_served.then(|| websocket.handler_prefix.url_path()),
        compression: *websocket.compression,
        compression_level: websocket.compression_level.number() as u32,
        compression_min_size: websocket.compression_min_size.count(),
        limits: DecoderLimits { message_size, inflated_size },
    }
}

fn resolve_api(api: &ApiSection, mistakes: &mut KeyedMistakes) -> Api {
    let is_served = !*api.disabled;
    Api {
        path: is_served.then(|| api.handler_prefix.url_path()),
        key: api.key.to_string(),
        keys: api_keys::resolve(api, mistakes),
        insecure: *api.insecure,
        external: *api.external,
        error_mode: *api.error_mode,
    }
}

fn resolve_log(log: &LogSection) -> Log {
    Log { level: *log.level, format: *log.format }
}

fn resolve_shutdown(shutdown: &ShutdownSection, mistakes: &mut KeyedMistakes) -> Shutdown {
    if *shutdown.drain_window >= *shutdown.timeout {
        mistakes.push(shutdown.drain_window.fault("must be less than shutdown.timeout"));
    }
    Shutdown {
        timeout: *shutdown.timeout,
        drain_window: *shutdown.drain_window,
        drain_rate: *shutdown.drain_rate,
    }
}

fn resolve_client(
    options: &Options,
    channels: &ChannelRules,
    mistakes: &mut KeyedMistakes,
) -> ClientRules {
    let client = &options.client;
    let (ping_interval_ms, pong_timeout_ms) = (client.ping_interval.ms(), client.pong_timeout.ms());
    if ping_interval_ms > 0 && pong_timeout_ms >= ping_interval_ms {
        mistakes.push(client.pong_timeout.fault("must be less than client.ping_interval"));
    }
    let limit = |setting: &Setting<u32>| match **setting {
        0 => u32::MAX,
        limit => limit,
    };
    let by_default = ClientRules::default();
    ClientRules {
        insecure: *client.insecure,
        allow_anonymous_connect_without_token: *client.allow_anonymous_connect_without_token,
        disallow_anonymous_connection_tokens: *client.disallow_anonymous_connection_tokens,
        channel_limit: match client.channel_limit.count() {
            0 => by_default.channel_limit,
            limit => limit,
        },
        concurrency: match client.concurrency.count() {
            0 => by_default.concurrency,
            count => count,
        },
        connect_proxy: *client.proxy.connect.enabled,
        refresh_proxy: *client.proxy.refresh.enabled,
        emulated_headers: Vec::new(),
        queue_max_size: match client.queue_max_size.count() {
            0 => by_default.queue_max_size,
            size => size,
        },
        stale_close_delay_ms: match client.stale_close_delay.ms() {
            0 => by_default.stale_close_delay_ms,
            delay => delay,
        },
        expired_close_delay_ms: client.expired_close_delay.ms(),
        expired_sub_close_delay_ms: client.expired_sub_close_delay.ms(),
        ping_interval_ms,
        pong_timeout_ms,
        position_check_delay_ms: client.channel_position_check_delay.ms().max(1000),
        history_max_publication_limit: limit(&client.history_max_publication_limit),
        recovery_max_publication_limit: limit(&client.recovery_max_publication_limit),
        connect_include_server_time: *client.connect_include_server_time,
        leave_grace_ms: client.leave_grace.ms(),
        sends_lifecycle: *options.lifecycle.enabled,
        reports: reported(&options.events),
        personal_channel: resolve_personal_channel(client, channels, mistakes),
    }
}

fn resolve_personal_channel(
    client: &ClientSection,
    channels: &ChannelRules,
    mistakes: &mut KeyedMistakes,
) -> Option<PersonalChannel> {
    let personal = &client.subscribe_to_user_personal_channel;
    let namespace = &personal.personal_channel_namespace;
    if !*personal.enabled {
        return None;
    }
    if !namespace.is_empty() && !channels.namespaces.contains_key(&**namespace) {
        mistakes.push(namespace.fault(format!("there is no namespace {:?}", **namespace)));
    }
    Some(PersonalChannel {
        namespace: namespace.to_string(),
        single_connection: *personal.single_connection,
    })
}

fn resolve_token(
    client: &ClientSection,
    token: &TokenSection,
    mistakes: &mut KeyedMistakes,
) -> TokenSettings {
    let mut pem = |setting: &Setting<String>| {
        let read = read_pem(Kind::Text, &setting.some()?);
        read.map_err(|error| mistakes.push(setting.fault(error))).ok()
    };
    let (rsa_public_key, ecdsa_public_key) =
        (pem(&token.rsa_public_key), pem(&token.ecdsa_public_key));
    let settings = TokenSettings {
        hmac_secret_key: token.hmac_secret_key.some(),
        hmac_previous_secret_key: token.hmac_previous_secret_key.some(),
        hmac_previous_secret_key_valid_until: *token.hmac_previous_secret_key_valid_until,
        rsa_public_key,
        ecdsa_public_key,
        jwks_public_endpoint: token.jwks_public_endpoint.some(),
        audience: token.audience.some(),
        audience_regex: token.audience_regex.some(),
        issuer: token.issuer.some(),
        issuer_regex: token.issuer_regex.some(),
        user_id_claim: token.user_id_claim.some(),
        role_claim: token.role_claim.some(),
        insecure_skip_signature_verify: *client.insecure_skip_token_signature_verify,
    };
    if let Err(error) = crate::token::Verifier::new(&settings) {
        let section = token.hmac_secret_key.section();
        mistakes.push((format!("{section}.{}", error.setting), error.fault.to_string()));
    }
    settings
}
