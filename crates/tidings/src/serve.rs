//! `tidings serve`: load the configuration, log what is served, run until a signal stops it.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use server::config::{self, Config, Development, Source, Warning};
use server::limits::LOG_FLUSH_TIMEOUT;
use server::telemetry::{flush_logs, start_logging};
use server::{ListenAddress, Server};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use crate::arguments::Configured;
use crate::output::{note, print_error};
use crate::random;

/// Threads of the HTTP runtime. Client connections are on the threads of the workers.
const HTTP_THREADS: usize = 2;

pub(crate) fn serve(
    configured: Configured,
    flags: Vec<(String, String)>,
) -> anyhow::Result<ExitCode> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(HTTP_THREADS)
        .thread_name("http")
        .enable_all()
        .build()
        .context("cannot start")?;
    // Before the files are read: a SIGHUP asks to read them again, and ends
    // nothing.
    let hangup = runtime.block_on(async { signal(SignalKind::hangup()) });
    let hangup = hangup.context("cannot watch signals")?;
    let key: [u8; 16] = random()?;
    let api_key: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let settings = (configured.clone(), flags.clone(), api_key.clone());
    let (config, warnings) = match load(configured, flags, api_key) {
        Ok(loaded) => loaded,
        Err(code) => return Ok(code),
    };
    if let Err(error) = server::check_certificates(&config) {
        print_error(&error.to_string());
        return Ok(ExitCode::from(2));
    }
    start_logging(config.log).context("cannot start")?;
    for warning in &warnings {
        let kind = warning.kind.name();
        warn!(kind, key = %warning.key, "configuration warning: {}", warning.text);
    }
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        warn!(%error, "the limit of open files cannot be raised; it bounds the connections");
    }
    let reload = || {
        let (configured, flags, api_key) = settings.clone();
        load(configured, flags, api_key).ok().map(|(config, _)| config)
    };
    let result = runtime.block_on(run(config, hangup, reload));
    end(runtime);
    flush_logs(LOG_FLUSH_TIMEOUT);
    result
}

/// Reads the configuration; mistakes, and the warnings beside them, go to standard error. The key
/// is that of the server API where nothing is configured.
pub(crate) fn load(
    configured: Configured,
    flags: Vec<(String, String)>,
    api_key: String,
) -> Result<(Config, Vec<Warning>), ExitCode> {
    let unknown = configured.unknown();
    let development = Some(Development { api_key });
    let environment = environment();
    let source = Source { file: configured.config, environment, flags, unknown, development };
    config::load(&source).map_err(|mistakes| {
        print_warnings(&mistakes.warnings);
        print_error(&mistakes.to_string());
        ExitCode::from(2)
    })
}

/// Writes warnings to standard error.
pub(crate) fn print_warnings(warnings: &[Warning]) {
    let noun = match warnings.len() {
        0 => return,
        1 => "warning",
        _ => "warnings",
    };
    print_error(&format!("{} {noun} in the configuration:", warnings.len()));
    for warning in warnings {
        note(&format!("  {warning}"));
    }
}

/// The environment; what is not UTF-8 cannot be a setting.
pub(crate) fn environment() -> Vec<(String, String)> {
    let mut environment = Vec::new();
    for (name, value) in std::env::vars_os() {
        match (name.into_string(), value.into_string()) {
            (Ok(name), Ok(value)) => environment.push((name, value)),
            (Ok(name), Err(_))
                if name.starts_with("TIDINGS_") || name.starts_with("CENTRIFUGO_") =>
            {
                print_error(&format!("{name}: is not UTF-8 and ignored"));
            }
            _ => {}
        }
    }
    environment
}

/// Runs until a signal ends it; `reload` reads the configuration again and says on standard error
/// what is wrong with it.
async fn run(
    config: Config,
    hangup: Signal,
    reload: impl Fn() -> Option<Config>,
) -> anyhow::Result<ExitCode> {
    // Installed before the start, so that a signal during it stops the server cleanly.
    let mut signals = Signals::new(hangup).context("cannot watch signals")?;
    let (key, is_development) = (config.api.key.clone(), config.is_development);
    // A start may wait for its broker.
    let server = tokio::select! {
        server = Server::start(config) => server?,
        () = signals.end() => return Ok(ExitCode::SUCCESS),
    };
    match server.address() {
        Some(address) if is_development => greet(&format!("http://{address}"), &key),
        _ => {
            let address = list(server.addresses());
            let internal_address = list(server.internal_addresses());
            let grpc_address = list(server.grpc_addresses());
            info!(address, internal_address, grpc_address, "serving");
        }
    }
    while signals.next().await == SignalAction::Reload {
        match reload() {
            Some(config) => {
                server.reload(&config);
                info!(
                    "SIGHUP: API keys and TLS certificates reloaded; other changes need a restart"
                );
            }
            None => {
                server.reload_certificates();
                warn!(
                    "SIGHUP: configuration invalid, previous settings kept; certificate files reloaded"
                );
            }
        }
    }
    tokio::spawn(async move {
        signals.end().await;
        warn!("a second signal: stopping at once, without waiting for clients and requests");
        flush_logs(LOG_FLUSH_TIMEOUT);
        std::process::exit(1);
    });
    server.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// Addresses, the first one first.
fn list(addresses: &[ListenAddress]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn greet(base: &str, key: &str) {
    let text = format!(
        "Tidings {} in development mode: open {base}/ in two tabs\n\
         Publish:      curl -X POST -H 'X-API-Key: {key}' -d '{{\"channel\":\"demo:chat\",\"data\":{{\"text\":\"hello\"}}}}' {base}/api/publish\n\
         For real use: tidings sample-config -o tidings.toml && tidings serve -c tidings.toml\n",
        env!("CARGO_PKG_VERSION")
    );
    // Standard error may have no reader.
    let _closed = std::io::stdout().write_all(text.as_bytes());
}

/// Requests under way have had their time.
fn end(runtime: Runtime) {
    runtime.shutdown_background();
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new(hangup: Signal) -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup,
        })
    }

    /// Waits for the next.
    async fn next(&mut self) -> SignalAction {
        tokio::select! {
            _ = self.terminate.recv() => SignalAction::End,
            _ = self.interrupt.recv() => SignalAction::End,
            _ = self.hangup.recv() => SignalAction::Reload,
        }
    }

    /// Waits for one that ends.
    async fn end(&mut self) {
        while self.next().await != SignalAction::End {}
    }
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SignalAction {
    End,
    Reload,
}
