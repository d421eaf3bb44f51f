//! Dangerous options cause a warning with their key, unsafe ones are refused, others are accepted.

use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use super::*;
use WarningKind::{
    Adapted, Contradiction, Exposed, Insecure, Limit, NoEffect, UnknownKey, WeakSecret,
};

/// A configuration without warnings.
const QUIET: &str = r#"{
    "http_server": {"address": "127.0.0.1"},
    "client": {
        "token": {"hmac_secret_key": "5f2b8c0e9d4a7163f0e1d2c3b4a59687"},
        "allowed_origins": ["https://example.com"]
    },
    "http_api": {"key": "0d9c8b7a6f5e4d3c2b1a"}
}"#;

/// [`QUIET`] with changes.
fn with(changes: &str) -> serde_json::Value {
    fn merge(place: &mut serde_json::Value, changes: serde_json::Value) {
        match (place, changes) {
            (serde_json::Value::Object(place), serde_json::Value::Object(changes)) => {
                for (name, value) in changes {
                    merge(place.entry(name).or_insert(serde_json::Value::Null), value);
                }
            }
            (place, value) => *place = value,
        }
    }
    let mut tree = serde_json::from_str(QUIET).unwrap();
    merge(&mut tree, serde_json::from_str(changes).unwrap_or_else(|_| panic!("{changes}")));
    tree
}

fn warnings(changes: &str) -> Vec<Warning> {
    load_text(".json", &with(changes).to_string()).unwrap_or_else(|error| panic!("{error}")).1
}

fn mistakes(changes: &str) -> Vec<Mistake> {
    load_text(".json", &with(changes).to_string()).unwrap_err().mistakes
}

/// Changes of [`QUIET`] that cause one warning, with its kind and key.
const DANGERS: &[(&str, WarningKind, &str)] = &[
    (r#"{"client": {"insecure": true}}"#, Insecure, "client.insecure"),
    (
        r#"{"client": {"insecure_skip_token_signature_verify": true}}"#,
        Insecure,
        "client.insecure_skip_token_signature_verify",
    ),
    (r#"{"http_api": {"insecure": true}}"#, Insecure, "http_api.insecure"),
    (r#"{"presence_manager": {"enabled": true}}"#, Contradiction, "presence_manager.enabled"),
    (r#"{"presence_manager": {"type": "redis"}}"#, Contradiction, "presence_manager.type"),
    (
        r#"{"presence_manager": {"redis": {"address": ["redis://h:6379"]}}}"#,
        Contradiction,
        "presence_manager.redis.address",
    ),
    (
        r#"{"engine": {"type": "redis"}, "broker": {"enabled": true, "type": "nats"},
            "presence_manager": {"redis": {"sentinel_address": ["h:26379"]}}}"#,
        Contradiction,
        "presence_manager.redis.sentinel_address",
    ),
    (
        r#"{"client": {"proxy": {"connect": {"endpoint": "http://h/c"}}}}"#,
        Contradiction,
        "client.proxy.connect.endpoint",
    ),
    (
        r#"{"channel": {"proxy": {"subscribe": {"endpoint": "http://h/s"}},
            "namespaces": [{"name": "chat", "subscribe_proxy_enabled": false}]}}"#,
        Contradiction,
        "channel.proxy.subscribe.endpoint",
    ),
    (r#"{"rpc": {"proxy": {"endpoint": "http://h/r"}}}"#, Contradiction, "rpc.proxy.endpoint"),
    (r#"{"http_server": {"address": ""}}"#, Exposed, "http_server.internal_port"),
    (r#"{"http_server": {"address": "0.0.0.0"}}"#, Exposed, "http_server.internal_port"),
    (
        r#"{"http_server": {"port": 0, "internal_address": "::1"}}"#,
        NoEffect,
        "http_server.internal_address",
    ),
    (r#"{"client": {"allowed_origins": ["*"]}}"#, Exposed, "client.allowed_origins"),
    (r#"{"client": {"allowed_origins": ["https://*"]}}"#, Exposed, "client.allowed_origins"),
    (
        r#"{"client": {"allowed_origins": "*", "user_id_http_header": "X-User"}}"#,
        Insecure,
        "client.allowed_origins",
    ),
    (
        r#"{"client": {"allowed_origins": ["https://*example.com"]}}"#,
        Exposed,
        "client.allowed_origins",
    ),
    (r#"{"client": {"allowed_origins": ["example.com"]}}"#, Adapted, "client.allowed_origins"),
    (
        r#"{"client": {"token": {"hmac_secret_key": "a"}}}"#,
        WeakSecret,
        "client.token.hmac_secret_key",
    ),
    (r#"{"http_api": {"key": "api_key"}}"#, WeakSecret, "http_api.key"),
    (r#"{"http_api": {"key": "5f2b8c0e9d4a7163f0e1d2c3b4a59687"}}"#, WeakSecret, "http_api.key"),
    (
        r#"{"client": {"token": {"hmac_previous_secret_key": "6f2b8c0e9d4a7163f0e1d2c3b4a59687"}}}"#,
        Insecure,
        "client.token.hmac_previous_secret_key",
    ),
    (
        r#"{"client": {"token": {"jwks_public_endpoint": "http://id.example/keys", "audience": "me"}}}"#,
        Insecure,
        "client.token.jwks_public_endpoint",
    ),
    (
        r#"{"client": {"token": {"jwks_public_endpoint": "https://id.example/keys"}}}"#,
        Insecure,
        "client.token.jwks_public_endpoint",
    ),
    (
        r#"{"client": {"token": {"issuer_regex": "id.example.com"}}}"#,
        Insecure,
        "client.token.issuer_regex",
    ),
    (
        r#"{"client": {"subscription_token": {"hmac_secret_key": "x"}}}"#,
        Contradiction,
        "client.subscription_token.hmac_secret_key",
    ),
    (
        r#"{"client": {"token": {"hmac_secret_key": ""}}}"#,
        Contradiction,
        "client.token.hmac_secret_key",
    ),
    (
        r#"{"client": {"allow_anonymous_connect_without_token": true, "disallow_anonymous_connection_tokens": true}}"#,
        Contradiction,
        "client.disallow_anonymous_connection_tokens",
    ),
    (r#"{"websocket": {"disabled": true}}"#, Contradiction, "websocket.disabled"),
    (r#"{"client": {"ping_interval": "0s"}}"#, Limit, "client.ping_interval"),
    (r#"{"client": {"stale_close_delay": "1h"}}"#, Limit, "client.stale_close_delay"),
    (r#"{"websocket": {"message_size_limit": 1000000000}}"#, Limit, "websocket.message_size_limit"),
    (r#"{"client": {"queue_max_size": 1000000000}}"#, Limit, "client.queue_max_size"),
    (
        r#"{"http_server": {"tls": {"cert_pem": "cert.pem"}}}"#,
        Contradiction,
        "http_server.tls.cert_pem",
    ),
    (r#"{"pid_file": "/run/x.pid"}"#, NoEffect, "pid_file"),
    (
        r#"{"http_api": {"keys": [{"name": "billing", "key": "billing1"}]}}"#,
        WeakSecret,
        "http_api.keys[0].key",
    ),
    (r#"{"client": {"trusted_proxies": ["0.0.0.0/0"]}}"#, Insecure, "client.trusted_proxies"),
    (r#"{"client_insecure": true}"#, UnknownKey, "client_insecure"),
    (
        r#"{"client": {"allow_anonymous_connect_without_token": true}, "channel": {"without_namespace":
        {"allow_publish_for_client": true, "allow_publish_for_anonymous": true,
            "publication_data_format": "json"}}}"#,
        Insecure,
        "channel.without_namespace.allow_publish_for_anonymous",
    ),
    (
        r#"{"channel": {"namespaces": [{"name": "chat", "allow_history_for_client": true}]}}"#,
        Contradiction,
        "channel.namespaces[0].history_size",
    ),
    (
        r#"{"channel": {"namespaces": [{"name": "chat", "allow_presence_for_subscriber": true}]}}"#,
        Contradiction,
        "channel.namespaces[0].presence",
    ),
    (
        r#"{"channel": {"namespaces": [{"name": "chat", "force_push_join_leave": true}]}}"#,
        Contradiction,
        "channel.namespaces[0].force_push_join_leave",
    ),
    (
        r#"{"channel": {"namespaces": [{"name": "chat", "allow_subscribe_for_anonymous": true}]}}"#,
        Contradiction,
        "channel.namespaces[0].allow_subscribe_for_anonymous",
    ),
    (
        r#"{"channel": {"namespaces": [{"name": "chat", "history_size": 1000, "history_ttl": "1m",
        "force_recovery": true}]}}"#,
        Contradiction,
        "channel.namespaces[0].history_size",
    ),
    (
        r#"{"channel": {"namespaces": [{"name": "chat", "channel_regex": "[a-z]+"}]}}"#,
        Exposed,
        "channel.namespaces[0].channel_regex",
    ),
];

#[test]
fn dangerous_options_are_reported_with_their_key() {
    assert_eq!(warnings("{}"), []);
    let anywhere = r#""http_server": {"address": "", "internal_port": 9000}"#;
    for &(changes, kind, key) in DANGERS {
        let reported = warnings(changes);
        let [warning] = &reported[..] else { panic!("{changes}: {reported:#?}") };
        assert_eq!((warning.kind, &*warning.key), (kind, key), "{warning}");
    }
    for address in ["unix:/run/tidings.sock", "127.0.0.1"] {
        assert_eq!(warnings(&format!(r#"{{"http_server": {{"address": "{address}"}}}}"#)), []);
    }
    let header = format!(r#"{{{anywhere}, "client": {{"user_id_http_header": "X-User"}}}}"#);
    assert_eq!(warnings(&header)[0].key, "client.user_id_http_header");
    let demo = format!(r#"{{{anywhere}, "demo": {{"enabled": true}}}}"#);
    assert_eq!(warnings(&demo)[0].key, "demo.enabled");
    let no_proxy = r#"{"client": {"token": {"jwks_public_endpoint": "http://127.0.0.1:9/keys", "audience": "me"}}}"#;
    assert_eq!(warnings(no_proxy), []);
}

#[test]
fn no_warning_contains_a_secret() {
    let changes = r#"{"client": {"token": {"hmac_secret_key": "geheim-secret"}}, "http_api": {"key": "geheim"}}"#;
    let reported = warnings(changes);
    assert!(reported.len() == 2 && !format!("{reported:?}").contains("geheim"), "{reported:?}");
}

#[test]
fn the_starter_configuration_has_no_warnings() {
    let random = std::array::from_fn(|index| (index as u8).wrapping_mul(37));
    let (_, warnings) = load_text(".toml", &starter(random)).unwrap();
    assert_eq!(warnings, []);
}

#[test]
fn a_placeholder_that_was_not_replaced_is_a_mistake() {
    for (changes, key, shown) in [
        (
            r#"{"client": {"token": {"hmac_secret_key": "${JWT_SECRET:-hidden}"}}}"#,
            "client.token.hmac_secret_key",
            "${JWT_SECRET}",
        ),
        (r#"{"http_api": {"key": "k-$(API_KEY)"}}"#, "http_api.key", "$(API_KEY)"),
        (r#"{"http_api": {"key": "{{ api.key }}"}}"#, "http_api.key", "{{ api.key }}"),
        (
            r#"{"client": {"allowed_origins": ["https://${HOST}"]}}"#,
            "client.allowed_origins[0]",
            "${HOST}",
        ),
        (
            r#"{"channel": {"namespaces": [{"name": "${NAME}"}]}}"#,
            "channel.namespaces[0].name",
            "${NAME}",
        ),
        (r#"{"admin": {"password": "${PASSWORD}"}}"#, "admin.password", "${PASSWORD}"),
        (r#"{"unheard": {"of": "${X}"}}"#, "unheard.of", "${X}"),
        (r#"{"http_server": {"port": "${PORT}"}}"#, "http_server.port", "${PORT}"),
    ] {
        let reported = mistakes(changes);
        let mistake = reported.iter().find(|one| one.text.contains(shown));
        let mistake = mistake.unwrap_or_else(|| panic!("{changes}: {reported:?}"));
        assert_eq!(mistake.key, key);
        assert!(mistake.text.contains("has not been replaced"), "{mistake}");
        assert!(!format!("{reported:?}").contains("hidden"), "{reported:?}");
    }
    let reported = &mistakes(r#"{"http_api": {"key": "${KEY}"}}"#)[0];
    assert!(reported.text.contains("set TIDINGS_HTTP_API_KEY instead"), "{reported}");
    let environment = pairs(&[("TIDINGS_HTTP_API_KEY", "${KEY}")]);
    let refused = load(&Source { environment, ..Source::default() }).unwrap_err().to_string();
    assert!(refused.contains("http_api.key (TIDINGS_HTTP_API_KEY): contains ${KEY}"), "{refused}");
    // None of these is a placeholder.
    let fine = r#"{
        "client": {"token": {"jwks_public_endpoint": "https://x/{{tenant}}", "issuer_regex": "^https://(?P<tenant>a|b)$"}},
        "channel": {"without_namespace": {"channel_regex": "^a$"}},
        "http_api": {"key": "a$b{c}d0d9c8b7a6f5e$"},
        "proxies": [{"name": "xy", "endpoint": "http://x", "http": {"static_headers": {"K": "${CENTRIFUGO_VAR_K}"}}}]
    }"#;
    load_text(".json", &with(fine).to_string()).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn personal_channels_must_be_closed_to_others() {
    let personal = r#""subscribe_to_user_personal_channel": {"enabled": true"#;
    let open = r#""without_namespace": {"allow_subscribe_for_client": true}"#;
    let reported = mistakes(&format!(r#"{{"client": {{{personal}}}}}, "channel": {{{open}}}}}"#));
    assert_eq!(reported[0].key, "channel.without_namespace.allow_user_limited_channels");
    // If clients may not subscribe without a token, they cannot read the channels of others.
    load_text(".json", &with(&format!(r#"{{"client": {{{personal}}}}}}}"#)).to_string()).unwrap();
    let named = format!(
        r#"{{"client": {{{personal}, "personal_channel_namespace": "user"}}}},
            "channel": {{"namespaces": [{{"name": "chat"}}, {{"name": "user", "allow_subscribe_for_client": true}}]}}}}"#
    );
    assert_eq!(mistakes(&named)[0].key, "channel.namespaces[1].allow_user_limited_channels");
    let closed = named.replace(
        r#""allow_subscribe_for_client": true"#,
        r#""allow_subscribe_for_client": true, "allow_user_limited_channels": true"#,
    );
    let text = with(&closed).to_string();
    let (mut config, _) = load_text(".json", &text).unwrap();
    // Dynamic configuration cannot open it either.
    let opened = br#"{"namespace": "user", "options": {"allow_user_limited_channels": false}}"#;
    let refused = config.changeable.change(opened, &config.rules).unwrap_err();
    assert!(refused.contains("allow_user_limited_channels must be true"), "{refused}");
}

#[test]
fn ambiguous_channel_names_are_mistakes() {
    for (changes, key) in [
        (r##"{"channel": {"namespace_boundary": "#"}}"##, "channel.user_boundary"),
        (r#"{"channel": {"user_boundary": ","}}"#, "channel.user_separator"),
        (r#"{"channel": {"private_prefix": ":"}}"#, "channel.namespace_boundary"),
        (r#"{"channel": {"user_boundary": "\n"}}"#, "channel.user_boundary"),
        (
            r#"{"channel": {"namespace_boundary": "-", "namespaces": [{"name": "my-chat"}]}}"#,
            "channel.namespaces[0].name",
        ),
        (
            r#"{"channel": {"private_prefix": "p", "namespaces": [{"name": "public"}]}}"#,
            "channel.namespaces[0].name",
        ),
    ] {
        let reported = mistakes(changes);
        assert!(reported.iter().any(|one| one.key == key), "{reported:?}");
    }
}

#[test]
fn separators_inside_encoded_user_ids_are_mistakes_with_personal_channels() {
    for key in ["namespace_boundary", "user_boundary", "user_separator"] {
        for (mark, is_mistake) in
            [("%", true), ("2", true), ("-C", true), ("|", false), ("c", false)]
        {
            let changes = |is_on: bool| {
                format!(
                    r#"{{"client": {{"subscribe_to_user_personal_channel": {{"enabled": {is_on}}}}},
                        "channel": {{"{key}": "{mark}"}}}}"#
                )
            };
            let loads =
                |is_on: bool| load_text(".json", &with(&changes(is_on)).to_string()).is_ok();
            assert!(loads(false), "{key} {mark}");
            assert_eq!(loads(true), !is_mistake, "{key} {mark}");
            if is_mistake {
                let reported = mistakes(&changes(true));
                assert_eq!(reported[0].key, format!("channel.{key}"), "{reported:?}");
            }
        }
    }
}

#[test]
fn origins_that_no_browser_sends_are_mistakes() {
    let origins =
        r#"{"client": {"allowed_origins": ["https://", "http://::1:3000", "https://a.example/"]}}"#;
    let reported = mistakes(origins);
    assert_eq!(reported.len(), 2, "{reported:?}");
    assert!(reported.iter().all(|one| one.key == "client.allowed_origins"));
}

#[test]
fn a_certificate_that_expires_is_reported() {
    let key = KeyPair::generate().unwrap();
    let warned = |from: (i32, u8, u8), until: (i32, u8, u8)| {
        let mut parameters = CertificateParams::new(["localhost".to_owned()]).unwrap();
        parameters.not_before = date_time_ymd(from.0, from.1, from.2);
        parameters.not_after = date_time_ymd(until.0, until.1, until.2);
        let pem = parameters.self_signed(&key).unwrap().pem();
        let tls =
            serde_json::json!({"enabled": true, "cert_pem": pem, "key_pem": key.serialize_pem()});
        warnings(&serde_json::json!({"http_server": {"tls": tls}}).to_string())
    };
    assert_eq!(warned((2000, 1, 1), (2100, 1, 1)), []);
    for (from, until, text) in [
        ((2000, 1, 1), (2001, 1, 1), "expired "),
        ((2090, 1, 1), (2100, 1, 1), "becomes valid only in "),
    ] {
        let reported = warned(from, until);
        let [warning] = &reported[..] else { panic!("{reported:?}") };
        assert_eq!(
            (warning.kind, &*warning.key),
            (WarningKind::Certificate, "http_server.tls.cert_pem")
        );
        assert!(warning.text.starts_with(text), "{warning}");
    }
}
