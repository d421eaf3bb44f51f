//! Resolves checked options into a [`Config`], and checks options that depend on each other.

use std::sync::Arc;
use std::time::Duration;

use engine::rules::{ChannelRules, ClientRules, PersonalChannel, Rules};
use wire::limits::INFLATED_SIZE_FACTOR;
use wire::websocket::decoder::DecoderLimits;

use super::address;
use super::api_keys::{self, ApiKey, DEFAULT_NAME};
use super::ceilings::resolve_ceilings;
use super::change::{Bounds, Changeable};
use super::contradictions::check_names;
use super::danger::dangers;
use super::engine::{resolve_engine, unused_engines};
use super::formats::warn_of_formats;
use super::keys::{Kind, TOKEN_KEYS};
use super::mistakes::{KeyedMistakes, WarningKind};
use super::namespaces::{demo_namespace, resolve_channels};
use super::nats_lengths::check_channel_length;
use super::paths::check_paths;
use super::pem::read_pem;
use super::rates::resolve_rates;
use super::raw_config::RawConfig;
use super::values::Values;
use super::{
    AdmissionSettings, Api, Config, Development, ErrorMode, ForwardedHeader, HttpServer, Log,
    LogFormat, LogLevel, OriginPolicy, Shutdown, Tls, TokenSettings, TrustedProxies, WebSocket,
};

/// Defaults of development mode where they differ from those of the table.
const DEVELOPMENT: &[(&str, &str)] = &[
    ("http_server.address", "127.0.0.1"),
    ("http_server.internal_address", "127.0.0.1"),
    ("demo.enabled", "true"),
    ("client.allow_anonymous_connect_without_token", "true"),
    ("client.allowed_origins", LOOPBACK_ORIGINS),
];

/// Origins of pages that this machine serves on any port: the demo page may be opened through a
/// tunnel (`ssh -L`), and the application under development has a server of its own. An origin
/// without a port means the default port of its scheme.
const LOOPBACK_ORIGINS: &str = "http://localhost:* http://*.localhost:* http://127.0.0.1:* \
                                http://[::1]:* http://localhost http://127.0.0.1 http://[::1]";

/// Resolves all options. The result is valid if no mistakes were added to `raw`.
pub(super) fn resolve(
    raw: &mut RawConfig,
    development: Option<&Development>,
    now_unix: i64,
) -> Config {
    let development = development.filter(|_| !raw.is_configured());
    let overrides = if development.is_some() { DEVELOPMENT } else { &[] };
    let mut mistakes = Vec::new();
    let values = Values { raw, overrides };
    let port = u16::try_from(values.number("http_server.port")).unwrap_or(0);
    let mut channels = resolve_channels(&values, &mut mistakes);
    let mut api = resolve_api(&values, &mut mistakes);
    if values.flag("demo.enabled") {
        channels.namespaces.entry("demo".to_owned()).or_insert_with(demo_namespace);
    }
    if let Some(development) = development {
        api.key.clone_from(&development.api_key);
        api.keys.push(ApiKey::unlimited(DEFAULT_NAME, &development.api_key));
    }
    let client = resolve_client(&values, &channels, &mut mistakes);
    let rates = resolve_rates(&values, client.channel_limit, &mut mistakes);
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let shutdown = resolve_shutdown(&values, &mut mistakes);
    let engine = resolve_engine(&values, &channels, &mut mistakes);
    let unused = unused_engines(&values);
    let lengths = check_channel_length(&values, &mut mistakes);
    let config = Config {
        rules: Arc::new(Rules { channels, client, rates, version }),
        changeable: Changeable::new(&raw.tree, Bounds::of(&engine)),
        engine,
        http: resolve_http(&values, port, &mut mistakes),
        websocket: resolve_websocket(&values, &mut mistakes),
        admission: resolve_admission(&values, &mut mistakes),
        token: resolve_token(&values, "client.token", &mut mistakes),
        subscription_token: values
            .flag("client.subscription_token.enabled")
            .then(|| resolve_token(&values, "client.subscription_token", &mut mistakes)),
        api,
        health: values.flag("health.enabled").then(|| values.path("health.handler_prefix")),
        metrics: values
            .flag("prometheus.enabled")
            .then(|| values.path("prometheus.handler_prefix")),
        log: resolve_log(&values),
        shutdown,
        workers: values.count("server.workers"),
        demo: values.flag("demo.enabled"),
        node_name: values.text("node.name"),
        is_development: development.is_some(),
        memory: resolve_ceilings(&values),
    };
    check_paths(&config, &mut mistakes);
    check_names(&values, &config.rules.client, &config.rules.channels, &mut mistakes);
    let dangers = dangers(&values, &config, now_unix);
    for (key, text) in mistakes {
        raw.mistake(key, text);
    }
    for (key, text) in unused {
        raw.warn(WarningKind::Contradiction, key, text);
    }
    warn_of_formats(raw, &config.rules.channels);
    for (key, text) in lengths {
        raw.warn(WarningKind::Limit, key, text);
    }
    for (kind, key, text) in dangers {
        raw.warn(kind, key, text);
    }
    config
}

fn resolve_admission(values: &Values<'_>, mistakes: &mut KeyedMistakes) -> AdmissionSettings {
    let origins = values.list("client.allowed_origins");
    let origins = OriginPolicy::new(&origins).unwrap_or_else(|faults| {
        let key = "client.allowed_origins".to_owned();
        mistakes.extend(faults.into_iter().map(|fault| (key.clone(), fault)));
        OriginPolicy::default()
    });
    let proxies = values.list("client.trusted_proxies");
    let trusted_proxies = TrustedProxies::new(&proxies).unwrap_or_else(|error| {
        mistakes.push(("client.trusted_proxies".to_owned(), error.to_string()));
        TrustedProxies::default()
    });
    let header_key = "client.trusted_proxies_header";
    let header = ForwardedHeader::new(&values.text(header_key)).unwrap_or_else(|error| {
        mistakes.push((header_key.to_owned(), error.to_string()));
        ForwardedHeader::default()
    });
    AdmissionSettings {
        origins,
        trusted_proxies: trusted_proxies.with_header(header),
        connection_limit: values.count("client.connection_limit"),
        unauthenticated_connection_limit: values.count("client.unauthenticated_connection_limit"),
        connection_rate_limit: values.number("client.connection_rate_limit"),
        user_connection_limit: values.count("client.user_connection_limit"),
        user_id_http_header: values
            .some_text("client.user_id_http_header")
            .map(|name| name.to_lowercase()),
    }
}

fn resolve_http(values: &Values<'_>, port: u16, mistakes: &mut KeyedMistakes) -> HttpServer {
    let address = |name: &str, mistakes: &mut KeyedMistakes| {
        let key = format!("http_server.{name}");
        let address = values.text(&key).trim().to_owned();
        let port = key.replace("address", "port");
        mistakes.extend(address::fault(&address, &port).map(|text| {
            let text = format!("{address:?} {text}");
            (key, text)
        }));
        address
    };
    let public = address("address", mistakes);
    let internal = address("internal_address", mistakes);
    let internal_port = u16::try_from(values.number("http_server.internal_port")).unwrap_or(0);
    let internal = address::internal((&public, port), (&internal, internal_port));
    let (internal_address, internal_port) = internal.unwrap_or_else(|text| {
        mistakes.push(("http_server.internal_port".to_owned(), text));
        (String::new(), None)
    });
    let tls = values.flag("http_server.tls.enabled").then(|| Tls {
        cert_pem: values.text("http_server.tls.cert_pem"),
        key_pem: values.text("http_server.tls.key_pem"),
    });
    if let Some(tls) = &tls {
        for (name, value) in [("cert_pem", &tls.cert_pem), ("key_pem", &tls.key_pem)] {
            if value.is_empty() {
                let text = "is needed when http_server.tls.enabled is true".to_owned();
                mistakes.push((format!("http_server.tls.{name}"), text));
            }
        }
    }
    let unix_socket_mode = resolve_mode(values, mistakes);
    let proxy_protocol = values.flag("http_server.proxy_protocol");
    if proxy_protocol && values.list("client.trusted_proxies").is_empty() {
        let text = "needs client.trusted_proxies: the proxies whose PROXY headers are accepted";
        mistakes.push(("http_server.proxy_protocol".to_owned(), text.to_owned()));
    }
    HttpServer {
        address: public,
        port,
        internal_address,
        internal_port,
        tls,
        unix_socket_mode,
        proxy_protocol,
        keep_alive_timeout: Duration::from_millis(values.ms("http_server.keep_alive_timeout")),
    }
}

/// Parses file permissions in octal digits, such as 660.
fn resolve_mode(values: &Values<'_>, mistakes: &mut KeyedMistakes) -> u32 {
    let text = values.text("http_server.unix_socket_mode");
    match u32::from_str_radix(&text, 8) {
        Ok(mode) if mode <= 0o777 => mode,
        _ => {
            let fault =
                format!("expected file permissions in octal digits such as 660, not {text:?}");
            mistakes.push(("http_server.unix_socket_mode".to_owned(), fault));
            0
        }
    }
}

fn resolve_websocket(values: &Values<'_>, mistakes: &mut KeyedMistakes) -> WebSocket {
    let message_size = values.u32("websocket.message_size_limit");
    if message_size == 0 {
        let text = "must be above 0".to_owned();
        mistakes.push(("websocket.message_size_limit".to_owned(), text));
    }
    let inflated_size = match values.u32("websocket.decompressed_message_size_limit") {
        0 => message_size.saturating_mul(INFLATED_SIZE_FACTOR as u32),
        size => size,
    };
    let is_served = !values.flag("websocket.disabled");
    WebSocket {
        path: is_served.then(|| values.path("websocket.handler_prefix")),
        compression: values.flag("websocket.compression"),
        compression_level: values.u32("websocket.compression_level"),
        compression_min_size: values.count("websocket.compression_min_size"),
        limits: DecoderLimits { message_size, inflated_size },
    }
}

fn resolve_api(values: &Values<'_>, mistakes: &mut KeyedMistakes) -> Api {
    let is_served = !values.flag("http_api.disabled");
    Api {
        path: is_served.then(|| values.path("http_api.handler_prefix")),
        key: values.text("http_api.key"),
        keys: api_keys::resolve(values, mistakes),
        insecure: values.flag("http_api.insecure"),
        external: values.flag("http_api.external"),
        error_mode: match &*values.text("http_api.error_mode") {
            "transport" => ErrorMode::Transport,
            _ => ErrorMode::Body,
        },
    }
}

fn resolve_log(values: &Values<'_>) -> Log {
    Log {
        level: match &*values.text("log.level") {
            "none" => LogLevel::None,
            "trace" => LogLevel::Trace,
            "debug" => LogLevel::Debug,
            "warn" => LogLevel::Warn,
            "error" | "fatal" => LogLevel::Error,
            _ => LogLevel::Info,
        },
        format: match &*values.text("log.format") {
            "pretty" => LogFormat::Pretty,
            "json" => LogFormat::Json,
            _ => LogFormat::Auto,
        },
    }
}

fn resolve_shutdown(values: &Values<'_>, mistakes: &mut KeyedMistakes) -> Shutdown {
    let time = |path: &str| Duration::from_millis(values.ms(path));
    let shutdown = Shutdown {
        timeout: time("shutdown.timeout"),
        drain_window: time("shutdown.drain_window"),
        drain_rate: values.u32("shutdown.drain_rate"),
    };
    if shutdown.drain_window >= shutdown.timeout {
        let text = "must be less than shutdown.timeout".to_owned();
        mistakes.push(("shutdown.drain_window".to_owned(), text));
    }
    shutdown
}

fn resolve_client(
    values: &Values<'_>,
    channels: &ChannelRules,
    mistakes: &mut KeyedMistakes,
) -> ClientRules {
    let ms = |name: &str| values.ms(&format!("client.{name}"));
    let flag = |name: &str| values.flag(&format!("client.{name}"));
    let (ping_interval_ms, pong_timeout_ms) = (ms("ping_interval"), ms("pong_timeout"));
    if ping_interval_ms > 0 && pong_timeout_ms >= ping_interval_ms {
        let text = "must be less than client.ping_interval".to_owned();
        mistakes.push(("client.pong_timeout".to_owned(), text));
    }
    let personal = "client.subscribe_to_user_personal_channel";
    let personal_channel = values.flag(&format!("{personal}.enabled")).then(|| PersonalChannel {
        namespace: values.text(&format!("{personal}.personal_channel_namespace")),
        single_connection: values.flag(&format!("{personal}.single_connection")),
    });
    if let Some(channel) = &personal_channel
        && !channel.namespace.is_empty()
        && !channels.namespaces.contains_key(&channel.namespace)
    {
        let text = format!("there is no namespace {:?}", channel.namespace);
        mistakes.push((format!("{personal}.personal_channel_namespace"), text));
    }
    let limit = |name: &str| match values.u32(&format!("client.{name}")) {
        0 => u32::MAX,
        limit => limit,
    };
    let by_default = ClientRules::default();
    ClientRules {
        insecure: flag("insecure"),
        allow_anonymous_connect_without_token: flag("allow_anonymous_connect_without_token"),
        disallow_anonymous_connection_tokens: flag("disallow_anonymous_connection_tokens"),
        channel_limit: match values.count("client.channel_limit") {
            0 => by_default.channel_limit,
            limit => limit,
        },
        queue_max_size: match values.count("client.queue_max_size") {
            0 => by_default.queue_max_size,
            size => size,
        },
        stale_close_delay_ms: match ms("stale_close_delay") {
            0 => by_default.stale_close_delay_ms,
            delay => delay,
        },
        expired_close_delay_ms: ms("expired_close_delay"),
        expired_sub_close_delay_ms: ms("expired_sub_close_delay"),
        ping_interval_ms,
        pong_timeout_ms,
        position_check_delay_ms: ms("channel_position_check_delay").max(1000),
        history_max_publication_limit: limit("history_max_publication_limit"),
        recovery_max_publication_limit: limit("recovery_max_publication_limit"),
        connect_include_server_time: flag("connect_include_server_time"),
        leave_grace_ms: ms("leave_grace"),
        sends_lifecycle: values.flag("lifecycle.enabled"),
        personal_channel,
    }
}

fn resolve_token(values: &Values<'_>, path: &str, mistakes: &mut KeyedMistakes) -> TokenSettings {
    debug_assert!(TOKEN_KEYS.iter().any(|key| key.path == "hmac_secret_key"));
    let text = |name: &str| values.some_text(&format!("{path}.{name}"));
    let mut pem = |name: &str| {
        let read = read_pem(Kind::Text, &text(name)?);
        read.map_err(|error| mistakes.push((format!("{path}.{name}"), error))).ok()
    };
    let (rsa_public_key, ecdsa_public_key) = (pem("rsa_public_key"), pem("ecdsa_public_key"));
    let settings = TokenSettings {
        hmac_secret_key: text("hmac_secret_key"),
        hmac_previous_secret_key: text("hmac_previous_secret_key"),
        hmac_previous_secret_key_valid_until: i64::try_from(
            values.number(&format!("{path}.hmac_previous_secret_key_valid_until")),
        )
        .unwrap_or(i64::MAX),
        rsa_public_key,
        ecdsa_public_key,
        jwks_public_endpoint: text("jwks_public_endpoint"),
        audience: text("audience"),
        audience_regex: text("audience_regex"),
        issuer: text("issuer"),
        issuer_regex: text("issuer_regex"),
        user_id_claim: text("user_id_claim"),
        role_claim: text("role_claim"),
        insecure_skip_signature_verify: values.flag("client.insecure_skip_token_signature_verify"),
    };
    if let Err(error) = crate::token::Verifier::new(&settings) {
        mistakes.push((format!("{path}.{}", error.setting), error.fault.to_string()));
    }
    settings
}
