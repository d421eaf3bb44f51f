//! The health service of gRPC: what `/ready` says over HTTP.
//!
//! Invariant: each answer is the state at that moment. A watch ends when the server stops.

use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::middleware::{map_request, map_response};
use axum::response::Response;
use futures_util::Stream;
use futures_util::stream::unfold;
use hyper::HeaderMap;
use tokio::time::sleep;
use tonic::{Code, Request, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer, SERVICE_NAME};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::deadline_body::with_deadline;
use super::descriptions::{compatible, own};
use super::path;
use crate::cluster::node::Node;
use crate::limits::GRPC_HEALTH_INTERVAL;
use crate::listener::LongLived;

/// Services whose health can be asked for; the empty name is the server.
const SERVICES: [&str; 3] = [
    "",
    compatible::centrifugo_api_server::SERVICE_NAME,
    own::tidings_service_server::SERVICE_NAME,
];

struct NodeHealth(Arc<Node>);

/// The routes of the service.
pub(super) fn routes(node: &Arc<Node>) -> Router {
    let service = HealthServer::new(NodeHealth(node.clone()));
    Router::new()
        .route_service(&path(SERVICE_NAME), service)
        .layer(map_request(with_deadline))
        .layer(map_response(endless))
}

/// Marks a response as long-lived: its peer ends it.
pub(super) async fn endless(mut response: Response) -> Response {
    let mut trailers = HeaderMap::new();
    // Cannot fail: the status has no metadata.
    let _always =
        Status::new(Code::Unavailable, "the server is shutting down").add_header(&mut trailers);
    response.extensions_mut().insert(LongLived(trailers));
    response
}

impl NodeHealth {
    fn status(&self) -> HealthCheckResponse {
        let status = match self.0.unready_reason() {
            None => ServingStatus::Serving,
            Some(_) => ServingStatus::NotServing,
        };
        HealthCheckResponse { status: status.into() }
    }
}

fn check_name(service: &str) -> Result<(), Status> {
    match SERVICES.contains(&service) {
        true => Ok(()),
        false => Err(Status::not_found("no such service")),
    }
}

#[tonic::async_trait]
impl Health for NodeHealth {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<HealthCheckResponse>, Status> {
        check_name(&request.get_ref().service)?;
        Ok(tonic::Response::new(self.status()))
    }

    type WatchStream =
        Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send + 'static>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<Self::WatchStream>, Status> {
        check_name(&request.get_ref().service)?;
        let node = NodeHealth(self.0.clone());
        let changes = unfold(None, move |told: Option<HealthCheckResponse>| {
            let node = NodeHealth(node.0.clone());
            async move {
                loop {
                    let status = node.status();
                    if told.as_ref() != Some(&status) {
                        return Some((Ok(status), Some(status)));
                    }
                    sleep(GRPC_HEALTH_INTERVAL).await;
                }
            }
        });
        Ok(tonic::Response::new(Box::pin(changes)))
    }
}
