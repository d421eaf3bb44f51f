//! Accepting connections: one thread for each listening socket assigns a slot and a task to each
//! connection.
//!
//! Invariant: connections are accepted until the server stops. If the thread or its socket fails,
//! the node is not ready until the address is bound again.

use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, error, warn};

use super::bind::{BoundSocket, ListenAddress, SocketFile};
use super::stream::HttpPeer;
use super::{Eviction, Listener};
use crate::client_address::ClientAddress;
use crate::limits::{TASK_RESTART_DELAY, TASK_RESTART_DELAY_MAX};
use crate::supervision::supervisor::TaskFaults;

/// A listening socket that is registered with a runtime.
enum Socket {
    Tcp(TcpListener),
    Unix { socket: UnixListener, _file: SocketFile },
}

/// Held by every connection; the receiver ends when all of them are dropped.
type Alive = mpsc::Sender<()>;

/// Interval between log lines about connections that cannot be accepted.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// Pause after a connection could not be accepted because descriptors or memory are exhausted.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);

/// Pause after an eviction, whose descriptor is closed by another thread.
const EVICTION_PAUSE: Duration = Duration::from_millis(3);

impl Listener {
    /// Accepts until the server stops, then waits for requests under way.
    pub(crate) async fn run(self, bound: BoundSocket, faults: TaskFaults) {
        let Ok(address) = bound.address() else { return };
        let name = format!("listener {address}");
        let (alive, mut all_ended) = mpsc::channel(1);
        let mut delay = TASK_RESTART_DELAY;
        let mut bound = Some(bound);
        while !*self.stop.borrow() {
            let opened = bound.take().map_or_else(|| address.listen(), Ok);
            let reason = match opened {
                Ok(opened) => {
                    faults.clear(name.clone());
                    match self.accept_on_thread(opened, alive.clone()).await {
                        Ok(()) => break,
                        Err(reason) => reason,
                    }
                }
                Err(error) => error.to_string(),
            };
            error!(%address, reason, ?delay, "accepting connections failed; rebinding the address");
            faults.set(name.clone(), format!("nothing is accepted at {address}: {reason}"));
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(TASK_RESTART_DELAY_MAX);
        }
        drop(alive);
        let _all_dropped = all_ended.recv().await;
    }

    /// Accepts on a dedicated thread. When thousands of clients connect at once, the kernel's queue
    /// would overflow while HTTP is handled; a dropped client retries after a second at the
    /// earliest.
    async fn accept_on_thread(&self, bound: BoundSocket, alive: Alive) -> Result<(), String> {
        let (listener, inside) = (self.clone(), Handle::current());
        let (sender, ended) = oneshot::channel();
        let accept = move || {
            let outside = Builder::new_current_thread().enable_all().build()?;
            outside.block_on(async { listener.accept(Socket::new(bound)?, &alive, &inside).await })
        };
        // Not a blocking task of the runtime, which would wait for it when it is dropped.
        let thread = std::thread::Builder::new().name("listener".to_owned());
        // The receiver is gone if the server has been dropped.
        thread.spawn(move || drop(sender.send(accept()))).map_err(|error| error.to_string())?;
        match ended.await {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(_) => Err("the thread has panicked".to_owned()),
        }
    }

    async fn accept(self, socket: Socket, alive: &Alive, inside: &Handle) -> io::Result<()> {
        let mut stop = self.stop.clone();
        let mut warned_at: Option<Instant> = None;
        loop {
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
            };
            match accepted {
                Ok((tcp, peer)) => self.admit(tcp, peer, alive, inside),
                Err(error) if is_of_connection(&error) => {
                    debug!(%error, "connection aborted before accept");
                }
                Err(error) if is_shortage(&error) => {
                    if warned_at.is_none_or(|at| at.elapsed() > WARN_EVERY) {
                        warned_at = Some(Instant::now());
                        warn!(%error, "connections cannot be accepted; raise the limit of open files (ulimit -n)");
                    }
                    // Otherwise idle connections could hold all descriptors.
                    let pause = match self.slots.make_room() {
                        // Lets the eviction take effect before the next one.
                        true => EVICTION_PAUSE,
                        false => SHORTAGE_PAUSE,
                    };
                    tokio::time::sleep(pause).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn admit(&self, tcp: TcpStream, peer: ClientAddress, alive: &Alive, inside: &Handle) {
        let eviction = Arc::new(Eviction::default());
        let Some(slot) = self.slots.take(self.crowd_of(peer), eviction.clone()) else {
            return debug!(%peer, "closed at once: there are too many HTTP connections");
        };
        let serving = self.clone().serve(tcp, peer, HttpPeer::new(slot));
        let alive = alive.clone();
        inside.spawn(async move {
            tokio::select! {
                // Two branches that end the connection need no random order.
                biased;
                () = serving => {}
                () = eviction.0.notified() => debug!(%peer, "closed to make room for another"),
            }
            drop(alive);
        });
    }
}

impl ListenAddress {
    /// Binds the address again.
    fn listen(&self) -> io::Result<BoundSocket> {
        match self {
            ListenAddress::Tcp(address) => super::bind::bind_tcp(*address).map(BoundSocket::Tcp),
            ListenAddress::Unix { path, mode } => super::bind::bind_unix(path, *mode),
        }
    }
}

impl Socket {
    fn new(bound: BoundSocket) -> io::Result<Socket> {
        Ok(match bound {
            BoundSocket::Tcp(socket) => Socket::Tcp(TcpListener::from_std(socket)?),
            BoundSocket::Unix(socket, file) => {
                Socket::Unix { socket: UnixListener::from_std(socket)?, _file: file }
            }
        })
    }

    async fn accept(&self) -> io::Result<(TcpStream, ClientAddress)> {
        match self {
            Socket::Tcp(socket) => {
                let (stream, peer) = socket.accept().await?;
                Ok((stream.into_std()?, peer.ip().into()))
            }
            Socket::Unix { socket, .. } => {
                let (stream, _) = socket.accept().await?;
                // TCP and Unix streams use the same system calls for reads, writes and shutdown.
                let stream = OwnedFd::from(stream.into_std()?);
                Ok((stream.into(), ClientAddress::Unix))
            }
        }
    }
}

/// Whether the error concerns the connection to be accepted (accept(2)) and not the listening
/// socket.
fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, HostUnreachable, Interrupted};
    use io::ErrorKind::{NetworkDown, NetworkUnreachable, PermissionDenied, TimedOut, WouldBlock};
    matches!(
        error.kind(),
        ConnectionAborted
            | ConnectionReset
            | HostUnreachable
            | Interrupted
            | NetworkDown
            | NetworkUnreachable
            | PermissionDenied
            | TimedOut
            | WouldBlock
    )
}

/// Whether descriptors or memory are exhausted, which may be temporary.
fn is_shortage(error: &io::Error) -> bool {
    /// `ENFILE`, `EMFILE`, `ENOBUFS`, `ENOMEM` of Linux.
    const SHORTAGES: [i32; 4] = [23, 24, 105, 12];
    error.raw_os_error().is_some_and(|code| SHORTAGES.contains(&code))
}
