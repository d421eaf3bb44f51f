//! The socket of a connection: TCP or Unix, plain or with TLS.
//!
//! Invariant: a server that stops answering is noticed by the kernel, so that no statement waits
//! forever on a connection that is gone.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::dsn::PostgresHost;
use super::postgres_error::PostgresError;
use super::tls::TlsPlan;

pub(super) trait PostgresSocket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> PostgresSocket for S {}

/// Connects, with TLS if the plan says so.
pub(super) async fn connect(
    host: &PostgresHost,
    tls: Option<&TlsPlan>,
) -> Result<Box<dyn PostgresSocket>, PostgresError> {
    let unreachable = |error: io::Error| PostgresError::Unreachable {
        host: host.clone(),
        cause: error.to_string(),
    };
    if host.host.starts_with('/') {
        let path = format!("{}/.s.PGSQL.{}", host.host, host.port);
        return Ok(Box::new(UnixStream::connect(path).await.map_err(unreachable)?));
    }
    let stream = TcpStream::connect((host.host.as_str(), host.port)).await.map_err(unreachable)?;
    watch(&stream).map_err(unreachable)?;
    match tls {
        None => Ok(Box::new(stream)),
        Some(plan) => encrypt(stream, host, plan).await,
    }
}

/// Without an answer for about a minute the kernel ends the connection.
fn watch(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(20))
        .with_interval(Duration::from_secs(10))
        .with_retries(3);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(Duration::from_secs(60)))?;
    Ok(())
}

async fn encrypt(
    mut stream: TcpStream,
    host: &PostgresHost,
    plan: &TlsPlan,
) -> Result<Box<dyn PostgresSocket>, PostgresError> {
    let failed = |cause: &dyn std::fmt::Display| PostgresError::Tls {
        host: host.clone(),
        cause: cause.to_string(),
    };
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    stream.write_all(&request).await.map_err(|error| failed(&error))?;
    match stream.read_u8().await.map_err(|error| failed(&error))? {
        b'S' => {}
        b'N' if plan.is_required => return Err(PostgresError::NoTls(host.clone())),
        b'N' => return Ok(Box::new(stream)),
        _ => return Err(PostgresError::Protocol("no answer to the request for TLS")),
    }
    let name = plan.server_name.clone().unwrap_or_else(|| host.host.clone());
    let name = ServerName::try_from(name).map_err(|error| failed(&error))?;
    let stream = TlsConnector::from(plan.config.clone()).connect(name, stream).await;
    Ok(Box::new(stream.map_err(|error| failed(&error))?))
}
