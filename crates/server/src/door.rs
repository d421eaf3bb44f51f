//! The door: listeners, TLS, and HTTP until a connection becomes a WebSocket and moves to a worker.
//!
//! Invariant: a peer costs one task, which ends when it asks nothing, or takes no answer, for a bounded time; there are at
//! most [`HTTP_CONNECTIONS_MAX`](crate::limits::HTTP_CONNECTIONS_MAX) of them, and workers see only sockets whose handshake is complete.

mod certificate;
mod patience;
mod upgrade;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use patience::Patience;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, error, warn};

use crate::client_address::{ClientAddress, TrustedProxies};
use crate::limits::{HEADER_TIMEOUT, LISTEN_BACKLOG};

pub(crate) use certificate::acceptor;
pub use certificate::{CertificateError, check_certificate};
pub(crate) use upgrade::{Sockets, upgrade};

/// Binds to an address; an empty host stands for all.
pub(crate) async fn listen(host: &str, port: u16) -> io::Result<TcpListener> {
    if host.is_empty() {
        // IPv6 sockets take IPv4 too, where there is IPv6 at all.
        let both = bind(SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port)));
        return match both {
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                bind(SocketAddr::from((std::net::Ipv4Addr::UNSPECIFIED, port)))
            }
            result => result,
        };
    }
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in tokio::net::lookup_host((host, port)).await? {
        match bind(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A restart must not wait for connections of the last life to time out.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(LISTEN_BACKLOG)
}

/// What one listener serves.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) router: Router,
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) trusted_proxies: Arc<TrustedProxies>,
    /// Connections at the same time.
    pub(crate) connections_max: u32,
    /// Turns true when the server stops.
    pub(crate) stop: watch::Receiver<bool>,
}

impl Door {
    /// Accepts until told to stop; then ends once requests under way are answered.
    ///
    /// A thread of its own accepts: when thousands come at once, the kernel's queue must not run over while those who are
    /// in talk HTTP. Whom it drops tries again after a second at the earliest.
    pub(crate) async fn run(self, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(self.connections_max as usize));
        let (door, taken, inside) = (self.clone(), places.clone(), Handle::current());
        let (sender, ended) = oneshot::channel();
        let accept = move || {
            let outside = Builder::new_current_thread().enable_all().build()?;
            outside.block_on(door.accept(listener.into_std()?, &taken, &inside))
        };
        // The runtime would wait for a blocking task of its own when it is dropped; this thread ends with its server.
        let thread = std::thread::Builder::new().name("door".to_owned());
        let started = thread.spawn(move || drop(sender.send(accept())));
        let failure = match started {
            Ok(_detached) => ended.await.map_err(io::Error::other).flatten().err(),
            Err(failure) => Some(failure),
        };
        if let Some(failure) = failure {
            error!(%failure, "connections can not be accepted any more");
        }
        // Each connection has a place until it has ended.
        let _all_ended = places.acquire_many(self.connections_max).await;
    }

    async fn accept(
        self,
        listener: std::net::TcpListener,
        places: &Arc<Semaphore>,
        inside: &Handle,
    ) -> io::Result<()> {
        let listener = TcpListener::from_std(listener)?;
        let mut stop = self.stop.clone();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
            };
            let accepted = accepted.and_then(|(tcp, peer)| Ok((tcp.into_std()?, peer)));
            let (tcp, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    warn!(%error, "cannot accept connections");
                    // Most often descriptors are short: give connections time to end.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Ok(place) = places.clone().try_acquire_owned() else {
                debug!(%peer, "closed at once: there are too many HTTP connections");
                continue;
            };
            let door = self.clone();
            inside.spawn(async move {
                if let Err(error) = door.serve(tcp, peer.ip().into()).await {
                    debug!(%peer, %error, "a connection ended before it was a WebSocket");
                }
                drop(place);
            });
        }
    }

    async fn serve(
        self,
        tcp: std::net::TcpStream,
        peer: ClientAddress,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let tcp = TcpStream::from_std(tcp)?;
        tcp.set_nodelay(true)?;
        let tcp = Patience::new(tcp);
        let Some(tls) = self.tls.clone() else {
            return Ok(self.speak_http(tcp, peer).await?);
        };
        let tls = tokio::time::timeout(HEADER_TIMEOUT, tls.accept(tcp)).await??;
        Ok(self.speak_http(tls, peer).await?)
    }

    async fn speak_http(
        mut self,
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: ClientAddress,
    ) -> hyper::Result<()> {
        let router = TowerToHyperService::new(self.router.clone());
        let trusted_proxies = self.trusted_proxies.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            let client = trusted_proxies.client_of(peer, request.headers());
            request.extensions_mut().insert(client);
            router.call(request)
        });
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(io), service)
            .with_upgrades();
        let must_stop = async move {
            // An error means that the server is gone altogether.
            let _gone = self.stop.wait_for(|stop| *stop).await.is_err();
        };
        tokio::select! {
            result = &mut connection => return result,
            () = must_stop => Pin::new(&mut connection).graceful_shutdown(),
        }
        connection.await
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Asks, and gives the status line; empty when the server closes instead.
    async fn ask(tcp: &mut TcpStream) -> String {
        // Who is closed at once may notice while writing.
        let _closed = tcp.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            match tcp.read_u8().await {
                Ok(byte) => answer.push(byte),
                Err(_) => break,
            }
        }
        String::from_utf8(answer).unwrap().lines().next().unwrap_or_default().to_owned()
    }

    #[tokio::test]
    async fn beyond_the_limit_connections_are_closed_at_once() {
        let listener = listen("127.0.0.1", 0).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (_stop, stop) = watch::channel(false);
        let door = Door {
            router: Router::new(),
            tls: None,
            trusted_proxies: Arc::default(),
            connections_max: 1,
            stop,
        };
        tokio::spawn(door.run(listener));
        let dial = async || TcpStream::connect(address).await.unwrap();
        let mut first = dial().await;
        assert_eq!(ask(&mut first).await, "HTTP/1.1 404 Not Found");
        assert_eq!(ask(&mut dial().await).await, "");
        assert_eq!(ask(&mut first).await, "HTTP/1.1 404 Not Found");
        drop(first);
        // There is room again as soon as the server has seen the end.
        while ask(&mut dial().await).await.is_empty() {}
    }
}
