//! Settings of a consumer of JetStream.
//!
//! Invariant: credentials never appear in debug output.

use std::path::PathBuf;

use crate::decode::RecordForm;

/// Settings of a JetStream consumer.
#[derive(Clone)]
pub struct NatsConsumerSettings {
    /// Addresses, separated by commas, without credentials.
    pub url: String,
    /// Credentials.
    pub login: NatsLogin,
    /// TLS.
    pub tls: NatsConsumerTls,
    /// Stream.
    pub stream: String,
    /// Subjects of the stream; none for all.
    pub subjects: Vec<String>,
    /// Name of the durable consumer.
    pub durable: String,
    /// Where a new durable consumer begins.
    pub deliver: DeliverPolicy,
    /// Messages that may be under way.
    pub max_ack_pending: u32,
    /// Whether the durable consumer must exist, and its own settings hold.
    pub uses_existing: bool,
    /// How messages are written.
    pub form: RecordForm,
    /// Subject for messages that can never be handled; empty for none.
    pub dead_letter_subject: String,
}

/// Credentials for NATS.
#[derive(Clone, Default)]
pub enum NatsLogin {
    /// None.
    #[default]
    Anonymous,
    /// User and password.
    User(String, String),
    /// A token.
    Token(String),
}

/// TLS of a connection to NATS.
#[derive(Clone, Debug, Default)]
pub struct NatsConsumerTls {
    /// Refuse a server without TLS.
    pub is_required: bool,
    /// File of trusted certificates.
    pub roots: Option<PathBuf>,
    /// Files of the client's certificate and key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// Where a new durable consumer begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliverPolicy {
    /// With messages that come after it was created.
    New,
    /// With the first message of the stream.
    All,
}

impl std::fmt::Debug for NatsConsumerSettings {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("NatsConsumerSettings")
            .field("stream", &self.stream)
            .field("durable", &self.durable)
            .finish_non_exhaustive()
    }
}
