//! What a server answers before it has started: it lives, and is not ready, and why.
//!
//! Invariant: whoever asks for anything else is told to come back.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::IntoResponse;
use axum::routing::get;

/// See the module.
pub(crate) struct Starting {
    reason: Mutex<String>,
}

impl Starting {
    pub(crate) fn new() -> Arc<Starting> {
        Arc::new(Starting { reason: Mutex::new("starting".to_owned()) })
    }

    /// What is waited for.
    pub(crate) fn waits_for(&self, reason: &str) {
        reason.clone_into(&mut self.reason.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The answers; the liveness check is at `health`.
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
