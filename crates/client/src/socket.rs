//! Byte streams: TCP, and TLS over it.

mod addresses;

use std::io;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;

use crate::error::TransportError;
use crate::url::ServerUrl;

/// A byte stream.
pub(crate) trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for S {}

/// A TCP connection, with or without TLS.
pub(crate) type ClientSocket = Box<dyn ByteStream>;

/// Opens a byte stream to the server.
pub(crate) async fn open(
    url: ServerUrl,
    tls: Option<Arc<ClientConfig>>,
) -> Result<ClientSocket, TransportError> {
    let tcp = connect(&url).await?;
    tcp.set_nodelay(true).map_err(|error| TransportError::Io(error.to_string()))?;
    if !url.is_tls() {
        return Ok(Box::new(tcp));
    }
    let config = match tls {
        Some(config) => config,
        None => default_tls()?,
    };
    let name = ServerName::try_from(url.host().to_owned()).map_err(|_| {
        TransportError::Tls(format!("{} is not a valid server name for TLS", url.host()))
    })?;
    match TlsConnector::from(config).connect(name, tcp).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(error) => Err(explain(&error, &url)),
    }
}

async fn connect(url: &ServerUrl) -> Result<TcpStream, TransportError> {
    let no_address =
        |reason: String| TransportError::NoAddress { host: url.host().to_owned(), reason };
    let found = lookup_host((url.host(), url.port()))
        .await
        .map_err(|error| no_address(error.to_string()))?;
    addresses::connect(found).await.map_err(|last| match last {
        Some((address, error)) => {
            TransportError::Io(format!("cannot connect to {address}: {error}"))
        }
        None => no_address("there is none for this name".to_owned()),
    })
}

/// What a socket's error means: an error of TLS stays, one of the network may pass.
pub(crate) fn explain(error: &io::Error, url: &ServerUrl) -> TransportError {
    let of_tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match of_tls {
        Some(rustls::Error::InvalidMessage(_)) => TransportError::Tls(format!(
            "{} does not speak TLS: if that is meant, the address begins with ws://",
            url.authority()
        )),
        Some(fault) => TransportError::Tls(format!("TLS with {}: {fault}", url.authority())),
        None => TransportError::Io(format!("the connection was cut: {error}")),
    }
}

fn default_tls() -> Result<Arc<ClientConfig>, TransportError> {
    let roots = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TransportError::Tls(error.to_string()))?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}
