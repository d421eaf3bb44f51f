//! A real Redis server, for one test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

use brokers::redis::RedisOptions;
use tempfile::TempDir;

pub(crate) struct Server {
    pub(crate) port: u16,
    store: TempDir,
    arguments: Vec<String>,
    process: Mutex<Option<Child>>,
}

impl Server {
    /// Without a store on disk.
    pub(crate) fn start() -> Server {
        Server::with(&[])
    }

    /// One that has everything on disk before it answers.
    pub(crate) fn durable() -> Server {
        Server::with(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    pub(crate) fn with(arguments: &[&str]) -> Server {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let store = TempDir::new().unwrap();
        let server = Server { port, store, arguments, process: Mutex::default() };
        server.run();
        server
    }

    /// Starts it, again if it was ended, on the same port.
    pub(crate) fn run(&self) {
        let mut process = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--save", "", "--dir"])
            .arg(self.store.path())
            .args(&self.arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("redis-server is missing: `apt-get install redis-server`");
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let is_ready = lines.any(|line| line.unwrap().contains("Ready to accept connections"));
        assert!(is_ready, "redis-server ended");
        // It must not wait for somebody to read what it says.
        std::thread::spawn(move || lines.for_each(drop));
        *self.process.lock().unwrap() = Some(process);
    }

    /// As by `kill -9`.
    pub(crate) fn kill(&self) {
        if let Some(mut process) = self.process.lock().unwrap().take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.process.lock().unwrap().as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    pub(crate) fn options(&self) -> RedisOptions {
        RedisOptions {
            address: format!("redis://127.0.0.1:{}", self.port),
            ..RedisOptions::default()
        }
    }

    /// Runs inline commands, without blanks in their words, and returns all that Redis answers.
    pub(crate) fn command(&self, commands: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.write_all(format!("{commands}\r\nQUIT\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.strip_suffix("+OK\r\n").unwrap().to_owned()
    }

    /// Lets time pass for every key: none is left without an end.
    pub(crate) fn pass_ms(&self, ms: u64) {
        let script = "\"for _, key in ipairs(redis.call('KEYS', '*')) do local left = \
            redis.call('PTTL', key); assert(left >= 0, key); redis.call('PEXPIRE', key, \
            math.max(left - ARGV[1], 0)) end return 'passed'\"";
        let answer = self.command(&format!("EVAL {script} 0 {ms}"));
        assert!(answer.contains("passed"), "{answer}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
