//! Certificate and key of a TLS listener.
//!
//! Invariant: an error names the setting and the file, never what the key holds.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;
use tokio_rustls::TlsAcceptor;

use crate::config::keys::Kind;
use crate::config::{Config, Tls, file_of, read_pem};

/// Why TLS cannot be served.
#[derive(Debug, Error)]
#[error("{setting}: {fault}")]
pub struct CertificateError {
    setting: &'static str,
    fault: String,
}

/// Whether certificate and key of a configuration, if it has any, can be used.
///
/// # Errors
/// [`CertificateError`].
pub fn check_certificate(config: &Config) -> Result<(), CertificateError> {
    config.http.tls.as_ref().map_or(Ok(()), |tls| acceptor(tls).map(drop))
}

/// Reads certificate and key.
pub(crate) fn acceptor(tls: &Tls) -> Result<TlsAcceptor, CertificateError> {
    let unread = |setting| move |fault| CertificateError { setting, fault };
    let wrong = |setting, file: Option<&str>, fault: &str| {
        let file = file.map_or(String::new(), |file| format!("{file} "));
        CertificateError { setting, fault: format!("{file}{fault}") }
    };
    let (cert_pem, key_pem) = ("http_server.tls.cert_pem", "http_server.tls.key_pem");
    let in_chain = |fault: &str| wrong(cert_pem, file_of(Kind::Text, &tls.cert_pem), fault);
    let in_key = |fault: &str| wrong(key_pem, file_of(Kind::Secret, &tls.key_pem), fault);
    let chain = read_pem(Kind::Text, &tls.cert_pem).map_err(unread(cert_pem))?;
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_| in_chain("is not a certificate in PEM"))?;
    if chain.is_empty() {
        return Err(in_chain("contains no certificate"));
    }
    let key = read_pem(Kind::Secret, &tls.key_pem).map_err(unread(key_pem))?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
        .map_err(|_| in_key("contains no private key in PEM"))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| in_chain(&format!("does not go with the key: {error}")))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
