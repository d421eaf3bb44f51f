//! TLS towards a backend: whom to trust, and the certificate of this node.
//!
//! Invariant: a certificate of the backend is always verified.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};

/// TLS settings of the connections to a backend.
#[derive(Clone)]
pub struct BackendTls {
    pub(crate) config: ClientConfig,
    pub(crate) server_name: Option<ServerName<'static>>,
}

impl fmt::Debug for BackendTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendTls").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

/// Input of [`BackendTls::new`], as PEM.
#[derive(Clone, Copy, Default)]
pub struct BackendTlsPem<'p> {
    /// Trusted certificates in place of the public roots.
    pub roots: Option<&'p str>,
    /// Certificate chain and private key of this node.
    pub own: Option<(&'p str, &'p str)>,
    /// Name to verify in place of the host of the endpoint.
    pub server_name: Option<&'p str>,
}

/// Why TLS settings are invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackendTlsError {
    /// The trusted certificates cannot be read.
    #[error("contains no certificate in PEM")]
    Roots,
    /// The certificate or key of this node cannot be used.
    #[error("certificate and key cannot be used: {0}")]
    Own(String),
    /// The name is none of a host.
    #[error("is not the name of a host")]
    ServerName,
}

impl BackendTls {
    /// Reads settings.
    ///
    /// # Errors
    /// [`BackendTlsError`].
    ///
    /// # Panics
    /// Never: the provider supports the default versions of TLS.
    pub fn new(pem: BackendTlsPem<'_>) -> Result<BackendTls, BackendTlsError> {
        let mut roots = RootCertStore::empty();
        match pem.roots {
            None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            Some(pem) => {
                for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                    let certificate = certificate.map_err(|_| BackendTlsError::Roots)?;
                    roots.add(certificate).map_err(|_| BackendTlsError::Roots)?;
                }
            }
        }
        if roots.is_empty() {
            return Err(BackendTlsError::Roots);
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider supports the default versions")
            .with_root_certificates(roots);
        let own = |error: &dyn fmt::Display| BackendTlsError::Own(error.to_string());
        let config = match pem.own {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let chain = CertificateDer::pem_slice_iter(chain.as_bytes());
                let chain = chain.collect::<Result<_, _>>().map_err(|error| own(&error))?;
                let key =
                    PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| own(&error))?;
                builder.with_client_auth_cert(chain, key).map_err(|error| own(&error))?
            }
        };
        let server_name = pem.server_name.map(|name| ServerName::try_from(name.to_owned()));
        let server_name = server_name.transpose().map_err(|_| BackendTlsError::ServerName)?;
        Ok(BackendTls { config, server_name })
    }

    /// TLS with the public roots.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn public() -> BackendTls {
        BackendTls::new(BackendTlsPem::default()).expect("the public roots are valid")
    }
}
