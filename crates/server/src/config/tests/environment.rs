//! Environment variables: options with the names of both servers, and injected variables.

use super::*;

fn load_environment(environment: &[(&str, &str)]) -> Result<(Config, Vec<Warning>), Mistakes> {
    load(&Source { environment: pairs(environment), ..Source::default() })
}

fn unknown(warnings: &[Warning]) -> Vec<&str> {
    let unknown = warnings.iter().filter(|warning| warning.kind == WarningKind::UnknownKey);
    unknown.map(|warning| &*warning.key).collect()
}

#[test]
fn variables_that_kubernetes_and_docker_inject_are_not_options() {
    // centrifugo#269, soketi#1081: services and links of any name that begins as ours.
    let (config, warnings) = load_environment(&[
        ("TIDINGS_TOKEN", "a token for the command"),
        ("TIDINGS_PORT", "tcp://10.0.0.1:8000"),
        ("TIDINGS_PORT_8000_TCP", "tcp://10.0.0.1:8000"),
        ("TIDINGS_PORT_8000_TCP_ADDR", "10.0.0.1"),
        ("TIDINGS_PORT_8000_TCP_PROTO", "tcp"),
        ("TIDINGS_SERVICE_HOST", "10.0.0.1"),
        ("TIDINGS_SERVICE_PORT", "8000"),
        ("TIDINGS_SERVICE_PORT_HTTP_API", "8000"),
        ("TIDINGS_REDIS_SERVICE_HOST", "10.0.0.1"),
        ("TIDINGS_REDIS_MASTER_PORT_6379_TCP_PORT", "6379"),
        ("TIDINGS_API_PORT", "tcp://10.0.0.1:8000"),
        ("TIDINGS_DNS_PORT", "udp://10.0.0.1:53"),
        ("TIDINGS_NATS_PORT_4222_TCP_ADDR", "10.0.0.1"),
        ("TIDINGS_DB_PORT", "tcp://172.17.0.5:5432"),
        ("TIDINGS_DB_NAME", "/web/db"),
        ("TIDINGS_DB_ENV_POSTGRES_VERSION", "16"),
        ("CENTRIFUGO_SERVICE_HOST", "10.0.0.1"),
        ("CENTRIFUGO_REDIS_PORT", "tcp://10.0.0.1:6379"),
        ("CENTRIFUGO_VAR_KEY", "for other values"),
    ])
    .unwrap();
    assert_eq!(unknown(&warnings), [""; 0]);
    assert_eq!(config.http.port, 8000);
    // Variables that do not look injected are reported.
    let (_, warnings) = load_environment(&[
        ("TIDINGS_PORT", "8000"),
        ("TIDINGS_DB_NAME", "/web/db"),
        ("TIDINGS_HTTP_SERVER_PORT_X_TCP", "1"),
    ])
    .unwrap();
    let reported = unknown(&warnings);
    assert_eq!(reported, ["TIDINGS_PORT", "TIDINGS_DB_NAME", "TIDINGS_HTTP_SERVER_PORT_X_TCP"]);
}

#[test]
fn a_setting_with_the_name_of_a_service_is_not_set_by_it() {
    let (config, warnings) = load_environment(&[
        ("TIDINGS_HTTP_SERVER_PORT", "tcp://10.0.0.1:8000"),
        ("TIDINGS_GRPC_API_PORT", "tcp://10.0.0.1:10000"),
    ])
    .unwrap();
    assert_eq!(config.http.port, 8000);
    let ignored: Vec<_> =
        warnings.iter().filter(|warning| warning.text.contains("Kubernetes")).collect();
    assert!(ignored.len() == 2 && ignored[0].key == "http_server.port", "{warnings:?}");
    let refused = load_environment(&[("TIDINGS_HTTP_SERVER_PORT", "http://x")]).unwrap_err();
    assert!(refused.to_string().contains("TIDINGS_HTTP_SERVER_PORT"), "{refused}");
}

#[test]
fn names_of_the_compatible_server_are_aliases_and_ours_win() {
    let (config, warnings) = load_environment(&[
        ("TIDINGS_HTTP_SERVER_PORT", "9001"),
        ("CENTRIFUGO_HTTP_SERVER_PORT", "9002"),
        ("CENTRIFUGO_CLIENT_CHANNEL_LIMIT", "7"),
        ("CENTRIFUGO_CHANNEL_NAMESPACES", "old"),
        ("TIDINGS_CHANNEL_NAMESPACES", r#"[{"name": "chat-room"}, {"name": "chat"}]"#),
        ("CENTRIFUGO_CHANNEL_NAMESPACES_CHAT_ROOM_PRESENCE", "1"),
        ("TIDINGS_CHANNEL_NAMESPACES_CHAT_JOIN_LEAVE", "true"),
    ])
    .unwrap();
    assert_eq!((config.http.port, config.rules.client.channel_limit), (9001, 7));
    let namespaces = &config.rules.channels.namespaces;
    assert!(namespaces["chat-room"].presence && !namespaces["chat-room"].join_leave);
    assert!(!namespaces["chat"].presence && namespaces["chat"].join_leave);
    let notices: Vec<_> = warnings.iter().filter(|one| one.key == "CENTRIFUGO_*").collect();
    let [notice] = &notices[..] else { panic!("{warnings:?}") };
    assert!(notice.text.starts_with("4 "), "{notice}");
    let (_, warnings) = load_environment(&[("CENTRIFUGO_HTTP_SERVER_PROT", "1")]).unwrap();
    let text = warnings[0].to_string();
    assert!(text.contains("did you mean CENTRIFUGO_HTTP_SERVER_PORT?"), "{text}");
}

#[test]
fn an_empty_variable_is_ignored() {
    let text = "[http_server]\nport = 9000\n[client.token]\nhmac_secret_key = \"of the file\"\n";
    let path = file(".toml", text);
    let environment = pairs(&[
        ("TIDINGS_HTTP_SERVER_PORT", ""),
        ("TIDINGS_CLIENT_TOKEN_HMAC_SECRET_KEY", ""),
        ("TIDINGS_CLIENT_PING_INTERVAL", ""),
    ]);
    let source = Source { file: Some(path.to_path_buf()), environment, ..Source::default() };
    let (config, _) = load(&source).unwrap();
    assert_eq!(config.http.port, 9000);
    assert_eq!(config.token.hmac_secret_key.as_deref(), Some("of the file"));
}

#[test]
fn a_mistake_names_where_it_was_written() {
    let text = "[client]\nping_interval = \"soon\"\n\n[[channel.namespaces]]\nname = \"chat\"\n";
    let path = file(".toml", text);
    let environment = pairs(&[
        ("TIDINGS_LOG_LEVEL", "loud"),
        ("CENTRIFUGO_CLIENT_INSECURE", "perhaps"),
        ("TIDINGS_CHANNEL_NAMESPACES_CHAT_HISTORY_SIZE", "10"),
        ("TIDINGS_SHUTDOWN_DRAIN_WINDOW", "1h"),
    ]);
    let flags = pairs(&[("http_server.port", "x"), ("admin.enabled", "true")]);
    let file = Some(path.to_path_buf());
    let refused = load(&Source { file, environment, flags, ..Source::default() }).unwrap_err();
    expect![[r#"
        7 mistakes in the configuration:
          client.insecure (CENTRIFUGO_CLIENT_INSECURE): expected true or false, not "perhaps"
          client.ping_interval (line 2): expected a time such as "10s", "1m30s" or "250ms", not "soon"
          --http_server.port: expected a whole number from 0 to 65535, not "x"
          log.level (TIDINGS_LOG_LEVEL): expected one of "none", "trace", "debug", "info", "warn", "error", "fatal", not "loud"
          --admin.enabled: the admin page is not supported yet; switch it off (use the server API and the metrics)
          channel.namespaces[0].history_ttl (line 4): is required when history_size is set
          shutdown.drain_window (TIDINGS_SHUTDOWN_DRAIN_WINDOW): must be less than shutdown.timeout"#]].assert_eq(&refused.to_string());
}

#[test]
fn options_of_unnamed_groups_are_reported() {
    let (_, warnings) = load_environment(&[
        ("TIDINGS_CHANNEL_NAMESPACES", "chat"),
        ("TIDINGS_CHANNEL_NAMESPACES_NEWS_PRESENCE", "true"),
        ("TIDINGS_CHANNEL_NAMESPACES_CHAT_PRESENSE", "true"),
    ])
    .unwrap();
    assert_eq!(unknown(&warnings).len(), 2);
    assert!(warnings.iter().any(|one| one.text.contains("TIDINGS_CHANNEL_NAMESPACES,")));
    let list = [("TIDINGS_CHANNEL_NAMESPACES", "[{\"name\":")];
    let refused = load_environment(&list).unwrap_err().to_string();
    assert!(
        refused.contains("TIDINGS_CHANNEL_NAMESPACES") && refused.contains("JSON"),
        "{refused}"
    );
}

#[test]
fn a_variable_with_the_name_of_a_section_gets_a_hint() {
    for (name, value, meant) in [
        ("TIDINGS_ENGINE", "redis", "engine is a section; did you mean TIDINGS_ENGINE_TYPE?"),
        (
            "CENTRIFUGO_HTTP_API",
            "x",
            "http_api is a section; did you mean CENTRIFUGO_HTTP_API_KEY?",
        ),
        ("TIDINGS_ADMIN", "true", "admin is a section; did you mean TIDINGS_ADMIN_ENABLED?"),
    ] {
        let (_, warnings) = load_environment(&[(name, value)]).unwrap();
        let reported = warnings.iter().find(|one| one.kind == WarningKind::UnknownKey);
        assert_eq!(reported.map(|one| (&*one.key, &*one.text)), Some((name, meant)));
    }
}
