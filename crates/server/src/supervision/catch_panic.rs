//! A panic in the handler of an HTTP request fails only that request.
//!
//! Invariant: the client receives a response, the panic is logged, and the server continues.

use std::panic::AssertUnwindSafe;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;
use tracing::error;

use crate::supervision::supervisor::panic_text;

/// Answers 500 when the handler panics.
pub(crate) async fn catch_panic(request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(panic) => {
            let reason = panic_text(&*panic);
            error!(%method, path, reason, "handling a request has panicked; this is a bug, please report it");
            (StatusCode::INTERNAL_SERVER_ERROR, "internal server error\n").into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::get;
    use axum::{Router, middleware};
    use http_body_util::BodyExt as _;
    use hyper::service::Service as _;
    use hyper_util::service::TowerToHyperService;

    use super::*;

    #[tokio::test]
    async fn a_handler_that_panics_answers_500_and_others_continue() {
        let broken = get(async || -> &'static str { panic!("out of range") });
        let router = Router::new().route("/broken", broken).route("/whole", get(async || "fine"));
        let service = TowerToHyperService::new(router.layer(middleware::from_fn(catch_panic)));
        let ask = async |path: &str| {
            let request = Request::get(path).body(Body::empty()).unwrap();
            let response = service.call(request).await.unwrap();
            let status = response.status().as_u16();
            (status, response.into_body().collect().await.unwrap().to_bytes())
        };
        assert_eq!(ask("/broken").await, (500, "internal server error\n".into()));
        assert_eq!(ask("/whole").await, (200, "fine".into()));
    }
}
