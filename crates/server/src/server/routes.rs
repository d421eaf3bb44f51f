//! HTTP routes of a running server: WebSocket, demo, API, health, readiness and metrics.
//!
//! Invariant: API, health and metrics are served on the internal port where there is one.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::{any, get};
use brokers::Health;

use crate::admission::Admission;
use crate::api::{self, ApiKeys};
use crate::cluster::node::Node;
use crate::config::Config;
use crate::demo;
use crate::listener::{self, Sockets};
use crate::service::Service;
use crate::telemetry::{self, NodeReport};

/// Routes for clients, and routes for operators and backends.
pub(super) fn routes(
    config: &Config,
    node: &Arc<Node>,
    admission: Arc<Admission>,
    service: &Arc<Service>,
    api_keys: &Arc<ApiKeys>,
) -> (Router, Router) {
    let mut outside = Router::new();
    let mut inside = Router::new();
    if let Some(path) = &config.websocket.path {
        let sockets = Sockets {
            workers: node.workers.clone(),
            admission,
            node: node.clone(),
            origins: config.admission.origins.clone(),
            clock: node.clock,
            counts: node.counts.clone(),
            throttle: node.throttle.clone(),
            allows_deflate: config.websocket.compression,
            user_header: config.admission.user_id_http_header.clone(),
        };
        outside = outside
            .merge(Router::new().route(path, any(listener::upgrade)).with_state(Arc::new(sockets)));
    }
    if config.demo {
        outside = outside.merge(demo::routes());
    }
    if let Some(path) = &config.api.path {
        let api = Arc::new(api::ApiState {
            service: service.clone(),
            node: node.clone(),
            settings: config.api.clone(),
            keys: api_keys.clone(),
        });
        if config.api.external && config.http.internal_listen_on().is_some() {
            outside = outside.merge(api::routes(path, api.clone()));
        }
        inside = inside.merge(api::routes(path, api));
    }
    if let Some(path) = &config.health {
        inside = inside
            .route(path, get(async || "ok\n"))
            .merge(Router::new().route("/ready", get(ready)).with_state(node.clone()));
    }
    if let Some(path) = &config.metrics {
        inside = inside.merge(Router::new().route(path, get(metrics)).with_state(node.clone()));
    }
    let finish = |router: Router| router.method_not_allowed_fallback(not_with_this_method);
    [outside, inside].map(finish).into()
}

async fn not_with_this_method() -> impl IntoResponse {
    (StatusCode::METHOD_NOT_ALLOWED, "use GET for this path\n")
}

pub(super) async fn ready(State(node): State<Arc<Node>>) -> impl IntoResponse {
    if !node.is_ready() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n".to_owned());
    }
    if let Some(reason) = node.faults.reason() {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n"));
    }
    match node.broker.health() {
        Health::Ready => (StatusCode::OK, "ready\n".to_owned()),
        Health::Unready { reason, .. } => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

async fn metrics(State(node): State<Arc<Node>>) -> impl IntoResponse {
    match node.totals().await {
        Ok(totals) => {
            let page = telemetry::render(
                &totals,
                &node.counts,
                &node.broker,
                &node.usage,
                &NodeReport {
                    uptime_seconds: node.uptime_seconds(),
                    consumers: node.consumers.snapshots(),
                },
            );
            let kind = [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
            (kind, page).into_response()
        }
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    }
}
