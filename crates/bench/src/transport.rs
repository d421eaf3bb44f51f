//! A socket of the generator that never blocks, with TLS or without.
//!
//! Invariant: `read` says that it would block only when the kernel has nothing more, so that no
//! bytes wait unseen.

use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use mio::net::TcpStream;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use socket2::SockRef;

use crate::usage::UsageError;

use super::plan::Security;

/// A non-blocking socket, with or without TLS.
pub(crate) struct Transport {
    tcp: TcpStream,
    tls: Option<Box<ClientConnection>>,
}

/// Of all connections of this process, which all go to one server.
static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();

/// Does what the first connection would have to wait for.
pub(crate) fn prepare(security: Option<&Security>) -> Result<(), String> {
    security.map_or(Ok(()), |security| shared_config(security).map(drop))
}

fn shared_config(security: &Security) -> Result<Arc<ClientConfig>, String> {
    if let Some(config) = CONFIG.get() {
        return Ok(config.clone());
    }
    let config = config(security).map_err(|error| format!("{error:#}"))?;
    Ok(CONFIG.get_or_init(|| config).clone())
}

impl Transport {
    /// Over this socket, which may still be on its way.
    pub(crate) fn new(tcp: TcpStream, security: Option<&Security>) -> Result<Transport, String> {
        let Some(security) = security else { return Ok(Transport { tcp, tls: None }) };
        let name = ServerName::try_from(security.host.clone())
            .map_err(|_| format!("{} is not a valid server name for TLS", security.host))?;
        let config = shared_config(security)?;
        let tls = ClientConnection::new(config, name).map_err(|error| error.to_string())?;
        Ok(Transport { tcp, tls: Some(Box::new(tls)) })
    }

    pub(crate) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    pub(crate) fn is_plain(&self) -> bool {
        self.tls.is_none()
    }

    /// The next close leaves nothing behind, so that no port waits for the peer's goodbye.
    pub(crate) fn reset(&self) {
        // A socket that is gone already has nothing to leave behind.
        let _gone = SockRef::from(&self.tcp).set_linger(Some(Duration::ZERO));
    }

    /// As the kernel's; 0 at the end.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return self.tcp.read(buffer) };
        loop {
            match tls.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
            if tls.read_tls(&mut self.tcp)? == 0 {
                return Ok(0);
            }
            tls.process_new_packets().map_err(io::Error::other)?;
            send(tls, &mut self.tcp)?;
        }
    }

    /// As the kernel's; with TLS what was taken may still wait for [`Transport::flush`].
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return self.tcp.write(bytes) };
        send(tls, &mut self.tcp)?;
        match tls.writer().write(bytes)? {
            // Its buffer is full.
            0 => Err(io::ErrorKind::WouldBlock.into()),
            count => {
                send(tls, &mut self.tcp)?;
                Ok(count)
            }
        }
    }

    /// Hands on what TLS has to say, as far as the kernel takes it.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.tls.as_mut().map_or(Ok(()), |tls| send(tls, &mut self.tcp))
    }
}

fn send(tls: &mut ClientConnection, tcp: &mut TcpStream) -> io::Result<()> {
    while tls.wants_write() {
        match tls.write_tls(tcp) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Trusts the public authorities, or only those of the file.
fn config(security: &Security) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    if let Some(file) = &security.ca {
        roots = authorities(file)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// The certificates of a PEM file.
pub(crate) fn authorities(file: &Path) -> anyhow::Result<RootCertStore> {
    let unreadable =
        || UsageError(format!("--ca {}: expected certificates as PEM", file.display()));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).with_context(unreadable)? {
        roots.add(certificate.with_context(unreadable)?).with_context(unreadable)?;
    }
    if roots.is_empty() {
        return Err(unreadable().into());
    }
    Ok(roots)
}
