//! Why PostgreSQL cannot be used, or has refused a statement.
//!
//! Invariant: each text says what failed, why and where; none contains a password or a row.

use fallible_iterator::FallibleIterator as _;
use postgres_protocol::message::backend::ErrorResponseBody;

use super::dsn::PostgresHost;
use crate::error::ConsumerError;

/// Why PostgreSQL cannot be used, or has refused a statement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PostgresError {
    /// No connection to the server.
    #[error("PostgreSQL at {host} cannot be reached: {cause}")]
    Unreachable {
        /// The server.
        host: PostgresHost,
        /// The error of the system.
        cause: String,
    },
    /// Connecting and logging in took too long.
    #[error("PostgreSQL at {0} does not answer in time")]
    Silent(PostgresHost),
    /// TLS is wanted and the server has none.
    #[error("PostgreSQL at {0} does not offer TLS")]
    NoTls(PostgresHost),
    /// TLS fails.
    #[error("TLS to PostgreSQL at {host} fails: {cause}")]
    Tls {
        /// The server.
        host: PostgresHost,
        /// The error of TLS.
        cause: String,
    },
    /// A file of certificates cannot be used.
    #[error("{0}")]
    Certificates(String),
    /// The server requires an authentication method that is not supported.
    #[error(
        "PostgreSQL at {0} requires an unsupported authentication method (supported: password, MD5, SCRAM-SHA-256)"
    )]
    Authentication(PostgresHost),
    /// The server has refused something.
    #[error("{0}")]
    Server(ServerError),
    /// The connection has ended.
    #[error("the connection to PostgreSQL was lost: {0}")]
    Lost(String),
    /// The server does not keep to the protocol.
    #[error("the server does not speak the protocol of PostgreSQL: {0}")]
    Protocol(&'static str),
    /// An answer is larger than is accepted.
    #[error("a message of {length} bytes from PostgreSQL exceeds the limit of {max}")]
    TooLarge {
        /// Length of the message.
        length: usize,
        /// Greatest length.
        max: usize,
    },
}

/// An error message of the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerError {
    /// Five characters that name the error, such as `42P01`.
    pub code: String,
    /// The server's text.
    pub message: String,
    /// More about it, if the server says more.
    pub detail: String,
}

impl std::fmt::Display for ServerError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "PostgreSQL: {} (SQLSTATE {})", self.message, self.code)?;
        match self.detail.is_empty() {
            true => Ok(()),
            false => write!(formatter, ": {}", self.detail),
        }
    }
}

impl ServerError {
    pub(super) fn read(body: &ErrorResponseBody) -> ServerError {
        let mut error = ServerError::default();
        let mut fields = body.fields();
        while let Ok(Some(field)) = fields.next() {
            let text = || String::from_utf8_lossy(field.value_bytes()).into_owned();
            match field.type_() {
                b'C' => error.code = text(),
                b'M' => error.message = text(),
                b'D' => error.detail = text(),
                _ => {}
            }
        }
        error
    }
}

impl PostgresError {
    /// The code of the server's error.
    pub fn code(&self) -> Option<&str> {
        match self {
            PostgresError::Server(error) => Some(&error.code),
            _ => None,
        }
    }

    /// The error of a consumer of `source_name`.
    pub(super) fn of_consumer(self, source_name: &str) -> ConsumerError {
        let source_name = source_name.to_owned();
        let reason = self.to_string();
        let PostgresError::Server(error) = self else {
            return match self {
                PostgresError::Certificates(_)
                | PostgresError::NoTls(_)
                | PostgresError::Authentication(_)
                | PostgresError::TooLarge { .. } => ConsumerError::Settings { reason },
                _ => ConsumerError::Unavailable { source_name, reason },
            };
        };
        match error.code.as_str() {
            // Login and rights.
            "28000" | "28P01" | "42501" => ConsumerError::Unauthorized { source_name, reason },
            // Database, schema, table, object.
            "3D000" | "3F000" | "42P01" | "42704" => {
                ConsumerError::Missing { missing: format!("object of {source_name} ({error})") }
            }
            code if ["42", "22", "0A"].iter().any(|class| code.starts_with(class)) => {
                ConsumerError::Settings { reason }
            }
            _ => ConsumerError::Unavailable { source_name, reason },
        }
    }
}
