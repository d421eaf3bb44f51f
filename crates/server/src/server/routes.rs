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

use crate::admission::Admission;
use crate::api;
use crate::cluster::node::Node;
use crate::config::Config;
use crate::demo;
use crate::grpc::{self, GrpcAdapter};
use crate::listener::{self, Sockets};
use crate::listeners::ServedRoutes;
use crate::service::Service;
use crate::service::gate::{ApiGate, KeyCheck};
use crate::service::keys::ApiKeys;
use crate::telemetry::{self, NodeReport};

/// Keys of both forms of the server API.
pub(super) struct KeySets {
    pub(super) http: Arc<ApiKeys>,
    pub(super) grpc: Arc<ApiKeys>,
}

impl KeySets {
    pub(super) fn of(config: &Config) -> KeySets {
        let grpc = config.grpc_api.as_ref().map_or(&[][..], |grpc| &grpc.keys);
        KeySets {
            http: Arc::new(ApiKeys::new(&config.api.keys)),
            grpc: Arc::new(ApiKeys::new(grpc)),
        }
    }

    /// Replaces the keys for requests from now on.
    pub(super) fn replace(&self, config: &Config) {
        self.http.replace(&config.api.keys);
        // Whether gRPC is served is decided at the start.
        if let Some(grpc) = &config.grpc_api {
            self.grpc.replace(&grpc.keys);
        }
    }
}

/// Routes of a started server.
pub(super) fn routes(
    config: &Config,
    node: &Arc<Node>,
    admission: Arc<Admission>,
    service: &Arc<Service>,
    keys: &KeySets,
) -> ServedRoutes {
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
            backends: node.backends.clone(),
        };
        outside = outside
            .merge(Router::new().route(path, any(listener::upgrade)).with_state(Arc::new(sockets)));
    }
    if config.demo {
        outside = outside.merge(demo::routes());
    }
    if let Some(path) = &config.api.path {
        let check = match config.api.insecure {
            true => KeyCheck::Off,
            false => KeyCheck::Required(keys.http.clone()),
        };
        let api = Arc::new(api::ApiState {
            service: service.clone(),
            gate: ApiGate::new(node.clone(), check),
            error_mode: config.api.error_mode,
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
    let grpc = config.grpc_api.as_ref().map(|grpc| {
        let check = match grpc.insecure {
            true => KeyCheck::Off,
            false => KeyCheck::Required(keys.grpc.clone()),
        };
        let gate = ApiGate::new(node.clone(), check);
        grpc::routes(&GrpcAdapter::new(service.clone(), gate, grpc), node, grpc)
    });
    ServedRoutes { outside: finish(outside), inside: finish(inside), grpc }
}

async fn not_with_this_method() -> impl IntoResponse {
    (StatusCode::METHOD_NOT_ALLOWED, "use GET for this path\n")
}

pub(super) async fn ready(State(node): State<Arc<Node>>) -> impl IntoResponse {
    match node.unready_reason() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
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
                    sinks: node.events.stats(),
                    backends: node.backends.stats(),
                },
            );
            let kind = [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
            (kind, page).into_response()
        }
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    }
}
