//! Valid and invalid configurations, and the precedence of sources.

use std::io::Write as _;

use expect_test::expect;

use super::*;

mod api_keys;
mod applications;
mod compatible;
mod consumers;
pub(super) mod declarations;
mod environment;
mod events;
mod forms;
mod grpc_api;
mod proxies;
mod warnings;

fn file(ending: &str, text: &str) -> tempfile::TempPath {
    let mut file = tempfile::Builder::new().suffix(ending).tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.into_temp_path()
}

pub(super) fn load_text(ending: &str, text: &str) -> Result<(Config, Vec<Warning>), Mistakes> {
    let path = file(ending, text);
    load(&Source { file: Some(path.to_path_buf()), ..Source::default() })
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn the_sample_with_every_key_is_valid_also_when_uncommented() {
    load_text(".toml", &sample()).unwrap();
    let uncommented: String = sample()
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.starts_with('[') || rest.contains(" = ") && !rest.contains(". ") => {
                format!("{rest}\n")
            }
            _ => format!("{line}\n"),
        })
        .collect();
    let (config, _) = load_text(".toml", &uncommented).unwrap();
    assert_eq!(config.http.port, 8000);
    assert_eq!(config.rules.client.ping_interval_ms, 25_000);
    assert!(config.rules.channels.namespaces["chat"].presence);
    let (config, _) = load_text(".toml", &starter([7; 64])).unwrap();
    for origin in ["http://127.0.0.1:3000", "http://localhost:5173", "http://[::1]:8080"] {
        assert!(config.admission.origins.allows(Some(origin)), "{origin}");
    }
    assert!(!config.admission.origins.allows(Some("https://elsewhere.example")));
}

#[test]
fn a_file_of_the_compatible_server_works_in_all_three_forms() {
    let json = r#"{
        "engine": {"type": "memory"},
        "admin": {"enabled": false, "password": "x"},
        "client": {"token": {"hmac_secret_key": "secret"}, "allowed_origins": ["*"], "concurrency": 8},
        "http_api": {"key": "api"},
        "channel": {
            "without_namespace": {"allow_subscribe_for_client": true},
            "namespaces": [{"name": "chat", "history_size": 10, "history_ttl": "60s", "force_recovery": true}]
        }
    }"#;
    let tree: serde_json::Value = serde_json::from_str(json).unwrap();
    let yaml = "client:\n  token:\n    hmac_secret_key: secret\n  allowed_origins: ['*']\n\
                http_api: {key: api}\nchannel:\n  without_namespace: {allow_subscribe_for_client: true}\n  \
                namespaces:\n    - {name: chat, history_size: 10, history_ttl: 60s, force_recovery: true}\n";
    for (ending, text) in
        [(".json", json), (".toml", &toml::to_string(&tree).unwrap()), (".yaml", yaml)]
    {
        let (config, _) =
            load_text(ending, text).unwrap_or_else(|error| panic!("{ending}: {error}"));
        assert_eq!(config.token.hmac_secret_key.as_deref(), Some("secret"));
        assert_eq!(config.rules.channels.namespaces["chat"].history_ttl_ms, 60_000);
        assert!(config.rules.channels.without_namespace.subscribe.client);
        assert!(!config.demo && !config.rules.client.allow_anonymous_connect_without_token);
    }
}

#[test]
fn every_mistake_is_reported_at_once_with_its_key() {
    let text = r#"
        [http_server]
        prot = 9000
        port = 70000
        [client]
        ping_interval = 25
        pong_timeout = "30s"
        insecure = "yes"
        [client.token]
        hmac_secret_key = true
        [engine]
        type = "redis"
        [engine.redis]
        address = ["http://127.0.0.1"]
        [channel.without_namespace]
        history_size = 10
        force_recovery_mode = "steam"
        [[channel.namespaces]]
        name = "chat"
        presense = true
        subscription_type = "map"
        channel_regex = "("
        [[channel.namespaces]]
        name = "x"
        [[channel.namespaces]]
        name = "chat"
        [prometheus]
        handler_prefix = "metrics"
    "#;
    let mistakes = load_text(".toml", text).unwrap_err();
    expect![[r#"
        13 mistakes in the configuration:
          channel.without_namespace.force_recovery_mode (line 17): expected one of "", "stream", "cache", not "steam"
          client.insecure (line 8): expected true or false, not "yes"
          client.ping_interval (line 6): expected a time such as "10s", "1m30s" or "250ms", not 25; for seconds write "25s"
          client.token.hmac_secret_key (line 10): expected a text; write words such as yes or true in quotes
          http_server.port (line 4): expected a whole number from 0 to 65535, not 70000
          channel.namespaces[0].subscription_type (line 21): a subscription type other than stream is not supported yet; switch it off (use a channel with history)
          channel.without_namespace.history_ttl: is required when history_size is set
          channel.namespaces[0].channel_regex (line 22): is not a regular expression: unclosed group
          channel.namespaces[1].name (line 24): expected at least two letters, digits, '-', '_' or '.', not "x"
          channel.namespaces[2].name (line 26): "chat" is used twice: rename one of the namespaces
          client.pong_timeout (line 7): must be less than client.ping_interval
          engine.redis.address (line 14): must begin with redis://, rediss://, redis+cluster:// or redis+sentinel://, or be host:port
          prometheus.handler_prefix (line 28): expected a path such as "/metrics", of slashes, letters, digits, '-', '_' and '.', not "metrics""#]].assert_eq(&mistakes.to_string());
}

#[test]
fn environment_wins_over_the_file_and_flags_over_both() {
    let path =
        file(".toml", "[http_server]\nport = 1\n[client]\nchannel_limit = 1\ninsecure = true\n");
    let (config, _) = load(&Source {
        file: Some(path.to_path_buf()),
        environment: pairs(&[
            ("TIDINGS_HTTP_SERVER_PORT", "2"),
            ("TIDINGS_CLIENT_CHANNEL_LIMIT", "2"),
            (
                "TIDINGS_CLIENT_ALLOWED_ORIGINS",
                "https://a.example,https://b.example, https://c.example",
            ),
            ("TIDINGS_CHANNEL_NAMESPACES", "chat my-news"),
            ("TIDINGS_CHANNEL_NAMESPACES_MY_NEWS_PRESENCE", "true"),
            ("PATH", "ignored"),
        ]),
        flags: pairs(&[("http_server.port", "3")]),
        ..Source::default()
    })
    .unwrap();
    assert_eq!(config.http.port, 3);
    assert_eq!(config.rules.client.channel_limit, 2);
    assert!(config.rules.client.insecure);
    for origin in ["https://a.example", "https://b.example", "https://c.example"] {
        assert!(config.admission.origins.allows(Some(origin)));
    }
    assert!(config.rules.channels.namespaces["my-news"].presence);
    assert!(!config.rules.channels.namespaces["chat"].presence);
}

#[test]
fn unknown_keys_and_variables_are_warnings_by_default() {
    let path = file(".toml", "[client]\npign_interval = \"1s\"\n");
    let source = Source {
        file: Some(path.to_path_buf()),
        environment: pairs(&[("TIDINGS_HTTP_SERVER_PROT", "2"), ("TIDINGS_LOG_LEVEL", "loud")]),
        unknown: Unknown::Mistake,
        ..Source::default()
    };
    let refused = load(&source).unwrap_err().to_string();
    expect![[r#"
        3 mistakes in the configuration:
          TIDINGS_HTTP_SERVER_PROT: there is no such setting; did you mean TIDINGS_HTTP_SERVER_PORT?
          client.pign_interval (line 2): there is no such key; did you mean ping_interval?
          log.level (TIDINGS_LOG_LEVEL): expected one of "none", "trace", "debug", "info", "warn", "error", "fatal", not "loud""#]].assert_eq(&refused);
    let environment = pairs(&[("TIDINGS_HTTP_SERVER_PROT", "2")]);
    let (_, warnings) = load(&Source { unknown: Unknown::Warning, environment, ..source }).unwrap();
    let unknown = warnings.iter().filter(|warning| warning.kind == WarningKind::UnknownKey);
    assert_eq!(unknown.count(), 2);
}

/// Keys that tune unsupported features which are off.
const SWITCHED_OFF: &str = r#"{
    "enable_unreleased_features": false,
    "http_server": {
        "tls": {
            "enabled": false, "server_ca_pem": "", "client_ca_pem": "", "insecure_skip_verify": false,
            "server_name": ""
        },
        "tls_external": false, "h2c_external": false
    },
    "client": {
        "token": {"insecure_skip_jwks_endpoint_safety_check": false},
        "proxy": {"connect": {"enabled": false, "endpoint": "http://localhost/connect"}}
    },
    "log": {"level": "fatal", "file": ""},
    "prometheus": {"native_histograms": false, "instrument_http_handlers": false},
    "admin": {"password": "p", "secret": "s"},
    "consumers": [{"name": "kk", "enabled": false, "type": "kafka", "kafka": {"brokers": ["x"]}}],
    "emulation": {"handler_prefix": "/emulation", "max_request_body_size": 65536},
    "engine": {"type": "memory", "redis": {"address": ["redis://localhost"], "tls": {"enabled": true}}},
    "rpc": {"namespace_boundary": ":", "ping": {"method": "p"}},
    "channel": {"namespaces": [{
        "name": "chat",
        "map": {"mode": "ephemeral", "key_ttl": "60s"},
        "shared_poll": {"refresh_interval": "1s"},
        "subscribe_stream_proxy_name": "backend"
    }]}
}"#;

#[test]
fn details_of_an_unsupported_feature_have_no_effect_while_it_is_off() {
    let (config, warnings) = load_text(".json", SWITCHED_OFF).unwrap();
    assert_eq!(config.log.level, LogLevel::Error);
    assert!(warnings.iter().all(|one| one.kind != WarningKind::UnknownKey), "{warnings:?}");
    let path = file(
        ".json",
        r#"{
            "unheard_of": 1,
            "http_server": {"tls": {"client_ca_pem": "ca.pem"}, "tls_external": true},
            "client": {"proxy": {"connect": {"enabled": true, "endpoint": "x"}}},
            "admin": {"password": "p", "enabled": true},
            "broker": {"enabled": true, "type": "postgres", "nats": {"raw_mode": {"enabled": true}}},
            "consumers": [{"name": "kk", "enabled": true, "type": "aws_sqs", "aws_sqs": {"queues": ["q"]}}],
            "engine": {"type": "redis", "redis": {"cluster_address": ["redis://localhost"]}},
            "proxies": [{"name": "backend", "endpoint": "x"}],
            "rpc": {"without_namespace": {"proxy_enabled": true}},
            "channel": {"without_namespace": {"subscribe_proxy_enabled": true}}
        }"#,
    );
    let file = Some(path.to_path_buf());
    let source = Source { file, ..Source::default() };
    let mistakes = load(&source).unwrap_err();
    expect![[r#"
        7 mistakes in the configuration:
          admin.enabled (line 5): the admin page is not supported yet; switch it off (use the server API and the metrics)
          proxies[0].endpoint (line 9): must be grpc://host:port
          client.proxy.connect.endpoint (line 4): must be grpc://host:port
          channel.proxy.subscribe.endpoint: is required, such as "http://localhost:3000/connect" or "grpc://localhost:3000"
          rpc.proxy.endpoint: is required, such as "http://localhost:3000/connect" or "grpc://localhost:3000"
          broker.type (line 6): postgres: a broker of this type beside the engine is not supported yet; switch it off (engine.type = "redis" carries publications and presence)
          consumers[0].type (line 7): aws_sqs: consumers of this type are not supported yet; switch it off (publish through the server API)"#]].assert_eq(&mistakes.to_string());
}

#[test]
fn a_broker_that_is_named_and_not_used_is_warned_of() {
    for (text, key) in [
        ("[engine.redis]\naddress = [\"redis://10.0.0.1:6379\"]\n", "engine.redis.address"),
        (
            "[broker]\nenabled = true\n[broker.nats]\nurl = \"nats://127.0.0.1\"\n",
            "broker.nats.url",
        ),
        ("[broker]\ntype = \"nats\"\n", "broker.type"),
    ] {
        let (config, warnings) = load_text(".toml", text).unwrap();
        assert!(matches!(config.engine, Engine::Memory));
        let reported = warnings.iter().filter(|one| one.text.contains("alone"));
        assert_eq!(reported.map(|one| &*one.key).collect::<Vec<_>>(), [key]);
    }
    for (text, place) in [
        (
            "[broker]\nenabled = true\ntype = \"nats\"\n[broker.nats]\nurl = \"http://x\"\n",
            "broker.nats.url",
        ),
        ("[lifecycle]\nevents_max = 0\n", "lifecycle.events_max"),
        (
            "[engine]\ntype = \"redis\"\n[engine.redis]\naddress = [\"redis://a:1\", \"redis://a:1\"]\n",
            "engine.redis.address",
        ),
    ] {
        let mistakes = load_text(".toml", text).unwrap_err().to_string();
        assert!(mistakes.contains(place), "{mistakes}");
    }
}

#[test]
fn changes_beyond_the_limits_of_the_nats_stream_are_refused() {
    let change = |channel: &str, change: &str| {
        let nats = r#"{"enabled": true, "type": "nats", "nats": {"url": "nats://127.0.0.1"}}"#;
        let text = format!(r#"{{"broker": {nats}, "channel": {channel}}}"#);
        let (mut config, _) = load_text(".json", &text).unwrap();
        let Rules { channels, .. } = config.changeable.change(change.as_bytes(), &config.rules)?;
        Ok::<u32, String>(channels.namespaces["chat"].history_size)
    };
    let kept = r#"{"namespaces": [{"name": "chat", "history_size": 2000, "history_ttl": "1m"}]}"#;
    let plain = r#"{"namespaces": [{"name": "chat"}]}"#;
    let sized = |size| {
        format!(r#"{{"namespace":"chat","options":{{"history_size":{size},"history_ttl":"1m"}}}}"#)
    };
    assert_eq!(change(kept, &sized(2000)), Ok(2000));
    assert!(change(kept, &sized(2001)).unwrap_err().contains("at most 2000"));
    assert!(change(plain, &sized(1)).unwrap_err().contains("JetStream"));
}

#[test]
fn zeros_have_the_meaning_of_the_compatible_server() {
    let text = "[client]\nhistory_max_publication_limit = 0\nrecovery_max_publication_limit = 0\n\
                channel_limit = 0\nstale_close_delay = \"0s\"\n";
    let (config, _) = load_text(".toml", text).unwrap();
    let client = &config.rules.client;
    assert_eq!(client.history_max_publication_limit, u32::MAX);
    assert_eq!(client.recovery_max_publication_limit, u32::MAX);
    assert_eq!((client.channel_limit, client.stale_close_delay_ms), (128, 10_000));
}

#[test]
fn settings_that_cannot_work_are_mistakes() {
    let text = "[channel]\nuser_separator = \"\"\n[shutdown]\ntimeout = \"2s\"\n";
    let mistakes = load_text(".toml", text).unwrap_err();
    expect![[r#"
        2 mistakes in the configuration:
          channel.user_separator (line 2): must not be empty
          shutdown.drain_window: must be less than shutdown.timeout"#]]
    .assert_eq(&mistakes.to_string());
}

#[test]
fn no_two_things_are_served_at_one_path() {
    let mistake = |flags: &[(&str, &str)]| {
        let source = Source { flags: pairs(flags), ..Source::default() };
        load(&source).map(|_| ()).map_err(|mistakes| mistakes.to_string())
    };
    for (key, path) in [
        ("websocket.handler_prefix", "/ready"),
        ("prometheus.handler_prefix", "/ready"),
        ("websocket.handler_prefix", "/demo.css"),
        ("http_api.handler_prefix", "/tidings.js"),
        ("health.handler_prefix", "/api/openapi.json"),
        ("websocket.handler_prefix", "/api/publish"),
        ("prometheus.handler_prefix", "/api/batch/"),
        ("prometheus.handler_prefix", "/health"),
    ] {
        let text = mistake(&[(key, path), ("demo.enabled", "true")]).unwrap_err();
        assert!(text.contains(key) && text.contains("is the same as"), "{text}");
    }
    assert_eq!(mistake(&[("websocket.handler_prefix", "/demo.css")]), Ok(()));
    let below = [
        ("http_api.handler_prefix", "/connection"),
        ("websocket.handler_prefix", "/connection/batch"),
    ];
    let text = mistake(&below).unwrap_err();
    assert!(text.contains(below[0].0) && text.contains(below[1].0), "{text}");
    assert_eq!(mistake(&[("websocket.handler_prefix", "/api/socket")]), Ok(()));
    let off = [("health.enabled", "false"), ("websocket.handler_prefix", "/ready")];
    assert_eq!(mistake(&off), Ok(()));
}

#[test]
fn a_file_that_cannot_be_read_is_refused_with_the_reason() {
    let message = |ending, text| load_text(ending, text).unwrap_err().to_string();
    assert!(message(".toml", "a = ").contains("is not TOML"));
    assert!(message(".yaml", "a: [").contains("is not YAML"));
    assert!(message(".json", "{").contains("is not JSON"));
    assert!(message(".ini", "").contains("must end in"));
    let missing = Source { file: Some("does-not-exist.toml".into()), ..Source::default() };
    assert!(load(&missing).unwrap_err().to_string().contains("cannot be read"));
}

#[test]
fn a_mistake_in_the_form_of_a_file_shows_its_place_and_not_its_line() {
    for (ending, text, place) in [
        (".toml", "[http_api]\nkey = \"hidden\" x\n", "line 2, column 16"),
        (".toml", "[http_api]\nkey = 'hidden\n", "line 2, column"),
        (".yaml", "http_api:\n  key: \"hidden\" x\n", "line 2"),
        (".yaml", "http_api:\n  key: hidden: x\n", "line 2"),
        (".json", "{\"http_api\":\n{\"key\": \"hidden\" x}}", "line 2 column"),
    ] {
        let message = load_text(ending, text).unwrap_err().to_string();
        assert!(message.contains(place) && !message.contains("hidden"), "{message}");
    }
}

#[test]
fn development_mode_is_for_this_machine_and_for_the_demo_only() {
    let development = Some(Development { api_key: "k".into() });
    let source = Source { development, ..Source::default() };
    let (config, _) = load(&source).unwrap();
    assert_eq!(config.http.address, "127.0.0.1");
    assert!(config.demo && config.rules.client.allow_anonymous_connect_without_token);
    for origin in
        ["http://localhost:8000", "http://127.0.0.1:9000", "http://[::1]:3000", "http://localhost"]
    {
        assert!(config.admission.origins.allows(Some(origin)), "{origin}");
    }
    assert!(!config.admission.origins.allows(Some("http://evil.example")));
    assert!(config.rules.channels.namespaces["demo"].subscribe.anonymous);
    assert!(!config.rules.channels.without_namespace.subscribe.anonymous);
    // A port and the log are chosen without any other choice.
    let flags = pairs(&[("http_server.port", "0"), ("log.level", "debug"), ("log.format", "json")]);
    let (chosen, _) = load(&Source { flags, ..source.clone() }).unwrap();
    assert!(chosen.is_development && chosen.http.port == 0);
    // Everything else is a configuration, wherever it stands.
    let environment = pairs(&[("TIDINGS_ADMIN_ENABLED", "false")]);
    let flags = pairs(&[("http_server.address", "")]);
    let alias = pairs(&[("CENTRIFUGO_CLIENT_CHANNEL_LIMIT", "5")]);
    for source in [
        Source { environment, ..source.clone() },
        Source { flags, ..source.clone() },
        Source { environment: alias, ..source.clone() },
    ] {
        let (configured, _) = load(&source).unwrap();
        assert!(!configured.is_development && !configured.demo && configured.api.key.is_empty());
        assert_eq!(configured.http.address, "");
        assert!(!configured.rules.client.allow_anonymous_connect_without_token);
    }
    // Variables that are not options do not end development mode.
    let environment = pairs(&[("TIDINGS_PORT", "tcp://10.0.0.1:8000"), ("TIDINGS_TOKEN", "x")]);
    assert!(load(&Source { environment, ..source.clone() }).unwrap().0.is_development);
    let path = file(".toml", "");
    let (with_file, _) = load(&Source { file: Some(path.to_path_buf()), ..source }).unwrap();
    assert!(!with_file.demo && !with_file.rules.client.allow_anonymous_connect_without_token);
    assert!(with_file.rules.channels.namespaces.is_empty() && with_file.api.key.is_empty());
}

#[test]
fn a_byte_order_mark_is_ignored() {
    for (ending, text) in [
        (".json", "{\"http_server\": {\"port\": 9001}}"),
        (".toml", "[http_server]\nport = 9001\n"),
        (".yaml", "http_server:\n  port: 9001\n"),
    ] {
        let (config, _) = load_text(ending, &format!("\u{feff}{text}")).unwrap();
        assert_eq!(config.http.port, 9001, "{ending}");
    }
}

#[test]
fn the_reference_is_the_page_of_the_documentation() {
    // UPDATE_EXPECT=1 rewrites the page.
    expect_test::expect_file!["../../../../docs/configuration.md"].assert_eq(&reference());
}

#[test]
fn redis_is_configured_by_address_and_name() {
    let redis = |lines: &str| {
        let text = format!("[engine]\ntype = \"redis\"\n[engine.redis]\n{lines}\n");
        load_text(".toml", &text).map(|(config, _)| match config.engine {
            Engine::Redis(redis) => redis.settings("node".to_owned(), "name".to_owned(), 7),
            Engine::Memory | Engine::Nats(_) => panic!("no Redis"),
        })
    };
    let settings = redis("address = [\"redis://ann:p@h:1/2\"]\nio_timeout = \"1s\"").unwrap();
    assert_eq!((&*settings.login.user, settings.database), ("ann", 2));
    assert_eq!((&*settings.prefix, settings.io_timeout.as_millis()), ("tidings", 1000));
    assert!(settings.tls.is_none());
    let settings = redis("address = [\"rediss://h\"]\npassword = \"p\"\ndb = 3").unwrap();
    assert_eq!((&*settings.login.password, settings.database), ("p", 3));
    assert!(settings.tls.is_some());
    for (lines, place) in [
        ("address = [\"redis+cluster://h\"]\ndb = 1", "engine.redis.db"),
        ("address = [\"h\"]\nprefix = \"{x}\"", "engine.redis.prefix"),
        ("address = [\"h\"]\nio_timeout = \"1ms\"", "engine.redis.io_timeout"),
        ("address = [\"rediss://h\"]\n[engine.redis.tls]\nserver_ca_pem = \"/x\"", "server_ca_pem"),
    ] {
        let mistakes = redis(lines).unwrap_err().to_string();
        assert!(mistakes.contains(place), "{mistakes}");
    }
}
