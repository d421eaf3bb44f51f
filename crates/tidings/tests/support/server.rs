//! A serving process under observation: what it says of itself and what the kernel says of it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::process::{PATIENCE, Running, configured, tidings};

/// See the module.
pub(crate) struct Server {
    running: Running,
    _folder: TempDir,
    pub(crate) address: SocketAddr,
}

/// What clients cost a server at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Footprint {
    pub(crate) descriptors: usize,
    pub(crate) connections: u64,
    pub(crate) subscriptions: u64,
    pub(crate) resident_kb: u64,
}

impl Server {
    /// Serves with this configuration and these settings, with at most `descriptors_max` open at
    /// once.
    pub(crate) fn start(
        config: &str,
        settings: &[(&str, &str)],
        descriptors_max: Option<u32>,
    ) -> Server {
        let (folder, file) = configured(config);
        let mut command = tidings(&["serve", "-c", file.to_str().unwrap()]);
        if let Some(limit) = descriptors_max {
            let plain = command;
            command = std::process::Command::new("sh");
            command.args(["-c", &format!("ulimit -n {limit}; exec \"$0\" \"$@\"")]);
            command.arg(plain.get_program()).args(plain.get_args());
        }
        for (key, value) in settings {
            command.env(format!("TIDINGS_{}", key.to_uppercase().replace('.', "_")), value);
        }
        let (running, port) = Running::serving(command);
        Server { running, _folder: folder, address: SocketAddr::from(([127, 0, 0, 1], port)) }
    }

    fn proc(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.running.child.id())
    }

    pub(crate) fn footprint(&self) -> Footprint {
        let page = self.metrics();
        Footprint {
            connections: sum(&page, "tidings_connections"),
            subscriptions: sum(&page, "tidings_subscriptions"),
            descriptors: std::fs::read_dir(self.proc("fd")).unwrap().count(),
            resident_kb: self.memory_kb("VmRSS:"),
        }
    }

    /// The most memory that it has held since it started.
    pub(crate) fn peak_kb(&self) -> u64 {
        self.memory_kb("VmHWM:")
    }

    fn memory_kb(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(self.proc("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
    }

    /// Processor time that it has used.
    pub(crate) fn processor_time(&self) -> Duration {
        let stat = std::fs::read_to_string(self.proc("stat")).unwrap();
        // User and system time are the fields 14 and 15; the second may contain spaces.
        let fields = stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2);
        let ticks: u64 = fields.map(|field| field.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10)
    }

    /// Calls the server API, which must succeed.
    pub(crate) fn publish(&self, channel: &str, data: &str) {
        let body = format!(r#"{{"channel":"{channel}","data":{data}}}"#);
        let length = body.len();
        let answer = self.request(&format!(
            "POST /api/publish HTTP/1.1\r\nHost: x\r\nX-API-Key: key\r\nConnection: close\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        ));
        assert!(answer.contains("\"result\""), "{answer}");
    }

    /// The metrics page.
    pub(crate) fn metrics(&self) -> String {
        self.request("GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    }

    fn request(&self, text: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Waits until this holds; says how long that took.
    pub(crate) fn wait(&self, what: &str, holds: impl Fn(&Footprint) -> bool) -> Duration {
        let began = Instant::now();
        loop {
            let now = self.footprint();
            if holds(&now) {
                return began.elapsed();
            }
            assert!(began.elapsed() < PATIENCE, "{what}: {now:?}");
            // No event reports that a socket of another process is closed.
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it in order; gives everything it said meanwhile.
    pub(crate) fn stop(mut self) -> String {
        self.running.signal("-TERM");
        let status = self.running.exit();
        let words = self.running.last_words();
        assert_eq!(status.code(), Some(0), "{words}");
        assert!(!words.contains("panicked"), "{words}");
        words
    }
}

/// The sum of a metric over its labels.
pub(crate) fn sum(page: &str, name: &str) -> u64 {
    let values = page.lines().filter_map(|line| line.strip_prefix(name));
    let values = values.filter(|rest| rest.starts_with([' ', '{']));
    values.map(|rest| rest.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}
