//! The command as a process: started, read from, stopped, and killed when its test ends.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn tidings(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidings"));
    // The environment of the test run must not reach the command.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TIDINGS_")) {
        command.env_remove(name);
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

/// A folder with a configuration in it.
pub(crate) fn configured(content: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tidings.toml");
    std::fs::write(&file, content).unwrap();
    (folder, file)
}

/// A process that is killed when the test ends, and the lines that it prints.
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) out: Receiver<String>,
    pub(crate) err: Receiver<String>,
}

/// What is said there, line by line.
pub(crate) fn lines(from: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let _nobody_reads = sender.send(line);
        }
    });
    receiver
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Running {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = lines(child.stdout.take().unwrap());
        let err = lines(child.stderr.take().unwrap());
        Running { child, out, err }
    }

    /// What this command serves, and its port.
    pub(crate) fn serving(command: Command) -> (Running, u16) {
        let server = Running::start(command);
        let line = server.says("\"serving\"");
        let address = line.split("\"address\":\"").nth(1).unwrap().split('"').next().unwrap();
        let port = address.rsplit(':').next().unwrap().parse().unwrap();
        (server, port)
    }

    /// The next line of standard error with this in it.
    pub(crate) fn says(&self, wanted: &str) -> String {
        self.says_until(wanted).pop().expect("it ends with that line")
    }

    /// All lines of standard error up to the next one with this in it.
    pub(crate) fn says_until(&self, wanted: &str) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let Ok(line) = self.err.recv_timeout(PATIENCE) else {
                panic!("it says no {wanted}, but:\n{}", lines.join("\n"));
            };
            lines.push(line);
            if lines.last().is_some_and(|line| line.contains(wanted)) {
                return lines;
            }
        }
    }

    pub(crate) fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(status.unwrap().success());
    }

    pub(crate) fn exit(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "it does not end");
            // Of one process there is no wait with a timeout; and it may need the
            // processor for that.
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Its output that was not read yet, once it has ended.
    pub(crate) fn last_words(&self) -> String {
        self.out.iter().chain(self.err.iter()).collect::<Vec<String>>().join("\n")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ended = self.child.kill();
        let _waited = self.child.wait();
    }
}
