//! A receiver with TLS and HTTP/2.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use events::SinkTarget;
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use proxy::BackendTls;
use proxy::tls::BackendTlsPem;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::support::{Running, sink};

/// The number of requests by connection: the first one answers nothing.
type Requests = Arc<[AtomicUsize; 2]>;

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, requests: Requests) {
    let mut connections = tokio::task::JoinSet::new();
    for number in 0.. {
        let (stream, _) = listener.accept().await.unwrap();
        let (acceptor, requests) = (acceptor.clone(), requests.clone());
        connections.spawn(async move {
            let stream = acceptor.accept(stream).await.unwrap();
            let service = service_fn(|request| {
                assert_eq!(
                    hyper::Request::<hyper::body::Incoming>::version(&request),
                    Version::HTTP_2
                );
                requests[number.min(1)].fetch_add(1, Ordering::Relaxed);
                async move {
                    if number == 0 {
                        std::future::pending::<()>().await;
                    }
                    Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
                }
            });
            let server = http2::Builder::new(TokioExecutor::new());
            let _closed = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

#[tokio::test]
async fn an_attempt_after_a_time_out_uses_a_new_connection() {
    let issued = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config =
        ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(issued.signing_key.serialize_der());
    let chain = vec![issued.cert.der().clone()];
    let mut config =
        config.unwrap().with_no_client_auth().with_single_cert(chain, key.into()).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let requests = Requests::default();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let server = tokio::spawn(serve(listener, acceptor, requests.clone()));
    let pem = issued.cert.pem();
    let pem = BackendTlsPem { roots: Some(&pem), ..BackendTlsPem::default() };
    let mut settings = sink(port);
    let SinkTarget::Webhook(webhook) = &mut settings.target;
    webhook.uri = format!("https://127.0.0.1:{port}/events").parse().unwrap();
    webhook.tls = Some(BackendTls::new(pem).unwrap());
    let running = Running::start(&[settings]);
    running.online(1);
    let stats = running.until(|stats| stats.delivered == 1).await;
    assert_eq!((stats.failures, requests[0].load(Ordering::Relaxed)), (1, 1));
    server.abort();
}
