//! Errors that prevent a start.
//!
//! Invariant: each text names what failed, and what to do where the operator can do something.

use std::io;

use brokers::nats::NatsError;
use thiserror::Error;

use crate::listener::CertificateError;
use crate::token::KeyError;

/// Why a server did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {fault}")]
    Listen {
        /// Host and port, or the file of a Unix socket.
        address: String,
        /// What is wrong, and what to do.
        fault: String,
    },
    /// Certificate or key cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// Keys of tokens cannot be used.
    #[error("client.token.{0}")]
    Key(String),
    /// The broker cannot be used.
    #[error("{0}")]
    Broker(String),
    /// The broker does not say what was changed.
    #[error(
        "the broker does not say which options were changed in sys:config, so that this node would not know what holds"
    )]
    DynamicConfig,
    /// NATS cannot be used as configured.
    #[error(transparent)]
    Nats(#[from] NatsError),
    /// The kernel gave no thread, poller or random bytes.
    #[error("cannot start: {0}")]
    System(String),
}

// The texts hold their causes: as a source, a cause would be written twice.
impl From<KeyError> for StartError {
    fn from(error: KeyError) -> StartError {
        StartError::Key(error.to_string())
    }
}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> StartError {
        StartError::System(error.to_string())
    }
}
