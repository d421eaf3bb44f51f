//! From the tree of what was written to a valid [`Config`]: first every key and kind, then what depends on each other.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use engine::rules::{
    ChannelRules, ClientRules, DataFormat, Namespace, Permission, PersonalChannel, RecoveryMode,
    Rules, SubscribePermission,
};
use regex::Regex;
use serde_json::Value;
use wire::limits::INFLATED_SIZE_FACTOR;
use wire::websocket::decoder::DecoderLimits;

use super::duration::parse_ms;
use super::keys::{
    ABSENT, ABSENT_IN_NAMESPACE, Key, Kind, NAMESPACE_KEYS, TOKEN_KEYS, WITHOUT_EFFECT,
};
use super::mistakes::closest;
use super::source::{Found, all_keys};
use super::{
    AdmissionSettings, Api, Config, Development, ErrorMode, HttpServer, Log, LogFormat, LogLevel,
    OriginPolicy, Shutdown, Tls, TokenSettings, WebSocket,
};

/// Looks at every key that was written: is it known, and is its value of its kind?
pub(super) fn check_keys(found: &mut Found, allow_unknown: bool) {
    let known: Vec<(String, &'static Key)> = all_keys().collect();
    let tree = std::mem::take(&mut found.tree);
    let mut walk = Walk { found, known, allow_unknown };
    walk.object("", &tree);
    found.tree = tree;
}

struct Walk<'f> {
    found: &'f mut Found,
    known: Vec<(String, &'static Key)>,
    allow_unknown: bool,
}

impl Walk<'_> {
    fn object(&mut self, prefix: &str, value: &Value) {
        let Some(members) = value.as_object() else {
            return;
        };
        for (name, value) in members {
            let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            if path == "channel.namespaces" {
                self.namespaces(value);
            } else if WITHOUT_EFFECT.contains(&&*path) {
                self.found.warn(&path, "has no effect here");
            } else if ABSENT.contains(&&*path) {
                self.absent(&path, value);
            } else if let Some((_, key)) = self.known.iter().find(|(known, _)| *known == path) {
                let kind = key.kind;
                self.kind(&path, kind, value);
            } else if self.is_prefix(&path) && (value.is_object() || value.is_null()) {
                self.object(&path, value);
            } else if let Some(name) = path.strip_prefix("channel.without_namespace.")
                && ABSENT_IN_NAMESPACE.contains(&name)
            {
                self.absent(&path, value);
            } else {
                self.unknown(&path);
            }
        }
    }

    fn is_prefix(&self, path: &str) -> bool {
        let is_within =
            |known: &str| known.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
        self.known.iter().any(|(known, _)| is_within(known))
            || ABSENT.iter().chain(WITHOUT_EFFECT).any(|known| is_within(known))
    }

    fn unknown(&mut self, path: &str) {
        let (parent, name) = path.rsplit_once('.').unwrap_or(("", path));
        let siblings = self.known.iter().filter_map(|(known, _)| {
            let rest = if parent.is_empty() {
                known
            } else {
                known.strip_prefix(parent)?.strip_prefix('.')?
            };
            rest.split('.').next()
        });
        let near = closest(name, siblings).map(|near| format!("; did you mean {near}?"));
        self.complain(path, format!("there is no such key{}", near.unwrap_or_default()));
    }

    fn complain(&mut self, path: &str, text: String) {
        if self.allow_unknown {
            self.found.warn(path, text);
        } else {
            self.found.mistake(path, text);
        }
    }

    /// A part that this version does not have may be written as long as it is off.
    fn absent(&mut self, path: &str, value: &Value) {
        let is_off = match value {
            Value::Null | Value::Bool(false) => true,
            Value::String(text) => matches!(&**text, "" | "memory" | "stream" | "default"),
            Value::Number(number) => number.as_f64() == Some(0.0),
            Value::Array(items) => items.is_empty(),
            Value::Object(members) => {
                if members.get("enabled") != Some(&Value::Bool(false)) {
                    for (name, value) in members {
                        self.absent(&format!("{path}.{name}"), value);
                    }
                }
                true
            }
            Value::Bool(true) => false,
        };
        if !is_off {
            self.complain(path, "is not available in this version; leave it out".to_owned());
        }
    }

    fn namespaces(&mut self, value: &Value) {
        let Some(list) = value.as_array() else {
            return self.found.mistake("channel.namespaces", "expected a list of namespaces");
        };
        for (index, namespace) in list.iter().enumerate() {
            let path = format!("channel.namespaces[{index}]");
            let Some(members) = namespace.as_object() else {
                self.found.mistake(path, "expected a namespace with a name and options");
                continue;
            };
            for (name, value) in members {
                let path = format!("{path}.{name}");
                if name == "name" {
                    continue;
                }
                if ABSENT_IN_NAMESPACE.contains(&&**name) {
                    self.absent(&path, value);
                } else if let Some(key) = NAMESPACE_KEYS.iter().find(|key| key.path == name) {
                    self.kind(&path, key.kind, value);
                } else {
                    let near = closest(name, NAMESPACE_KEYS.iter().map(|key| key.path));
                    let near = near.map(|near| format!("; did you mean {near}?"));
                    let text = format!("there is no such option{}", near.unwrap_or_default());
                    self.complain(&path, text);
                }
            }
        }
    }

    fn kind(&mut self, path: &str, kind: Kind, value: &Value) {
        let is_fine = match (kind, value) {
            (_, Value::Null) | (Kind::Bool, Value::Bool(_)) => true,
            (Kind::Integer(max), value) => value.as_u64().is_some_and(|number| number <= max),
            (Kind::Duration, Value::String(text)) => parse_ms(text).is_some(),
            (Kind::Text | Kind::Secret, Value::String(_)) => true,
            (Kind::OneOf(choices), Value::String(text)) => choices.contains(&&**text),
            (Kind::List, Value::Array(items)) => items.iter().all(Value::is_string),
            _ => false,
        };
        if is_fine {
            return;
        }
        let hint = match (kind, value.as_u64()) {
            (Kind::Duration, Some(number)) => format!("; for seconds write \"{number}s\""),
            _ => String::new(),
        };
        let shown = if kind == Kind::Secret { String::new() } else { format!(", not {value}") };
        self.found.mistake(path, format!("expected {}{shown}{hint}", kind.expectation()));
    }
}

/// Typed look-ups by path, with the defaults of the table.
struct Values<'f> {
    found: &'f Found,
    /// Defaults that development mode changes.
    overrides: &'f [(&'static str, &'static str)],
}

impl Values<'_> {
    fn text(&self, path: &str) -> String {
        match self.found.value(path) {
            Some(Value::String(text)) => text.clone(),
            Some(_) => String::new(),
            None => self.default(path).to_owned(),
        }
    }

    fn some_text(&self, path: &str) -> Option<String> {
        Some(self.text(path)).filter(|text| !text.is_empty())
    }

    fn flag(&self, path: &str) -> bool {
        self.found.value(path).map_or_else(|| self.default(path) == "true", |v| v == true)
    }

    fn number(&self, path: &str) -> u64 {
        let written = self.found.value(path).and_then(Value::as_u64);
        written.unwrap_or_else(|| self.default(path).parse().unwrap_or(0))
    }

    fn count(&self, path: &str) -> usize {
        usize::try_from(self.number(path)).unwrap_or(usize::MAX)
    }

    fn u32(&self, path: &str) -> u32 {
        u32::try_from(self.number(path)).unwrap_or(u32::MAX)
    }

    fn ms(&self, path: &str) -> u64 {
        parse_ms(&self.text(path)).unwrap_or(0)
    }

    fn list(&self, path: &str) -> Vec<String> {
        let items = self.found.value(path).and_then(Value::as_array);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        items.map(|items| items.iter().map(text).collect()).unwrap_or_default()
    }

    fn default(&self, path: &str) -> &'static str {
        if let Some((_, value)) = self.overrides.iter().find(|(key, _)| *key == path) {
            return value;
        }
        let of_table = all_keys().find(|(known, _)| known == path).map(|(_, key)| key.default);
        let name = path.rsplit('.').next().unwrap_or(path);
        let of_namespace =
            || NAMESPACE_KEYS.iter().find(|key| key.path == name).map(|key| key.default);
        of_table.or_else(of_namespace).unwrap_or_default()
    }
}

/// What differs when no file is given.
const DEVELOPMENT: &[(&str, &str)] = &[
    ("http_server.address", "127.0.0.1"),
    ("demo.enabled", "true"),
    ("client.allow_anonymous_connect_without_token", "true"),
];

/// Resolves; `None` when a mistake makes that impossible.
pub(super) fn resolve(found: &mut Found, development: Option<&Development>) -> Option<Config> {
    let development = development.filter(|_| !found.has_file);
    let overrides = if development.is_some() { DEVELOPMENT } else { &[] };
    let mut mistakes = Vec::new();
    let values = Values { found, overrides };
    let port = u16::try_from(values.number("http_server.port")).unwrap_or(0);
    let mut channels = resolve_channels(&values, &mut mistakes);
    let mut api = resolve_api(&values);
    if values.flag("demo.enabled") {
        channels.namespaces.entry("demo".to_owned()).or_insert_with(demo_namespace);
    }
    if let Some(development) = development
        && api.key.is_empty()
    {
        api.key.clone_from(&development.api_key);
    }
    let client = resolve_client(&values, &channels, &mut mistakes);
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let config = Config {
        rules: Arc::new(Rules { channels, client, version }),
        http: resolve_http(&values, port, &mut mistakes),
        websocket: resolve_websocket(&values, &mut mistakes),
        admission: resolve_admission(&values, development.is_some().then_some(port), &mut mistakes),
        token: resolve_token(&values, "client.token", &mut mistakes),
        subscription_token: values
            .flag("client.subscription_token.enabled")
            .then(|| resolve_token(&values, "client.subscription_token", &mut mistakes)),
        api,
        health: values.flag("health.enabled").then(|| values.text("health.handler_prefix")),
        metrics: values
            .flag("prometheus.enabled")
            .then(|| values.text("prometheus.handler_prefix")),
        log: resolve_log(&values),
        shutdown: Shutdown {
            timeout: Duration::from_millis(values.ms("shutdown.timeout")),
            drain_window: Duration::from_millis(values.ms("shutdown.drain_window")),
        },
        workers: values.count("server.workers"),
        demo: values.flag("demo.enabled"),
        node_name: values.text("node.name"),
    };
    check_paths(&config, &mut mistakes);
    for (place, text) in mistakes {
        found.mistake(place, text);
    }
    Some(config)
}

type Complaints = Vec<(String, String)>;

/// `development_port` is the port of a server in development mode, whose own page may connect.
fn resolve_admission(
    values: &Values<'_>,
    development_port: Option<u16>,
    mistakes: &mut Complaints,
) -> AdmissionSettings {
    let mut origins = values.list("client.allowed_origins");
    if let Some(port) = development_port
        && origins.is_empty()
    {
        // Which port the system will choose is not known yet.
        let port = if port == 0 { "*".to_owned() } else { port.to_string() };
        origins = ["127.0.0.1", "localhost"].map(|host| format!("http://{host}:{port}")).to_vec();
    }
    let origins = OriginPolicy::new(&origins).unwrap_or_else(|pattern| {
        let text = format!("the pattern {pattern:?} cannot be read");
        mistakes.push(("client.allowed_origins".to_owned(), text));
        OriginPolicy::default()
    });
    AdmissionSettings {
        origins,
        connection_limit: values.count("client.connection_limit"),
        connection_rate_limit: values.number("client.connection_rate_limit"),
        user_connection_limit: values.count("client.user_connection_limit"),
        user_id_http_header: values
            .some_text("client.user_id_http_header")
            .map(|name| name.to_lowercase()),
    }
}

fn resolve_http(values: &Values<'_>, port: u16, mistakes: &mut Complaints) -> HttpServer {
    let internal_port = u16::try_from(values.number("http_server.internal_port")).unwrap_or(0);
    if internal_port != 0 && internal_port == port {
        let text = "must differ from http_server.port".to_owned();
        mistakes.push(("http_server.internal_port".to_owned(), text));
    }
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
    HttpServer {
        address: values.text("http_server.address"),
        port,
        internal_address: values.text("http_server.internal_address"),
        internal_port: Some(internal_port).filter(|port| *port != 0),
        tls,
    }
}

fn resolve_websocket(values: &Values<'_>, mistakes: &mut Complaints) -> WebSocket {
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
        path: is_served.then(|| values.text("websocket.handler_prefix")),
        compression: values.flag("websocket.compression"),
        compression_level: values.u32("websocket.compression_level"),
        compression_min_size: values.count("websocket.compression_min_size"),
        limits: DecoderLimits { message_size, inflated_size },
    }
}

fn resolve_api(values: &Values<'_>) -> Api {
    let is_served = !values.flag("http_api.disabled");
    Api {
        path: is_served.then(|| values.text("http_api.handler_prefix")),
        key: values.text("http_api.key"),
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
            "error" => LogLevel::Error,
            _ => LogLevel::Info,
        },
        format: match &*values.text("log.format") {
            "pretty" => LogFormat::Pretty,
            "json" => LogFormat::Json,
            _ => LogFormat::Auto,
        },
    }
}

fn resolve_client(
    values: &Values<'_>,
    channels: &ChannelRules,
    mistakes: &mut Complaints,
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
    ClientRules {
        insecure: flag("insecure"),
        allow_anonymous_connect_without_token: flag("allow_anonymous_connect_without_token"),
        disallow_anonymous_connection_tokens: flag("disallow_anonymous_connection_tokens"),
        channel_limit: values.count("client.channel_limit"),
        queue_max_size: values.count("client.queue_max_size"),
        stale_close_delay_ms: ms("stale_close_delay"),
        expired_close_delay_ms: ms("expired_close_delay"),
        expired_sub_close_delay_ms: ms("expired_sub_close_delay"),
        ping_interval_ms,
        pong_timeout_ms,
        position_check_delay_ms: ms("channel_position_check_delay").max(1000),
        history_max_publication_limit: values.u32("client.history_max_publication_limit"),
        recovery_max_publication_limit: values.u32("client.recovery_max_publication_limit"),
        connect_include_server_time: flag("connect_include_server_time"),
        personal_channel,
    }
}

fn resolve_channels(values: &Values<'_>, mistakes: &mut Complaints) -> ChannelRules {
    let without = "channel.without_namespace";
    let without_namespace = resolve_namespace(values, without, mistakes);
    let mut namespaces = HashMap::new();
    let list = values.found.value("channel.namespaces").and_then(Value::as_array);
    for (index, entry) in list.into_iter().flatten().enumerate() {
        let path = format!("channel.namespaces[{index}]");
        let name = entry.get("name").and_then(Value::as_str).unwrap_or_default();
        let is_name = name.len() >= 2
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if !is_name {
            let text = "expected at least two letters, digits, '-', '_' or '.'".to_owned();
            mistakes.push((format!("{path}.name"), text));
            continue;
        }
        let namespace = resolve_namespace(values, &path, mistakes);
        if namespaces.insert(name.to_owned(), namespace).is_some() {
            mistakes.push((format!("{path}.name"), format!("{name:?} is there twice")));
        }
    }
    ChannelRules {
        max_length: values.count("channel.max_length"),
        private_prefix: values.text("channel.private_prefix"),
        namespace_boundary: values.text("channel.namespace_boundary"),
        user_boundary: values.text("channel.user_boundary"),
        user_separator: values.text("channel.user_separator"),
        without_namespace,
        namespaces,
    }
}

fn resolve_namespace(values: &Values<'_>, path: &str, mistakes: &mut Complaints) -> Namespace {
    let at = |name: &str| format!("{path}.{name}");
    let flag = |name: &str| values.flag(&at(name));
    let permission = |what: &str| Permission {
        client: flag(&format!("allow_{what}_for_client")),
        subscriber: flag(&format!("allow_{what}_for_subscriber")),
        anonymous: flag(&format!("allow_{what}_for_anonymous")),
    };
    let channel_regex = values.some_text(&at("channel_regex")).and_then(|pattern| {
        Regex::new(&pattern)
            .map_err(|error| mistakes.push((at("channel_regex"), error.to_string())))
            .ok()
    });
    let format = values
        .some_text(&at("publication_data_format"))
        .unwrap_or_else(|| values.text("channel.publication_data_format"));
    let meta_ttl_ms = match values.ms(&at("history_meta_ttl")) {
        0 => values.ms("channel.history_meta_ttl"),
        ms => ms,
    };
    let namespace = Namespace {
        presence: flag("presence"),
        join_leave: flag("join_leave"),
        force_push_join_leave: flag("force_push_join_leave"),
        history_size: values.u32(&at("history_size")),
        history_ttl_ms: values.ms(&at("history_ttl")),
        history_meta_ttl_ms: meta_ttl_ms,
        force_positioning: flag("force_positioning"),
        allow_positioning: flag("allow_positioning"),
        force_recovery: flag("force_recovery"),
        allow_recovery: flag("allow_recovery"),
        recovery_mode: match &*values.text(&at("force_recovery_mode")) {
            "cache" => RecoveryMode::Cache,
            _ => RecoveryMode::Stream,
        },
        auto_cache_recover: flag("auto_cache_recover"),
        subscribe: SubscribePermission {
            client: flag("allow_subscribe_for_client"),
            anonymous: flag("allow_subscribe_for_anonymous"),
        },
        publish: permission("publish"),
        presence_read: permission("presence"),
        history_read: permission("history"),
        allow_user_limited_channels: flag("allow_user_limited_channels"),
        channel_regex,
        publication_data_format: match &*format {
            "json" => DataFormat::Json,
            "json_object" => DataFormat::JsonObject,
            "binary" => DataFormat::Binary,
            _ => DataFormat::NonEmpty,
        },
    };
    check_namespace(&namespace, path, mistakes);
    namespace
}

/// What the options of a namespace demand of each other.
fn check_namespace(namespace: &Namespace, path: &str, mistakes: &mut Complaints) {
    let mut complain = |name: &str, text: &str| {
        mistakes.push((format!("{path}.{name}"), text.to_owned()));
    };
    if namespace.history_size > 0 && namespace.history_ttl_ms == 0 {
        complain("history_ttl", "is needed when history_size is set");
    }
    if namespace.history_ttl_ms > 0 && namespace.history_size == 0 {
        complain("history_size", "is needed when history_ttl is set");
    }
    if namespace.history_meta_ttl_ms < namespace.history_ttl_ms {
        complain("history_meta_ttl", "must not be less than history_ttl");
    }
    if (namespace.force_recovery || namespace.allow_recovery) && !namespace.has_history() {
        complain("force_recovery", "recovery needs history_size and history_ttl");
    }
    if (namespace.force_positioning || namespace.allow_positioning) && !namespace.has_history() {
        complain("force_positioning", "positioning needs history_size and history_ttl");
    }
    if namespace.auto_cache_recover
        && !(namespace.force_recovery && namespace.recovery_mode == RecoveryMode::Cache)
    {
        complain("auto_cache_recover", "needs force_recovery and force_recovery_mode = \"cache\"");
    }
}

/// Where the demo page lives: open to everybody who may connect.
fn demo_namespace() -> Namespace {
    let everybody = Permission { client: true, subscriber: true, anonymous: true };
    Namespace {
        presence: true,
        join_leave: true,
        force_push_join_leave: true,
        history_size: 100,
        history_ttl_ms: 300_000,
        history_meta_ttl_ms: 30 * 24 * 3_600_000,
        force_recovery: true,
        subscribe: SubscribePermission { client: true, anonymous: true },
        publish: everybody,
        presence_read: everybody,
        history_read: everybody,
        ..Namespace::default()
    }
}

fn resolve_token(values: &Values<'_>, path: &str, mistakes: &mut Complaints) -> TokenSettings {
    debug_assert!(TOKEN_KEYS.iter().any(|key| key.path == "hmac_secret_key"));
    let text = |name: &str| values.some_text(&format!("{path}.{name}"));
    let mut pem = |name: &str| {
        let read = read_pem(&text(name)?);
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
        insecure_skip_signature_verify: values.flag("client.insecure_skip_token_signature_verify"),
    };
    if let Err(error) = crate::token::Verifier::new(&settings) {
        mistakes.push((format!("{path}.{}", error.setting), error.fault.to_string()));
    }
    settings
}

/// PEM as it is, in base64, or in a file.
pub(crate) fn read_pem(value: &str) -> Result<String, String> {
    if value.contains("-----BEGIN") {
        return Ok(value.to_owned());
    }
    let decoded = base64::engine::general_purpose::STANDARD.decode(value.trim());
    if let Some(text) = decoded.ok().and_then(|bytes| String::from_utf8(bytes).ok())
        && text.contains("-----BEGIN")
    {
        return Ok(text);
    }
    std::fs::read_to_string(value).map_err(|error| format!("cannot be read from {value}: {error}"))
}

/// Paths must be paths, and no two may be the same.
fn check_paths(config: &Config, mistakes: &mut Complaints) {
    let paths = [
        ("websocket.handler_prefix", config.websocket.path.as_deref()),
        ("http_api.handler_prefix", config.api.path.as_deref()),
        ("health.handler_prefix", config.health.as_deref()),
        ("prometheus.handler_prefix", config.metrics.as_deref()),
    ];
    for (index, (key, path)) in paths.iter().enumerate() {
        let Some(path) = path else { continue };
        let is_path = path.starts_with('/')
            && path.len() > 1
            && !path.ends_with('/')
            && path.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b));
        if !is_path {
            let text = format!("expected a path such as \"/metrics\", not {path:?}");
            mistakes.push(((*key).to_owned(), text));
        }
        if let Some((other, _)) = paths[..index].iter().find(|(_, other)| *other == Some(path)) {
            mistakes.push(((*key).to_owned(), format!("is the same as {other}")));
        }
    }
}
