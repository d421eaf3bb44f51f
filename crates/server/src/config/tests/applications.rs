//! Configurations such as applications of the compatible server have: those with supported features
//! are accepted, the others name the features that are not supported, and nothing else.

use super::*;

/// Configurations, and the keys of all mistakes and warnings about them.
#[rustfmt::skip]
const APPLICATIONS: &[(&str, &[&str], &[&str])] = &[
    // Backends decide on everything; there is no token.
    (
        r#"{"engine": {"type": "redis", "redis": {"address": "redis://cache:6379", "prefix": "shop"}},
            "http_server": {"address": "127.0.0.1"}, "health": {"enabled": true},
            "client": {"proxy": {"connect": {"enabled": true, "endpoint": "http://app:8000/connect"}}},
            "channel": {"proxy": {"subscribe": {"endpoint": "http://app:8000/subscribe", "include_connection_meta": true}},
                "namespaces": [{"name": "team", "subscribe_proxy_enabled": true}]}}"#,
        &[], &[],
    ),
    // The same, and proxies for publications and methods.
    (
        r#"{"http_server": {"address": "127.0.0.1"},
            "client": {"allowed_origins": ["*"], "proxy": {"connect": {"enabled": true, "endpoint": "http://app/connect", "timeout": "3s"}}},
            "channel": {"without_namespace": {"history_size": 20, "history_ttl": "120s", "force_recovery": true},
                "proxy": {"subscribe": {"endpoint": "http://app/subscribe"}, "publish": {"endpoint": "http://app/publish", "timeout": "5s"}},
                "namespaces": [{"name": "chat", "subscribe_proxy_enabled": true, "publish_proxy_enabled": true, "allow_publish_for_client": true},
                    {"name": "position", "subscribe_proxy_enabled": true, "history_size": 0, "history_ttl": "0s", "force_recovery": false}]},
            "rpc": {"proxy": {"endpoint": "http://app/rpc"}, "namespaces": [{"name": "typing", "proxy_enabled": true}]},
            "admin": {"enabled": true, "password": "a", "secret": "b"}}"#,
        &["admin.enabled"], &["channel.namespaces[0].publication_data_format", "client.allowed_origins"],
    ),
    // A chat with tokens and limits.
    (
        r#"{"http_server": {"port": 8000, "address": "127.0.0.1"}, "log": {"level": "info"}, "admin": {"enabled": false},
            "http_api": {"key": "0d9c8b7a6f5e4d3c2b1a"},
            "client": {"token": {"hmac_secret_key": "5f2b8c0e9d4a7163f0e1d2c3b4a59687"},
                "allowed_origins": ["http://localhost:3000"], "user_connection_limit": 5, "connection_limit": 1000, "connection_rate_limit": 50},
            "channel": {"namespaces": [{"name": "chat", "history_size": 300, "history_ttl": "600s", "force_recovery": true, "presence": true, "join_leave": false}]}}"#,
        &[], &[],
    ),
    // An outbox in PostgreSQL, and proxies that are prepared and not switched on.
    (
        r#"{"http_server": {"address": "127.0.0.1"},
            "client": {"token": {"hmac_secret_key": "5f2b8c0e9d4a7163f0e1d2c3b4a59687"},
                "proxy": {"connect": {"endpoint": "http://app/connect", "http": {"static_headers": {"X-Secret": "s"}}}}},
            "channel": {"namespaces": [{"name": "news"}], "proxy": {"subscribe": {"endpoint": "http://app/subscribe"}}},
            "consumers": [{"enabled": true, "name": "outbox", "type": "postgresql",
                "postgresql": {"dsn": "postgres://app@db/app", "outbox_table_name": "push_outbox", "num_partitions": 1}}]}"#,
        &[], &["channel.proxy.subscribe.endpoint", "client.proxy.connect.endpoint"],
    ),
    // Transports that are not supported.
    (
        r#"{"http_server": {"address": "127.0.0.1"}, "debug": {"enabled": true}, "uni_http_stream": {"enabled": true}, "uni_sse": {"enabled": true},
            "client": {"token": {"hmac_secret_key": "5f2b8c0e9d4a7163f0e1d2c3b4a59687"}}}"#,
        &["debug.enabled", "uni_http_stream.enabled", "uni_sse.enabled"], &[],
    ),
];

#[test]
fn applications_bring_their_configurations() {
    for (text, mistakes, warnings) in APPLICATIONS {
        let (found, warned) = match load_text(".json", text) {
            Ok((_, warnings)) => (Vec::new(), warnings),
            Err(refused) => (refused.mistakes, refused.warnings),
        };
        let mut found: Vec<&str> = found.iter().map(|mistake| &*mistake.key).collect();
        found.sort_unstable();
        assert_eq!(found, *mistakes, "{text}");
        let mut warned: Vec<&str> = warned.iter().map(|warning| &*warning.key).collect();
        warned.sort_unstable();
        assert_eq!(warned, *warnings, "{text}");
    }
}
