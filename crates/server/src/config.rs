//! Configuration: reads file, environment and flags into a valid [`Config`], or returns all
//! mistakes.
//!
//! Invariant: every option is declared once, in `options`, with its type, default and description.
//! Checking, resolving, the sample file and the reference follow from the declarations; `schema`
//! says how. An invalid value is never replaced by a default.

mod absent;
mod address;
mod api_keys;
mod ceilings;
mod certificate;
mod change;
mod check;
mod coerce;
mod consumers;
mod contradictions;
mod danger;
mod duration;
mod engine;
mod environment;
mod events;
mod feature;
mod file;
mod formats;
mod grpc_api;
mod kind;
mod lines;
mod listening;
mod mistakes;
mod namespaces;
mod nats_consumers;
mod nats_lengths;
mod options;
mod origin;
mod paths;
mod pem;
mod placeholder;
mod postgresql_consumers;
mod proxies;
mod rates;
mod raw_config;
mod resolve;
mod sample;
mod schema;
mod secret;
mod source;
mod table;
mod text_list;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::engine::rules::Rules;
use ::events::SinkSettings;
use brokers::memory::Ceilings;
use wire::websocket::decoder::DecoderLimits;

pub use self::consumers::{ConsumerConfig, ConsumerSource};
pub use crate::client_address::{ForwardedHeader, TrustedProxies};
use crate::clock::ServerClock;
pub use crate::listener::{ListenAddress, ListenOn};
pub use crate::token::TokenSettings;
pub use api_keys::ApiKey;
pub use change::Changeable;
pub use duration::parse_ms as parse_duration_ms;
pub use engine::{Engine, RedisEngine};
pub use grpc_api::GrpcApi;
pub use kind::Kind;
pub use mistakes::{Mistake, Mistakes, Place, Warning, WarningKind};
pub use origin::OriginPolicy;
pub(crate) use pem::{file_of, read_pem};
pub use proxies::Proxies;
pub(crate) use proxies::{BackendKey, DEFAULT_PROXY};
pub use sample::{reference, sample, starter};
pub use schema::Key;
pub use table::{TakesValue, absent_flag, all_keys, meant_key};

/// Sources of options. A later one overrides an earlier one: file, environment, flags.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// Path of a TOML, YAML or JSON file; the file extension decides which.
    pub file: Option<PathBuf>,
    /// Environment variables as name and value. Those without the prefix `TIDINGS_` or
    /// `CENTRIFUGO_` are ignored.
    pub environment: Vec<(String, String)>,
    /// Flags as key and value.
    pub flags: Vec<(String, String)>,
    /// How unknown keys are reported.
    pub unknown: Unknown,
    /// Secrets for development mode, which is used if nothing is configured. `None` disables it.
    pub development: Option<Development>,
}

/// How unknown keys are reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unknown {
    /// As a warning; the server starts.
    #[default]
    Warning,
    /// As a mistake; the server does not start.
    Mistake,
}

/// Secrets of development mode, generated at start.
#[derive(Clone, Debug)]
pub struct Development {
    /// Key that callers of the server API must send.
    pub api_key: String,
}

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Rules of the engine for clients, channels and rates.
    pub rules: Arc<Rules>,
    /// Options that dynamic configuration can change at run time.
    pub changeable: Changeable,
    /// Engine or broker that carries publications, with its settings.
    pub engine: Engine,
    /// Redis that keeps presence beside the engine or broker; `None` if that keeps presence itself.
    pub presence: Option<Box<RedisEngine>>,
    /// Addresses, TLS and timeouts of the HTTP listeners.
    pub http: HttpServer,
    /// Path, compression and limits of the WebSocket endpoint.
    pub websocket: WebSocket,
    /// Allowed origins, trusted proxies and limits of connections.
    pub admission: AdmissionSettings,
    /// Backends that are asked about clients, subscriptions, publications and RPC.
    pub proxies: Proxies,
    /// Keys and expected claims of connection tokens.
    pub token: TokenSettings,
    /// Keys and expected claims of subscription tokens; `None` uses those of connection tokens.
    pub subscription_token: Option<TokenSettings>,
    /// Path, keys and error mode of the server API.
    pub api: Api,
    /// Consumers to run.
    pub consumers: Vec<ConsumerConfig>,
    /// Sinks of events.
    pub events: Vec<SinkSettings>,
    /// Address, keys and limits of the server API over gRPC; `None` if it is not served.
    pub grpc_api: Option<GrpcApi>,
    /// Path of the liveness check; `None` if disabled.
    pub health: Option<String>,
    /// Path of the metrics; `None` if disabled.
    pub metrics: Option<String>,
    /// Level and format of log messages.
    pub log: Log,
    /// Timeout and drain rate of a shutdown.
    pub shutdown: Shutdown,
    /// Number of worker threads; 0 means one per core.
    pub workers: usize,
    /// Serve the demo page and publish its example data.
    pub demo: bool,
    /// Name of this node; empty means the host name.
    pub node_name: String,
    /// Development mode: nothing was configured, so that the server listens on this machine only
    /// and serves the demo.
    pub is_development: bool,
    /// Maximum number of bytes and channels that the memory engine keeps.
    pub memory: Ceilings,
}

/// Addresses, TLS and timeouts of the HTTP listeners.
#[derive(Clone, Debug)]
pub struct HttpServer {
    /// Address to listen on for clients; empty for all addresses.
    pub address: String,
    /// Port to listen on for clients; 0 lets the kernel choose.
    pub port: u16,
    /// Address of the internal endpoints, if they have their own port or Unix socket.
    pub internal_address: String,
    /// Port of the internal endpoints (API, metrics, health); `None` serves them on the public
    /// port.
    pub internal_port: Option<u16>,
    /// Certificate and private key; `None` serves plain HTTP.
    pub tls: Option<Tls>,
    /// File permissions of Unix sockets.
    pub unix_socket_mode: u32,
    /// Whether connections to the public address begin with a PROXY protocol header.
    pub proxy_protocol: bool,
    /// Idle time after which a connection without a request is closed.
    pub keep_alive_timeout: Duration,
}

impl HttpServer {
    /// The public address to listen on.
    #[must_use]
    pub fn listen_on(&self) -> ListenOn {
        ListenOn::new(&self.address, self.port, self.unix_socket_mode)
    }

    /// The internal address to listen on: another port or a Unix socket. `None` if the internal
    /// endpoints are on the public address.
    #[must_use]
    pub fn internal_listen_on(&self) -> Option<ListenOn> {
        let is_unix = self.internal_address.starts_with("unix:");
        let port = self.internal_port.or(is_unix.then_some(0))?;
        Some(ListenOn::new(&self.internal_address, port, self.unix_socket_mode))
    }
}

/// Certificate and key of a listener. Each value is PEM, PEM in base64, or a path.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Certificate chain, leaf first.
    pub cert_pem: String,
    /// Private key of the leaf certificate.
    pub key_pem: String,
}

/// Path, compression and limits of the WebSocket endpoint.
#[derive(Clone, Debug)]
pub struct WebSocket {
    /// URL path; `None` if disabled.
    pub path: Option<String>,
    /// Whether to negotiate permessage-deflate.
    pub compression: bool,
    /// Level of deflate, from 1 (fastest) to 9 (smallest).
    pub compression_level: u32,
    /// Messages shorter than this number of bytes are not compressed.
    pub compression_min_size: usize,
    /// Maximum sizes of incoming messages.
    pub limits: DecoderLimits,
}

/// Allowed origins, trusted proxies and limits of connections.
#[derive(Clone, Debug)]
pub struct AdmissionSettings {
    /// Origins of web pages that may connect.
    pub origins: OriginPolicy,
    /// Maximum number of accepted connections of this node; 0 for no limit.
    pub connection_limit: usize,
    /// Maximum number of connections of this node before their connect command is accepted; 0 for
    /// no limit.
    pub unauthenticated_connection_limit: usize,
    /// Maximum number of handshakes of this node per second; 0 for no limit.
    pub connection_rate_limit: u64,
    /// Maximum number of connections of one user on this node; 0 for no limit.
    pub user_connection_limit: usize,
    /// Proxies whose headers about a client's address are accepted.
    pub trusted_proxies: TrustedProxies,
    /// Header in which a reverse proxy sends the id of an authenticated user; in lower case.
    pub user_id_http_header: Option<String>,
}

/// Path, keys and error mode of the server API.
#[derive(Clone, Debug)]
pub struct Api {
    /// URL path; `None` if disabled.
    pub path: Option<String>,
    /// The value of `http_api.key`; empty if not set.
    pub key: String,
    /// All keys, including that of `http_api.key`. Without any, all calls are refused.
    pub keys: Vec<ApiKey>,
    /// Accept calls without a key.
    pub insecure: bool,
    /// Serve the API on the public port even if there is an internal port.
    pub external: bool,
    /// Form of error replies.
    pub error_mode: ErrorMode,
}

/// Form of error replies of the server API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorMode {
    /// Status 200 and an `error` object in the body.
    Body,
    /// The HTTP status of the error.
    Transport,
}

/// Level and format of log messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// Minimum level of messages that are logged.
    pub level: LogLevel,
    /// Form of a log line.
    pub format: LogFormat,
}

/// Minimum level of messages that are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Logs nothing.
    None,
    /// All messages, including those of libraries.
    Trace,
    /// Also messages about single clients.
    Debug,
    /// Also start, stop and changes of state.
    Info,
    /// Warnings and errors.
    Warn,
    /// Errors that need an operator.
    Error,
}

/// Form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// `Pretty` on a terminal, `Json` otherwise.
    Auto,
    /// Readable by people.
    Pretty,
    /// One JSON object per line.
    Json,
}

/// Timeout and drain rate of a shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// Maximum duration; after it the process exits with connections still open.
    pub timeout: Duration,
    /// Time over which clients are disconnected with the advice to reconnect.
    pub drain_window: Duration,
    /// Maximum number of clients disconnected per second; 0 for no limit.
    pub drain_rate: u32,
}

impl Shutdown {
    /// Time over which this number of clients is disconnected. It ends before `timeout`, so that
    /// the last clients have time to close.
    #[must_use]
    pub fn window(&self, clients: usize) -> Duration {
        let by_rate = match self.drain_rate {
            0 => Duration::ZERO,
            rate => Duration::from_secs_f64(clients as f64 / f64::from(rate)),
        };
        self.drain_window.max(by_rate.min(self.timeout * 9 / 10))
    }
}

/// Reads, checks and resolves a configuration.
///
/// # Errors
/// All mistakes, each with its key.
pub fn load(source: &Source) -> Result<(Config, Vec<Warning>), Mistakes> {
    let mut raw = source::read(source)?;
    placeholder::check_placeholders(&mut raw);
    check::check_keys(&mut raw, source.unknown);
    let now_unix = ServerClock::start().now().unix_ms / 1000;
    let config = resolve::resolve(&mut raw, source.development.as_ref(), now_unix);
    let (warnings, mistakes) = raw.into_messages();
    match mistakes.is_empty() {
        true => Ok((config, warnings)),
        false => Err(Mistakes { mistakes, warnings }),
    }
}

#[cfg(test)]
mod tests;
