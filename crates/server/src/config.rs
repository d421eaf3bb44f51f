//! Configuration: what was written (file, environment, flags) becomes a [`Config`] that is valid,
//! or a list of every mistake.
//!
//! Invariant: every key, its kind, default and meaning stand once, in [`keys`]; checking,
//! resolving, the sample file and the reference all read that table. A value that is not understood
//! is never replaced by a default.

mod address;
mod api_keys;
mod ceilings;
mod certificate;
mod change;
mod check;
mod coerce;
mod contradictions;
mod danger;
mod duration;
mod engine;
mod environment;
mod file;
mod formats;
mod found;
pub mod keys;
mod lines;
mod mistakes;
mod namespaces;
mod nats_lengths;
mod origin;
mod paths;
mod pem;
mod placeholder;
mod rates;
mod resolve;
mod sample;
mod secret;
mod source;
mod table;
mod text_list;
mod values;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::engine::rules::Rules;
use brokers::memory::Ceilings;
use wire::websocket::decoder::DecoderLimits;

pub use crate::client_address::TrustedProxies;
use crate::clock::ServerClock;
pub use crate::listener::{ListenAddress, ListenOn};
pub use crate::token::TokenSettings;
pub use api_keys::ApiKey;
pub use change::Changeable;
pub use duration::parse_ms as parse_duration_ms;
pub use engine::{Engine, RedisEngine};
pub use mistakes::{Mistake, Mistakes, Place, Warning, WarningKind};
pub use origin::OriginPolicy;
pub(crate) use pem::{file_of, read_pem};
pub use sample::{reference, sample, starter};
pub use table::{TakesValue, absent_flag, all_keys, meant_key};

/// Where settings come from; later ones win: file, environment, flags.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// A TOML, YAML or JSON file, by its ending.
    pub file: Option<PathBuf>,
    /// Environment variables; those that begin with `TIDINGS_` count, and `CENTRIFUGO_` as well.
    pub environment: Vec<(String, String)>,
    /// Flags as key and value.
    pub flags: Vec<(String, String)>,
    /// What a key is that does not exist.
    pub unknown: Unknown,
    /// Secrets for development mode, which holds when nothing is configured.
    pub development: Option<Development>,
}

/// What a key is that does not exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unknown {
    /// A warning.
    #[default]
    Warning,
    /// A mistake.
    Mistake,
}

/// What development mode needs that must differ at every start.
#[derive(Clone, Debug)]
pub struct Development {
    /// Key of the server API.
    pub api_key: String,
}

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// What the engine decides by.
    pub rules: Arc<Rules>,
    /// What may change of it while nodes run.
    pub changeable: Changeable,
    /// What carries publications.
    pub engine: Engine,
    /// Where to listen.
    pub http: HttpServer,
    /// WebSocket endpoint.
    pub websocket: WebSocket,
    /// Who may come from where, and how many.
    pub admission: AdmissionSettings,
    /// Keys of connection tokens.
    pub token: TokenSettings,
    /// Keys of subscription tokens, when they differ.
    pub subscription_token: Option<TokenSettings>,
    /// Server API.
    pub api: Api,
    /// Path of the liveness check, when enabled.
    pub health: Option<String>,
    /// Path of the metrics, when enabled.
    pub metrics: Option<String>,
    /// Logging.
    pub log: Log,
    /// Stopping.
    pub shutdown: Shutdown,
    /// Worker threads; 0 is one per core.
    pub workers: usize,
    /// Serve the demo page and its ticker.
    pub demo: bool,
    /// Name of this node.
    pub node_name: String,
    /// Nothing was configured: the server is for its own machine, and shows the demo.
    pub is_development: bool,
    /// What the memory engine keeps at most.
    pub memory: Ceilings,
}

/// Where to listen.
#[derive(Clone, Debug)]
pub struct HttpServer {
    /// Address; empty for all.
    pub address: String,
    /// Port; 0 lets the kernel choose.
    pub port: u16,
    /// Address of the internal endpoints, when they have a port of their own.
    pub internal_address: String,
    /// Port for API, metrics and health; `None` keeps them on the public one.
    pub internal_port: Option<u16>,
    /// PEM of certificate chain and private key, each inline, in base64 or as a path.
    pub tls: Option<Tls>,
    /// Permissions of the file of a Unix socket.
    pub unix_socket_mode: u32,
    /// Connections to the public address begin with a PROXY header.
    pub proxy_protocol: bool,
    /// Time to wait for another request on a connection.
    pub keep_alive_timeout: Duration,
}

impl HttpServer {
    /// Where to listen for clients.
    #[must_use]
    pub fn listen_on(&self) -> ListenOn {
        ListenOn::new(&self.address, self.port, self.unix_socket_mode)
    }

    /// Where the internal endpoints are, when they have an address of their own: a port, or a Unix
    /// socket.
    #[must_use]
    pub fn internal_listen_on(&self) -> Option<ListenOn> {
        let is_unix = self.internal_address.starts_with("unix:");
        let port = self.internal_port.or(is_unix.then_some(0))?;
        Some(ListenOn::new(&self.internal_address, port, self.unix_socket_mode))
    }
}

/// Certificate and key.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Certificate chain.
    pub cert_pem: String,
    /// Private key.
    pub key_pem: String,
}

/// The WebSocket endpoint.
#[derive(Clone, Debug)]
pub struct WebSocket {
    /// Path; `None` when disabled.
    pub path: Option<String>,
    /// Whether to negotiate permessage-deflate.
    pub compression: bool,
    /// 1 to 9.
    pub compression_level: u32,
    /// Bytes below which messages are not compressed.
    pub compression_min_size: usize,
    /// Bounds of messages.
    pub limits: DecoderLimits,
}

/// Who may come from where, and how many.
#[derive(Clone, Debug)]
pub struct AdmissionSettings {
    /// Web pages that may connect.
    pub origins: OriginPolicy,
    /// Connections of this node; 0 for no limit.
    pub connection_limit: usize,
    /// Connections of this node that are not authenticated yet; 0 for no limit.
    pub unauthenticated_connection_limit: usize,
    /// Connections per second; 0 for no limit.
    pub connection_rate_limit: u64,
    /// Connections of one user on this node; 0 for no limit.
    pub user_connection_limit: usize,
    /// Proxies whose word about a client's address counts.
    pub trusted_proxies: TrustedProxies,
    /// Header in which a reverse proxy names the user it has authenticated, in lower case.
    pub user_id_http_header: Option<String>,
}

/// The server API.
#[derive(Clone, Debug)]
pub struct Api {
    /// Path; `None` when disabled.
    pub path: Option<String>,
    /// The key of `http_api.key`; empty when there is none.
    pub key: String,
    /// Every key, that one too; without any, everybody is refused.
    pub keys: Vec<ApiKey>,
    /// No key needed.
    pub insecure: bool,
    /// On the public port even when there is an internal one.
    pub external: bool,
    /// How errors are told.
    pub error_mode: ErrorMode,
}

/// How the server API tells errors (§3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorMode {
    /// Status 200 and an `error` member.
    Body,
    /// The status that belongs to the error.
    Transport,
}

/// Logging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// What is logged.
    pub level: LogLevel,
    /// How.
    pub format: LogFormat,
}

/// What is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Nothing.
    None,
    /// Everything.
    Trace,
    /// Also what single clients do.
    Debug,
    /// What the server does.
    Info,
    /// What should not be.
    Warn,
    /// What must be mended.
    Error,
}

/// How logs look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Pretty on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Pretty,
    /// For machines.
    Json,
}

/// Stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// After this the process ends, whatever remains.
    pub timeout: Duration,
    /// Over how long clients are asked to reconnect.
    pub drain_window: Duration,
    /// Clients in a second at most; 0 for no limit.
    pub drain_rate: u32,
}

impl Shutdown {
    /// Over how long so many clients are notified. Those that are told last must have time to go.
    #[must_use]
    pub fn window(&self, clients: usize) -> Duration {
        let by_rate = match self.drain_rate {
            0 => Duration::ZERO,
            rate => Duration::from_secs_f64(clients as f64 / f64::from(rate)),
        };
        self.drain_window.max(by_rate.min(self.timeout * 9 / 10))
    }
}

/// Reads, checks and resolves.
///
/// # Errors
/// Every mistake, with the key that it is about.
pub fn load(source: &Source) -> Result<(Config, Vec<Warning>), Mistakes> {
    let mut found = source::read(source)?;
    placeholder::check_placeholders(&mut found);
    check::check_keys(&mut found, source.unknown);
    let now_unix = ServerClock::start().now().unix_ms / 1000;
    let config = resolve::resolve(&mut found, source.development.as_ref(), now_unix);
    let (warnings, mistakes) = found.judge();
    match mistakes.is_empty() {
        true => Ok((config, warnings)),
        false => Err(Mistakes { mistakes, warnings }),
    }
}

#[cfg(test)]
mod tests;
