//! Standard output, which may be a pipe that its reader closes, and standard error.
//!
//! Invariant: a closed pipe is not an error, and nothing is printed afterwards. Error texts contain
//! no terminal control characters. A failing standard error, such as one on a full disk, fails no
//! command.

use std::fmt;
use std::io::{ErrorKind, Write as _};

use anyhow::Context as _;
use server::telemetry::visible;

/// The reader of standard output has closed it: the command ends silently with status 0.
#[derive(Debug)]
pub(crate) struct BrokenPipe;

impl fmt::Display for BrokenPipe {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("nobody reads standard output any more")
    }
}

impl std::error::Error for BrokenPipe {}

/// Writes a text.
///
/// # Errors
/// [`BrokenPipe`], or that it cannot be written.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(BrokenPipe.into()),
        result => result.context("standard output cannot be written"),
    }
}

/// Writes a line.
///
/// # Errors
/// See [`print()`].
pub(crate) fn print_line(line: &str) -> anyhow::Result<()> {
    print(&format!("{line}\n"))
}

/// Writes to standard error; a text of several lines, such as the mistakes of a configuration,
/// keeps them.
pub(crate) fn print_error(text: &str) {
    format!("tidings: {text}").lines().for_each(note);
}

/// Writes one line to standard error.
pub(crate) fn note(line: &str) {
    // A failure to write to standard error cannot be reported anywhere.
    let _lost = writeln!(std::io::stderr(), "{}", visible(line));
}
