//! A Redis that is killed when the test ends.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

pub(crate) struct Redis {
    pub(crate) port: u16,
    process: Child,
}

impl Redis {
    pub(crate) fn start() -> Redis {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Redis { port, process: Redis::run(port) }
    }

    /// The option `engine` of its nodes.
    pub(crate) fn engine(&self) -> String {
        let address = format!("redis://127.0.0.1:{}", self.port);
        format!("{{ type = \"redis\", redis = {{ address = \"{address}\" }} }}")
    }

    /// Kills it; it has no data afterwards.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again on the same port.
    pub(crate) fn come_back(&mut self) {
        self.process = Redis::run(self.port);
    }

    fn run(port: u16) -> Child {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--port", &port.to_string()]);
        let process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut process = process.expect("missing: apt-get install redis-server");
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let is_ready = lines.any(|line| line.unwrap().contains("Ready to accept connections"));
        assert!(is_ready, "redis-server ended");
        std::thread::spawn(move || lines.for_each(drop));
        process
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ended = self.process.kill();
        let _waited = self.process.wait();
    }
}
