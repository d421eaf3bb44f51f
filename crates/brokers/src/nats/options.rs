//! Options of the NATS broker, and errors of its start.

use std::path::PathBuf;

use crate::limits::{LEASE_MS, NATS_PREFIX_MAX};

/// Options of the NATS broker. The names are those of the configuration below `broker.nats`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsOptions {
    /// One or more addresses, separated by commas, `nats://` or `tls://`; may contain a user and
    /// password, or a token.
    pub url: String,
    /// Prefix of all subjects and streams; separates installations that share a server.
    pub prefix: String,
    /// Name of this node in lifecycle events.
    pub name: String,
    /// Milliseconds without a renewal after which a node counts as failed, and other nodes publish
    /// that its clients are offline; must be equal on all nodes.
    pub lease_ms: u64,
    /// Time-out of a connection attempt, milliseconds.
    pub dial_timeout_ms: u64,
    /// TLS of the connection.
    pub tls: NatsTls,
    /// Use of JetStream; `None` for fan-out only.
    pub jetstream: Option<JetStreamOptions>,
    /// Bytes of the largest message that clients may send; a smaller `max_payload` of the server
    /// adds a warning.
    pub message_size_max: usize,
}

/// TLS of the connection to NATS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NatsTls {
    /// Refuse a server without TLS. Also implied by `tls://`.
    pub enabled: bool,
    /// Certificates of authorities to trust besides those of the system, PEM.
    pub server_ca_pem_file: Option<PathBuf>,
    /// Client certificate and its key, PEM.
    pub client_pem_files: Option<(PathBuf, PathBuf)>,
}

/// Options of JetStream, which stores history, presence, idempotency keys and versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JetStreamOptions {
    /// Replicas of each stream in a NATS cluster.
    pub replicas: u32,
    /// The largest `history_size` of all namespaces.
    pub history_size_max: u32,
    /// The longest `history_meta_ttl` or `channel_ttl` of all namespaces, milliseconds.
    pub kept_ms_max: u64,
    /// Lifecycle events that the stream for backends retains.
    pub events_max: u32,
}

impl Default for NatsOptions {
    fn default() -> NatsOptions {
        NatsOptions {
            url: "nats://localhost:4222".into(),
            prefix: "tidings".into(),
            name: String::new(),
            lease_ms: LEASE_MS,
            dial_timeout_ms: 1000,
            tls: NatsTls::default(),
            jetstream: None,
            message_size_max: 0,
        }
    }
}

/// Why the NATS broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum NatsError {
    /// The prefix cannot be part of a subject.
    #[error(
        "broker.nats.prefix {0:?} is not one or more subject tokens of letters, digits, - and _, of {NATS_PREFIX_MAX} bytes together"
    )]
    Prefix(String),
    /// No server could be reached.
    #[error("no NATS server can be reached at broker.nats.url ({url}): {reason}")]
    Unreachable {
        /// The addresses without credentials.
        url: String,
        /// Error text of the client library.
        reason: String,
    },
    /// The TLS handshake with the server failed.
    #[error("TLS with NATS at broker.nats.url ({url}) fails, see broker.nats.tls: {reason}")]
    Tls {
        /// The addresses without credentials.
        url: String,
        /// Error text of the client library.
        reason: String,
    },
    /// The server refuses the credentials.
    #[error("NATS refuses the user, password or token in broker.nats.url ({url})")]
    Credentials {
        /// The addresses without credentials.
        url: String,
    },
    /// JetStream is needed, but the server has none.
    #[error(
        "history, presence or channel_ttl is configured with broker.type nats, but this NATS server has no JetStream: start it with \
         -js, or switch history_size, presence and channel_ttl off"
    )]
    NoJetStream,
    /// A stream of this name belongs to another application.
    #[error(
        "the JetStream stream {stream:?} exists and is not one of ours: choose another broker.nats.prefix, or remove it"
    )]
    ForeignStream {
        /// Name of the stream.
        stream: String,
    },
    /// JetStream refuses to create or return a stream.
    #[error(
        "JetStream refuses the stream {stream:?} (broker.nats.prefix, broker.nats.jetstream): {reason}"
    )]
    Stream {
        /// Name of the stream.
        stream: String,
        /// Error text of the server.
        reason: String,
    },
    /// JetStream refuses to change the limits of a stream.
    #[error(
        "JetStream does not change the stream {stream:?} (history_size, history_meta_ttl, broker.nats.jetstream.replicas): {reason}"
    )]
    Update {
        /// Name of the stream.
        stream: String,
        /// Error text of the server.
        reason: String,
    },
    /// The server refuses a right that the node needs.
    #[error("{0}")]
    Right(String),
    /// The operating system refuses to start a thread.
    #[error("the thread of the NATS broker cannot be started")]
    Thread(#[from] std::io::Error),
}
