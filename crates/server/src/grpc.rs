//! The server API over gRPC: the compatible service, our own service, health and
//! reflection.
//!
//! Invariant: no message of a call is read before its key, its rate and a place among the calls
//! under way are granted. Translates to the service only.

mod admission;
mod batch;
mod compatible;
mod deadline_body;
mod descriptions;
mod errors;
mod health;
mod methods;
mod own;
mod reflection;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::middleware::from_fn_with_state;
use prost::Message;
use tokio::sync::Semaphore;
use tonic::codec::CompressionEncoding::Gzip;
use tonic::{Request, Status};

use crate::cluster::node::Node;
use crate::config::{ApiKey, ErrorMode, GrpcApi};
use crate::limits::{API_REPLY_FREE, GRPC_CALLS_MAX, GRPC_MESSAGES_SIZE_MAX};
use crate::service::Service;
use crate::service::call::ApiCall;
use crate::service::error::ApiError;
use crate::service::gate::ApiGate;
use crate::service::method::Method;
use compatible::CompatibleService;
use descriptions::compatible::centrifugo_api_server::{CentrifugoApiServer, SERVICE_NAME};
use descriptions::own::tidings_service_server::TidingsServiceServer;
use own::OwnService;

/// State shared by all calls.
pub(crate) struct GrpcAdapter {
    service: Arc<Service>,
    gate: ApiGate,
    /// Form of errors, unless a call names another.
    error_mode: ErrorMode,
    /// Places among the calls under way.
    places: Semaphore,
}

impl GrpcAdapter {
    pub(crate) fn new(service: Arc<Service>, gate: ApiGate, config: &GrpcApi) -> Arc<GrpcAdapter> {
        let places = (GRPC_MESSAGES_SIZE_MAX / config.message_size_max).clamp(1, GRPC_CALLS_MAX);
        let places = Semaphore::new(places);
        Arc::new(GrpcAdapter { service, gate, error_mode: config.error_mode, places })
    }

    /// Caller and error mode of an admitted request, and its message.
    fn accept<T>(&self, request: Request<T>) -> Result<(ApiCall, ErrorMode, T), Status> {
        let key: Option<&Arc<ApiKey>> = request.extensions().get();
        let Some(key) = key else {
            return Err(Status::internal("the call was not admitted"));
        };
        let mode = match request.metadata().get("x-centrifugo-error-mode") {
            Some(mode) if mode == "transport" => ErrorMode::Transport,
            _ => self.error_mode,
        };
        Ok((ApiCall::new(key.clone()), mode, request.into_inner()))
    }

    /// Runs a method and counts its result.
    async fn run<T: Message>(
        &self,
        call: &ApiCall,
        method: Method,
        work: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, ApiError> {
        let mut result = match self.gate.begin(call, method).await {
            Ok(()) => work.await,
            Err(error) => Err(error),
        };
        // Other methods return little, or have reserved space.
        if let Ok(answer) = &result
            && method.is_read()
            && let Err(error) = call.take_room(answer.encoded_len(), API_REPLY_FREE)
        {
            result = Err(error);
        }
        self.gate.end(call, method, result.as_ref().err());
        result
    }
}

/// The routes of a started server.
pub(crate) fn routes(adapter: &Arc<GrpcAdapter>, node: &Arc<Node>, config: &GrpcApi) -> Router {
    let compatible = CentrifugoApiServer::new(CompatibleService(adapter.clone()))
        .accept_compressed(Gzip)
        .send_compressed(Gzip)
        .max_decoding_message_size(config.message_size_max);
    let own = TidingsServiceServer::new(OwnService(adapter.clone()))
        .accept_compressed(Gzip)
        .send_compressed(Gzip)
        .max_decoding_message_size(config.message_size_max);
    let api = Router::new()
        .route_service(&path(SERVICE_NAME), compatible)
        .route_service(&path(descriptions::own::tidings_service_server::SERVICE_NAME), own)
        .layer(from_fn_with_state(adapter.clone(), admission::admit));
    let mut router = Router::new().merge(api).merge(health::routes(node));
    if config.reflection {
        router = router.merge(reflection::routes());
    }
    let unknown = async || Status::unimplemented("no such service").into_http::<Body>();
    router.fallback(unknown)
}

/// The answer of a server that is starting.
pub(crate) fn starting() -> Router {
    let starting = async || Status::unavailable("the server is starting").into_http::<Body>();
    Router::new().fallback(starting)
}

/// The pattern of the paths of a service.
fn path(service: &str) -> String {
    format!("/{service}/{{method}}")
}
