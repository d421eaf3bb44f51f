//! Configurations of the compatible server: all of its keys, in all forms that it accepts.

use super::*;
use crate::config::absent::{AbsentKey, AbsentRole, AbsentSection};
use crate::config::table;
use crate::config::table::variable;

/// Keys without effect that are in no list.
fn absent_keys() -> impl Iterator<Item = (String, &'static AbsentSection, &'static AbsentKey)> {
    table::absent_keys().filter(|(path, ..)| !path.contains('['))
}

/// Keys of the compatible server that are supported.
#[rustfmt::skip]
const HERE: &[&str] = &[
    "http_server.address", "http_server.port", "http_server.internal_address", "http_server.internal_port",
    "http_server.tls.enabled", "http_server.tls.cert_pem", "http_server.tls.key_pem", "websocket.disabled",
    "websocket.handler_prefix", "websocket.compression", "websocket.compression_level",
    "websocket.compression_min_size", "websocket.message_size_limit",
    "websocket.decompressed_message_size_limit", "client.allowed_origins", "client.ping_interval",
    "client.pong_timeout", "client.channel_limit", "client.concurrency", "client.connection_limit", "client.connection_rate_limit",
    "client.user_connection_limit", "client.queue_max_size", "client.stale_close_delay",
    "client.expired_close_delay", "client.expired_sub_close_delay", "client.channel_position_check_delay",
    "client.history_max_publication_limit", "client.recovery_max_publication_limit",
    "client.connect_include_server_time", "client.insecure", "client.insecure_skip_token_signature_verify",
    "client.allow_anonymous_connect_without_token", "client.disallow_anonymous_connection_tokens",
    "client.user_id_http_header", "client.subscribe_to_user_personal_channel.enabled",
    "client.subscribe_to_user_personal_channel.personal_channel_namespace",
    "client.subscribe_to_user_personal_channel.single_connection", "client.subscription_token.enabled",
    "channel.max_length", "channel.private_prefix", "channel.namespace_boundary", "channel.user_boundary",
    "channel.user_separator", "channel.publication_data_format", "channel.history_meta_ttl",
    "http_api.disabled", "http_api.handler_prefix", "http_api.key", "http_api.insecure", "http_api.external",
    "grpc_api.enabled", "grpc_api.error_mode", "grpc_api.address", "grpc_api.port", "grpc_api.key",
    "grpc_api.reflection", "grpc_api.max_receive_message_size", "grpc_api.tls.enabled",
    "grpc_api.tls.cert_pem", "grpc_api.tls.key_pem", "http_api.error_mode", "health.enabled", "health.handler_prefix", "prometheus.enabled",
    "prometheus.handler_prefix", "log.level", "shutdown.timeout", "engine.type", "engine.redis.address",
    "engine.redis.cluster_address", "engine.redis.sentinel_address", "engine.redis.sentinel_master_name",
    "engine.redis.user", "engine.redis.password", "engine.redis.db", "engine.redis.sentinel_user",
    "engine.redis.sentinel_password", "engine.redis.prefix", "engine.redis.connect_timeout",
    "engine.redis.io_timeout", "engine.redis.presence_ttl", "engine.redis.tls.enabled",
    "engine.redis.tls.server_ca_pem", "engine.redis.tls.server_name", "engine.redis.tls.cert_pem",
    "engine.redis.tls.key_pem", "broker.enabled", "broker.type", "broker.nats.url", "broker.nats.prefix",
    "broker.nats.dial_timeout", "broker.nats.tls.enabled", "broker.nats.tls.server_ca_pem",
    "broker.nats.tls.cert_pem", "broker.nats.tls.key_pem", "node.name", "client.proxy.connect.enabled",
    "client.proxy.refresh.enabled", "rpc.without_namespace.proxy_enabled",
    "rpc.without_namespace.proxy_name", "rpc.namespace_boundary", "rpc.ping.enabled", "rpc.ping.method",
];

/// The same below `presence_manager`.
#[rustfmt::skip]
const PRESENCE_HERE: &[&str] = &[
    "enabled", "type", "redis.address", "redis.cluster_address", "redis.sentinel_address",
    "redis.sentinel_master_name", "redis.user", "redis.password", "redis.db", "redis.sentinel_user",
    "redis.sentinel_password", "redis.prefix", "redis.connect_timeout", "redis.io_timeout",
    "redis.presence_ttl", "redis.tls.enabled", "redis.tls.server_ca_pem", "redis.tls.server_name",
    "redis.tls.cert_pem", "redis.tls.key_pem",
];

/// Proxies that are supported.
const PROXIES: &[&str] = &[
    "client.proxy.connect",
    "client.proxy.refresh",
    "channel.proxy.subscribe",
    "channel.proxy.publish",
    "channel.proxy.sub_refresh",
    "rpc.proxy",
];

/// The same below each of these.
#[rustfmt::skip]
const PROXIES_HERE: &[&str] = &[
    "endpoint", "timeout", "http_headers", "grpc_metadata", "emulated_headers", "binary_encoding",
    "include_connection_meta", "http.static_headers", "http.tls.enabled", "http.tls.server_ca_pem",
    "http.tls.server_name", "http.tls.cert_pem", "http.tls.key_pem", "grpc.credentials_key",
    "grpc.credentials_value", "grpc.compression", "grpc.static_metadata", "grpc.tls.enabled",
    "grpc.tls.server_ca_pem", "grpc.tls.server_name", "grpc.tls.cert_pem", "grpc.tls.key_pem",
];

/// The same below `client.token` and `client.subscription_token`.
#[rustfmt::skip]
const TOKENS_HERE: &[&str] = &[
    "hmac_secret_key", "hmac_previous_secret_key", "hmac_previous_secret_key_valid_until", "rsa_public_key",
    "ecdsa_public_key", "jwks_public_endpoint", "audience", "audience_regex", "issuer", "issuer_regex",
    "user_id_claim",
];

/// The same for namespaces.
#[rustfmt::skip]
const NAMESPACES_HERE: &[&str] = &[
    "presence", "join_leave", "force_push_join_leave", "history_size", "history_ttl", "history_meta_ttl",
    "force_positioning", "allow_positioning", "force_recovery", "allow_recovery", "force_recovery_mode",
    "auto_cache_recover", "allow_subscribe_for_client", "allow_subscribe_for_anonymous",
    "allow_publish_for_client", "allow_publish_for_subscriber", "allow_publish_for_anonymous",
    "allow_presence_for_client", "allow_presence_for_subscriber", "allow_presence_for_anonymous",
    "allow_history_for_client", "allow_history_for_subscriber", "allow_history_for_anonymous",
    "allow_user_limited_channels", "channel_regex", "publication_data_format",
    "subscribe_proxy_enabled", "subscribe_proxy_name", "publish_proxy_enabled", "publish_proxy_name",
    "sub_refresh_proxy_enabled", "sub_refresh_proxy_name",
];

/// Keys with another default in the compatible server.
const OTHER_DEFAULTS: &[(&str, &str)] = &[
    ("broker.nats.prefix", "centrifugo"),
    ("engine.redis.io_timeout", "4s"),
    ("engine.redis.prefix", "centrifugo"),
    ("presence_manager.redis.io_timeout", "4s"),
    ("presence_manager.redis.prefix", "centrifugo"),
    ("health.enabled", "false"),
    ("prometheus.enabled", "false"),
    ("client.concurrency", "0"),
    ("client.proxy.connect.timeout", "1s"),
    ("client.proxy.refresh.timeout", "1s"),
    ("channel.proxy.subscribe.timeout", "1s"),
    ("channel.proxy.publish.timeout", "1s"),
    ("channel.proxy.sub_refresh.timeout", "1s"),
    ("rpc.proxy.timeout", "1s"),
];

/// All keys of the compatible server with their defaults there.
fn theirs() -> Vec<(String, String)> {
    let below = |section: &'static str, names: &'static [&str]| {
        names.iter().map(move |name| format!("{section}.{name}"))
    };
    let here = HERE.iter().map(|path| (*path).to_owned());
    let here = here.chain(below("presence_manager", PRESENCE_HERE));
    let here = here.chain(below("client.token", TOKENS_HERE));
    let here = here.chain(below("client.subscription_token", TOKENS_HERE));
    let here = here.chain(PROXIES.iter().flat_map(|proxy| below(proxy, PROXIES_HERE)));
    let here = here.chain(below("channel.without_namespace", NAMESPACES_HERE)).map(|path| {
        let ours = all_keys()
            .find(|(known, _)| *known == path)
            .map(|(_, key)| key.default.trim_matches('"'));
        let other = OTHER_DEFAULTS.iter().find(|(other, _)| *other == path);
        let default = other.map(|(_, default)| *default).or(ours);
        let default = default.unwrap_or_else(|| panic!("{path} is gone")).to_owned();
        (path, default)
    });
    // Keys in this list have no variables without a name.
    let absent = absent_keys().filter(|(path, ..)| !path.starts_with("consumers[]"));
    let absent = absent.map(|(path, _, key)| (path, key.default.to_owned()));
    let lists = ["channel.namespaces", "rpc.namespaces", "proxies", "consumers"].map(str::to_owned);
    let transforms = |proxy: &&str| format!("{proxy}.http.status_to_code_transforms");
    let lists =
        lists.into_iter().chain(PROXIES.iter().map(transforms)).map(|path| (path, String::new()));
    here.chain(absent).chain(lists).collect()
}

/// Warnings about the form of keys and values.
fn about_form(warnings: &[Warning]) -> Vec<&Warning> {
    let kinds = [WarningKind::UnknownKey, WarningKind::NoEffect];
    warnings.iter().filter(|warning| kinds.contains(&warning.kind)).collect()
}

#[test]
fn all_variables_of_the_compatible_server_pass_at_their_defaults() {
    let theirs = theirs();
    let mut names: Vec<String> = theirs.iter().map(|(path, _)| variable(path)).collect();
    names.sort();
    names.dedup();
    // As `defaultenv` of version 6.9.1 counts them.
    assert_eq!((theirs.len(), names.len()), (825, 825));
    for prefix in ["TIDINGS", "CENTRIFUGO"] {
        let environment = theirs
            .iter()
            .map(|(path, default)| (format!("{prefix}_{}", variable(path)), default.clone()));
        let source = Source { environment: environment.collect(), ..Source::default() };
        let (config, warnings) = load(&source).unwrap_or_else(|error| panic!("{error}"));
        assert!(about_form(&warnings).is_empty(), "{warnings:?}");
        assert_eq!(config.rules.client.ping_interval_ms, 25_000);
        assert!(config.health.is_none() && !config.is_development);
    }
    let flags = theirs.into_iter();
    let (config, warnings) = load(&Source { flags: flags.collect(), ..Source::default() }).unwrap();
    assert!(about_form(&warnings).is_empty() && config.metrics.is_none());
}

#[test]
fn the_complete_default_of_the_compatible_server_passes_as_a_file() {
    let mut tree = serde_json::json!({});
    for (path, default) in theirs() {
        let mut place = &mut tree;
        for part in path.split('.') {
            place = &mut place[part];
        }
        *place = match &*default {
            "true" | "false" => serde_json::json!(default == "true"),
            "" => serde_json::Value::Null,
            "{}" | "[]" => serde_json::from_str(&default).unwrap(),
            default => default.parse::<u64>().map_or(default.into(), serde_json::Value::from),
        };
    }
    let yaml = tree.to_string();
    for (ending, text) in [(".json", &yaml), (".yaml", &yaml)] {
        let (config, warnings) = load_text(ending, text).unwrap_or_else(|error| panic!("{error}"));
        assert!(about_form(&warnings).is_empty(), "{warnings:?}");
        assert!(matches!(config.engine, Engine::Memory));
    }
}

#[test]
fn every_switch_of_an_unsupported_feature_is_one_mistake() {
    for (path, section, key) in absent_keys() {
        let AbsentRole::Switch(feature) = key.role else { continue };
        let mut flags = pairs(&[("engine.redis.prefix", "x")]);
        flags.extend(pairs(section.when));
        flags.extend(pairs(&[
            ("http_server.tls.cert_pem", "cert.pem"),
            ("http_server.tls.key_pem", "key.pem"),
            ("grpc_api.tls.cert_pem", "cert.pem"),
            ("grpc_api.tls.key_pem", "key.pem"),
            ("grpc_api.insecure", "true"),
        ]));
        let value = if key.default == "false" { "true" } else { "something" };
        flags.push((path.clone(), value.to_owned()));
        let refused = load(&Source { flags, ..Source::default() }).unwrap_err();
        let [mistake] = &refused.mistakes[..] else { panic!("{refused}") };
        assert_eq!((&*mistake.key, &mistake.place), (&*path, &Place::Flag));
        assert!(mistake.text.contains("is not supported yet; "), "{mistake}");
        assert!(mistake.text.starts_with(feature.name()), "{mistake}");
    }
    let consumers =
        [("CENTRIFUGO_CONSUMERS", "queue"), ("CENTRIFUGO_CONSUMERS_QUEUE_ENABLED", "true")];
    let source = Source { environment: pairs(&consumers), ..Source::default() };
    let refused = load(&source).unwrap_err().to_string();
    assert!(refused.contains("consumers[0].type"), "{refused}");
}

#[test]
fn a_switch_of_an_enabled_consumer_is_a_mistake() {
    let consumers = [
        (
            "kafka",
            r#""kafka": {"tls": {"insecure_skip_verify": true}}"#,
            "kafka.tls.insecure_skip_verify",
        ),
        (
            "postgresql",
            r#""postgresql": {"tls": {"insecure_skip_verify": true}}"#,
            "postgresql.tls.insecure_skip_verify",
        ),
        (
            "nats_jetstream",
            r#""nats_jetstream": {"tls": {"insecure_skip_verify": true}}"#,
            "nats_jetstream.tls.insecure_skip_verify",
        ),
        (
            "nats_jetstream",
            r#""nats_jetstream": {"credentials_file": "user.creds"}"#,
            "nats_jetstream.credentials_file",
        ),
    ];
    for (kind, options, key) in consumers {
        let text = |enabled: bool, kind: &str| {
            let other = r#"{"name": "off", "type": "kafka"}"#;
            format!(
                r#"{{"consumers": [{other}, {{"name": "one", "type": "{kind}", "enabled": {enabled}, {options}}}]}}"#
            )
        };
        let refused = load_text(".json", &text(true, kind)).unwrap_err();
        let is_named = |mistake: &Mistake| mistake.key == format!("consumers[1].{key}");
        assert!(refused.mistakes.iter().any(is_named), "{refused}");
        let accepted = load_text(".json", &text(false, kind));
        assert!(accepted.is_ok(), "{key}: {accepted:?}");
    }
}

#[test]
fn a_switch_inside_a_disabled_section_is_off() {
    for text in [
        r#"{"http_server": {"tls": {"client_ca_pem": "ca.pem"}, "tls_external": true}}"#,
        r#"{"engine": {"redis": {"force_resp2": true, "tls": {"insecure_skip_verify": true}}}}"#,
        r#"{"broker": {"type": "redis", "nats": {"raw_mode": {"enabled": true}}}}"#,
        r#"{"admin": {"insecure": true, "password": "p"}, "consumers": [{"name": "xx", "type": "kafka"}]}"#,
        r#"{"proxies": [{"name": "xy", "endpoint": "http://x"}], "presence_manager": {"type": "redis"}}"#,
        r#"{"channel": {"namespaces": [{"name": "chat", "subscription_type": "stream", "delta_publish": true}]}}"#,
    ] {
        let (_, warnings) = load_text(".json", text).unwrap_or_else(|error| panic!("{error}"));
        assert!(about_form(&warnings).is_empty(), "{warnings:?}");
    }
}

#[test]
fn values_may_have_the_forms_that_the_compatible_server_takes() {
    let text = r#"{
        "http_server": {"port": "9000", "internal_port": "", "address": null},
        "client.channel_limit": "12",
        "Client": {
            "allowed_origins": "https://a.example",
            "allow_anonymous_connect_without_token": "TRUE",
            "ping_interval": "1m0s",
            "connection_limit": 10.0,
            "token": {"hmac_secret_key": 123456789012345678}
        },
        "log": {"level": "WARN"},
        "health": {"enabled": 1},
        "shutdown": {"timeout": ""},
        "channel": {"history_meta_ttl": "720h0m0s", "namespaces": [{"name": 2026, "history_ttl": 0}]}
    }"#;
    let (config, warnings) = load_text(".json", text).unwrap_or_else(|error| panic!("{error}"));
    assert!(about_form(&warnings).is_empty(), "{warnings:?}");
    assert_eq!((config.http.port, config.http.internal_port), (9000, None));
    let client = &config.rules.client;
    assert_eq!((client.channel_limit, client.ping_interval_ms), (12, 60_000));
    assert!(client.allow_anonymous_connect_without_token && config.health.is_some());
    assert_eq!((config.admission.connection_limit, config.log.level), (10, LogLevel::Warn));
    assert_eq!(config.token.hmac_secret_key.as_deref(), Some("123456789012345678"));
    assert!(config.admission.origins.allows(Some("https://a.example")));
    assert_eq!(config.shutdown.timeout.as_secs(), 30);
    assert!(config.rules.channels.namespaces.contains_key("2026"));
    let (config, _) =
        load_text(".json", r#"{"channel": {"namespaces": {"name": "one"}}}"#).unwrap();
    assert!(config.rules.channels.namespaces.contains_key("one"));
}

#[test]
fn redis_is_found_as_the_compatible_server_finds_it() {
    let settings = |redis: &str| {
        let text = format!(r#"{{"engine": {{"type": "redis", "redis": {redis}}}}}"#);
        load_text(".json", &text).map(|(config, _)| match config.engine {
            Engine::Redis(redis) => {
                format!("{:?}", redis.settings("a".into(), "b".into(), 1).deployment)
            }
            Engine::Memory | Engine::Nats(_) => panic!("no Redis"),
        })
    };
    for (redis, expected) in [
        ("null", "127.0.0.1"),
        ("{}", "6379"),
        (r#"{"address": "redis://one:1"}"#, "one"),
        (r#"{"address": "a:1 b:2"}"#, "\"b\""),
        (
            r#"{"cluster_address": ["a:1,b:2", "c:3"]}"#,
            "Cluster([Address { host: \"a\", port: 1 }, Address { host: \"b\"",
        ),
        (r#"{"sentinel_address": "a:1,b:2", "sentinel_master_name": "main"}"#, "master: \"main\""),
        (r#"{"sentinel_address": ["a:1", "b:2"], "sentinel_master_name": "main"}"#, "port: 2"),
        (
            r#"{"address": ["redis+sentinel://a:1"], "sentinel_master_name": "main"}"#,
            "master: \"main\"",
        ),
    ] {
        let deployment = settings(redis).unwrap_or_else(|error| panic!("{redis}: {error}"));
        assert!(deployment.contains(expected), "{redis}: {deployment}");
    }
    for (redis, key) in [
        (r#"{"sentinel_address": "a:1"}"#, "engine.redis.sentinel_master_name"),
        (
            r#"{"cluster_address": "a:1", "sentinel_address": "b:1"}"#,
            "engine.redis.cluster_address",
        ),
        (r#"{"cluster_address": "a:x"}"#, "engine.redis.cluster_address"),
        (r#"{"address": {"host": "a"}}"#, "engine.redis.address"),
    ] {
        let refused = settings(redis).unwrap_err().to_string();
        assert!(refused.contains(key), "{refused}");
    }
}

#[test]
fn a_value_where_a_section_belongs_is_reported_and_the_reverse() {
    let text = r#"{
        "engine": "redis",
        "health": true,
        "admin": true,
        "http_server": 8000,
        "log": "debug",
        "http_api": ["key"],
        "client": {"token": "secret", "allowed_origins": {"a": 1}, "ping_interval": {"s": 1}},
        "channel": {"namespaces": {"chat": {"presence": true}}, "without_namespace": [1]},
        "consumers": "x",
        "prometheus": {"enabled": {"a": 1}}
    }"#;
    let refused = load_text(".json", text).unwrap_err().to_string();
    expect![[r#"
        13 mistakes in the configuration:
          admin (line 4): is a section; did you mean admin.enabled?
          channel.namespaces (line 9): expected a list of namespaces with a name each, such as [{"name": "chat"}]
          channel.without_namespace (line 9): is a section; did you mean channel.without_namespace.allow_subscribe_for_roles?
          client.allowed_origins (line 8): expected a list of texts, not a section with keys of its own
          client.ping_interval (line 8): expected a time such as "10s", "1m30s" or "250ms", not a section with keys of its own
          client.token (line 8): is a section; did you mean client.token.hmac_secret_key?
          consumers (line 10): expected a list of consumers with a name each, such as [{"name": "orders"}]
          engine (line 2): is a section; did you mean engine.type?
          health (line 3): is a section; did you mean health.enabled?
          http_api (line 7): is a section; did you mean http_api.key?
          http_server (line 5): is a section; did you mean http_server.port?
          log (line 6): is a section; did you mean log.level?
          prometheus.enabled (line 11): expected true or false, not a section with keys of its own"#]].assert_eq(&refused);
}

#[test]
fn a_broker_of_another_kind_beside_the_engine_is_reported() {
    for (text, key) in [
        (r#"{"broker": {"enabled": true, "type": "redis"}}"#, "broker.type"),
        (r#"{"broker": {"enabled": true, "type": "postgres"}}"#, "broker.type"),
        (r#"{"engine": {"type": "redis"}, "broker": {"enabled": true}}"#, "broker.type"),
        (
            r#"{"engine": {"type": "redis"}, "presence_manager": {"enabled": true}}"#,
            "presence_manager.type",
        ),
        (
            r#"{"broker": {"enabled": true, "type": "nats", "nats": {"tls": {"enabled": true, "server_ca_pem": "/nowhere"}}}}"#,
            "broker.nats.tls.server_ca_pem",
        ),
    ] {
        let refused = load_text(".json", text).unwrap_err();
        let [mistake] = &refused.mistakes[..] else { panic!("{refused}") };
        assert_eq!(mistake.key, key);
    }
    load_text(".json", r#"{"broker": {"enabled": true, "type": "memory"}}"#).unwrap();
}

#[test]
fn presence_may_be_kept_in_another_place_than_publications() {
    let redis = r#""redis": {"address": ["redis://presence:6379"], "lease": "5s"}"#;
    let of = |text: &str| load_text(".json", text).unwrap_or_else(|error| panic!("{error}")).0;
    let address = |config: &Config| {
        let presence = config.presence.as_ref().expect("presence apart");
        format!("{:?}", presence.settings("id".into(), "name".into(), 1).deployment)
    };
    let nats = r#""broker": {"enabled": true, "type": "nats"}"#;
    let engine = of(&format!(r#"{{"engine": {{"type": "redis", {redis}}}, {nats}}}"#));
    assert!(matches!(engine.engine, Engine::Nats(_)));
    assert!(address(&engine).contains("presence"), "{}", address(&engine));
    let manager = format!(r#""presence_manager": {{"enabled": true, "type": "redis", {redis}}}"#);
    for text in [
        format!("{{{manager}}}"),
        format!("{{{nats}, {manager}}}"),
        format!(r#"{{"engine": {{"type": "redis"}}, {nats}, {manager}}}"#),
        format!(r#"{{"engine": {{"type": "redis"}}, {manager}}}"#),
    ] {
        assert!(address(&of(&text)).contains("presence"), "{text}");
    }
    // One broker for the same keys. Another database or prefix has other keys.
    let same = of(r#"{"engine": {"type": "redis", "redis": {"address": ["presence:6379"]}},
            "presence_manager": {"enabled": true, "type": "redis", "redis":
                {"address": ["redis://presence:6379/0"], "presence_ttl": "33s"}}}"#);
    let Engine::Redis(redis) = &same.engine else { panic!("{:?}", same.engine) };
    let settings = redis.settings("id".into(), "name".into(), 1);
    assert_eq!((same.presence.is_none(), settings.presence_ttl.as_secs()), (true, 33));
    for other in [r#""db": 1"#, r#""prefix": "other""#] {
        let redis = format!(r#""redis": {{"address": ["redis://presence:6379"], {other}}}"#);
        let engine = format!(r#""engine": {{"type": "redis", {redis}}}"#);
        address(&of(&format!("{{{engine}, {manager}}}")));
    }
    for text in [
        format!("{{{nats}}}"),
        r#"{"engine": {"type": "redis"}}"#.to_owned(),
        r#"{"presence_manager": {"enabled": true}}"#.to_owned(),
        r#"{"presence_manager": {"type": "redis"}}"#.to_owned(),
    ] {
        assert!(of(&text).presence.is_none(), "{text}");
    }
    // Without JetStream NATS could not keep presence itself.
    let namespaces = r#""channel": {"namespaces": [{"name": "room", "presence": true}]}"#;
    let of_nats = |text: String| match of(&text).engine {
        Engine::Nats(options) => options.jetstream.is_some(),
        other => panic!("{other:?}"),
    };
    assert!(of_nats(format!("{{{nats}, {namespaces}}}")));
    assert!(!of_nats(format!("{{{nats}, {namespaces}, {manager}}}")));
    let short =
        r#"{"presence_manager": {"enabled": true, "type": "redis", "redis": {"lease": "1ms"}}}"#;
    let refused = load_text(".json", short).unwrap_err();
    assert_eq!(refused.mistakes[0].key, "presence_manager.redis.lease");
}

#[test]
fn names_without_their_section_are_recognised() {
    for (name, key) in [
        ("client_insecure", "client.insecure"),
        ("token_hmac_secret_key", "client.token.hmac_secret_key"),
        ("api_key", "http_api.key"),
        ("allowed_origins", "client.allowed_origins"),
        ("port", "http_server.port"),
        ("namespaces", "channel.namespaces"),
        ("history_size", "channel.without_namespace.history_size"),
        ("redis_address", "engine.redis.address"),
    ] {
        let (_, warnings) = load_text(".json", &format!("{{\"{name}\": null}}")).unwrap();
        let expected = format!("did you mean {key}?");
        assert!(warnings.iter().any(|one| one.text.ends_with(&expected)), "{name}: {warnings:?}");
    }
}

/// The configuration of the server in the tests of the JavaScript SDK.
const OF_THE_SDK_SUITE: &str = r#"{
    "client": {"insecure": true, "concurrency": 8, "token": {"hmac_secret_key": "secret"}},
    "http_stream": {"enabled": true},
    "sse": {"enabled": true},
    "map_broker": {},
    "shared_poll": {"hmac_secret_key": "test-poll-secret"},
    "proxies": [{"name": "poll_backend", "endpoint": "http://127.0.0.1:3010/refresh", "timeout": "5s"}],
    "http_api": {"key": "test-api-key"},
    "channel": {
        "without_namespace": {
            "presence": true, "allowed_delta_types": ["fossil"], "delta_publish": true,
            "history_size": 100, "history_ttl": "300s", "force_recovery": true
        },
        "namespaces": [
            {"name": "streamless", "subscription_type": "map", "map": {"mode": "ephemeral", "key_ttl": "60s"}},
            {"name": "tagged", "allow_tags_filter": true},
            {"name": "prestest", "map_clients_presence_channel_prefix": "prescli:"},
            {"name": "debounced", "client_publish_debounce_interval": "1s"},
            {"name": "recovery", "force_recovery": true, "history_size": 100, "history_ttl": "300s"},
            {"name": "poll", "subscription_type": "shared_poll", "shared_poll": {"refresh_interval": "200ms"}}
        ]
    }
}"#;

#[test]
fn of_the_sdk_suites_configuration_only_absent_features_are_refused() {
    let refused = load_text(".json", OF_THE_SDK_SUITE).unwrap_err();
    let keys: Vec<&str> = refused.mistakes.iter().map(|mistake| &*mistake.key).collect();
    let absent = [
        "channel.namespaces[0].subscription_type",
        "channel.namespaces[1].allow_tags_filter",
        "channel.namespaces[2].map_clients_presence_channel_prefix",
        "channel.namespaces[5].subscription_type",
        "channel.without_namespace.allowed_delta_types",
        "http_stream.enabled",
        "sse.enabled",
    ];
    assert_eq!(keys, absent);
    assert!(refused.mistakes.iter().all(|mistake| mistake.text.contains("is not supported yet; ")));
    let about_form = about_form(&refused.warnings);
    let reported: Vec<&str> = about_form.iter().map(|warning| &*warning.key).collect();
    assert_eq!(reported, ["channel.namespaces[3].client_publish_debounce_interval"]);
}
