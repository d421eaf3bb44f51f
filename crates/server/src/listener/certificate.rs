//! Certificate and key of a TLS listener, reloaded when their files change.
//!
//! Invariant: an error names the setting and the file, and never contains the key. An unusable
//! certificate never replaces a usable one.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use thiserror::Error;
use tokio_rustls::TlsAcceptor;
use tracing::{error, info};

use super::HttpVersion;
use crate::config::{Config, Kind, Tls, file_of, read_pem};
use crate::limits::CERTIFICATE_LOOK_INTERVAL;

/// Certificate or key cannot be used.
#[derive(Debug, Error)]
#[error("{setting}: {fault}")]
pub struct CertificateError {
    setting: &'static str,
    fault: String,
}

/// The current certificate of a TLS listener.
#[derive(Debug)]
pub(crate) struct Certificate {
    tls: Tls,
    keys: CertificateKeys,
    provider: Arc<CryptoProvider>,
    current: RwLock<Arc<CertifiedKey>>,
}

/// Device, inode, size and modification time of both files.
type Fingerprint = [Option<(u64, u64, u64, i64, i64)>; 2];

/// Keys of the configuration that name a certificate, for errors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CertificateKeys {
    pub(crate) section: &'static str,
    cert_pem: &'static str,
    key_pem: &'static str,
}

impl CertificateKeys {
    pub(crate) const HTTP: CertificateKeys = CertificateKeys {
        section: "http_server.tls",
        cert_pem: "http_server.tls.cert_pem",
        key_pem: "http_server.tls.key_pem",
    };
    pub(crate) const GRPC: CertificateKeys = CertificateKeys {
        section: "grpc_api.tls",
        cert_pem: "grpc_api.tls.cert_pem",
        key_pem: "grpc_api.tls.key_pem",
    };
}

/// Checks that the configured certificates and keys can be used.
///
/// # Errors
/// [`CertificateError`] names the setting that cannot be used.
pub fn check_certificates(config: &Config) -> Result<(), CertificateError> {
    let grpc = config.grpc_api.as_ref().and_then(|grpc| grpc.tls.as_ref());
    let used = [(&config.http.tls, CertificateKeys::HTTP), (&grpc.cloned(), CertificateKeys::GRPC)];
    for (tls, keys) in used {
        if let Some(tls) = tls {
            Certificate::load(tls.clone(), keys)?;
        }
    }
    Ok(())
}

impl Certificate {
    pub(crate) fn load(
        tls: Tls,
        keys: CertificateKeys,
    ) -> Result<Arc<Certificate>, CertificateError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let current = RwLock::new(read(&tls, keys, &provider)?);
        Ok(Arc::new(Certificate { tls, keys, provider, current }))
    }

    /// Returns an acceptor that uses the current certificate in each handshake.
    pub(crate) fn acceptor(self: &Arc<Certificate>, http_version: HttpVersion) -> TlsAcceptor {
        let builder = ServerConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()
            .expect("the provider has the default versions");
        let mut config = builder.with_no_client_auth().with_cert_resolver(self.clone());
        config.alpn_protocols = vec![http_version.alpn().to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }

    /// Reads the files again for handshakes from now on. If they cannot be used, this is logged and
    /// the current certificate is kept.
    pub(crate) fn reload(&self) {
        match read(&self.tls, self.keys, &self.provider) {
            Ok(renewed) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = renewed;
                let section = self.keys.section;
                info!(section, "the certificate was read again; new TLS handshakes use it");
            }
            Err(error) => {
                error!(%error, "the certificate was read again and cannot be used; the one before stays");
            }
        }
    }

    /// Reloads the files when they change. Does not return.
    pub(crate) async fn follow_files(self: Arc<Certificate>) {
        let mut known = self.fingerprint();
        let mut last = known;
        loop {
            tokio::time::sleep(CERTIFICATE_LOOK_INTERVAL).await;
            let seen = self.fingerprint();
            // Certificate and key are written one after the other, so files that still change are
            // not read.
            if seen != known && seen == last {
                known = seen;
                self.reload();
            }
            last = seen;
        }
    }

    fn fingerprint(&self) -> Fingerprint {
        let files =
            [file_of(Kind::Text, &self.tls.cert_pem), file_of(Kind::Secret, &self.tls.key_pem)];
        files.map(|file| {
            let found = fs::metadata(file?).ok()?;
            Some((found.dev(), found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
        })
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

fn read(
    tls: &Tls,
    keys: CertificateKeys,
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, CertificateError> {
    let unread = |setting| move |fault| CertificateError { setting, fault };
    let wrong = |setting, file: Option<&str>, fault: &str| {
        let file = file.map_or(String::new(), |file| format!("{file} "));
        CertificateError { setting, fault: format!("{file}{fault}") }
    };
    let in_chain = |fault: &str| wrong(keys.cert_pem, file_of(Kind::Text, &tls.cert_pem), fault);
    let in_key = |fault: &str| wrong(keys.key_pem, file_of(Kind::Secret, &tls.key_pem), fault);
    let chain = read_pem(Kind::Text, &tls.cert_pem).map_err(unread(keys.cert_pem))?;
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_| in_chain("is not a certificate in PEM"))?;
    if chain.is_empty() {
        return Err(in_chain("contains no certificate"));
    }
    let key = read_pem(Kind::Secret, &tls.key_pem).map_err(unread(keys.key_pem))?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
        .map_err(|_| in_key("contains no private key in PEM"))?;
    CertifiedKey::from_der(chain, key, provider)
        .map(Arc::new)
        .map_err(|error| in_chain(&format!("does not go with the key: {error}")))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::path::Path;

    use super::*;

    fn write(path: &Path, text: &str) {
        fs::File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn certificate() -> (String, String, CertificateDer<'static>) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem(), made.cert.der().clone())
    }

    #[tokio::test(start_paused = true)]
    async fn changed_files_are_loaded_and_unusable_ones_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let [cert_file, key_file] = ["cert.pem", "key.pem"].map(|name| folder.path().join(name));
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let (first, first_key, first_der) = certificate();
        write(&cert_file, &first);
        write(&key_file, &first_key);
        let tls = Tls { cert_pem: text(&cert_file), key_pem: text(&key_file) };
        let certificate_of_server = Certificate::load(tls, CertificateKeys::HTTP).unwrap();
        let used = || certificate_of_server.current.read().unwrap().cert[0].clone();
        tokio::spawn(certificate_of_server.clone().follow_files());
        let look = async || tokio::time::sleep(3 * CERTIFICATE_LOOK_INTERVAL).await;
        look().await;
        // Only the certificate: it does not go with the key.
        let (second, second_key, second_der) = certificate();
        write(&cert_file, &second);
        look().await;
        assert_eq!(used(), first_der);
        write(&key_file, &second_key);
        look().await;
        assert_eq!(used(), second_der);
        fs::remove_file(&cert_file).unwrap();
        look().await;
        certificate_of_server.reload();
        assert_eq!(used(), second_der);
    }
}
