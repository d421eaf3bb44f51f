//! Listening sockets: TCP on every address of a host, or a Unix socket.
//!
//! Invariant: all addresses of a host are bound with one port, and IPv6 sockets do not accept IPv4,
//! whatever `net.ipv6.bindv6only` is.

use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use socket2::{Domain, Protocol, Socket, Type};

use crate::limits::LISTEN_BACKLOG;

/// Configured address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenOn {
    /// A host and a port. An empty host stands for all addresses, port 0 for a free port.
    Tcp {
        /// IP address or host name.
        host: String,
        /// Port; 0 lets the system choose.
        port: u16,
    },
    /// A Unix socket (`unix:/run/tidings.sock`).
    Unix {
        /// Path of the socket file.
        path: PathBuf,
        /// Permissions of the socket file.
        mode: u32,
    },
}

/// Actual address that a server listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// IP address and port.
    Tcp(SocketAddr),
    /// Unix socket.
    Unix {
        /// Path of the socket file.
        path: PathBuf,
        /// Permissions of the socket file.
        mode: u32,
    },
}

/// A socket that is bound and listening.
pub(crate) enum BoundSocket {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// The file of a Unix socket; removed on drop.
pub(crate) struct SocketFile {
    path: PathBuf,
    mode: u32,
}

impl ListenOn {
    /// Parses an address of the configuration.
    #[must_use]
    pub fn new(address: &str, port: u16, unix_mode: u32) -> ListenOn {
        match address.strip_prefix("unix:") {
            Some(path) => ListenOn::Unix { path: path.into(), mode: unix_mode },
            None => {
                let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
                ListenOn::Tcp { host: bare.unwrap_or(address).to_owned(), port }
            }
        }
    }

    /// Binds the sockets, at least one.
    pub(crate) fn bind(&self) -> io::Result<Vec<BoundSocket>> {
        match self {
            ListenOn::Tcp { host, port } => {
                let sockets = bind_all(&addresses(host)?, *port)?;
                Ok(sockets.into_iter().map(BoundSocket::Tcp).collect())
            }
            ListenOn::Unix { path, mode } => Ok(vec![bind_unix(path, *mode)?]),
        }
    }
}

impl BoundSocket {
    pub(crate) fn address(&self) -> io::Result<ListenAddress> {
        Ok(match self {
            BoundSocket::Tcp(socket) => ListenAddress::Tcp(socket.local_addr()?),
            BoundSocket::Unix(_, SocketFile { path, mode }) => {
                ListenAddress::Unix { path: path.clone(), mode: *mode }
            }
        })
    }
}

impl fmt::Display for ListenOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenOn::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            ListenOn::Tcp { host, port } if host.is_empty() => write!(f, "port {port}"),
            ListenOn::Tcp { host, port } => write!(f, "{host}:{port}"),
            ListenOn::Unix { path, .. } => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Tcp(address) => address.fmt(f),
            ListenAddress::Unix { path, .. } => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // It may have been removed already.
        let _gone = fs::remove_file(&self.path);
    }
}

/// The distinct addresses of a host.
fn addresses(host: &str) -> io::Result<Vec<IpAddr>> {
    use std::net::ToSocketAddrs as _;
    if host.is_empty() {
        return Ok(vec![Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()]);
    }
    let mut addresses: Vec<IpAddr> = Vec::new();
    let unknown = |error: io::Error| {
        let text = error.to_string();
        let reason = text.trim_start_matches("failed to lookup address information: ");
        let text = format!("the name cannot be looked up: {reason}");
        io::Error::new(io::ErrorKind::HostUnreachable, text)
    };
    for address in (host, 0).to_socket_addrs().map_err(unknown)? {
        if !addresses.contains(&address.ip()) {
            addresses.push(address.ip());
        }
    }
    Ok(addresses)
}

/// Binds one socket for each address. Addresses that this machine does not have are skipped if
/// another one works, so that `localhost` works on a machine without IPv6.
fn bind_all(addresses: &[IpAddr], port: u16) -> io::Result<Vec<TcpListener>> {
    let mut missing = io::Error::new(io::ErrorKind::HostUnreachable, "the name has no address");
    for attempt in 0..PORT_ATTEMPTS {
        let mut sockets: Vec<(usize, TcpListener)> = Vec::new();
        let mut is_chosen_port_taken = false;
        // All get the port that the system chooses for the first. Each attempt begins with another
        // address: one family may have few free ports left, and the system chooses among those.
        for index in (0..addresses.len()).map(|index| (index + attempt) % addresses.len()) {
            let chosen = sockets.first().map(|(_, first)| first.local_addr()).transpose()?;
            let wanted = chosen.map_or(port, |chosen| chosen.port());
            match bind_tcp(SocketAddr::new(addresses[index], wanted)) {
                Ok(socket) => sockets.push((index, socket)),
                Err(error) if is_absent(&error) => missing = error,
                Err(error) if port == 0 && error.kind() == io::ErrorKind::AddrInUse => {
                    is_chosen_port_taken = true;
                    missing = error;
                }
                Err(error) => return Err(error),
            }
        }
        if !is_chosen_port_taken {
            sockets.sort_by_key(|(index, _)| *index);
            let sockets: Vec<_> = sockets.into_iter().map(|(_, socket)| socket).collect();
            return if sockets.is_empty() { Err(missing) } else { Ok(sockets) };
        }
    }
    Err(missing)
}

/// Attempts to find a port that is free on all addresses.
const PORT_ATTEMPTS: usize = 16;

fn is_absent(error: &io::Error) -> bool {
    // `EAFNOSUPPORT` has no `ErrorKind`.
    const EAFNOSUPPORT: i32 = 97;
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(EAFNOSUPPORT)
}

pub(super) fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Allows a restart while connections of the previous process are in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(LISTEN_BACKLOG).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

/// Binds a Unix socket. The file of a process that has ended is replaced; one in use is not.
pub(super) fn bind_unix(path: &Path, mode: u32) -> io::Result<BoundSocket> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            let text = "there is a file of this name, which is not a socket";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
        }
        Ok(_) if UnixStream::connect(path).is_ok() => return Err(io::ErrorKind::AddrInUse.into()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // Bound under a temporary name, so that no client connects before the permissions are set.
    let mut hidden = path.as_os_str().to_owned();
    hidden.push(format!(".{}", std::process::id()));
    let hidden = SocketFile { path: hidden.into(), mode };
    let _left_over = fs::remove_file(&hidden.path);
    let socket = UnixListener::bind(&hidden.path)?;
    fs::set_permissions(&hidden.path, fs::Permissions::from_mode(mode))?;
    fs::rename(&hidden.path, path)?;
    socket.set_nonblocking(true)?;
    Ok(BoundSocket::Unix(socket, SocketFile { path: path.to_owned(), mode }))
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    /// Sockets of a host, each of which takes connections, and their addresses.
    fn open(host: &str) -> (Vec<BoundSocket>, Vec<SocketAddr>) {
        let sockets = ListenOn::new(host, 0, 0o660).bind().unwrap();
        let address = |bound: &BoundSocket| match bound.address().unwrap() {
            ListenAddress::Tcp(address) => address,
            unix @ ListenAddress::Unix { .. } => panic!("{unix}"),
        };
        let addresses: Vec<SocketAddr> = sockets.iter().map(address).collect();
        for address in &addresses {
            TcpStream::connect(address).unwrap();
        }
        (sockets, addresses)
    }

    #[test]
    fn every_address_of_a_host_is_listened_on_with_one_port() {
        for host in ["[::1]", "::1"] {
            let (_sockets, addresses) = open(host);
            assert_eq!(addresses[0].ip(), IpAddr::from(Ipv6Addr::LOCALHOST));
        }
        let (_sockets, all) = open("");
        assert_eq!(all.iter().map(SocketAddr::is_ipv6).collect::<Vec<_>>(), [true, false]);
        assert_eq!(all[0].port(), all[1].port());
        // IPv4 has a socket of its own, whatever net.ipv6.bindv6only says.
        TcpStream::connect((Ipv4Addr::LOCALHOST, all[1].port())).unwrap();
        let (_sockets, local) = open("localhost");
        assert!(local.iter().all(|address| address.ip().is_loopback()), "{local:?}");
        assert_eq!(local.len(), addresses("localhost").unwrap().len());
    }

    #[test]
    fn a_stale_unix_socket_is_replaced_and_one_in_use_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tidings.sock");
        let on = ListenOn::new(&format!("unix:{}", path.display()), 8000, 0o600);
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "the stale file");
        let living = on.bind().unwrap();
        UnixStream::connect(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(on.bind().err().unwrap().kind(), io::ErrorKind::AddrInUse);
        drop(living);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        fs::write(&path, "not a socket").unwrap();
        assert_eq!(on.bind().err().unwrap().kind(), io::ErrorKind::AlreadyExists);
        assert!(path.exists());
    }
}
