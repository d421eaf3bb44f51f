//! Options of events to other systems.

use super::*;

#[test]
fn a_sink_is_resolved_without_secrets_in_sight() {
    let secret = "whsec_aGlkZGVuIHNlY3JldCBmb3IgdGVzdHMgb2YgdGhlIG9wdGlvbnM=";
    let text = format!(
        r#"{{"events": [
        {{"name": "off"}},
        {{"name": "backend", "enabled": true, "include": ["online", "occupied"],
            "channels": ["chat:*"], "webhook": {{"endpoint": "https://backend/events",
            "secret": "{secret}", "previous_secret": "{secret}",
            "static_headers": {{"X-Key": "hidden-value"}}}}}}
    ]}}"#
    );
    let (config, _) = load_text(".json", &text).unwrap_or_else(|error| panic!("{error}"));
    let [sink] = &config.events[..] else { panic!("one is enabled") };
    assert!((sink.takes_channel)("chat:a") && !(sink.takes_channel)("news"));
    assert_eq!(sink.batch_max, 500);
    let reports = config.rules.client.reports;
    assert!(reports.clients && reports.subscriptions);
    let shown = format!("{config:?}");
    assert!(!shown.contains("hidden-value") && !shown.contains(&secret[6..]), "{shown}");
}

#[test]
fn nothing_is_reported_without_a_sink_that_wants_it() {
    let sink = |include: &str| {
        let text = format!(
            r#"{{"events": [{{"name": "backend", "enabled": true, "include": [{include}],
            "webhook": {{"endpoint": "http://backend",
            "secret": "whsec_aGlkZGVuIHNlY3JldCBmb3IgdGVzdHMgb2YgdGhlIG9wdGlvbnM="}}}}]}}"#
        );
        let (config, _) = load_text(".json", &text).unwrap_or_else(|error| panic!("{error}"));
        let reports = config.rules.client.reports;
        (reports.clients, reports.subscriptions)
    };
    assert_eq!(sink(r#""node_joined""#), (false, false));
    assert_eq!(sink(r#""offline""#), (true, false));
    assert_eq!(sink(r#""vacated""#), (false, true));
}

#[test]
fn mistakes_of_sinks_name_their_keys() {
    let text = r#"{"events": [
        {"name": "a"},
        {"name": "same"}, {"name": "same", "enabled": true, "include": ["onlin"],
            "channels": ["[x"], "batch_max_events": 0, "queue_max_size": 100,
            "webhook": {"endpoint": "backend:80", "secret": "hunter2", "timeout": "0s"}},
        {"name": "bare", "enabled": true, "include": [], "webhook": {
            "endpoint": "http://backend", "previous_secret": "whsec_c2hvcnQ=",
            "static_headers": {"content-length": "5"}}}
    ]}"#;
    let mistakes = load_text(".json", text).unwrap_err();
    expect![[r#"
        13 mistakes in the configuration:
          events[0].name (line 2): expected at least two letters, digits or underscores, not "a"
          events[2].name (line 3): "same" is used twice: rename one of the sinks
          events[2].include (line 3): "onlin": expected some of online, offline, subscribed, unsubscribed, occupied, vacated, node_joined, node_draining, node_left, node_heartbeat
          events[2].channels (line 4): "[x": the pattern is not a glob such as chat:*
          events[2].batch_max_events (line 4): must be at least 1
          events[2].queue_max_size (line 4): must be at least 65536 bytes
          events[2].webhook.endpoint (line 5): expected a URL such as "https://backend.example/events"
          events[2].webhook.timeout (line 5): must not be 0: a request would never succeed
          events[2].webhook.secret (line 5): expected whsec_ and base64, as `echo whsec_$(openssl rand -base64 32)` makes it, not the value given
          events[3].include (line 6): names no event: the sink would get nothing
          events[3].webhook.secret (line 6): expected whsec_ and base64, as `echo whsec_$(openssl rand -base64 32)` makes it, not the value given
          events[3].webhook.previous_secret (line 7): expected 24 to 64 bytes in base64 behind whsec_
          events[3].webhook.static_headers (line 8): "content-length" is not a header that can be sent"#]].assert_eq(&mistakes.to_string());
}

const SECRET: &str = "whsec_aGlkZGVuIHNlY3JldCBmb3IgdGVzdHMgb2YgdGhlIG9wdGlvbnM=";

/// A configuration with one enabled sink.
fn with_sink(options: &str, webhook: &str) -> String {
    format!(
        r#"{{"events": [{{"name": "backend", "enabled": true{options},
        "webhook": {{"secret": "{SECRET}", {webhook}}}}}]}}"#
    )
}

#[test]
fn user_information_of_an_endpoint_is_sent_as_a_header() {
    let text = with_sink("", r#""endpoint": "https://u:hidden@backend/events""#);
    let (config, _) = load_text(".json", &text).unwrap_or_else(|error| panic!("{error}"));
    let ::events::SinkTarget::Webhook(webhook) = &config.events[0].target;
    assert_eq!(webhook.uri.to_string(), "https://backend/events");
    assert_eq!(webhook.headers["authorization"], "Basic dTpoaWRkZW4=");
    assert!(!format!("{config:?}").contains("dTpoaWRkZW4="));
}

#[test]
fn endpoints_and_queues_that_cannot_work_are_refused() {
    let mistake = |options: &str, webhook: &str| {
        let text = with_sink(options, webhook);
        load_text(".json", &text).unwrap_err().to_string()
    };
    let port = mistake("", r#""endpoint": "http://backend:abc/""#);
    assert!(port.contains("events[0].webhook.endpoint (line 2): expected a URL"), "{port}");
    let tls = mistake("", r#""endpoint": "http://localhost", "tls": {"enabled": true}"#);
    assert!(tls.contains("events[0].webhook.tls.enabled (line 2): needs an endpoint"), "{tls}");
    let queue = mistake(r#", "queue_max_size": 65536"#, r#""endpoint": "https://backend""#);
    assert!(
        queue.contains("events[0].queue_max_size (line 1): must be at least 512000"),
        "{queue}"
    );
}

#[test]
fn sinks_that_are_off_or_readable_by_others_cause_a_warning() {
    let warned = |text: &str| {
        let (_, warnings) = load_text(".json", text).unwrap_or_else(|error| panic!("{error}"));
        let mut kinds = warnings.into_iter().filter(|warning| warning.key.starts_with("events"));
        let first = kinds.next().map(|warning| (warning.kind, warning.key));
        assert_eq!(kinds.next(), None);
        first
    };
    let key = "events[0].webhook.endpoint".to_owned();
    let plain = with_sink("", r#""endpoint": "http://backend/events""#);
    assert_eq!(warned(&plain), Some((WarningKind::Exposed, key.clone())));
    let off = plain
        .replace(r#""enabled": true,"#, "")
        .replace(r#""enabled": true"#, r#""type": "webhook""#);
    assert_eq!(warned(&off), Some((WarningKind::Contradiction, key)));
    assert_eq!(warned(&plain.replace("true", "false")), None);
    for address in ["http://localhost:3000", "http://[::1]/", "https://backend"] {
        assert_eq!(warned(&with_sink("", &format!(r#""endpoint": "{address}""#))), None);
    }
}
