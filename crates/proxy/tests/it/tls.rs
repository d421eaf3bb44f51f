//! TLS to a backend: HTTP/2 by ALPN, certificates of both sides, expired and unknown ones.

use std::sync::Arc;

use http_body_util::Full;
use hyper::Response;
use hyper::body::Bytes;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use proxy::tls::BackendTlsPem;
use proxy::{Backend, BackendSettings, BackendTls, FailureKind, ProxyReply, ProxyResult};
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::net::TcpListener;

use crate::scripted::{call, rpc, settings};

/// A certificate with its key, as PEM.
struct Pair {
    chain: String,
    key: String,
}

/// Issues certificates that only this authority makes trustworthy.
struct Issuer(CertifiedIssuer<'static, KeyPair>);

impl Issuer {
    fn new() -> Issuer {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Issuer(CertifiedIssuer::self_signed(parameters, key).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    fn issue(&self, host: &str, last_year: i32) -> Pair {
        let mut parameters = CertificateParams::new([host.to_owned()]).unwrap();
        parameters.not_before = rcgen::date_time_ymd(2000, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(last_year, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, &self.0).unwrap();
        Pair { chain: certificate.pem(), key: key.serialize_pem() }
    }
}

/// Serves the version of HTTP as the result of every call.
async fn serve(pair: &Pair, clients: Option<&Issuer>) -> u16 {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(issuer) => {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(issuer.pem().as_bytes()).unwrap()).unwrap();
            let roots = Arc::new(roots);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let chain = vec![CertificateDer::from_pem_slice(pair.chain.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
    let mut config = builder.with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = service_fn(|request: hyper::Request<_>| async move {
                    drop::<hyper::body::Incoming>(request.into_body());
                    let body = r#"{"result": {"data": "h2"}}"#;
                    Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::from(body)))
                });
                let server = auto::Builder::new(TokioExecutor::new()).http2_only();
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    port
}

fn backend(host: &str, port: u16, pem: BackendTlsPem<'_>) -> Backend {
    let tls = Some(BackendTls::new(pem).unwrap());
    Backend::new(BackendSettings { tls, ..settings(&format!("https://{host}:{port}/")) })
}

#[tokio::test]
async fn a_trusted_backend_is_called_over_http2() {
    let issuer = Issuer::new();
    let port = serve(&issuer.issue("localhost", 2090), None).await;
    let roots = issuer.pem();
    let trusted = BackendTlsPem { roots: Some(&roots), ..BackendTlsPem::default() };
    let reply = call(&backend("localhost", port, trusted), rpc()).await.unwrap();
    let data = hyper::body::Bytes::from_static(b"\"h2\"");
    assert_eq!(reply, ProxyReply::Result(ProxyResult::Rpc(data)));
    // The name to verify may be another one than the host.
    let named = BackendTlsPem { server_name: Some("localhost"), ..trusted };
    call(&backend("127.0.0.1", port, named), rpc()).await.unwrap();
    for (host, pem) in [("127.0.0.1", trusted), ("localhost", BackendTlsPem::default())] {
        let error = call(&backend(host, port, pem), rpc()).await.unwrap_err();
        assert_eq!(error.kind, FailureKind::Tls, "{error}");
    }
}

#[tokio::test]
async fn an_expired_certificate_is_refused_and_named() {
    let issuer = Issuer::new();
    let port = serve(&issuer.issue("localhost", 2001), None).await;
    let roots = issuer.pem();
    let trusted = BackendTlsPem { roots: Some(&roots), ..BackendTlsPem::default() };
    let error = call(&backend("localhost", port, trusted), rpc()).await.unwrap_err();
    assert_eq!(error.kind, FailureKind::Tls);
    assert!(error.detail.contains("expired"), "{error}");
}

#[tokio::test]
async fn a_backend_may_ask_for_a_certificate() {
    let issuer = Issuer::new();
    let port = serve(&issuer.issue("localhost", 2090), Some(&issuer)).await;
    let (roots, own) = (issuer.pem(), issuer.issue("tidings", 2090));
    let own = Some((&*own.chain, &*own.key));
    let with = BackendTlsPem { roots: Some(&roots), own, ..BackendTlsPem::default() };
    call(&backend("localhost", port, with), rpc()).await.unwrap();
    let without = BackendTlsPem { roots: Some(&roots), ..BackendTlsPem::default() };
    let error = call(&backend("localhost", port, without), rpc()).await.unwrap_err();
    assert!(matches!(error.kind, FailureKind::Tls | FailureKind::Reset), "{error}");
}
