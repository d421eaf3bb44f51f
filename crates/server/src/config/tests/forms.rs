//! Other accepted forms of names and values than those of the documentation.

use super::*;

fn refused(text: &str) -> String {
    load_text(".json", text).unwrap_err().to_string()
}

#[test]
fn names_in_lists_are_case_insensitive() {
    let text = r#"{"Channel": {"Namespaces": [{"Name": "chat", "History_Size": 5, "HISTORY_TTL": "10s"}]},
        "http_api": {"Keys": [{"Name": "one", "Key": "0123456789abcdef0123456789abcdef"}]}}"#;
    let (config, warnings) = load_text(".json", text).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.rules.channels.namespaces["chat"].history_size, 5);
    assert_eq!(config.api.keys.len(), 1);
    assert!(!warnings.iter().any(|warning| warning.kind == WarningKind::UnknownKey));
    let switched_on = refused(r#"{"consumers": [{"Name": "xx", "Enabled": true}]}"#);
    assert!(switched_on.contains("consumers[0].type"), "{switched_on}");
}

#[test]
fn an_invalid_value_is_one_mistake_without_warnings_about_its_default() {
    let text = r#"{"http_server": {"address": "", "internal_port": 70000},
        "channel": {"namespaces": [{"name": "chat", "history_size": -1, "history_ttl": "10s"}, {"name": true}]}}"#;
    let Mistakes { mistakes, warnings } = load_text(".json", text).unwrap_err();
    let keys: Vec<&str> = mistakes.iter().map(|mistake| &*mistake.key).collect();
    let [port, size, name] = &keys[..] else { panic!("{mistakes:?}") };
    assert_eq!(*port, "channel.namespaces[0].history_size", "{mistakes:?}");
    assert_eq!(*size, "channel.namespaces[1].name");
    assert_eq!(*name, "http_server.internal_port");
    assert!(!warnings.iter().any(|warning| warning.key == "http_server.internal_port"));
}

#[test]
fn mistakes_quote_the_value_and_the_expected_form() {
    for (text, wanted) in [
        (r#"{"channel": {"namespaces": [{"name": "a b"}]}}"#, "not \"a b\""),
        (r#"{"channel": {"namespaces": [{"presence": true}]}}"#, "is required"),
        (r#"{"engine": {"type": "nats"}}"#, "broker.type = \"nats\""),
        (r#"{"client": {"stale_close_delay": -1}}"#, "not -1"),
        (r#"{"client": {"stale_close_delay": 10}}"#, "write \"10s\""),
        (r#"{"client": {"stale_close_delay": 25000000000}}"#, "write \"25000000000ns\""),
        (
            r#"{"client": {"allowed_origins": ["https://a.example,https://b.example"]}}"#,
            "an item of its own",
        ),
        (r#"{"http_server": {"address": "127.0.0.1:80"}}"#, "the port as http_server.port"),
        (r#"{"http_server": {"internal_address": "*"}}"#, "leave it empty"),
        (
            r#"{"broker": {"enabled": true, "type": "nats", "nats": {"prefix": "a.>"}}}"#,
            "not \"a.>\"",
        ),
        (
            r#"{"broker": {"enabled": true, "type": "nats", "nats": {"prefix": "a b"}}}"#,
            "without spaces",
        ),
        (
            r#"{"broker": {"enabled": true, "type": "nats", "nats": {"prefix": ""}}}"#,
            "subject of NATS",
        ),
        (r#"{"engine": {"type": "redis", "redis": {"prefix": "a{b}"}}}"#, "not \"a{b}\""),
        (
            r#"{"channel": {"without_namespace": {"channel_regex": "("}}}"#,
            "expression: unclosed group",
        ),
    ] {
        let text = refused(text);
        assert!(text.contains(wanted) && text.lines().count() == 2, "{text}");
        assert!(!text.contains("-1s"), "{text}");
    }
}

#[test]
fn forms_of_the_compatible_server_are_accepted() {
    let text = r#"{"http_server": {"address": "127.0.0.1", "port": "8_000", "internal_port": 8000},
        "websocket": {"handler_prefix": "/ws/"}, "http_api": {"handler_prefix": "/push/api//"},
        "client": {"stale_close_delay": "+15s"},
        "engine": {"type": "redis", "redis": {"prefix": "shop:push"}},
        "channel": {"without_namespace": {"channel_regex": "^\\w{1,20}$"}}}"#;
    let (config, _) = load_text(".json", text).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((config.http.port, config.http.internal_port), (8000, None));
    assert_eq!(config.websocket.path.as_deref(), Some("/ws"));
    assert_eq!(config.api.path.as_deref(), Some("/push/api"));
    assert_eq!(config.rules.client.stale_close_delay_ms, 15_000);
    let regex = config.rules.channels.without_namespace.channel_regex.as_ref().unwrap();
    assert!(regex.is_match("news") && !regex.is_match("n\u{e4}chste"));
    // Without an address, the internal endpoints are not on more addresses than the public ones.
    let text = r#"{"http_server": {"address": "127.0.0.1", "internal_port": 9000}}"#;
    let (config, _) = load_text(".json", text).unwrap();
    assert_eq!(config.http.internal_address, "127.0.0.1");
}

#[test]
fn misspelled_variables_are_reported() {
    let load = |name: &str, value: &str| {
        load(&Source { environment: pairs(&[(name, value)]), ..Source::default() })
    };
    let (_, warnings) = load("tidings_client_insecure", "true").unwrap();
    let reported =
        warnings.iter().find(|warning| warning.key == "tidings_client_insecure").unwrap();
    assert!(reported.text.contains("TIDINGS_CLIENT_INSECURE"), "{reported}");
    let (_, warnings) = load("TIDINGS_NODE_NAME", "'one'").unwrap();
    let reported = warnings.iter().find(|warning| warning.key == "node.name").unwrap();
    assert!(reported.text.contains("quotation mark"), "{reported}");
    let (config, _) =
        load("TIDINGS_CHANNEL_NAMESPACES", r#"{"Name": "chat", "presence": "1"}"#).unwrap();
    assert!(config.rules.channels.namespaces["chat"].presence);
    let refused = load("TIDINGS_CHANNEL_NAMESPACES", r#"{"name": "chat""#).unwrap_err().to_string();
    assert!(refused.contains("is not JSON"), "{refused}");
}
