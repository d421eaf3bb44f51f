//! Server reflection, in both versions of the protocol.
//!
//! Invariant: a stream ends when the server stops.

use axum::Router;
use axum::middleware::map_response;

use super::descriptions::DESCRIPTORS;
use super::health::endless;
use super::path;

/// The routes of both versions.
pub(super) fn routes() -> Router {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let v1 = builder().build_v1().expect("the description is valid");
    let v1alpha = builder().build_v1alpha().expect("the description is valid");
    Router::new()
        .route_service(&path("grpc.reflection.v1.ServerReflection"), v1)
        .route_service(&path("grpc.reflection.v1alpha.ServerReflection"), v1alpha)
        .layer(map_response(endless))
}
