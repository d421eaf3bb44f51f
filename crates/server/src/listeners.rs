//! The sockets on which a server listens: the public one, and the internal one for API, metrics and health.
//!
//! Invariant: all of them are bound before any of them serves, so that a start that fails has answered nobody.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::StartError;
use crate::client_address::TrustedProxies;
use crate::config::HttpServer;
use crate::door::{self, Door};
use crate::limits::HTTP_CONNECTIONS_MAX;
use crate::welcome::{Port, Welcome};

/// See the module.
pub(crate) struct Listeners {
    public: TcpListener,
    internal: Option<TcpListener>,
}

/// What listeners serve.
pub(crate) struct Served {
    /// What clients may reach.
    pub(crate) outside: Router,
    /// What operators and backends may.
    pub(crate) inside: Router,
    /// What stands at paths without a route.
    pub(crate) welcome: Welcome,
    /// TLS of the public listener.
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) trusted_proxies: TrustedProxies,
}

impl Listeners {
    pub(crate) async fn bind(http: &HttpServer) -> Result<Listeners, StartError> {
        let public = listen(&http.address, http.port).await?;
        let internal = match http.internal_port {
            Some(port) => Some(listen(&http.internal_address, port).await?),
            None => None,
        };
        Ok(Listeners { public, internal })
    }

    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.public.local_addr()
    }

    pub(crate) fn internal_address(&self) -> io::Result<Option<SocketAddr>> {
        self.internal.as_ref().map(TcpListener::local_addr).transpose()
    }

    /// Serves until `stop` turns true; without an internal listener, the public one serves everything.
    pub(crate) fn serve(self, served: Served, stop: &watch::Receiver<bool>) -> JoinSet<()> {
        let mut doors = JoinSet::new();
        let trusted_proxies = Arc::new(served.trusted_proxies);
        let door = |router: Router, tls| Door {
            router,
            tls,
            trusted_proxies: trusted_proxies.clone(),
            connections_max: HTTP_CONNECTIONS_MAX,
            stop: stop.clone(),
        };
        let welcome = served.welcome;
        let router = match self.internal {
            None => welcome.with_fallback(served.outside.merge(served.inside), Port::Only),
            Some(listener) => {
                let inside = welcome.with_fallback(served.inside, Port::Internal);
                doors.spawn(door(inside, None).run(listener));
                welcome.with_fallback(served.outside, Port::Public)
            }
        };
        doors.spawn(door(router, served.tls).run(self.public));
        doors
    }
}

async fn listen(host: &str, port: u16) -> Result<TcpListener, StartError> {
    door::listen(host, port)
        .await
        .map_err(|source| StartError::Listen { address: format!("{host}:{port}"), source })
}
