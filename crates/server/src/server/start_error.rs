//! Errors that prevent a start.
//!
//! Invariant: each text names what failed, and what to do where the operator can do something.

use std::io;

use brokers::nats::NatsError;
use thiserror::Error;

use crate::listener::CertificateError;
use crate::token::KeyError;

/// Reason for which a server did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {fault}")]
    Listen {
        /// Host and port, or the file of a Unix socket.
        address: String,
        /// What is wrong, and how to fix it.
        fault: String,
    },
    /// The TLS certificate or its key cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The keys of tokens cannot be used.
    #[error("client.token.{0}")]
    Key(String),
    /// The broker cannot be used; the text names the reason.
    #[error("{0}")]
    Broker(String),
    /// The dynamic configuration cannot be read from the broker.
    #[error(
        "the options that were changed in sys:config cannot be read from the broker; check that the broker is available and start again"
    )]
    DynamicConfig,
    /// NATS cannot be used as configured.
    #[error(transparent)]
    Nats(#[from] NatsError),
    /// A thread, a poller or random bytes are not available from the kernel.
    #[error("cannot start: {0}")]
    System(String),
}

// The texts contain their causes; as a `source` a cause would be printed twice.
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
