//! What the command takes. The flags of settings are made from the table of configuration keys, so
//! there is no second list of them.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgMatches, Args, CommandFactory as _, Parser, Subcommand};
use server::config::{self, Key, Kind, TakesValue, Unknown, absent_flag, all_keys};

/// A real-time message push server: clients hold WebSocket connections and subscribe to channels,
/// backends publish.
#[derive(Debug, Parser)]
#[command(name = "tidings", version, max_term_width = 100)]
#[command(after_help = "Without a command, tidings serves.

Examples:
  tidings                                       development mode with a demo page on http://127.0.0.1:8000/
  tidings sample-config -o tidings.toml         a working configuration with fresh secrets
  tidings serve -c tidings.toml
  tidings token -c tidings.toml --user ann      a token for a client
  tidings publish news '{\"hello\":\"world\"}' -c tidings.toml
  tidings subscribe news -c tidings.toml        print a channel as it happens")]
pub(crate) struct Tidings {
    /// What to do.
    #[command(subcommand)]
    pub action: CliAction,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum CliAction {
    /// Run the server; in development mode where nothing is configured
    #[command(
        after_help = "Settings come from the file, then from the environment (TIDINGS_ and the key in capitals \
        with underscores), then from flags (-- and the key); later ones win.

Examples:
  tidings serve
  tidings serve -c tidings.toml --http_server.port=9000
  TIDINGS_CLIENT_TOKEN_HMAC_SECRET_KEY=secret tidings serve -c tidings.toml

Without any setting but http_server.port and log.*: development mode, which is loopback only, a demo page, and \
        anonymous users in channels that begin with demo: and nowhere else. Variables CENTRIFUGO_* are read as well."
    )]
    Serve(Configured),
    /// Report mistakes of a configuration (exit status 2), and start nothing
    Check(Configured),
    /// Check kernel limits, ports, certificates, key sets, the broker and its permissions
    #[command(after_help = "Examples:
  tidings doctor -c tidings.toml

Exit status: 0 when nothing is a problem, 1 when something is, 2 when the configuration has mistakes.
It joins the cluster as a node of its own for a moment; run it where the server runs, with the same settings.")]
    Doctor(Configured),
    /// Print a configuration to begin with, with fresh secrets
    #[command(after_help = "Examples:
  tidings sample-config -o tidings.toml      a file that only you may read; an existing one is not overwritten
  tidings sample-config --all | less")]
    SampleConfig(SampleArguments),
    /// Make a token for a client, signed with the configuration's hmac_secret_key
    #[command(after_help = "Examples:
  tidings token -c tidings.toml --user ann
  tidings token -c tidings.toml --user ann --channel '$vip' --expires-in 10m
  tidings token --secret \"$SECRET\" --user ann --info '{\"name\":\"Ann\"}'")]
    Token(TokenArguments),
    /// Publish into a channel through the server API
    #[command(after_help = "Examples:
  tidings publish news '{\"hello\":\"world\"}' -c tidings.toml
  tidings publish news '\"text\"' --url http://127.0.0.1:8000/api --api-key \"$KEY\"
  tail -f events.jsonl | tidings publish news - -c tidings.toml")]
    Publish(PublishArguments),
    /// Print what is published into a channel, one line of JSON each; resumes after a cut
    #[command(after_help = "Examples:
  tidings subscribe demo:ticker
  tidings subscribe news --token \"$(tidings token -c tidings.toml --user ann)\"
  tidings subscribe news -c tidings.toml --count 1

Publications go to standard output; what happens to the connection goes to standard error.")]
    Subscribe(SubscribeArguments),
    /// Put load on a server that speaks the client protocol, and measure the result
    #[command(after_help = "Examples:
  tidings bench fanout --subscribers 1000 --rate 100
  tidings bench raw --subscribers 1000 --rate 100       the limit: a bare loop of sends
  tidings bench saturate -c 100 -s 10 -w 800 --api-key \"$KEY\" --server-pid \"$PID\"
  tidings bench storm -c 10 -w 64 --channel kept:x --token-secret \"$SECRET\" --api-key \"$KEY\"
  tidings bench file bench/example.toml                 several at the same time
  tidings bench idle -n 15000 --token-secret \"$SECRET\" --json idle.json --html idle.html

Latency counts from the planned time of sending. Lost, duplicate and reordered deliveries are errors (exit status 1).")]
    Bench {
        /// The load.
        #[command(subcommand)]
        options: bench::Options,
    },
    /// A process of the load tool, which starts it.
    #[command(name = bench::PROCESS_COMMAND, hide = true)]
    BenchProcess {
        /// What it does.
        kind: bench::ProcessKind,
    },
    /// Print the version
    Version,
}

/// Where settings come from.
#[derive(Args, Clone, Debug)]
pub(crate) struct Configured {
    /// Configuration file: .toml, .yaml, .yml or .json
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Make an unknown key a mistake instead of a warning
    #[arg(long)]
    pub strict: bool,
    /// Unknown keys are warnings; the default.
    #[arg(long, hide = true, conflicts_with = "strict")]
    pub allow_unknown_keys: bool,
}

/// Arguments of `tidings sample-config`.
#[derive(Args, Debug)]
pub(crate) struct SampleArguments {
    /// Every setting with its default, commented out
    #[arg(long)]
    pub all: bool,
    /// Write it into a new file that only you may read (mode 0600), instead of to standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Arguments of `tidings token`.
#[derive(Args, Debug)]
pub(crate) struct TokenArguments {
    /// Where the secret stands: client.token.hmac_secret_key, or that of client.subscription_token
    #[command(flatten)]
    pub configured: Configured,
    /// Secret to sign with, instead of the configuration's
    #[arg(long)]
    pub secret: Option<String>,
    /// User id; without one the user is anonymous
    #[arg(short, long)]
    pub user: Option<String>,
    /// Make a subscription token for this channel instead of a connection token
    #[arg(long)]
    pub channel: Option<String>,
    /// Channel to subscribe the connection to at once; may be repeated
    #[arg(
        long = "subscribe",
        value_name = "CHANNEL",
        conflicts_with = "channel",
        value_parser = NonEmptyStringValueParser::new()
    )]
    pub subscribe: Vec<String>,
    /// Lifetime, such as 30s, 10m or 24h; 0 for no end
    #[arg(long, default_value = "24h", allow_hyphen_values = true)]
    pub expires_in: String,
    /// JSON shown to other clients
    #[arg(long)]
    pub info: Option<String>,
}

/// Arguments of `tidings publish`.
#[derive(Args, Debug)]
pub(crate) struct PublishArguments {
    /// Channel to publish into
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub channel: String,
    /// JSON to publish; - reads lines from standard input and publishes each
    pub data: String,
    /// Where address and key of the server API stand
    #[command(flatten)]
    pub configured: Configured,
    /// Address of the server API, such as http://127.0.0.1:8000/api or 127.0.0.1:8000, instead of
    /// the configuration's
    #[arg(long)]
    pub url: Option<String>,
    /// Key of the server API, instead of the configuration's
    #[arg(long, env = "TIDINGS_HTTP_API_KEY", hide_env_values = true)]
    pub api_key: Option<String>,
}

/// Arguments of `tidings subscribe`.
#[derive(Args, Debug)]
pub(crate) struct SubscribeArguments {
    /// Channel to print
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub channel: String,
    /// For the address and for a token of its own
    #[command(flatten)]
    pub configured: Configured,
    /// Address of the WebSocket endpoint, such as ws://127.0.0.1:8000/connection/websocket or
    /// 127.0.0.1:8000, instead of the configuration's
    #[arg(long)]
    pub url: Option<String>,
    /// Connection token, instead of one made with the configuration's secret
    #[arg(long, env = "TIDINGS_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// User id of the token that is made with the configuration's secret
    #[arg(short, long, default_value = "tidings-cli")]
    pub user: String,
    /// End after so many publications
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..), allow_hyphen_values = true)]
    pub count: Option<u64>,
}

impl Configured {
    /// What an unknown key is.
    pub(crate) fn unknown(&self) -> Unknown {
        if self.strict { Unknown::Mistake } else { Unknown::Warning }
    }

    /// What to call it in messages.
    pub(crate) fn place(&self) -> String {
        self.config
            .as_ref()
            .map_or("the configuration".to_owned(), |file| file.display().to_string())
    }
}

/// The arguments of the process; `serve` is the command where none is named.
pub(crate) fn given(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.collect();
    let is_flag = |argument: &OsString| argument.as_encoded_bytes().starts_with(b"-");
    let is_about_the_command =
        |argument: &OsString| ["-h", "--help", "-V", "--version"].iter().any(|one| argument == one);
    let names_no_command =
        arguments.get(1).is_none_or(|first| is_flag(first) && !is_about_the_command(first));
    if names_no_command {
        arguments.insert(1.min(arguments.len()), "serve".into());
    }
    arguments
}

/// Whether a flag may stand without a value, which it then takes only behind `=`.
fn is_switch(flag: &str) -> bool {
    absent_flag(flag) == Some(TakesValue::Optionally)
        || all_keys().any(|(path, key)| path == flag && matches!(key.kind, Kind::Bool))
}

/// `--health.enabled false` as `--health.enabled=false`: no command with settings takes words of
/// its own, so that the value can belong to nothing else.
pub(crate) fn with_values(arguments: Vec<OsString>) -> Vec<OsString> {
    if !takes_settings(&arguments) {
        return arguments;
    }
    let mut joined: Vec<OsString> = Vec::with_capacity(arguments.len());
    for argument in arguments {
        let is_value = argument == "true" || argument == "false";
        let before = joined.last().and_then(|last| last.to_str()?.strip_prefix("--"));
        if is_value
            && before.is_some_and(is_switch)
            && let Some(last) = joined.last_mut()
        {
            last.push("=");
            last.push(argument);
        } else {
            joined.push(argument);
        }
    }
    joined
}

/// Reads the arguments, or says what is wrong with them and ends the process. A flag that an older
/// version of the compatible server had, such as `--port`, is reported with its name here.
pub(crate) fn matches(given: Vec<OsString>) -> ArgMatches {
    command().try_get_matches_from(given).unwrap_or_else(|mut error| {
        let unknown = match error.get(ContextKind::InvalidArg) {
            Some(ContextValue::String(flag)) if error.kind() == ErrorKind::UnknownArgument => {
                flag.strip_prefix("--")
            }
            _ => None,
        };
        // A known older name says more than the similarity of letters.
        if let Some(path) = unknown.and_then(config::meant_key) {
            let flag = ContextValue::String(format!("--{path}"));
            error.insert(ContextKind::SuggestedArg, flag);
        }
        error.exit()
    })
}

/// The commands that take every setting as a flag.
const CONFIGURED: [&str; 3] = ["serve", "check", "doctor"];

fn takes_settings(arguments: &[OsString]) -> bool {
    arguments.get(1).is_some_and(|given| CONFIGURED.iter().any(|action| given == action))
}

/// Takes the flags of keys for what is not here out of the arguments: they are too many for the
/// help, and the configuration judges them.
pub(crate) fn without_absent(arguments: Vec<OsString>) -> (Vec<OsString>, Vec<(String, String)>) {
    if !takes_settings(&arguments) {
        return (arguments, Vec::new());
    }
    let (mut others, mut settings) = (Vec::new(), Vec::new());
    let mut arguments = arguments.into_iter().peekable();
    while let Some(argument) = arguments.next() {
        let flag = argument.to_str().and_then(|text| text.strip_prefix("--"));
        let (name, value) = match flag.map(|flag| flag.split_once('=').unwrap_or((flag, ""))) {
            Some((name, value)) if absent_flag(name).is_some() => (name, value),
            _ => {
                others.push(argument);
                continue;
            }
        };
        let value = match absent_flag(name) {
            _ if flag.is_some_and(|flag| flag.contains('=')) => Some(value.to_owned()),
            Some(TakesValue::Optionally) => Some("true".to_owned()),
            _ => arguments.next().and_then(|value| value.into_string().ok()),
        };
        settings.push((name.to_owned(), value.unwrap_or_default()));
    }
    (others, settings)
}

/// The command with the flags of all settings.
pub(crate) fn command() -> clap::Command {
    let with_settings =
        |command: clap::Command| command.args(all_keys().map(|(path, key)| flag(path, key)));
    CONFIGURED
        .into_iter()
        .fold(Tidings::command(), |command, action| command.mut_subcommand(action, with_settings))
        .mut_subcommand("bench", bench::hide_others)
}

/// The settings given as flags, as key and value.
pub(crate) fn settings(matches: &ArgMatches) -> Vec<(String, String)> {
    let given = |path: &str| matches.try_get_one::<String>(path).ok().flatten().cloned();
    all_keys().filter_map(|(path, _)| given(&path).map(|value| (path, value))).collect()
}

fn flag(path: String, key: &Key) -> Arg {
    let short = match &*path {
        "http_server.address" => Some('a'),
        "http_server.port" => Some('p'),
        _ => None,
    };
    let arg = Arg::new(path.clone())
        .long(path)
        .short(short)
        .help(key.doc)
        .help_heading("Settings")
        .hide_short_help(true)
        .value_name("VALUE");
    match key.kind {
        Kind::Bool => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
        _ => arg,
    }
}
