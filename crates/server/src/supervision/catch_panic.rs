//! A panic in the handler of an HTTP request fails only that request.
//!
//! Invariant: the client receives a response, the panic is logged, and the server continues.

use std::panic::AssertUnwindSafe;

use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use hyper::Request;
use hyper::service::Service;
use tracing::error;

use crate::supervision::supervisor::panic_text;

/// Handles a request, and answers 500 when the handler panics.
pub(crate) async fn catch_panic<S, B>(
    service: &S,
    request: Request<B>,
) -> Result<Response, S::Error>
where
    S: Service<Request<B>, Response = Response>,
{
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let handling = async { service.call(request).await };
    AssertUnwindSafe(handling).catch_unwind().await.unwrap_or_else(|panic| {
        let (path, reason) = (uri.path(), panic_text(&*panic));
        error!(%method, path, reason, "handling a request has panicked; this is a bug, please report it");
        Ok((StatusCode::INTERNAL_SERVER_ERROR, "internal server error\n").into_response())
    })
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::routing::get;
    use http_body_util::BodyExt as _;
    use hyper_util::service::TowerToHyperService;

    use super::*;

    #[tokio::test]
    async fn a_handler_that_panics_answers_500_and_others_continue() {
        let broken = get(async || -> &'static str { panic!("out of range") });
        let router = Router::new().route("/broken", broken).route("/whole", get(async || "fine"));
        let service = TowerToHyperService::new(router);
        let ask = async |path: &str| {
            let request = Request::get(path).body(Body::empty()).unwrap();
            let response = catch_panic(&service, request).await.unwrap();
            let status = response.status().as_u16();
            (status, response.into_body().collect().await.unwrap().to_bytes())
        };
        assert_eq!(ask("/broken").await, (500, "internal server error\n".into()));
        assert_eq!(ask("/whole").await, (200, "fine".into()));
    }
}
