//! Real servers for tests: each in a directory of its own, on a free port, stopped with the test.

use std::io::{BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A running redis-server.
pub(crate) struct RedisServer {
    child: Child,
    folder: TempDir,
    pub(crate) port: u16,
    arguments: Vec<String>,
    program: &'static str,
    /// Port without TLS.
    pub(crate) plain_port: u16,
    password: Option<String>,
}

/// Timeout of a server's start and of every operation.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

impl RedisServer {
    pub(crate) fn start(arguments: &[&str]) -> RedisServer {
        RedisServer::start_program("redis-server", free_port(), arguments)
    }

    pub(crate) fn start_program(
        program: &'static str,
        port: u16,
        arguments: &[&str],
    ) -> RedisServer {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let arguments: Vec<String> = arguments.iter().map(|&word| word.to_owned()).collect();
        let password = arguments.iter().position(|word| word == "--requirepass");
        let password = password.map(|index| arguments[index + 1].clone());
        let child = spawn(program, folder.path(), port, &arguments);
        let mut server =
            RedisServer { child, folder, port, arguments, program, plain_port: port, password };
        server.wait();
        server
    }

    /// Kills it without warning.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// Starts it again on its port, with the data in its directory.
    pub(crate) fn restart(&mut self) {
        self.child = spawn(self.program, self.folder.path(), self.port, &self.arguments);
        self.wait();
    }

    /// Sends a signal such as `STOP`.
    pub(crate) fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", signal, &id]).status().expect("kill");
        assert!(status.success());
    }

    /// Requires this password for new connections; open ones stay.
    pub(crate) fn set_password(&mut self, password: &str) {
        self.ask(&["CONFIG", "SET", "requirepass", password]);
        self.password = Some(password.to_owned());
    }

    /// Sends one command and returns its reply.
    pub(crate) fn ask(&self, words: &[&str]) -> Answer {
        self.try_ask(words).expect("the server answers")
    }

    fn wait(&mut self) {
        wait_until("the server answers", || match self.try_ask(&["PING"]) {
            Some(Answer::Text(text)) => text == "PONG" || text.starts_with("NOAUTH"),
            _ => false,
        });
    }

    /// Sends one command; `None` if the server closes the connection.
    pub(crate) fn try_ask(&self, words: &[&str]) -> Option<Answer> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.plain_port)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        if let Some(password) = &self.password {
            write(&mut stream, &["AUTH", password])?;
            Answer::read(&mut reader)?;
        }
        write(&mut stream, words)?;
        Answer::read(&mut reader)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // It may have been killed already.
        let _dead = self.child.kill();
        let _dead = self.child.wait();
    }
}

/// A RESP2 reply.
#[derive(Debug, PartialEq)]
pub(crate) enum Answer {
    Text(String),
    Number(i64),
    Null,
    List(Vec<Answer>),
}

impl Answer {
    fn read(reader: &mut impl std::io::BufRead) -> Option<Answer> {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.strip_suffix("\r\n")?;
        let (kind, rest) = line.split_at_checked(1)?;
        Some(match kind {
            "+" | "-" => Answer::Text(rest.to_owned()),
            ":" => Answer::Number(rest.parse().ok()?),
            "$" | "*" if rest == "-1" => Answer::Null,
            "$" => {
                let mut text = vec![0; rest.parse::<usize>().ok()? + 2];
                reader.read_exact(&mut text).ok()?;
                text.truncate(text.len() - 2);
                Answer::Text(String::from_utf8_lossy(&text).into_owned())
            }
            "*" => {
                let count = rest.parse::<usize>().ok()?;
                Answer::List((0..count).map(|_| Answer::read(reader)).collect::<Option<_>>()?)
            }
            _ => return None,
        })
    }

    pub(crate) fn text(&self) -> &str {
        match self {
            Answer::Text(text) => text,
            other => panic!("{other:?} is no text"),
        }
    }

    pub(crate) fn number(&self) -> i64 {
        match self {
            Answer::Number(number) => *number,
            other => panic!("{other:?} is no number"),
        }
    }

    pub(crate) fn list(&self) -> &[Answer] {
        match self {
            Answer::List(list) => list,
            other => panic!("{other:?} is no list"),
        }
    }
}

fn write(stream: &mut TcpStream, words: &[&str]) -> Option<()> {
    let mut out = format!("*{}\r\n", words.len());
    for word in words {
        out.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    stream.write_all(out.as_bytes()).ok()
}

fn spawn(program: &str, folder: &Path, port: u16, arguments: &[String]) -> Child {
    let mut command = Command::new(program);
    if program == "redis-server" {
        let port = port.to_string();
        command.args(["--port", &port, "--bind", "127.0.0.1", "--save", ""]);
    }
    let started = command
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    started.unwrap_or_else(|error| {
        panic!("{program} does not start ({error}); apt-get install redis-server redis-sentinel")
    })
}

/// A port without a listener, whose cluster port is free too.
pub(crate) fn free_port() -> u16 {
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        if port < 55_000 && TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok() {
            return port;
        }
    }
}

/// Polls a condition outside of this process until it holds; `what` names it in the panic.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "timeout while waiting until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
