//! A backend over gRPC, served by tonic.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::header::HeaderName;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use proxy::headers::TransportHeaders;
use proxy::limits::ANSWER_BYTES_MAX;
use proxy::protobuf::messages::{
    RpcRequest, RpcResponse, RpcResult, SubscribeRequest, SubscribeResponse,
};
use proxy::{
    Backend, BackendSettings, CallerHeaders, FailureKind, Forwarding, ProxyReply, ProxyResult,
    Share,
};
use tokio::net::TcpListener;
use tonic::codec::CompressionEncoding;
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::scripted::{call, header_map, rpc, settings, subscribe};

/// Answers calls by their user: `42` gets an echo, others a fault.
#[derive(Clone, Copy)]
struct Rpc;

impl tonic::server::UnaryService<RpcRequest> for Rpc {
    type Response = RpcResponse;
    type Future =
        std::pin::Pin<Box<dyn Future<Output = Result<Response<RpcResponse>, Status>> + Send>>;

    fn call(&mut self, request: Request<RpcRequest>) -> Self::Future {
        Box::pin(async move {
            let seen: Vec<String> = ["x-key", "cookie"]
                .into_iter()
                .filter_map(|name| request.metadata().get(name))
                .map(|value| value.to_str().unwrap().to_owned())
                .collect();
            let asked = request.into_inner();
            match &*asked.user {
                "slow" => tokio::time::sleep(Duration::from_secs(10)).await,
                "broken" => return Err(Status::internal("broken")),
                "busy" => {
                    let mut status = Status::new(Code::ResourceExhausted, "busy");
                    status.metadata_mut().insert("retry-after", "1".parse().unwrap());
                    return Err(status);
                }
                _ => {}
            }
            let data = match &*asked.user {
                "large" => vec![b'1'; ANSWER_BYTES_MAX + 1],
                _ => format!("{} {} {seen:?}", asked.method, asked.client).into_bytes(),
            };
            let result = RpcResult { data: data.into(), ..RpcResult::default() };
            Ok(Response::new(RpcResponse { result: Some(result), ..RpcResponse::default() }))
        })
    }
}

/// Allows every subscription, for a second.
#[derive(Clone, Copy)]
struct Subscribe;

impl tonic::server::UnaryService<SubscribeRequest> for Subscribe {
    type Response = SubscribeResponse;
    type Future = Ready<Result<Response<SubscribeResponse>, Status>>;

    fn call(&mut self, _: Request<SubscribeRequest>) -> Self::Future {
        let mut response = Response::new(SubscribeResponse::default());
        response.metadata_mut().insert("cache-control", "max-age=60".parse().unwrap());
        ready(Ok(response))
    }
}

async fn serve() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| async move {
                let path = request.uri().path().to_owned();
                let response = match &*path {
                    "/centrifugal.centrifugo.proxy.CentrifugoProxy/RPC" => {
                        let mut grpc = tonic::server::Grpc::new(ProstCodec::default())
                            .accept_compressed(CompressionEncoding::Gzip)
                            .send_compressed(CompressionEncoding::Gzip);
                        grpc.unary(Rpc, request).await
                    }
                    "/centrifugal.centrifugo.proxy.CentrifugoProxy/Subscribe" => {
                        tonic::server::Grpc::new(ProstCodec::default())
                            .unary(Subscribe, request)
                            .await
                    }
                    _ => Status::unimplemented("").into_http(),
                };
                Ok::<_, Infallible>(response)
            });
            let server = auto::Builder::new(TokioExecutor::new()).http2_only();
            tokio::spawn(async move {
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    format!("grpc://{address}")
}

fn of(user: &str) -> proxy::ProxyRequest {
    proxy::ProxyRequest { user: user.to_owned(), ..rpc() }
}

#[tokio::test]
async fn a_call_carries_metadata_and_may_be_compressed() {
    let url = serve().await;
    for compression in [false, true] {
        let backend = Backend::new(BackendSettings {
            compression,
            static_headers: header_map(&[("x-key", "static")]),
            forwarding: Forwarding {
                http_headers: vec![HeaderName::from_static("cookie")],
                ..Forwarding::default()
            },
            ..settings(&url)
        });
        let transport = TransportHeaders::Http(std::sync::Arc::new(header_map(&[("cookie", "c")])));
        let headers = CallerHeaders { transport, emulated: Vec::new() };
        let reply = backend.call(of("42"), &headers).await.unwrap();
        let data = Bytes::from_static(b"sum c1 [\"static\", \"c\"]");
        assert_eq!(reply, ProxyReply::Result(ProxyResult::Rpc(data)));
    }
}

#[tokio::test]
async fn faults_are_typed_errors() {
    let url = serve().await;
    let timeout = Duration::from_millis(500);
    let backend = Backend::new(BackendSettings { timeout, ..settings(&url) });
    for (user, kind) in [
        ("broken", FailureKind::Status),
        ("large", FailureKind::TooLarge),
        ("slow", FailureKind::Timeout),
        ("busy", FailureKind::Throttled),
        ("42", FailureKind::Throttled),
    ] {
        let error = call(&backend, of(user)).await.unwrap_err();
        assert_eq!(error.kind, kind, "{user}: {error}");
    }
    let connect = proxy::ProxyRequest { question: proxy::ProxyQuestion::Refresh, ..rpc() };
    let error = call(&Backend::new(settings(&url)), connect).await.unwrap_err();
    assert_eq!(error.kind, FailureKind::Status);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = format!("grpc://{}", listener.local_addr().unwrap());
    drop(listener);
    let backend = Backend::new(settings(&nobody));
    let error = call(&backend, subscribe("a")).await.unwrap_err();
    assert_eq!((error.kind, backend.stats().calls.retries), (FailureKind::Connect, 2), "{error}");
}

#[tokio::test]
async fn an_answer_with_a_lifetime_is_kept() {
    let settings = BackendSettings { share: Share::User, ..settings(&serve().await) };
    let backend = Backend::new(settings);
    for _ in 0..10 {
        call(&backend, subscribe("a")).await.unwrap();
    }
    assert_eq!((backend.stats().calls.cached, backend.stats().calls.results), (9, 1));
}
