//! What `tidings bench` takes.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::plan::CodecName;

/// What is to be run.
#[derive(Debug, Subcommand)]
pub enum Options {
    /// One scenario, from the command line.
    #[command(flatten)]
    One(Box<Scenario>),
    /// Several scenarios at the same time, out of a file
    File(ScenarioFile),
}

/// A scenario.
#[derive(Debug, Subcommand)]
pub enum Scenario {
    /// Connections with one subscription each, and silence
    Idle(Arguments),
    /// One channel, many subscribers, a fixed rate of messages
    Fanout(Arguments),
    /// Many channels with many subscribers, in which everybody publishes; the rate is that of all
    /// together
    Rooms(Arguments),
    /// A channel for each client; the rate is that of all together
    Direct(Arguments),
    /// As fast as a number of publications on their way allows
    Saturate(Arguments),
    /// Clients that come as fast as the server takes them: connect, subscribe, recover, check,
    /// leave, and the next one
    Storm(Arguments),
    /// Clients whose connections are cut again and again, and that must come back to everything
    /// they missed
    Jitter(Arguments),
    /// No server: one send for each receiver and message, the limit that the others are compared
    /// with
    Raw(Arguments),
    /// No server: from PUBLISH to SUBSCRIBE through the Redis of the URL (redis://host:port), the
    /// limit of a cluster
    Relay(Arguments),
}

/// Arguments of all scenarios.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// The server's WebSocket endpoint
    #[arg(long, default_value = "ws://127.0.0.1:8000/connection/websocket")]
    pub(crate) url: String,
    /// Certificates of the authorities that a server with TLS is trusted by, as PEM; if not given,
    /// the public ones
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Connections
    #[arg(short = 'n', long, default_value_t = 1000)]
    pub(crate) connections: u32,
    /// Subscribers of each channel
    #[arg(short, long, default_value_t = 100)]
    pub(crate) subscribers: u32,
    /// Channels
    #[arg(short, long, default_value_t = 1)]
    pub(crate) channels: u32,
    /// Messages a second, of all publishers together
    #[arg(short, long, default_value_t = 10.0)]
    pub(crate) rate: f64,
    /// Publications on their way at once
    #[arg(short, long, default_value_t = 32)]
    pub(crate) window: u32,
    /// Publications that each client recovers; the channels need a history that holds them
    #[arg(long, default_value_t = 10)]
    pub(crate) recover: u32,
    /// Connections that are cut in a second; the channels need a history
    #[arg(long, default_value_t = 100.0)]
    pub(crate) deaths: f64,
    /// Bytes of a payload; of several, each payload has one at random
    #[arg(long, value_delimiter = ',', default_value = "128")]
    pub(crate) size: Vec<u32>,
    /// JSON to publish, in which {counter}, {number} and {text} are filled: a count, a random
    /// number, and letters up to the size
    #[arg(long)]
    pub(crate) template: Option<String>,
    /// How long it runs once all are connected, such as 500ms, 10s or 5m
    #[arg(short, long, default_value = "10s")]
    pub(crate) duration: String,
    // The library takes the placeholder itself for a line break.
    /// Name of the channels: an n in curly braces stands for the number of each; without one, the
    /// number is appended after a hyphen: demo:bench-0
    #[arg(long, default_value = "demo:bench")]
    pub(crate) channel: String,
    /// How commands and replies are written
    #[arg(long, value_enum, default_value_t = CodecName::Json)]
    pub(crate) codec: CodecName,
    /// Connection token of all clients
    #[arg(long, conflicts_with = "token_secret")]
    pub(crate) token: Option<String>,
    /// Secret to sign a token (HS256) for each client with
    #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) token_secret: Option<String>,
    /// Who publishes; the server API if a key is given, else a client
    #[arg(long, value_enum)]
    pub(crate) publish_by: Option<PublishBy>,
    /// Endpoint that a publishing client connects to, if not that of the URL: another node
    #[arg(long)]
    pub(crate) publish_url: Option<String>,
    /// Address of the server API, if not /api beside the endpoint; grpc://HOST:PORT for that over
    /// gRPC
    #[arg(long)]
    pub(crate) api_url: Option<String>,
    /// Key of the server API
    #[arg(long, env = "TIDINGS_HTTP_API_KEY", hide_env_values = true)]
    pub(crate) api_key: Option<String>,
    /// Connections to the server API; each channel keeps to one
    #[arg(long, default_value_t = 1)]
    pub(crate) api_connections: u32,
    /// Publications of one request to the server API at most
    #[arg(long, default_value_t = 1)]
    pub(crate) batch: u32,
    /// Process of the server, to measure its processor time and memory
    #[arg(long, value_name = "PID")]
    pub(crate) server_pid: Option<u32>,
    /// Core that the sending process stays on
    #[arg(long, value_name = "CORE")]
    pub(crate) raw_core: Option<u32>,
    /// Processes to spread clients over; if not given, as few as the limit of descriptors allows
    #[arg(long)]
    pub(crate) workers: Option<u32>,
    /// Write the result as JSON; - for standard output instead of the table
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write a page with plots
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

/// Who publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PublishBy {
    Api,
    Client,
}

impl Scenario {
    pub(crate) fn arguments(&self) -> &Arguments {
        match self {
            Scenario::Idle(arguments)
            | Scenario::Fanout(arguments)
            | Scenario::Rooms(arguments)
            | Scenario::Direct(arguments)
            | Scenario::Saturate(arguments)
            | Scenario::Storm(arguments)
            | Scenario::Jitter(arguments)
            | Scenario::Raw(arguments)
            | Scenario::Relay(arguments) => arguments,
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Scenario::Idle(_) => "idle",
            Scenario::Fanout(_) => "fanout",
            Scenario::Rooms(_) => "rooms",
            Scenario::Direct(_) => "direct",
            Scenario::Saturate(_) => "saturate",
            Scenario::Storm(_) => "storm",
            Scenario::Jitter(_) => "jitter",
            Scenario::Raw(_) => "raw",
            Scenario::Relay(_) => "relay",
        }
    }
}

/// What the command line says of a scenario file.
#[derive(Args, Clone, Debug)]
pub struct ScenarioFile {
    /// TOML: arguments for all runs by their long names, and a `[[run]]` for each, with its
    /// scenario and its own arguments
    pub(crate) file: PathBuf,
    /// The server's WebSocket endpoint, instead of the file's
    #[arg(long)]
    pub(crate) url: Option<String>,
    /// Write the results as JSON; - for standard output instead of the tables
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Write a page with the plots of all
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}
