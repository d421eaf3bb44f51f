//! Fetches the document of a key set. No other file of this module does network I/O.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use ureq::Agent;
use ureq::tls::TlsConfig;

use super::limits::{KEY_SET_BYTES_MAX, KEY_SET_TIMEOUT_MS};

/// Fetches the document at a URL. Blocks the calling thread for a bounded time.
pub trait Fetch: Send + Sync {
    /// Makes one request and returns the body of the response.
    fn fetch(&self, address: &str) -> Result<Vec<u8>, FetchFailure>;
}

/// Why a key set is not available. Contains nothing of the URL and the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FetchFailure {
    /// The response did not arrive in time.
    #[error("no response within {KEY_SET_TIMEOUT_MS} ms")]
    Timeout,
    /// No connection, or the connection was closed.
    #[error("not reachable")]
    Unreachable,
    /// The server's certificate was not accepted.
    #[error("no trusted TLS connection")]
    Tls,
    /// Any status but 200. Redirections are not followed.
    #[error("response with status {0}")]
    Status(u16),
    /// The document is longer than the maximum.
    #[error("document longer than {KEY_SET_BYTES_MAX} bytes")]
    TooLong,
    /// The document is not a key set.
    #[error("document is not a JSON Web Key Set")]
    NotAKeySet,
    /// The set has more keys than the maximum.
    #[error("too many keys in the set")]
    TooManyKeys,
}

/// Fetches by HTTP/1.1, with or without TLS.
pub(super) struct HttpFetch {
    agent: Agent,
}

impl HttpFetch {
    /// A client that all key sets of a verifier share.
    pub(super) fn shared() -> Arc<dyn Fetch> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = TlsConfig::builder().unversioned_rustls_crypto_provider(provider).build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            .timeout_global(Some(Duration::from_millis(KEY_SET_TIMEOUT_MS)))
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .build()
            .new_agent();
        Arc::new(Self { agent })
    }
}

impl Fetch for HttpFetch {
    fn fetch(&self, address: &str) -> Result<Vec<u8>, FetchFailure> {
        let mut response = self
            .agent
            .get(address)
            .header("accept", "application/json")
            .call()
            .map_err(|error| failure(&error))?;
        if response.status() != 200 {
            return Err(FetchFailure::Status(response.status().as_u16()));
        }
        response
            .body_mut()
            .with_config()
            .limit(KEY_SET_BYTES_MAX)
            .read_to_vec()
            .map_err(|error| failure(&error))
    }
}

fn failure(error: &ureq::Error) -> FetchFailure {
    match error {
        ureq::Error::Timeout(_) => FetchFailure::Timeout,
        ureq::Error::BodyExceedsLimit(_) => FetchFailure::TooLong,
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) => FetchFailure::Tls,
        _ => FetchFailure::Unreachable,
    }
}
