//! Listening sockets of a server: the public ones, and the internal ones for API, metrics and
//! health.
//!
//! Invariant: all sockets are open before any of them is served, so that a start that fails has
//! answered no request.

use std::io;
use std::sync::Arc;

use axum::Router;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::StartError;
use crate::config::{Config, HttpServer};
use crate::limits::slots::{SlotLimits, Slots};
use crate::limits::throttle::Throttle;
use crate::limits::{HEADS_SIZE_MAX, HTTP_CONNECTIONS_MAX, HTTP_CONNECTIONS_PER_ADDRESS_MAX};
use crate::listener::{
    BoundSocket, Certificate, ListenAddress, ListenOn, Listener, ProxyProtocol, Routes,
};
use crate::supervision::start::Starting;
use crate::supervision::supervisor::TaskFaults;
use crate::welcome::{Port, Welcome};

/// Sockets that are open and not served yet.
pub(crate) struct Listeners {
    public: Vec<BoundSocket>,
    internal: Option<Vec<BoundSocket>>,
}

/// Sockets that are served by tasks until the server stops.
pub(crate) struct Serving {
    pub(crate) addresses: Vec<ListenAddress>,
    pub(crate) internal_addresses: Vec<ListenAddress>,
    pub(crate) certificate: Option<Arc<Certificate>>,
    public: Arc<Routes>,
    internal: Option<Arc<Routes>>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Listeners {
    pub(crate) async fn open(http: &HttpServer) -> Result<Listeners, StartError> {
        let public = open(http.listen_on(), "http_server.port").await?;
        let internal = match http.internal_listen_on() {
            Some(on) => Some(open(on, "http_server.internal_port").await?),
            None => None,
        };
        Ok(Listeners { public, internal })
    }

    /// Serves health, readiness and a "starting" answer while the server starts.
    pub(crate) fn serve(
        self,
        config: &Config,
        starting: &Arc<Starting>,
        faults: &TaskFaults,
        throttle: &Arc<Throttle>,
    ) -> Result<Serving, StartError> {
        let certificate = config.http.tls.clone().map(Certificate::load).transpose()?;
        let (stop, stopped) = watch::channel(false);
        let routes = || Arc::new(Routes::new(starting.routes(config.health.as_deref())));
        let public = Listener {
            routes: routes(),
            tls: certificate.as_ref().map(Certificate::acceptor),
            trusted_proxies: Arc::new(config.admission.trusted_proxies.clone()),
            proxy_protocol: config.http.proxy_protocol.then(Arc::<ProxyProtocol>::default),
            keep_alive_timeout: config.http.keep_alive_timeout,
            slots: slots(),
            throttle: Some(throttle.clone()),
            stop: stopped,
        };
        // Internal clients connect directly and without TLS.
        let inside = || Listener {
            routes: routes(),
            tls: None,
            proxy_protocol: None,
            slots: slots(),
            throttle: None,
            ..public.clone()
        };
        let internal = self.internal.map(|listeners| (inside(), listeners));
        let mut serving = Serving {
            addresses: addresses(&self.public)?,
            internal_addresses: internal
                .as_ref()
                .map_or(Ok(Vec::new()), |(_, all)| addresses(all))?,
            certificate,
            public: public.routes.clone(),
            internal: internal.as_ref().map(|(listener, _)| listener.routes.clone()),
            stop,
            tasks: JoinSet::new(),
        };
        for (listener, listeners) in [(public, self.public)].into_iter().chain(internal) {
            for bound in listeners {
                serving.tasks.spawn(listener.clone().run(bound, faults.clone()));
            }
        }
        Ok(serving)
    }
}

impl Serving {
    /// Serves the routes of the started server: `outside` for clients, `inside` for operators and
    /// backends. Without an internal listener the public one serves both.
    pub(crate) fn start(&self, outside: Router, inside: Router, welcome: &Welcome) {
        match &self.internal {
            None => self.public.start(welcome.with_fallback(outside.merge(inside), Port::Only)),
            Some(internal) => {
                self.public.start(welcome.with_fallback(outside, Port::Public));
                internal.start(welcome.with_fallback(inside, Port::Internal));
            }
        }
    }

    /// Stops listening and waits for requests under way.
    pub(crate) async fn stop(&mut self) {
        // Fails only if all listeners have ended already.
        let _all_ended = self.stop.send(true);
        while self.tasks.join_next().await.is_some() {}
    }
}

fn slots() -> Arc<Slots> {
    Slots::new(SlotLimits {
        connections_max: HTTP_CONNECTIONS_MAX,
        per_address_max: HTTP_CONNECTIONS_PER_ADDRESS_MAX,
        bytes_max: HEADS_SIZE_MAX,
    })
}

fn addresses(listeners: &[BoundSocket]) -> io::Result<Vec<ListenAddress>> {
    listeners.iter().map(BoundSocket::address).collect()
}

/// Binds on a blocking thread, because host names are resolved.
async fn open(on: ListenOn, port_key: &'static str) -> Result<Vec<BoundSocket>, StartError> {
    let address = on.to_string();
    let opened = tokio::task::spawn_blocking(move || on.bind()).await.map_err(io::Error::other)?;
    opened.map_err(|error| StartError::Listen { address, fault: fault(&error, port_key) })
}

/// Describes the error and its remedy.
fn fault(error: &io::Error, port_key: &str) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!("address in use; choose another with --{port_key}"),
        io::ErrorKind::PermissionDenied => {
            format!(
                "{error}; ports below 1024 need CAP_NET_BIND_SERVICE, socket files a folder to write to"
            )
        }
        io::ErrorKind::AddrNotAvailable => {
            format!("{error}; this machine does not have the address")
        }
        io::ErrorKind::NotFound => format!("{error}; make the folder of the socket file first"),
        io::ErrorKind::HostUnreachable => {
            let address_key = port_key.replace("port", "address");
            format!(
                "{error}; set {address_key} to an address of this machine, or leave it empty for all"
            )
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_cannot_be_bound_is_reported_with_a_remedy() {
        for (address, wanted) in [
            ("unix:/nowhere/at/all.sock", "make the folder"),
            ("no..name", "set http_server.address to an address of this machine"),
        ] {
            let opened = open(ListenOn::new(address, 0, 0o600), "http_server.port").await;
            let error = opened.err().expect("the address cannot be bound").to_string();
            assert!(error.contains(address) && error.contains(wanted), "{error}");
            assert!(!error.contains("lookup address information"), "{error}");
        }
    }
}
