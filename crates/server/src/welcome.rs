//! The page at `/` if the demo is disabled, and the answer at paths without a route.
//!
//! Invariant: a page lists only endpoints of its own port, so that the public port does not
//! disclose internal endpoints.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::http::header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};

use crate::config::Config;

/// Endpoints that a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    /// All endpoints; there is no internal port.
    Only,
    /// Endpoints for clients.
    Public,
    /// Endpoints for backends and operators (`http_server.internal_port`).
    Internal,
}

/// The pages at `/`, indexed by [`Port`].
pub(crate) struct Welcome([Arc<str>; 3]);

impl Welcome {
    pub(crate) fn of(config: &Config) -> Welcome {
        Welcome([Port::Only, Port::Public, Port::Internal].map(|port| page(config, port).into()))
    }

    /// Adds the page, and an answer for paths without a route, to the router of a listener.
    pub(crate) fn with_fallback(&self, router: Router, port: Port) -> Router {
        let page = self.0[port as usize].clone();
        router.fallback(move |uri: Uri| {
            let page = page.clone();
            async move { answer(&uri, &page) }
        })
    }
}

fn answer(uri: &Uri, page: &str) -> Response {
    let headers =
        [(CONTENT_TYPE, "text/plain; charset=utf-8"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    match uri.path() {
        "/" => (StatusCode::OK, headers, page.to_owned()).into_response(),
        _ => (StatusCode::NOT_FOUND, headers, NOTHING_HERE).into_response(),
    }
}

const NOTHING_HERE: &str = "there is nothing at this path\n";

fn page(config: &Config, port: Port) -> String {
    let mut text = "Tidings, a real-time message push server.\n\nServed here:\n".to_owned();
    let api_path = config.api.path.as_deref();
    let is_inside = port != Port::Public;
    let endpoints = [
        (
            config.websocket.path.as_deref().filter(|_| port != Port::Internal),
            "WebSocket of clients",
        ),
        (
            api_path.filter(|_| is_inside || config.api.external),
            "server API, for backends with a key",
        ),
        (config.health.as_deref().filter(|_| is_inside), "liveness"),
        (config.health.as_ref().filter(|_| is_inside).map(|_| "/ready"), "readiness"),
        (config.metrics.as_deref().filter(|_| is_inside), "metrics"),
    ];
    for (path, what) in endpoints.iter().filter_map(|(path, what)| Some(((*path)?, what))) {
        let _infallible = writeln!(text, "  {path:<28} {what}");
    }
    if port != Port::Internal && !config.demo {
        text.push_str(DEMO_IS_OFF);
    }
    text
}

const DEMO_IS_OFF: &str = r#"
The demo page is off. To see it here, put these lines into the configuration; they also let users without a token in, who may
do everything in channels that begin with demo: and nothing elsewhere:

  [demo]
  enabled = true

  [client]
  allow_anonymous_connect_without_token = true
  allowed_origins = ["http://localhost:*", "http://127.0.0.1:*", "http://[::1]:*"]

Or start tidings without a configuration: development mode serves the demo at http://127.0.0.1:8000/.
"#;
