//! A storm: a server, load processes, and what became of the clients.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::plan::{CHANNEL, PLAN, Plan};
use crate::process::{PATIENCE, Running};
use crate::server::Server;

const CONFIG: &str = r#"
[http_server]
address = "127.0.0.1"
port = 0
[http_api]
key = "key"
[client]
allow_anonymous_connect_without_token = true
[shutdown]
drain_window = "0s"
[[channel.namespaces]]
name = "storm"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
history_size = 1000
history_ttl = "10m"
force_recovery = true
"#;

/// Time after which a load process that says nothing is broken.
const SILENCE: Duration = Duration::from_secs(90);

/// One storm at a time: each needs the whole machine.
static MACHINE: Mutex<()> = Mutex::new(());

/// Whether the long forms are wanted (`make storms`).
pub(crate) fn is_long() -> bool {
    std::env::var("STORMS").is_ok_and(|form| form == "long")
}

/// See the module.
pub(crate) struct Storm {
    server: Server,
    loads: Vec<Running>,
    clients: usize,
    published: u64,
    began: Instant,
    _machine: MutexGuard<'static, ()>,
}

impl Storm {
    /// Starts everything, and waits until all clients are live. A plan's own clients are shared by
    /// the processes.
    pub(crate) fn start(processes: usize, clients: usize, plan: impl Fn(Plan) -> Plan) -> Storm {
        let machine = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
        let server = Server::start(CONFIG, &[], None);
        let each = clients / processes;
        let loads = (0..processes).map(|index| {
            let plan = plan(Plan {
                address: server.address,
                first: (index * each) as u64,
                clients: each,
                seed: 0,
                connected_for: Duration::ZERO,
                away: Duration::ZERO,
            });
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["load::clients", "--exact", "--ignored", "--nocapture"]);
            command.env(PLAN, plan.write()).stdin(Stdio::piped());
            Running::start(command)
        });
        let loads: Vec<Running> = loads.collect();
        let clients = each * processes;
        let began = Instant::now();
        let storm = Storm { server, loads, clients, published: 0, began, _machine: machine };
        storm.gather();
        storm
    }

    /// Waits until all clients are live; says how long that took.
    pub(crate) fn gather(&self) -> Duration {
        let times = self.loads.iter().map(|load| {
            let line = receive(load, "@live");
            micros(line.split(' ').nth(1).unwrap())
        });
        times.max().unwrap()
    }

    /// Sends a command to all load processes.
    pub(crate) fn order(&mut self, line: &str) {
        for load in &mut self.loads {
            let stdin = load.child.stdin.as_mut().unwrap();
            writeln!(stdin, "{line}").unwrap();
        }
    }

    /// Publishes so many, one at each beat.
    pub(crate) fn publish(&mut self, count: u64, beat: Duration) {
        let mut next = Instant::now();
        for _ in 0..count {
            self.published += 1;
            self.server.publish(CHANNEL, &self.published.to_string());
            next += beat;
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }

    /// Waits until every client has everything, and prints what was measured.
    pub(crate) fn finish(mut self, name: &str) {
        self.order(&format!("end {}", self.published));
        let mut times = Vec::new();
        let (mut complete, mut deaths, mut failed) = (0, 0, 0);
        let mut failures = Vec::new();
        for load in &self.loads {
            loop {
                let line = receive(load, "@");
                let (kind, rest) = line.split_once(' ').unwrap();
                match kind {
                    "@failure" => failures.push(rest.to_owned()),
                    "@times" => times.extend(rest.split_whitespace().map(micros)),
                    _ => {
                        let numbers: Vec<u64> =
                            rest.split(' ').map(|number| number.parse().unwrap()).collect();
                        complete += numbers[0];
                        deaths += numbers[1];
                        failed += numbers[2];
                        break;
                    }
                }
            }
        }
        let took = self.began.elapsed();
        times.sort_unstable();
        let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
        let (p50, p99, most) = (at(0.5), at(0.99), at(1.0));
        for load in &mut self.loads {
            let status = load.exit();
            assert!(status.success(), "{}", load.last_words());
        }
        self.server.wait("connections of dead clients", |now| now.connections == 0);
        println!(
            "{name}: {} clients, {} publications, {deaths} deaths in {took:.1?}; complete {complete}, \
             failures {failed}; from dialling to caught up p50 {p50:.1?}, p99 {p99:.1?}, most {most:.1?} \
             of {}; server: {:.1?} of processor time, at most {} kB",
            self.clients,
            self.published,
            times.len(),
            self.server.processor_time(),
            self.server.peak_kb()
        );
        assert_eq!((complete, failed), (self.clients as u64, 0), "{failures:#?}");
        self.server.stop();
    }
}

fn micros(text: &str) -> Duration {
    Duration::from_micros(text.parse().unwrap())
}

/// The next line of a load process that begins so.
fn receive(load: &Running, wanted: &str) -> String {
    loop {
        match load.out.recv_timeout(SILENCE) {
            Ok(line) if line.starts_with(wanted) => return line,
            Ok(_) => {}
            Err(error) => {
                let said: Vec<String> = load.err.try_iter().collect();
                panic!("a load process says nothing ({error}), but:\n{}", said.join("\n"));
            }
        }
    }
}

const _: () = assert!(SILENCE.as_secs() > PATIENCE.as_secs());
