//! Listening sockets of a server: the public ones, the internal ones for API, metrics and health,
//! and those of the gRPC API.
//!
//! Invariant: all sockets are open before any of them is served, so that a start that fails has
//! answered no request.

use std::io;
use std::sync::Arc;

use axum::Router;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::StartError;
use crate::config::{Config, Tls};
use crate::grpc;
use crate::limits::slots::{SlotLimits, Slots};
use crate::limits::throttle::Throttle;
use crate::limits::{
    GRPC_CONNECTIONS_MAX, GRPC_CONNECTIONS_PER_ADDRESS_MAX, HEADS_SIZE_MAX, HTTP_CONNECTIONS_MAX,
    HTTP_CONNECTIONS_PER_ADDRESS_MAX,
};
use crate::listener::{
    BoundSocket, Certificate, CertificateKeys, HttpVersion, ListenAddress, ListenOn, Listener,
    ProxyProtocol, Routes,
};
use crate::supervision::start::Starting;
use crate::supervision::supervisor::TaskFaults;
use crate::welcome::{Port, Welcome};

/// Sockets that are open and not served yet.
pub(crate) struct Listeners {
    public: Vec<BoundSocket>,
    internal: Option<Vec<BoundSocket>>,
    grpc: Option<Vec<BoundSocket>>,
}

/// Sockets that are served by tasks until the server stops.
pub(crate) struct Serving {
    pub(crate) addresses: Vec<ListenAddress>,
    pub(crate) internal_addresses: Vec<ListenAddress>,
    pub(crate) grpc_addresses: Vec<ListenAddress>,
    /// By the name of the task that follows its files.
    pub(crate) certificates: Vec<(&'static str, Arc<Certificate>)>,
    public: Arc<Routes>,
    internal: Option<Arc<Routes>>,
    grpc: Option<Arc<Routes>>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

/// Routes of a started server.
pub(crate) struct ServedRoutes {
    /// For clients.
    pub(crate) outside: Router,
    /// For operators and backends.
    pub(crate) inside: Router,
    /// The gRPC API; `None` if it is not served.
    pub(crate) grpc: Option<Router>,
}

impl Listeners {
    pub(crate) async fn open(config: &Config) -> Result<Listeners, StartError> {
        let http = &config.http;
        let public = open(http.listen_on(), "http_server.port").await?;
        let internal = match http.internal_listen_on() {
            Some(on) => Some(open(on, "http_server.internal_port").await?),
            None => None,
        };
        let grpc = match &config.grpc_api {
            Some(grpc) => Some(open(grpc.listen_on(), "grpc_api.port").await?),
            None => None,
        };
        Ok(Listeners { public, internal, grpc })
    }

    /// Serves health, readiness and a "starting" answer while the server starts.
    pub(crate) fn serve(
        self,
        config: &Config,
        starting: &Arc<Starting>,
        faults: &TaskFaults,
        throttle: &Arc<Throttle>,
    ) -> Result<Serving, StartError> {
        let load = |tls: Option<&Tls>, keys| {
            tls.map(|tls| Certificate::load(tls.clone(), keys)).transpose()
        };
        let certificate = load(config.http.tls.as_ref(), CertificateKeys::HTTP)?;
        let grpc_tls = config.grpc_api.as_ref().and_then(|grpc| grpc.tls.as_ref());
        let grpc_certificate = load(grpc_tls, CertificateKeys::GRPC)?;
        let (stop, stopped) = watch::channel(false);
        let routes = || Arc::new(Routes::new(starting.routes(config.health.as_deref())));
        let public = Listener {
            routes: routes(),
            http_version: HttpVersion::Http1,
            tls: certificate.as_ref().map(|one| one.acceptor(HttpVersion::Http1)),
            trusted_proxies: Arc::new(config.admission.trusted_proxies.clone()),
            proxy_protocol: config.http.proxy_protocol.then(Arc::<ProxyProtocol>::default),
            keep_alive_timeout: config.http.keep_alive_timeout,
            slots: Slots::new(HTTP_SLOTS),
            throttle: Some(throttle.clone()),
            stop: stopped,
        };
        // Internal clients connect directly and without TLS.
        let inside = || Listener {
            routes: routes(),
            tls: None,
            proxy_protocol: None,
            slots: Slots::new(HTTP_SLOTS),
            throttle: None,
            ..public.clone()
        };
        let of_grpc = || Listener {
            routes: Arc::new(Routes::new(grpc::starting())),
            http_version: HttpVersion::Http2,
            tls: grpc_certificate.as_ref().map(|one| one.acceptor(HttpVersion::Http2)),
            proxy_protocol: None,
            slots: Slots::new(GRPC_SLOTS),
            ..public.clone()
        };
        let internal = self.internal.map(|listeners| (inside(), listeners));
        let grpc = self.grpc.map(|listeners| (of_grpc(), listeners));
        let mut serving = Serving {
            addresses: addresses(&self.public)?,
            internal_addresses: internal
                .as_ref()
                .map_or(Ok(Vec::new()), |(_, all)| addresses(all))?,
            grpc_addresses: grpc.as_ref().map_or(Ok(Vec::new()), |(_, all)| addresses(all))?,
            certificates: [("certificate", certificate), ("grpc-certificate", grpc_certificate)]
                .into_iter()
                .filter_map(|(task, certificate)| Some((task, certificate?)))
                .collect(),
            public: public.routes.clone(),
            internal: internal.as_ref().map(|(listener, _)| listener.routes.clone()),
            grpc: grpc.as_ref().map(|(listener, _)| listener.routes.clone()),
            stop,
            tasks: JoinSet::new(),
        };
        let all = [(public, self.public)].into_iter().chain(internal).chain(grpc);
        for (listener, listeners) in all {
            for bound in listeners {
                serving.tasks.spawn(listener.clone().run(bound, faults.clone()));
            }
        }
        Ok(serving)
    }
}

impl Serving {
    /// Serves the routes of the started server. Without an internal listener the public one serves
    /// `outside` and `inside`.
    pub(crate) fn start(&self, routes: ServedRoutes, welcome: &Welcome) {
        let ServedRoutes { outside, inside, grpc } = routes;
        if let (Some(listener), Some(grpc)) = (&self.grpc, grpc) {
            listener.start(grpc);
        }
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

const HTTP_SLOTS: SlotLimits = SlotLimits {
    connections_max: HTTP_CONNECTIONS_MAX,
    per_address_max: HTTP_CONNECTIONS_PER_ADDRESS_MAX,
    bytes_max: HEADS_SIZE_MAX,
};

const GRPC_SLOTS: SlotLimits = SlotLimits {
    connections_max: GRPC_CONNECTIONS_MAX,
    per_address_max: GRPC_CONNECTIONS_PER_ADDRESS_MAX,
    // Windows bound the bytes of each connection.
    bytes_max: HEADS_SIZE_MAX,
};

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
