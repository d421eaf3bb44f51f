//! One case: a server, its neighbour, and the proof that nothing is left over.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::neighbour::{Latency, Neighbour};
use crate::server::{Footprint, Server};

/// One worker, so that load on it affects every client.
const CONFIG: &str = r#"
[http_server]
address = "127.0.0.1"
port = 0
[http_api]
key = "key"
[server]
workers = 1
[client]
allow_anonymous_connect_without_token = true
[shutdown]
drain_window = "0s"
[[channel.namespaces]]
name = "open"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_publish_for_client = true
allow_publish_for_anonymous = true
[[channel.namespaces]]
name = "kept"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_publish_for_client = true
allow_publish_for_anonymous = true
allow_history_for_client = true
allow_history_for_anonymous = true
history_size = 10
history_ttl = "60s"
force_recovery = true
"#;

/// What holds behind the rates is tried without them: no peer would get there so soon.
const NO_RATES: &str = r#"
[limits.connection]
commands = "off"
publishes = "off"
subscribes = "off"
new_channels = "off"
bytes = "off"
"#;

/// The neighbour's 99th percentile stays below this. A debug build is ten times slower than a real
/// one, and may share its processor with other tests.
const P99_MAX: Duration = Duration::from_millis(if cfg!(debug_assertions) { 500 } else { 50 });

/// No publication of the neighbour takes longer: the system may have had others to serve for a
/// moment.
const WAIT_MAX: Duration = P99_MAX.saturating_mul(10);

/// Kilobytes by which a server may have grown once all is over: the allocator's own reserves.
const LEFT_OVER_KB_MAX: u64 = 10 * 1024;

/// What measures time has the processor for itself.
static PROCESSOR: Mutex<()> = Mutex::new(());

/// See the module.
pub(crate) struct Case {
    name: &'static str,
    pub(crate) server: Server,
    pub(crate) before: Footprint,
    neighbour: Option<Neighbour>,
    left_over_kb_max: u64,
    _processor: Option<MutexGuard<'static, ()>>,
}

impl Case {
    /// A case that waits more than it works.
    pub(crate) fn quiet(name: &'static str, settings: &[(&str, &str)]) -> Case {
        Case::with(name, Server::start(&unlimited(), settings, None))
    }

    /// A case with few descriptors.
    pub(crate) fn short_of_descriptors(name: &'static str, limit: u32) -> Case {
        Case::with(name, Server::start(&unlimited(), &[], Some(limit)))
    }

    /// A case that has the processor for itself, and a neighbour whose latency is bounded.
    pub(crate) fn busy(name: &'static str, settings: &[(&str, &str)]) -> Case {
        Case::crowded(name, &unlimited(), settings)
    }

    /// The same with the rates that hold by default.
    pub(crate) fn limited(name: &'static str, settings: &[(&str, &str)]) -> Case {
        Case::crowded(name, CONFIG, settings)
    }

    fn crowded(name: &'static str, config: &str, settings: &[(&str, &str)]) -> Case {
        let processor = PROCESSOR.lock().unwrap_or_else(PoisonError::into_inner);
        let mut case = Case::with(name, Server::start(config, settings, None));
        case.neighbour = Some(Neighbour::start(case.server.address));
        case._processor = Some(processor);
        // What the page says may be some moments old.
        case.server.wait(name, |now| (now.connections, now.subscriptions) == (1, 1));
        case.before = case.server.footprint();
        case
    }

    fn with(name: &'static str, server: Server) -> Case {
        let before = server.footprint();
        let left_over_kb_max = LEFT_OVER_KB_MAX;
        Case { name, server, before, neighbour: None, left_over_kb_max, _processor: None }
    }

    /// Kilobytes by which the server has grown at most since the case began.
    pub(crate) fn growth_kb(&self) -> u64 {
        self.server.peak_kb().saturating_sub(self.before.resident_kb)
    }

    /// The longest that the neighbour waited so far.
    pub(crate) fn longest_wait(&self) -> Duration {
        self.neighbour.as_ref().map_or(Duration::ZERO, Neighbour::longest)
    }

    /// Measures from here on, when everybody is gone; what grows now may be at most so many
    /// kilobytes at the end.
    pub(crate) fn begin_again(&mut self, left_over_kb_max: u64) {
        self.wait_until_clean();
        self.before = self.server.footprint();
        self.left_over_kb_max = left_over_kb_max;
    }

    /// Kilobytes by which the server has grown once those who came since the case began are gone.
    pub(crate) fn left_over_kb(&self) -> u64 {
        self.wait_until_clean();
        self.server.footprint().resident_kb.saturating_sub(self.before.resident_kb)
    }

    /// Waits until those who came since the case began are gone.
    fn wait_until_clean(&self) -> Duration {
        self.server.wait(self.name, |now| {
            now.descriptors <= self.before.descriptors
                && now.connections == self.before.connections
                && now.subscriptions == self.before.subscriptions
        })
    }

    /// Everybody is gone: so is everything that they cost. Prints what was measured; gives what the
    /// server has said.
    pub(crate) fn finish(self, measured: impl fmt::Display) -> String {
        let before = self.before;
        let took = self.wait_until_clean();
        let growth_kb = self.growth_kb();
        let after = self.server.footprint();
        let left_kb = after.resident_kb.saturating_sub(before.resident_kb);
        let latency = self.neighbour.map(Neighbour::stop);
        let neighbour = latency.map_or(String::new(), |latency| {
            let Latency { count, p50, p99, most } = latency;
            format!("; neighbour p50 {p50:.1?}, p99 {p99:.1?}, most {most:.1?} of {count}")
        });
        println!(
            "{}: {measured}; memory {} kB, at most +{growth_kb} kB, at the end +{left_kb} kB; \
             clean after {took:.1?}{neighbour}",
            self.name, before.resident_kb
        );
        assert!(left_kb <= self.left_over_kb_max, "{}: {left_kb} kB are left over", self.name);
        if let Some(latency) = latency {
            let is_served = latency.p99 <= P99_MAX && latency.most <= WAIT_MAX;
            assert!(is_served, "{}: the neighbour waited: {latency:?}", self.name);
        }
        self.server.stop()
    }
}

fn unlimited() -> String {
    format!("{CONFIG}{NO_RATES}")
}
