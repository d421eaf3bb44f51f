//! Backends in configurations: what is found, and every mistake with its key.

use super::*;

fn mistakes_of(text: &str) -> String {
    let refused = load_text(".json", text).unwrap_err();
    let lines = refused.mistakes.iter().map(|one| format!("{}: {}\n", one.key, one.text));
    lines.collect()
}

#[test]
fn backends_that_are_used_are_found() {
    let text = r#"{
        "client": {"proxy": {"connect": {"enabled": true, "endpoint": "http://api:8000/c",
            "http_headers": ["Cookie"], "emulated_headers": ["Authorization"]}}},
        "channel": {
            "proxy": {"subscribe": {"endpoint": "https://api/s", "timeout": "2s"},
                "publish": {"endpoint": ""}},
            "namespaces": [
                {"name": "one", "subscribe_proxy_enabled": true},
                {"name": "two", "publish_proxy_enabled": true, "publish_proxy_name": "orders"}
            ]
        },
        "rpc": {"namespaces": [{"name": "order", "proxy_enabled": true, "proxy_name": "orders"}],
            "ping": {"enabled": true}},
        "proxies": [{"name": "orders", "endpoint": "grpc://orders:10000",
            "http": {"status_to_code_transforms":
                [{"status_code": 403, "to_error": {"code": 403, "message": "no"}}]}}]
    }"#;
    let (config, _) = load_text(".json", text).unwrap_or_else(|error| panic!("{error}"));
    let backends: Vec<String> = config
        .proxies
        .backends
        .values()
        .map(|one| format!("{} {:?}", one.name, one.address))
        .collect();
    expect![[r#"
        [
            "client.proxy.connect http://api:8000/c",
            "channel.proxy.subscribe https://api/s",
            "proxies.orders grpc://orders:10000",
        ]
    "#]]
    .assert_debug_eq(&backends);
    let rules = &config.rules;
    assert_eq!(rules.channels.namespaces["one"].subscribe_proxy.as_deref(), Some("default"));
    assert_eq!(rules.channels.namespaces["two"].publish_proxy.as_deref(), Some("orders"));
    assert_eq!(rules.channels.namespaces["two"].subscribe_proxy, None);
    assert_eq!(rules.rpc.namespaces["order"].as_deref(), Some("orders"));
    assert_eq!(rules.rpc.ping_method.as_deref(), Some("ping"));
    assert!(rules.client.connect_proxy && !rules.client.refresh_proxy);
    assert_eq!(rules.client.emulated_headers, ["authorization"]);
}

#[test]
fn mistakes_name_the_key() {
    let text = r#"{
        "client": {"proxy": {
            "connect": {"enabled": true, "share_answers": "channel", "endpoint": "http://a"},
            "refresh": {"enabled": true, "endpoint": "ftp://secret@api"}}},
        "channel": {
            "without_namespace": {"subscribe_proxy_enabled": true},
            "namespaces": [{"name": "one", "publish_proxy_enabled": true, "publish_proxy_name": "nope"}]
        },
        "rpc": {"without_namespace": {"proxy_enabled": true, "proxy_name": "order"},
            "namespaces": [{"name": "x"}, {"name": "yy"}, {"name": "yy"}]},
        "proxies": [
            {"name": "default", "endpoint": "http://a"},
            {"name": "orders", "endpoint": "http://a", "timeout": "0s", "max_concurrency": 0},
            {"name": "orders", "endpoint": "http://a b"},
            {"name": "x", "endpoint": "http://a", "breaker": {"when_open": "allow"}},
            {"name": "tls", "endpoint": "https://a", "http_headers": ["Host", "a b"],
                "http": {"tls": {"enabled": true, "server_ca_pem": "/nowhere.pem", "cert_pem": "x"},
                    "static_headers": {"X": "line\nsecret"},
                    "status_to_code_transforms": [{"status_code": 7}, {"status_code": 403}]}}
        ]
    }"#;
    let mistakes = mistakes_of(text);
    assert!(!mistakes.contains("secret"), "{mistakes}");
    expect![[r#"
        proxies[0].name: "default" is reserved for the proxies in channel.proxy and rpc.proxy: choose another name
        proxies[1].timeout: must not be 0: a call would never succeed
        proxies[1].max_concurrency: must not be 0: no call could be made
        proxies[2].name: "orders" is used twice: rename one of the proxies
        proxies[2].endpoint: is not a URL with a host
        proxies[3].name: expected at least two letters, digits, '-', '_' or '.', not "x"
        proxies[3].breaker.when_open: "allow" needs share_answers, which says whose answer may be given again
        proxies[4].http_headers: "Host" is not the name of a header that can be forwarded
        proxies[4].http_headers: "a b" is not the name of a header that can be forwarded
        proxies[4].http.tls.server_ca_pem: cannot be read from /nowhere.pem: No such file or directory (os error 2)
        proxies[4].http.tls.cert_pem: cannot be read from x: No such file or directory (os error 2)
        proxies[4].http.tls.cert_pem: cert_pem and key_pem are required together
        proxies[4].http.static_headers: "X" is not a header that can be sent
        proxies[4].http.status_to_code_transforms[0].status_code: is required: a status of 100 to 599
        proxies[4].http.status_to_code_transforms[1].to_error.code: to_error.code or to_disconnect.code is required
        client.proxy.connect.share_answers: "channel" is for subscribe questions: all clients would be one user
        client.proxy.refresh.endpoint: must begin with http://, https:// or grpc://
        channel.namespaces[0].publish_proxy_name: there is no proxy "nope" in proxies; the names are "default", "orders", "tls", "x"
        channel.proxy.subscribe.endpoint: is required, such as "http://localhost:3000/connect" or "grpc://localhost:3000"
        rpc.without_namespace.proxy_name: there is no proxy "order" in proxies; the names are "default", "orders", "tls", "x"
        rpc.namespaces[0].name: expected at least two letters, digits, '-', '_' or '.', not "x"
        rpc.namespaces[2].name: "yy" is used twice: rename one of the namespaces
    "#]].assert_eq(&mistakes);
}
