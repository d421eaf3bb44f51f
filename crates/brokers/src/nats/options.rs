//! What the NATS broker is told at start, and why it may refuse to start.

use std::path::PathBuf;

use crate::limits::{LEASE_MS, NATS_PREFIX_MAX};

/// Options of the NATS broker. The names are those of the configuration below `broker.nats`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsOptions {
    /// One or more addresses, separated by commas, `nats://` or `tls://`; a user, password or token
    /// may stand in them.
    pub url: String,
    /// Separates installations that share a server.
    pub prefix: String,
    /// What this node is called in events of its clients.
    pub name: String,
    /// Milliseconds of silence after which a node's clients are present nowhere and told to be
    /// offline; the same on all nodes.
    pub lease_ms: u64,
    /// Milliseconds until a connection attempt has failed.
    pub dial_timeout_ms: u64,
    /// How the connection is protected.
    pub tls: NatsTls,
    /// What is kept in JetStream.
    pub jetstream: Option<JetStreamOptions>,
    /// Bytes of the largest message that clients may send: a NATS that carries less is worth a
    /// warning.
    pub message_size_max: usize,
}

/// TLS of the connection to NATS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NatsTls {
    /// Refuse a server without TLS. Also implied by `tls://`.
    pub enabled: bool,
    /// Roots to trust besides those of the system, PEM.
    pub server_ca_pem_file: Option<PathBuf>,
    /// Certificate and key to show, PEM.
    pub client_pem_files: Option<(PathBuf, PathBuf)>,
}

/// What is kept in JetStream: history, presence, idempotency keys and versions. Without it NATS is
/// only fan-out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JetStreamOptions {
    /// Copies of each stream in a NATS cluster.
    pub replicas: u32,
    /// The largest `history_size` of all namespaces.
    pub history_size_max: u32,
    /// The longest `history_meta_ttl` or `channel_ttl` of all namespaces, milliseconds.
    pub kept_ms_max: u64,
    /// Events of clients that backends can read.
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
    /// Subjects cannot be made of it.
    #[error(
        "broker.nats.prefix {0:?} is not one or more subject tokens of letters, digits, - and _, of {NATS_PREFIX_MAX} bytes together"
    )]
    Prefix(String),
    /// No server could be reached.
    #[error("no NATS server can be reached at broker.nats.url ({url}): {reason}")]
    Unreachable {
        /// Without user and password.
        url: String,
        /// The client's own text.
        reason: String,
    },
    /// There is a server, but no agreement on TLS with it.
    #[error("TLS with NATS at broker.nats.url ({url}) fails, see broker.nats.tls: {reason}")]
    Tls {
        /// Without user and password.
        url: String,
        /// The client's own text.
        reason: String,
    },
    /// The server does not want us.
    #[error("NATS refuses the user, password or token in broker.nats.url ({url})")]
    Credentials {
        /// Without user and password.
        url: String,
    },
    /// JetStream is needed, but the server has none.
    #[error(
        "history, presence or channel_ttl is configured with broker.type nats, but this NATS server has no JetStream: start it with \
         -js, or switch history_size, presence and channel_ttl off"
    )]
    NoJetStream,
    /// A stream under our name is not ours.
    #[error(
        "the JetStream stream {stream:?} exists and is not one of ours: choose another broker.nats.prefix, or remove it"
    )]
    ForeignStream {
        /// Its name.
        stream: String,
    },
    /// JetStream does not take our stream.
    #[error(
        "JetStream refuses the stream {stream:?} (broker.nats.prefix, broker.nats.jetstream): {reason}"
    )]
    Stream {
        /// Its name.
        stream: String,
        /// The server's own text.
        reason: String,
    },
    /// JetStream does not change our stream.
    #[error(
        "JetStream does not change the stream {stream:?} (history_size, history_meta_ttl, broker.nats.jetstream.replicas): {reason}"
    )]
    Update {
        /// Its name.
        stream: String,
        /// The server's own text.
        reason: String,
    },
    /// The server does not let this node do what it must.
    #[error("{0}")]
    Right(String),
    /// The system gives us no thread.
    #[error("the thread of the NATS broker cannot be started")]
    Thread(#[from] std::io::Error),
}
