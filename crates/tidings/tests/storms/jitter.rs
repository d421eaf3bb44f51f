//! Every socket is killed again and again while publications go on.

use std::time::Duration;

use crate::plan::Plan;
use crate::storm::{Storm, is_long};

const SEED: u64 = 0x7469_6469_6e67_7301;

struct Form {
    processes: usize,
    clients: usize,
    publications: u64,
    connected_for: Duration,
    away: Duration,
}

const SHORT: Form = Form {
    processes: 2,
    clients: 300,
    publications: 20,
    connected_for: Duration::from_secs(3),
    away: Duration::from_secs(1),
};

const LONG: Form = Form {
    processes: 2,
    clients: 5_000,
    publications: 120,
    connected_for: Duration::from_secs(15),
    away: Duration::from_secs(2),
};

#[test]
fn whoever_dies_again_and_again_misses_nothing() {
    let Form { processes, clients, publications, connected_for, away } =
        if is_long() { LONG } else { SHORT };
    println!("jitter: seed {SEED:#x}, lives of about {connected_for:?}, away for about {away:?}");
    let mut storm =
        Storm::start(processes, clients, |plan| Plan { seed: SEED, connected_for, away, ..plan });
    storm.order("go");
    storm.publish(publications, Duration::from_millis(500));
    storm.finish("jitter");
}
