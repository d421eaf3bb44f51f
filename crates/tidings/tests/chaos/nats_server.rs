//! A real NATS server with JetStream, on a port that it keeps over restarts; ended with the test.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// See the module.
pub(crate) struct NatsServer {
    pub(crate) port: u16,
    store: TempDir,
    process: Child,
}

impl NatsServer {
    pub(crate) fn start() -> NatsServer {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let store = tempfile::tempdir().unwrap();
        let process = run(port, &store);
        NatsServer { port, store, process }
    }

    /// Kills it without warning.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again with what it had.
    pub(crate) fn restart(&mut self) {
        self.process = run(self.port, &self.store);
    }

    /// Starts it again with nothing.
    pub(crate) fn restart_empty(&mut self) {
        self.store = tempfile::tempdir().unwrap();
        self.restart();
    }

    /// Sends a signal such as `-STOP`.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.process.id().to_string()]).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        // It may be dead already.
        let _dead = self.process.kill();
        let _dead = self.process.wait();
    }
}

/// Returns when it can be asked.
fn run(port: u16, store: &TempDir) -> Child {
    let started = Command::new("nats-server")
        .args(["-a", "127.0.0.1", "-p", &port.to_string(), "-js", "-sd"])
        .arg(store.path())
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut process = started.expect("nats-server starts: apt-get install nats-server");
    let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("Server is ready")), "nats-server ended");
    // It must not wait for somebody to read what it says.
    std::thread::spawn(move || lines.for_each(drop));
    process
}
