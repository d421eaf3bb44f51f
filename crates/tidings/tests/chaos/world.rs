//! A world: three nodes on one broker, clients, publishers, and what must be true at its end.

use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

use wire::protocol::StreamPosition;

use crate::fleet::Fleet;
use crate::node::Node;
use crate::publisher::Publishers;
use crate::scale::{Scale, channel_name};
use crate::server::wait_until;

/// See the module.
pub(crate) struct World {
    name: &'static str,
    pub(crate) scale: Scale,
    publishers: Publishers,
    pub(crate) fleet: Fleet,
    pub(crate) nodes: Vec<Node>,
    _machine: MutexGuard<'static, ()>,
}

/// What a fault may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cost {
    /// Every client has everything.
    Nothing,
    /// Clients may be notified of a gap.
    Notices,
    /// All clients with a position must be notified of a gap.
    NoticesToAll,
}

/// One world at a time: each needs the whole machine.
static MACHINE: Mutex<()> = Mutex::new(());

impl World {
    /// Starts everything, and returns when all clients are live and publications have flowed for a
    /// while. The broker is named to each node by number, in its configuration.
    pub(crate) fn start(name: &'static str, broker: impl Fn(usize) -> String) -> World {
        let machine = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
        rlimit::increase_nofile_limit(u64::MAX).unwrap();
        let scale = Scale::wanted();
        let brokers: Vec<String> = (0..NODES).map(broker).collect();
        let nodes: Vec<Node> = std::thread::scope(|scope| {
            let start = |(number, broker): (usize, &String)| {
                let broker = broker.clone();
                scope.spawn(move || Node::start(number, &broker))
            };
            let started: Vec<_> = brokers.iter().enumerate().map(start).collect();
            started.into_iter().map(|node| node.join().expect("a node that starts")).collect()
        });
        let addresses: Vec<_> = nodes.iter().map(|node| node.address).collect();
        let began = Instant::now();
        let fleet = Fleet::start(addresses.clone(), scale, began);
        wait_until("all clients are live", || fleet.ask(|crowd| crowd.is_live()));
        let publishers = Publishers::start(&addresses, scale, began);
        let world = World { name, scale, publishers, fleet, nodes, _machine: machine };
        world.load(scale.around);
        world
    }

    /// Lets publications flow for so long.
    pub(crate) fn load(&self, time: Duration) {
        std::thread::sleep(time);
    }

    /// What was broken is whole again, from this time on: every client is to be notified of what it
    /// missed, or to catch up.
    pub(crate) fn mark(&self, whole: Instant) {
        self.fleet.ask(move |crowd| crowd.mark(whole));
    }

    /// Waits until all clients are live, and were notified or have caught up since the mark.
    pub(crate) fn wait_settled(&mut self) {
        self.nodes.iter_mut().for_each(Node::wait_ready);
        let fleet = &self.fleet;
        wait_until("all clients are notified or have caught up", || {
            fleet.ask(|crowd| crowd.is_live() && crowd.settled().is_some())
        });
    }

    /// Ends it, prints what was seen, and asserts what was promised.
    pub(crate) fn finish(mut self, cost: Cost) {
        self.load(self.scale.around);
        let published = self.publishers.stop();
        let fleet = &self.fleet;
        wait_until("all clients are live", || fleet.ask(|crowd| crowd.is_live()));
        let channels = self.scale.channels;
        let tops: Vec<Vec<StreamPosition>> =
            self.nodes.iter_mut().map(|node| tops(node, channels)).collect();
        assert!(tops.iter().all(|others| *others == tops[0]), "nodes differ about tops");
        let tops = tops.into_iter().next().unwrap();
        wait_at_top(fleet, &tops);
        let crowds = fleet.ask(move |crowd| crowd.crowds(channels));
        self.nodes.iter_mut().for_each(|node| wait_present(node, &crowds));
        let acknowledged = published.acknowledged.len();
        let (tally, settled, publications, mut failures) = fleet.ask(move |crowd| {
            crowd.truth.check(&published.acknowledged, &tops);
            let superfluous = crowd.superfluous();
            if superfluous > 0 {
                crowd.truth.fail(format!("{superfluous} publications came twice or too early"));
            }
            let truth = &crowd.truth;
            (truth.tally, crowd.settled(), truth.publications(), truth.failures.clone())
        });
        failures.extend(published.failures);
        let failed = failures.len() as u64;
        HEAD.call_once(|| println!("{HEAD_LINE}"));
        println!(
            "| {:<44} | {:>7} | {:>12} | {:>7} | {:>10} | {:>6} | {:>7} | {:>9} | {:>8} |",
            self.name,
            self.scale.clients,
            publications,
            published.refused,
            tally.deliveries,
            tally.reported,
            tally.notices,
            settled.map_or("-".to_owned(), |time| format!("{time:.2?}")),
            tally.failures.max(failed),
        );
        assert_eq!(failures, [""; 0]);
        let places: u64 = crowds.iter().sum();
        match cost {
            Cost::Nothing => {
                assert_eq!(tally.notices, 0, "nothing was to be lost");
                assert!(publications >= acknowledged, "{publications} of {acknowledged}");
            }
            Cost::Notices => {}
            Cost::NoticesToAll => assert!(tally.notices >= places, "{places} places"),
        }
        assert!(acknowledged > 0 && tally.deliveries > 0);
        if let Some(settled) = settled {
            assert!(settled < REPORTED_WITHIN, "told or caught up after {settled:?} only");
        }
        drop(self.fleet);
        for node in &mut self.nodes {
            node.stop();
        }
    }
}

/// Where the channels end, as one node says.
fn tops(node: &mut Node, channels: usize) -> Vec<StreamPosition> {
    let top = |channel| {
        let body = format!(r#"{{"channel":"{}","limit":0}}"#, channel_name(channel));
        let answer = node.api.ask("history", &body);
        answer.position().unwrap_or_else(|| panic!("history answered {answer:?}"))
    };
    (0..channels).map(top).collect()
}

fn wait_at_top(fleet: &Fleet, tops: &[StreamPosition]) {
    let began = Instant::now();
    loop {
        let of = tops.to_vec();
        let stragglers = fleet.ask(move |crowd| crowd.stragglers(&of));
        if stragglers.is_empty() {
            return;
        }
        let (count, first) = (stragglers.len(), &stragglers[0]);
        assert!(began.elapsed() < QUIET_WITHIN, "{count} places are not at the top: {first}");
        // No event reports that a socket of another process is drained.
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Exactly the connected clients are present, once leases have expired.
fn wait_present(node: &mut Node, crowds: &[u64]) {
    let began = Instant::now();
    for (channel, &crowd) in crowds.iter().enumerate() {
        let body = format!(r#"{{"channel":"{}"}}"#, channel_name(channel));
        loop {
            let answer = node.api.ask("presence_stats", &body);
            if answer.clients() == Some(crowd) {
                break;
            }
            let (late, node) = (began.elapsed() > PRESENT_WITHIN, node.address);
            assert!(!late, "channel {channel} on {node}: {answer:?} instead of {crowd}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

pub(crate) const NODES: usize = 3;

/// It should be a second; the rest is for a machine that has others to serve.
const REPORTED_WITHIN: Duration = Duration::from_secs(10);

const QUIET_WITHIN: Duration = Duration::from_secs(20);

/// The longest lease is that of NATS, 12 s and 3 s until it is looked at.
const PRESENT_WITHIN: Duration = Duration::from_secs(25);

/// The head of the report.
static HEAD: Once = Once::new();
const HEAD_LINE: &str = "| scenario                                     | clients | publications | refused | deliveries |   told | notices | told/back | failures |";
