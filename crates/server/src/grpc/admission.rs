//! Admission of a call by its metadata: key, rate, and a place among the calls under way.
//!
//! Invariant: a refused call costs no more than its head.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use engine::rates::Limited;
use hyper::header::AUTHORIZATION;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use super::GrpcAdapter;
use super::deadline_body::with_deadline;
use crate::listener::RequestOrigin;
use crate::service::error::ApiError;
use crate::service::keys::key_of_authorization;

/// Admits the call or answers with a status. The message is read behind `next`.
pub(super) async fn admit(
    State(adapter): State<Arc<GrpcAdapter>>,
    mut request: Request,
    next: Next,
) -> Response {
    let given = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(key_of_authorization).unwrap_or_default();
    let origin = request.extensions().get::<RequestOrigin>();
    let key = match adapter.gate.authenticate(given.as_bytes()) {
        Ok(key) => key,
        Err(refusal) => {
            let address = origin.map(|origin| origin.client);
            adapter.gate.note_refused(request.uri().path(), address, refusal);
            let text = "the API key is missing or wrong (metadata authorization: apikey KEY)";
            return Status::unauthenticated(text).into_http();
        }
    };
    if let Some(origin) = origin {
        origin.peer.set_known();
    }
    if let Err(limited) = adapter.gate.take_token(&key) {
        return too_many(limited).into_http();
    }
    request.extensions_mut().insert(key);
    let Ok(_place) = adapter.places.acquire().await else {
        return Status::unavailable("the server is shutting down").into_http();
    };
    next.run(with_deadline(request).await).await
}

/// The status for a call above the rate of its key, with the time after which clients retry by
/// themselves (gRPC proposal A6).
fn too_many(limited: Limited) -> Status {
    let error = ApiError::from(limited);
    let mut metadata = MetadataMap::new();
    metadata.insert("grpc-retry-pushback-ms", MetadataValue::from(limited.retry_after_ms));
    Status::with_metadata(Code::ResourceExhausted, error.message, metadata)
}
