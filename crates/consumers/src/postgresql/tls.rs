//! TLS of connections to PostgreSQL, as `sslmode` and the section `tls` say.
//!
//! Invariant: a certificate is left unverified only where the mode says so.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::dsn::{Dsn, SslMode};
use super::postgres_error::PostgresError;

/// The section `tls`; it goes before `sslmode`.
#[derive(Clone, Debug)]
pub struct PostgresTls {
    /// Verified names, certificates of this client, trusted roots.
    pub config: Arc<ClientConfig>,
    /// Name to verify in place of the host.
    pub server_name: Option<String>,
}

/// How one connection uses TLS.
#[derive(Clone, Debug)]
pub(super) struct TlsPlan {
    pub(super) config: Arc<ClientConfig>,
    pub(super) server_name: Option<String>,
    /// Whether a server without TLS is refused.
    pub(super) is_required: bool,
}

impl TlsPlan {
    /// `None` for plain TCP.
    pub(super) fn of(
        dsn: &Dsn,
        tls: Option<&PostgresTls>,
    ) -> Result<Option<TlsPlan>, PostgresError> {
        if let Some(PostgresTls { config, server_name }) = tls {
            let (config, server_name) = (config.clone(), server_name.clone());
            return Ok(Some(TlsPlan { config, server_name, is_required: true }));
        }
        let is_required = dsn.ssl_mode != SslMode::Prefer;
        let config = match dsn.ssl_mode {
            SslMode::Disable => return Ok(None),
            mode => client_config(dsn, mode)?,
        };
        Ok(Some(TlsPlan { config: Arc::new(config), server_name: None, is_required }))
    }
}

fn client_config(dsn: &Dsn, mode: SslMode) -> Result<ClientConfig, PostgresError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let unusable = |what: &dyn std::fmt::Display| PostgresError::Certificates(what.to_string());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&error))?;
    let builder = match mode {
        SslMode::VerifyFull => builder.with_root_certificates(roots(dsn)?),
        SslMode::VerifyCa => {
            let verifier = AnyName { roots: Some(roots(dsn)?), provider };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        }
        SslMode::Disable | SslMode::Prefer | SslMode::Require => {
            let verifier = AnyName { roots: None, provider };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        }
    };
    let Some((chain, key)) = &dsn.ssl_client else { return Ok(builder.with_no_client_auth()) };
    let chain = certificates(chain)?;
    let key = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| unusable(&format_args!("sslkey {}: {error}", key.display())))?;
    builder.with_client_auth_cert(chain, key).map_err(|error| unusable(&error))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PostgresError> {
    let unusable = |error: &dyn std::fmt::Display| {
        PostgresError::Certificates(format!("certificates in {}: {error}", path.display()))
    };
    let found = CertificateDer::pem_file_iter(path).map_err(|error| unusable(&error))?;
    let found: Vec<_> = found.collect::<Result<_, _>>().map_err(|error| unusable(&error))?;
    match found.is_empty() {
        true => Err(unusable(&"none")),
        false => Ok(found),
    }
}

fn roots(dsn: &Dsn) -> Result<RootCertStore, PostgresError> {
    let mut roots = RootCertStore::empty();
    match &dsn.ssl_root_cert {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => {
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| {
                    PostgresError::Certificates(format!("sslrootcert {}: {error}", path.display()))
                })?;
            }
        }
    }
    Ok(roots)
}

/// Accepts a certificate of any name: signed by one of the roots, or by anybody without roots.
#[derive(Debug)]
struct AnyName {
    roots: Option<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(roots) = &self.roots {
            let certificate = ParsedCertificate::try_from(end_entity)?;
            let algorithms = self.provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(
                &certificate,
                roots,
                intermediates,
                now,
                algorithms,
            )?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
