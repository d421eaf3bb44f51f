//! What a load process is to do: written by the test into the environment, read by the process.

use std::net::SocketAddr;
use std::time::Duration;

/// Where a plan stands in the environment of a load process.
pub(crate) const PLAN: &str = "STORM_PLAN";

/// The channel of all storms.
pub(crate) const CHANNEL: &str = "storm:news";

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) address: SocketAddr,
    /// Number of the first client.
    pub(crate) first: u64,
    pub(crate) clients: usize,
    pub(crate) seed: u64,
    /// A client lives for half of this to one and a half.
    pub(crate) connected_for: Duration,
    /// And is away for half of this to one and a half.
    pub(crate) away: Duration,
}

impl Plan {
    pub(crate) fn write(&self) -> String {
        let Plan { address, first, clients, seed, connected_for, away } = self;
        let (connected_for, away) = (connected_for.as_millis(), away.as_millis());
        format!("{address} {first} {clients} {seed} {connected_for} {away}")
    }

    pub(crate) fn read(text: &str) -> Plan {
        let words: Vec<&str> = text.split(' ').collect();
        let number = |index: usize| -> u64 { words[index].parse().unwrap() };
        Plan {
            address: words[0].parse().unwrap(),
            first: number(1),
            clients: usize::try_from(number(2)).unwrap(),
            seed: number(3),
            connected_for: Duration::from_millis(number(4)),
            away: Duration::from_millis(number(5)),
        }
    }
}

#[test]
fn a_plan_survives_the_environment() {
    let plan = Plan {
        address: "127.0.0.1:8000".parse().unwrap(),
        first: 5,
        clients: 7,
        seed: u64::MAX,
        connected_for: Duration::from_secs(15),
        away: Duration::from_millis(2500),
    };
    assert_eq!(Plan::read(&plan.write()), plan);
}
