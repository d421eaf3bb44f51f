//! Addresses and paths: where a server may be found, and that no two things are at one path.
//!
//! Invariant: what passes here can be routed; a router that meets one path twice panics.

use std::net::IpAddr;

use super::resolve::Complaints;
use super::{Config, HttpServer};

/// Whoever reaches a server in development mode gets in.
pub(super) fn check_loopback(http: &HttpServer, mistakes: &mut Complaints) {
    for (key, address) in [
        ("http_server.address", &http.address),
        ("http_server.internal_address", &http.internal_address),
    ] {
        let is_loopback = match address.parse::<IpAddr>() {
            Ok(address) => address.is_loopback(),
            Err(_) => address == "localhost",
        };
        if !is_loopback {
            let text = "without a configuration file the server is in development mode, which is for this machine \
                        only (127.0.0.1); to serve others, write a file (tidings sample-config)";
            mistakes.push((key.to_owned(), text.to_owned()));
        }
    }
}

/// Paths must be paths, and no two may be the same, also not one that the server adds by itself.
pub(super) fn check_paths(config: &Config, mistakes: &mut Complaints) {
    let paths = [
        ("websocket.handler_prefix", config.websocket.path.as_deref()),
        ("http_api.handler_prefix", config.api.path.as_deref()),
        ("health.handler_prefix", config.health.as_deref()),
        ("prometheus.handler_prefix", config.metrics.as_deref()),
    ];
    let mut taken: Vec<(String, String)> = Vec::new();
    if config.health.is_some() {
        taken.push(("/ready".to_owned(), "the readiness check".to_owned()));
    }
    if let Some(api) = &config.api.path {
        taken.push((format!("{api}/openapi.json"), "the description of the server API".to_owned()));
    }
    if config.demo {
        taken.extend(crate::demo::paths().map(|path| (path.to_owned(), "the demo".to_owned())));
    }
    for (key, path) in paths {
        let Some(path) = path else { continue };
        let is_path = path.starts_with('/')
            && path.len() > 1
            && !path.ends_with('/')
            && path.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b));
        if !is_path {
            let text = format!("expected a path such as \"/metrics\", not {path:?}");
            mistakes.push((key.to_owned(), text));
        }
        if let Some((_, other)) = taken.iter().find(|(taken, _)| taken == path) {
            mistakes.push((key.to_owned(), format!("is the same as {other}")));
        }
        taken.push((path.to_owned(), key.to_owned()));
    }
}
