//! Logging to standard error, as JSON or for people.
//!
//! Invariant: control characters of a peer's text never reach a terminal.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal as _, Write};
use std::panic::{self, PanicHookInfo};

use tracing::{Metadata, error};
use tracing_subscriber::Layer as _;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::log_queue::{self, LogLine, LogLines};
use super::visible::{visible, visible_json};
use crate::config::{Log, LogFormat, LogLevel};

/// Starts logging to standard error, including panics. Logging never blocks on standard error.
/// Further calls have no effect.
///
/// # Errors
/// If the thread cannot be started.
pub fn start_logging(log: Log) -> io::Result<()> {
    let level = match log.level {
        LogLevel::None => LevelFilter::OFF,
        LogLevel::Trace => LevelFilter::TRACE,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    };
    let is_pretty = match log.format {
        LogFormat::Auto => io::stderr().is_terminal(),
        LogFormat::Pretty => true,
        LogFormat::Json => false,
    };
    // The NATS client logs every reconnect attempt; the broker logs the resulting state.
    let of_client = if level >= LevelFilter::DEBUG { level } else { level.min(LevelFilter::WARN) };
    let filter = Targets::new().with_default(level).with_target("async_nats", of_client);
    // https://no-color.org
    let has_colour = io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let queue = LogLines(log_queue::start()?);
    let lines = tracing_subscriber::fmt::layer();
    let logs = tracing_subscriber::registry();
    // Fails if a logger is installed already, as in a test with several servers.
    let _already = if is_pretty {
        // Only terminals receive control sequences, and only our own.
        let lines = lines.with_ansi(has_colour).with_target(false);
        let lines = lines.fmt_fields(format::debug_fn(write_field).delimited(" "));
        logs.with(lines.with_writer(queue).with_filter(filter)).try_init()
    } else {
        let lines = lines.json().flatten_event(true).with_current_span(false);
        logs.with(lines.with_writer(JsonLines(queue)).with_filter(filter)).try_init()
    };
    panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// Logs a panic. The default hook would block on standard error.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let reason = panic.payload_as_str().unwrap_or("panic");
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or_default();
    // Empty unless RUST_BACKTRACE asks for it.
    let backtrace = Backtrace::capture();
    match backtrace.status() {
        BacktraceStatus::Captured => error!(thread, place, reason, %backtrace, "panic"),
        _ => error!(thread, place, reason, "panic"),
    }
}

/// Writes a field of a log line for people. Its value may contain text of a peer.
fn write_field(
    writer: &mut format::Writer<'_>,
    field: &tracing::field::Field,
    value: &dyn std::fmt::Debug,
) -> std::fmt::Result {
    let text = format!("{value:?}");
    match field.name() {
        "message" => write!(writer, "{}", visible(&text)),
        name if writer.has_ansi_escapes() => {
            write!(writer, "\x1b[3m{name}\x1b[0m={}", visible(&text))
        }
        name => write!(writer, "{name}={}", visible(&text)),
    }
}

/// Escapes control characters in complete lines of JSON.
struct VisibleJson<W>(W);

/// Creates a JSON writer for each event.
struct JsonLines(LogLines);

impl<'a> MakeWriter<'a> for JsonLines {
    type Writer = VisibleJson<LogLine>;

    fn make_writer(&'a self) -> Self::Writer {
        VisibleJson(self.0.make_writer())
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Self::Writer {
        VisibleJson(self.0.make_writer_for(meta))
    }
}

impl<W: Write> Write for VisibleJson<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (line, end) = match bytes.strip_suffix(b"\n") {
            Some(line) => (line, "\n"),
            None => (bytes, ""),
        };
        let text = String::from_utf8_lossy(line);
        let text = visible_json(&text);
        self.0.write_all(&[text.as_bytes(), end.as_bytes()].concat())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
