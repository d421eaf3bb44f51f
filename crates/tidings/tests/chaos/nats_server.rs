//! A real NATS server with JetStream, on a port that it keeps over restarts; ended with the test.

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

/// See the module.
pub(crate) struct NatsServer {
    pub(crate) port: u16,
    store: TempDir,
    configuration: TempDir,
    process: Child,
}

/// With JetStream, without bounds, for everybody.
const PLAIN: &str = "jetstream { store_dir: STORE }";

impl NatsServer {
    pub(crate) fn start() -> NatsServer {
        NatsServer::configured(PLAIN)
    }

    /// With a configuration, in which `STORE` stands for where it keeps what it has.
    pub(crate) fn configured(text: &str) -> NatsServer {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (store, configuration) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(&configuration, &store, text);
        let process = run(port, &configuration);
        NatsServer { port, store, configuration, process }
    }

    /// Changes the configuration while it runs.
    pub(crate) fn configure(&self, text: &str) {
        write(&self.configuration, &self.store, text);
        self.signal("-HUP");
    }

    /// Kills it without warning.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again with what it had.
    pub(crate) fn restart(&mut self) {
        self.process = run(self.port, &self.configuration);
    }

    /// Starts it again with nothing.
    pub(crate) fn restart_empty(&mut self) {
        self.store = tempfile::tempdir().unwrap();
        write(&self.configuration, &self.store, PLAIN);
        self.restart();
    }

    /// Sends a signal such as `-STOP`.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.process.id().to_string()]).status();
        assert!(status.unwrap().success());
    }

    /// Asks as another client of the same server.
    pub(crate) fn other(&self) -> OtherClient {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut other = OtherClient(BufReader::new(stream));
        let login = r#"CONNECT {"verbose":false,"user":"other","pass":"secret"}"#;
        other.send(format!("{login}\r\nSUB answers 1\r\n").as_bytes());
        other
    }
}

/// Speaks the client protocol of NATS by hand.
pub(crate) struct OtherClient(BufReader<TcpStream>);

impl OtherClient {
    /// The answer to a request.
    pub(crate) fn ask(&mut self, subject: &str, body: &[u8]) -> String {
        self.send(format!("PUB {subject} answers {}\r\n", body.len()).as_bytes());
        self.send(body);
        self.send(b"\r\n");
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "NATS has closed the connection");
            assert!(!line.starts_with("-ERR"), "{subject}: {line}");
            if line.starts_with("MSG") {
                let length: usize = line.split_whitespace().last().unwrap().parse().unwrap();
                let mut answer = vec![0; length + 2];
                self.0.read_exact(&mut answer).unwrap();
                return String::from_utf8(answer).unwrap();
            }
        }
    }

    /// The same, of what must succeed.
    pub(crate) fn order(&mut self, subject: &str, body: &[u8]) {
        let answer = self.ask(subject, body);
        assert!(!answer.contains("\"error\""), "{subject}: {answer}");
    }

    fn send(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).unwrap();
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        // It may be dead already.
        let _dead = self.process.kill();
        let _dead = self.process.wait();
    }
}

fn write(configuration: &TempDir, store: &TempDir, text: &str) {
    let text = text.replace("STORE", &format!("{:?}", store.path().to_str().unwrap()));
    std::fs::write(configuration.path().join("server.conf"), text).unwrap();
}

/// Returns when it can be asked.
fn run(port: u16, configuration: &TempDir) -> Child {
    let started = Command::new("nats-server")
        .args(["-a", "127.0.0.1", "-p", &port.to_string(), "-c"])
        .arg(configuration.path().join("server.conf"))
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut process = started.expect("nats-server starts: apt-get install nats-server");
    let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("Server is ready")), "nats-server ended");
    // Its output must not block it.
    std::thread::spawn(move || lines.for_each(drop));
    process
}
