//! Listeners accept connections and handle TLS and HTTP until a connection becomes a WebSocket and
//! moves to a worker.
//!
//! Invariant: each connection has one task and one of a bounded number of slots. Its task ends when
//! the peer sends no request or reads no response for a bounded time. Workers receive only sockets
//! whose handshake is complete.

mod accept;
mod bind;
mod certificate;
mod deadline;
mod head;
mod http2;
mod proxy_protocol;
mod stream;
mod upgrade;

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use engine::rates::Bucket;
use hyper::Request;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use self::stream::{Carries, HttpStream};
use crate::client_address::{AddressPrefix, ClientAddress, TrustedProxies};
use crate::limits::slots::{Evict, Slots};
use crate::limits::throttle::Throttle;
use crate::limits::{HEAD_SIZE_MAX, HEADER_TIMEOUT};
use crate::supervision::catch_panic::catch_panic;

pub(crate) use bind::BoundSocket;
pub use bind::{ListenAddress, ListenOn};
pub(crate) use certificate::{Certificate, CertificateKeys};
pub use certificate::{CertificateError, check_certificates};
pub(crate) use http2::LongLived;
use stream::HttpPeer;
pub(crate) use upgrade::{Sockets, upgrade};

/// Configuration and state of one listener.
#[derive(Clone)]
pub(crate) struct Listener {
    pub(crate) routes: Arc<Routes>,
    pub(crate) http_version: HttpVersion,
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) trusted_proxies: Arc<TrustedProxies>,
    pub(crate) proxy_protocol: Option<Arc<ProxyProtocol>>,
    /// Time to wait for the next request on a connection.
    pub(crate) keep_alive_timeout: Duration,
    pub(crate) slots: Arc<Slots>,
    /// Limits connections by address. `None` for internal endpoints, where health checks come from
    /// one address.
    pub(crate) throttle: Option<Arc<Throttle>>,
    /// Becomes `true` when the server stops.
    pub(crate) stop: watch::Receiver<bool>,
}

/// Version of HTTP that a listener accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HttpVersion {
    Http1,
    /// Also without TLS, where clients know it beforehand (h2c).
    Http2,
}

impl HttpVersion {
    /// Its name in TLS handshakes (ALPN).
    fn alpn(self) -> &'static [u8] {
        match self {
            HttpVersion::Http1 => b"http/1.1",
            HttpVersion::Http2 => b"h2",
        }
    }
}

/// Routes of a listener: those of a starting server, then those of the started one.
pub(crate) struct Routes {
    starting: TowerToHyperService<Router>,
    started: OnceLock<TowerToHyperService<Router>>,
}

/// State of a listener whose connections begin with a PROXY header.
#[derive(Default)]
pub(crate) struct ProxyProtocol {
    has_warned: AtomicBool,
}

/// The rate limit of [`Listener::throttle`] is exceeded.
#[derive(Debug, thiserror::Error)]
#[error("too many connections from this address (limits.address.connects)")]
struct TooManyConnections;

/// The client's address, which a PROXY header names, has reached its connection limit, and none of
/// its connections is idle.
#[derive(Debug, thiserror::Error)]
#[error("too many concurrent connections from this address")]
struct AddressConnectionsExceeded;

/// The server stops before anything was asked on a connection.
#[derive(Debug, thiserror::Error)]
#[error("the server is shutting down")]
struct Stopping;

/// Extension of a request: the client that has sent it, and the connection of its peer.
#[derive(Clone)]
pub(crate) struct RequestOrigin {
    pub(crate) client: ClientAddress,
    pub(crate) peer: Arc<HttpPeer>,
}

/// Notifies the task of a connection that its slot was taken.
#[derive(Default)]
struct Eviction(Notify);

impl Routes {
    pub(crate) fn new(starting: Router) -> Routes {
        let starting = TowerToHyperService::new(starting);
        Routes { starting, started: OnceLock::new() }
    }

    /// Serves `router` from now on.
    pub(crate) fn start(&self, router: Router) {
        let is_first = self.started.set(TowerToHyperService::new(router)).is_ok();
        debug_assert!(is_first, "a server starts once");
    }

    fn current(&self) -> &TowerToHyperService<Router> {
        self.started.get().unwrap_or(&self.starting)
    }
}

impl Evict for Eviction {
    fn evict(&self) {
        self.0.notify_one();
    }
}

impl Listener {
    /// Key of a peer for limits per address. `None` for trusted proxies, which carry connections of
    /// many clients.
    fn crowd_of(&self, peer: ClientAddress) -> Option<AddressPrefix> {
        peer.prefix().filter(|_| !self.trusted_proxies.trusts(peer))
    }

    /// Serves a connection until it ends or moves to a worker.
    async fn serve(self, tcp: std::net::TcpStream, peer: ClientAddress, http: Arc<HttpPeer>) {
        if let Err(error) = self.negotiate(tcp, peer, http).await {
            debug!(%peer, %error, "a connection ended before it was a WebSocket");
        }
    }

    /// Counts a connection towards the rate limit of its address. Trusted proxies are exempt,
    /// because they carry connections of many clients.
    fn throttle(&self, client: ClientAddress) -> Result<(), TooManyConnections> {
        match &self.throttle {
            Some(throttle) if !self.trusted_proxies.trusts(client) => throttle
                .take_of_address(Bucket::AddressConnects, client)
                .map_err(|_| TooManyConnections),
            _ => Ok(()),
        }
    }

    async fn negotiate(
        self,
        tcp: std::net::TcpStream,
        peer: ClientAddress,
        http: Arc<HttpPeer>,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let mut tcp = TcpStream::from_std(tcp)?;
        if peer != ClientAddress::Unix {
            tcp.set_nodelay(true)?;
        }
        if self.trusted_proxies.trusts(peer) {
            http.set_known();
        }
        let client = match &self.proxy_protocol {
            Some(proxy_protocol) => {
                let reading = self.read_proxied(&mut tcp, peer, proxy_protocol);
                self.until_stop(Box::pin(reading)).await??
            }
            None => peer,
        };
        if client != peer {
            http.set_crowd(self.crowd_of(client)).ok_or(AddressConnectionsExceeded)?;
        }
        self.throttle(client)?;
        if self.http_version == HttpVersion::Http2 {
            // Boxed for the same reason as TLS below.
            return Box::pin(self.negotiate_http2(tcp, client, http)).await;
        }
        let carries = if self.tls.is_some() { Carries::Tls } else { Carries::Http };
        let tcp = HttpStream::new(tcp, carries, http.clone(), self.keep_alive_timeout);
        let Some(tls) = self.tls.clone() else {
            return Ok(self.serve_http(tcp, client, http).await?);
        };
        // Boxed, which keeps the task small: a task has the size of its largest state, and most
        // connections use neither TLS nor HTTP/2.
        let serving = async move {
            let handshake = tokio::time::timeout(HEADER_TIMEOUT, tls.accept(tcp));
            let tls = self.until_stop(handshake).await???;
            Ok(self.serve_http(tls, client, http).await?)
        };
        Box::pin(serving).await
    }

    async fn negotiate_http2(
        self,
        tcp: TcpStream,
        client: ClientAddress,
        http: Arc<HttpPeer>,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let Some(tls) = self.tls.clone() else {
            return Ok(self.serve_http2(tcp, client, http).await?);
        };
        let handshake = tokio::time::timeout(HEADER_TIMEOUT, tls.accept(tcp));
        let tls = self.until_stop(handshake).await???;
        Ok(self.serve_http2(tls, client, http).await?)
    }

    /// Runs a step before the first request; it is cancelled when the server stops.
    async fn until_stop<T>(&self, step: impl Future<Output = T>) -> Result<T, Stopping> {
        let mut stop = self.stop.clone();
        tokio::select! {
            done = step => Ok(done),
            _ = stop.wait_for(|stop| *stop) => Err(Stopping),
        }
    }

    /// Reads the address of the client from the PROXY header of a trusted proxy.
    async fn read_proxied(
        &self,
        tcp: &mut TcpStream,
        peer: ClientAddress,
        proxy_protocol: &ProxyProtocol,
    ) -> io::Result<ClientAddress> {
        if !self.trusted_proxies.trusts(peer) {
            // Logged once, so that port scans do not flood the log.
            if !proxy_protocol.has_warned.swap(true, Ordering::Relaxed) {
                warn!(%peer, "connection refused: the peer is not in client.trusted_proxies, and this listener expects \
                    the PROXY protocol (http_server.proxy_protocol); further refusals are logged at debug");
            }
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "not a trusted proxy"));
        }
        let header = proxy_protocol::read_client(tcp);
        let client = tokio::time::timeout(HEADER_TIMEOUT, header).await??;
        Ok(client.map_or(peer, ClientAddress::from))
    }

    async fn serve_http(
        mut self,
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: ClientAddress,
        http: Arc<HttpPeer>,
    ) -> hyper::Result<()> {
        let (routes, trusted_proxies) = (self.routes.clone(), self.trusted_proxies.clone());
        let of_connection = http.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            let client = trusted_proxies.client_of(peer, request.headers());
            request.extensions_mut().insert(RequestOrigin { client, peer: http.clone() });
            let (routes, http) = (routes.clone(), http.clone());
            let head_size = head::size(&request);
            // At once: hyper may read on before it polls the answer.
            let body_size = request.body().size_hint().exact().unwrap_or(0);
            let body_size = usize::try_from(body_size).unwrap_or(usize::MAX);
            http.begin_request(head_size.saturating_add(body_size));
            let checked = head::check(&request, head_size);
            async move {
                let answer = match checked {
                    Ok(()) => catch_panic(routes.current(), request).await,
                    Err(refusal) => {
                        debug!(%client, %refusal, "invalid request head");
                        Ok(refusal.response())
                    }
                };
                // A connection that becomes a WebSocket does not wait for another request.
                if !answer.as_ref().is_ok_and(|answer| answer.status().is_informational()) {
                    http.end_request();
                }
                answer
            }
        });
        // `HttpStream` enforces all timeouts.
        let mut connection = http1::Builder::new()
            .header_read_timeout(None)
            // A peer that shuts down writing after a request still receives the response.
            .half_close(true)
            .max_buf_size(HEAD_SIZE_MAX)
            .serve_connection(TokioIo::new(io), service)
            .with_upgrades();
        let must_stop = async move {
            // An error means that the server has been dropped.
            let _gone = self.stop.wait_for(|stop| *stop).await.is_err();
        };
        tokio::select! {
            biased;
            result = &mut connection => return result,
            () = must_stop => {
                of_connection.stop();
                Pin::new(&mut connection).graceful_shutdown();
            }
        }
        connection.await
    }
}

#[cfg(test)]
mod tests;
