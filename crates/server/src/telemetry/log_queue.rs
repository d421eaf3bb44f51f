//! A bounded queue of log lines, and the thread that writes them to standard error.
//!
//! Invariant: logging does not block on the reader of standard error. Lines beyond the bound are
//! dropped and counted, and the count is logged when lines are read again. Only a line of level
//! error is waited for, for at most [`LOG_ERROR_WAIT`] and once per stall, since the process may be
//! about to end.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tracing::{Level, Metadata, warn};
use tracing_subscriber::fmt::MakeWriter;

use crate::limits::{LOG_ERROR_WAIT, LOG_QUEUE_BYTES_MAX};
use crate::supervision::supervisor::spawn_thread;

/// Log lines that are not written yet.
#[derive(Default)]
pub(super) struct LogQueue {
    state: Mutex<State>,
    /// Notified when lines are queued.
    filled: Condvar,
    /// Notified when all lines are written.
    emptied: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    dropped: u64,
    is_writing: bool,
    /// Standard error is not being read.
    is_stalled: bool,
}

/// Writer of one event.
pub(super) struct LogLine {
    queue: Arc<LogQueue>,
    is_waited_for: bool,
}

/// Queue of this process.
static QUEUE: OnceLock<Arc<LogQueue>> = OnceLock::new();

/// Returns the queue of this process; the first call starts its thread.
///
/// # Errors
/// If the thread cannot be started.
pub(super) fn start() -> io::Result<Arc<LogQueue>> {
    let queue: Arc<LogQueue> = Arc::default();
    if QUEUE.set(queue.clone()).is_ok() {
        let writing = queue.clone();
        spawn_thread("log".to_owned(), move || writing.write_to(&mut io::stderr()))?;
    }
    Ok(QUEUE.get().cloned().unwrap_or(queue))
}

/// Waits until all log lines are written, for at most `timeout`.
pub fn flush_logs(timeout: Duration) {
    if let Some(queue) = QUEUE.get() {
        queue.wait(timeout);
    }
}

impl LogQueue {
    fn push(&self, line: &[u8]) {
        let mut state = self.state();
        if state.waiting.len() + line.len() > LOG_QUEUE_BYTES_MAX {
            state.dropped += 1;
            state.is_stalled = true;
            return;
        }
        state.waiting.extend_from_slice(line);
        self.filled.notify_one();
    }

    /// Waits until all lines are written. Returns `false` after the timeout.
    fn wait(&self, timeout: Duration) -> bool {
        let end = Instant::now() + timeout;
        let mut state = self.state();
        while !state.waiting.is_empty() || state.is_writing {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.emptied.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Writes queued lines. Does not return.
    fn write_to(&self, out: &mut impl Write) {
        let mut lines = Vec::new();
        loop {
            {
                let mut state = self.state();
                while state.waiting.is_empty() {
                    state.is_writing = false;
                    self.emptied.notify_all();
                    let waited = self.filled.wait(state);
                    state = waited.unwrap_or_else(PoisonError::into_inner);
                }
                state.is_writing = true;
                std::mem::swap(&mut state.waiting, &mut lines);
            }
            // A closed standard error cannot be reported anywhere.
            let _closed = out.write_all(&lines).and_then(|()| out.flush());
            lines.clear();
            lines.shrink_to(LOG_QUEUE_BYTES_MAX / 16);
            let dropped = {
                let mut state = self.state();
                state.is_stalled = false;
                std::mem::take(&mut state.dropped)
            };
            if dropped > 0 {
                warn!(
                    dropped,
                    "lines of the log were dropped: standard error was not read fast enough"
                );
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for LogLine {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.queue.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LogLine {
    fn drop(&mut self) {
        if self.is_waited_for && !self.queue.state().is_stalled {
            let is_written = self.queue.wait(LOG_ERROR_WAIT);
            self.queue.state().is_stalled |= !is_written;
        }
    }
}

/// Creates a [`LogLine`] for each event.
pub(super) struct LogLines(pub(super) Arc<LogQueue>);

impl<'a> MakeWriter<'a> for LogLines {
    type Writer = LogLine;

    fn make_writer(&'a self) -> LogLine {
        LogLine { queue: self.0.clone(), is_waited_for: false }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> LogLine {
        LogLine { queue: self.0.clone(), is_waited_for: *meta.level() == Level::ERROR }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A reader that accepts one write for each message of `go_on`.
    struct Reader {
        go_on: mpsc::Receiver<()>,
        taken: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.go_on.recv().map_err(io::Error::other)?;
            self.taken.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn logging_does_not_block_and_dropped_lines_are_counted() {
        let queue = Arc::new(LogQueue::default());
        let (go_on, logged_at) = mpsc::channel();
        let (taken, lines) = mpsc::channel();
        let writing = queue.clone();
        std::thread::spawn(move || {
            writing.write_to(&mut Reader { go_on: logged_at, taken });
        });
        let line = |is_waited_for| LogLine { queue: queue.clone(), is_waited_for };
        line(false).write_all(b"first\n").unwrap();
        // The thread is stuck with the first line.
        while !queue.state().is_writing {
            std::thread::yield_now();
        }
        let kilobyte = [b'x'; 1024];
        let began = Instant::now();
        for _ in 0..LOG_QUEUE_BYTES_MAX / 1024 + 100 {
            line(false).write_all(&kilobyte).unwrap();
        }
        // The first error of a stall waits a little; here lines have been dropped already.
        for _ in 0..100 {
            line(true).write_all(&kilobyte).unwrap();
        }
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert_eq!(queue.state().dropped, 200);
        assert!(queue.state().waiting.len() <= LOG_QUEUE_BYTES_MAX);
        go_on.send(()).unwrap();
        go_on.send(()).unwrap();
        assert_eq!(lines.recv().unwrap(), b"first\n");
        assert_eq!(lines.recv().unwrap().len(), LOG_QUEUE_BYTES_MAX);
        assert!(queue.wait(Duration::from_secs(10)));
        let state = queue.state();
        assert_eq!((state.dropped, state.is_stalled), (0, false));
    }
}
