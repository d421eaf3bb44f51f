//! Checks the URL paths of endpoints.
//!
//! Invariant: the router accepts all paths that pass. It panics if two are equal.

use super::Config;
use super::mistakes::KeyedMistakes;
use super::options::Options;

/// Checks that each path is valid and unique, also among the fixed paths of the server.
pub(super) fn check_paths(config: &Config, options: &Options, mistakes: &mut KeyedMistakes) {
    let paths = [
        (&options.websocket.handler_prefix, config.websocket.path.as_deref()),
        (&options.http_api.handler_prefix, config.api.path.as_deref()),
        (&options.health.handler_prefix, config.health.as_deref()),
        (&options.prometheus.handler_prefix, config.metrics.as_deref()),
    ];
    let mut taken: Vec<(String, String)> = Vec::new();
    if config.health.is_some() {
        taken.push(("/ready".to_owned(), "the readiness check".to_owned()));
    }
    if let Some(api) = &config.api.path {
        let key = &options.http_api.handler_prefix.key;
        let description = format!("the description of the server API below {key}");
        taken.push((format!("{api}/openapi.json"), description));
        taken.extend(crate::API_METHODS.iter().map(|name| {
            (format!("{api}/{name}"), format!("the method {name} of the server API below {key}"))
        }));
    }
    if config.demo {
        taken.extend(crate::demo::paths().map(|path| (path.to_owned(), "the demo".to_owned())));
    }
    for (prefix, path) in paths {
        let Some(path) = path else { continue };
        let is_path = path.starts_with('/')
            && path.len() > 1
            && !path.ends_with('/')
            && path.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b));
        if !is_path {
            let text = format!(
                "expected a path such as \"/metrics\", of slashes, letters, digits, '-', '_' and '.', not {path:?}"
            );
            mistakes.push(prefix.fault(text));
        }
        if let Some((_, other)) = taken.iter().find(|(taken, _)| taken == path) {
            mistakes.push(prefix.fault(format!("is the same as {other}: choose another path")));
        }
        taken.push((path.to_owned(), prefix.key.clone()));
    }
}
