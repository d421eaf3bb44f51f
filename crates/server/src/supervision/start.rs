//! HTTP answers of a server that is starting: alive, and not ready with the reason.
//!
//! Invariant: all other requests are answered with 503 and `Retry-After`.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::IntoResponse;
use axum::routing::get;

/// The reason for which a start is not finished.
pub(crate) struct Starting {
    reason: Mutex<String>,
}

impl Starting {
    pub(crate) fn new() -> Arc<Starting> {
        Arc::new(Starting { reason: Mutex::new("starting".to_owned()) })
    }

    /// Sets the reason.
    pub(crate) fn waits_for(&self, reason: &str) {
        reason.clone_into(&mut self.reason.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Routes while starting. `health` is the path of the liveness check, if configured.
    pub(crate) fn routes(self: &Arc<Starting>, health: Option<&str>) -> Router {
        let mut router = Router::new();
        if let Some(path) = health {
            router = router.route(path, get(async || "ok\n")).route("/ready", get(not_ready));
        }
        router.fallback(not_ready).with_state(self.clone())
    }
}

async fn not_ready(State(starting): State<Arc<Starting>>) -> impl IntoResponse {
    let reason = starting.reason.lock().unwrap_or_else(PoisonError::into_inner).clone();
    (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")], format!("{reason}\n"))
}
